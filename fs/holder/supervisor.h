// The holder's loop: keeps a daemon running on a mounted connection. Private to fs/holder.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "fs/fuse/connection_memory.h"
#include "fs/holder/crash_policy.h"
#include "fs/holder/holder.h"
#include "fs/holder/mounting.h"
#include "fs/seam/clock.h"

namespace vmfs {

class Supervisor {
 public:
  // Mounts. `on_ready` is called once, when the first daemon serves.
  Supervisor(const HolderOptions& options, Clock& clock, std::function<void()> on_ready);
  ~Supervisor();
  // Returns when the volume is unmounted; an error: why it could not start, or why it gave up.
  Result<> run();

 private:
  Result<> prepare();
  Result<> start_daemon();
  void start_daemon_again();  // of a mount that has users: now, or as soon as it can be
  [[noreturn]] void become_daemon(int control);
  void set_state(HolderStatus::State state);
  void hear_daemon();
  Result<bool> daemon_ended(int wait_status);  // true: the volume is unmounted
  Result<bool> crashed(const std::string& how, bool killed);
  Result<bool> start_failed(const std::string& why);
  void try_now();  // what waits to be started again
  bool connection_ended() const;  // the kernel's side: it was unmounted, or aborted
  Error give_up(const std::string& reason);
  void begin_unmount();
  void unmount_ended(int wait_status);
  bool kernel_resends();

  const HolderOptions options_;
  Clock& clock_;
  std::function<void()> on_ready_;
  Mounted mounted_;
  std::optional<ConnectionMemory> memory_;
  int signals_ = -1;
  int control_ = -1;  // to the daemon that runs now
  int daemon_ = 0;
  std::uint64_t memory_kills_ = 0;  // of the kernel, on this machine, when that daemon was started
  int unmounter_ = 0;
  bool ready_ = false;       // the daemon that runs now
  bool ever_ready_ = false;
  bool unmounting_ = false;
  bool own_program_ = false;  // the daemon is the holder's own program: the executable cannot go on
  // Which files were the executable when it was started last, and when it came to serve last.
  std::pair<std::uint64_t, std::uint64_t> started_program_, good_program_;
  std::string said_;         // its error
  std::optional<std::int64_t> start_at_ns_;  // monotonic
  CrashPolicy policy_;
  StartRetries retries_;
  std::string start_failure_;  // why it cannot start, as it was logged; empty: it can
  HolderStatus status_;
};

// To systemd, if it listens (NOTIFY_SOCKET).
void tell_systemd(const std::string& text);

}  // namespace vmfs
