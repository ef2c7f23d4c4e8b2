// The holder: the small process that mounts, keeps the /dev/fuse descriptor, its clones and a piece
// of shared memory, and starts the daemon, again and again if it must, so that the daemon may die and
// the guests need not know. It holds no volume code.
//
//   vmfs mount --> run_holder() --> [holder process] --fork, exec--> EXECUTABLE ARGUMENTS...
//                                                                    the daemon: DaemonLink::inherit()
//
// The daemon's end (what a daemon calls) is daemon_link.h.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/result.h"

namespace vmfs {

struct HolderOptions {
  std::string mountpoint;
  // In the mount table, where the type is "fuse.vmfs": the store's absolute path. It must equal what
  // fstab says, or `mount -a` would mount again; and it is how a mount point's store is found.
  std::string source;
  std::string volume_name;  // for the log and the status file
  // What the daemon is: a path (looked up anew at each start, so that an upgrade takes the new file; if it cannot be
  // executed, or cannot go on with this mount, the holder's own program is used) and its arguments without argv[0].
  std::string executable;
  std::vector<std::string> daemon_arguments;
  // Written at every change, see HolderStatus; removed at a clean end, and by a first start that fails, unless there was
  // one before. Its directory must exist.
  std::string status_path;
  // Standard error of holder and daemon, appended to; empty: as it is. Not used in the foreground. (A
  // start's error is returned in any case.)
  std::string log_path;
  bool foreground = false;  // stay, log on standard error, tell systemd (NOTIFY_SOCKET) when ready
  std::function<void()> served = [] {};  // called once, in the foreground, when the volume can be used
  bool read_only = false;
  bool no_exec = false;
  bool no_atime = true;
  unsigned threads = 8;            // clones of /dev/fuse: the most threads a daemon can serve with
  bool pretend_no_resend = false;  // test option: treat the kernel as one without FUSE_NOTIFY_RESEND
};

// Checks the mount point, mounts, starts the daemon and returns in the calling process once the
// daemon is ready (the holder goes on as a daemon process of its own), or with the start's error, as
// the daemon reported it, with nothing left mounted. The process must have one thread. In the
// foreground it returns when the volume is unmounted instead; an error then says why it gave up.
Result<> run_holder(const HolderOptions& options);

// What stands in the status file: "key value" lines. For `vmfs status` when no daemon answers.
struct HolderStatus {
  enum class State : std::uint8_t {
    kStarting,    // the first daemon is not ready yet
    kRunning,     // the daemon serves
    kRestarting,  // it died or was restarted; the next one is on its way
    kStartFailed,  // the next one said in `reason` why it cannot start; it is tried again, clients wait
    kGaveUp,      // see `reason`; the mount was aborted
  };
  State state = State::kStarting;
  int holder_pid = 0;
  std::uint64_t holder_started = 0;  // clock ticks after boot: the pid alone may be another's by now
  int daemon_pid = 0;  // 0: none now
  std::string mountpoint;
  std::string volume_name;
  std::uint64_t starts = 0;   // daemons started, the first included
  std::uint64_t crashes = 0;  // of them, ended without being asked
  std::string reason;         // of the last crash or of giving up; empty: none
  std::int64_t since_wall_ns = 0;  // of `state`
};
const char* to_string(HolderStatus::State state);

// Has a holder whose daemon cannot start (kStartFailed) try again now rather than later. `status` tells
// afterwards how it went: with another number of `starts`. kNotFound: the holder has died.
Result<> ask_to_start(const HolderStatus& status);

// kNotFound: no such file (never mounted, or unmounted cleanly). `holder_pid` may be dead: ask with
// holder_alive().
Result<HolderStatus> read_holder_status(const std::string& status_path);
bool holder_alive(const HolderStatus& status);
bool daemon_alive(const HolderStatus& status);

// Unmounts a vmfs mount point and waits until the holder and the daemon that the status names have ended, if they
// live, so that the store is clean and free. Lazy: detaches it at once and waits for nothing. Fails with kBusy when somebody uses it.
Result<> unmount_and_wait(const std::string& mountpoint, const std::optional<HolderStatus>& status,
                          bool lazy, std::int64_t timeout_ns);

// From /proc/self/mountinfo: what is mounted on exactly this directory (as the last one there).
struct MountEntry {
  std::string mountpoint, type, source;
  std::string root;  // what of it is seen there: "/", or a directory, bound there with mount --bind
  unsigned major = 0, minor = 0;
};
std::optional<MountEntry> find_mount(const std::string& mountpoint);
std::vector<MountEntry> vmfs_mounts();

// Exit statuses of the daemon that mean something to the holder. Any other end is a crash.
inline constexpr int kDaemonUnmounted = 0;     // the volume was unmounted and closed
inline constexpr int kDaemonRestart = 75;      // it drained and asks to be started again
inline constexpr int kDaemonJournalDied = 74;  // counts as a crash; the next one opens the journal anew
// It reported why through DaemonLink::report_error, and has read no request. On a mount that clients use
// already it is no crash: see HolderStatus::State::kStartFailed.
inline constexpr int kDaemonStartFailed = 76;
// The volume was unmounted, but could not be closed; it reported why in the same way. Nobody is served any more, so
// the next one would not help anybody: HolderStatus::State::kGaveUp.
inline constexpr int kDaemonNotClosed = 77;

}  // namespace vmfs
