// vmfs mount, vmfs umount, vmfs restart, and the helper mount.vmfs
#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <thread>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/daemon.h"
#include "cli/json_fields.h"
#include "cli/mount_options.h"
#include "cli/registry.h"
#include "cli/run_directory.h"
#include "cli/setup.h"
#include "cli/store_lock.h"
#include "fs/holder/holder.h"
#include "fs/seam/clock.h"
#include "fs/seam/disk.h"

namespace vmfs {

namespace {

// Applying all that is in a large journal takes its time; the store is not clean before.
constexpr std::int64_t kUnmountNs = 600'000'000'000;
// Only for what is said of it then.
constexpr std::int64_t kOwnerNs = 2'000'000'000;
constexpr std::int64_t kRestartNs = 60'000'000'000;

// The program itself, by the path under which an upgrade puts the next one.
std::string own_executable() {
  char path[4096];
  ssize_t size = ::readlink("/proc/self/exe", path, sizeof path - 1);
  return size <= 0 ? "vmfs" : std::string(path, static_cast<std::size_t>(size));
}

// A holder without a daemon may be about to end: both were killed a moment ago.
bool ends_soon(int process) {
  constexpr int kPatienceMs = 2000;
  int descriptor = static_cast<int>(::syscall(SYS_pidfd_open, process, 0));
  if (descriptor < 0) return errno == ESRCH;
  pollfd wait{descriptor, POLLIN, 0};
  bool ended = ::poll(&wait, 1, kPatienceMs) == 1;
  ::close(descriptor);
  return ended;
}

Result<> mount_volume(const std::string& store_argument, const std::string& mountpoint,
                      const MountOptions& options, bool foreground) {
  VMFS_ASSIGN(std::string store, resolve_store(store_argument));
  // What the daemon will read too: an error is clearer from here.
  VMFS_ASSIGN(Config config, read_config(store));
  VMFS_TRY(read_secret(store));
  // Whatever links lead there.
  std::error_code failed;
  std::string place = std::filesystem::weakly_canonical(mountpoint, failed).string();
  if (failed) place = mountpoint;  // what is wrong with it is said when it is mounted on
  for (const std::string& each : {mountpoint, place})
    if (each == store || each.starts_with(store + "/") || store.starts_with(each + "/"))
      return fail(ErrorKind::kInvalid, EINVAL,
                  fmt::format("the mount point {} and the store {} must not contain one another", mountpoint, store));
  VMFS_TRY(prepare_run_directory(store));
  VMFS_ASSIGN(auto disk, open_posix_disk(store));
  // Until it is served: of two at once the second must not look before the first can be seen, nor take the lock that the
  // first's daemon is about to take.
  auto mounting = disk->lock("run/mounting", "mount.lock");
  if (!mounting && mounting.error().kind == ErrorKind::kBusy)
    return fail(ErrorKind::kBusy, EBUSY,
                fmt::format("{0}: this store is being mounted by another process\nwhich one:  fuser {0}/run/mounting", store));
  if (!mounting) return pass(mounting.error());
  // Before a second holder touches the files of one that is at work. (The daemon takes the lock for good.)
  VMFS_TRY(lock_store(*disk, store));
  if (auto other = read_holder_status(holder_status_path(store));
      other && holder_alive(*other) && !ends_soon(other->holder_pid))
    return fail(ErrorKind::kBusy, EBUSY,
                fmt::format("{}: this store is mounted on {} already (holder {})\n"
                            "see what it does:  vmfs status {}",
                            store, other->mountpoint, other->holder_pid, store));
  HolderOptions holder;
  holder.mountpoint = mountpoint;
  holder.source = store;
  holder.volume_name = config.volume_name;
  holder.executable = own_executable();
  holder.daemon_arguments = {"daemon", store};
  holder.status_path = holder_status_path(store);
  holder.log_path = log_path(store);
  holder.foreground = foreground;
  holder.served = [&mounting] { mounting->reset(); };
  holder.read_only = options.read_only;
  holder.no_exec = options.no_exec;
  holder.no_atime = options.no_atime;
  holder.threads = daemon_threads(config);
  holder.pretend_no_resend = options.pretend_no_resend;
  if (options.pretend_no_resend) holder.daemon_arguments.emplace_back("--pretend-no-resend");
  note_mount(store);
  return run_holder(holder);
}

// Asked before the end: whether what this node owns stays its own, because nobody can take it.
bool stays_owner(const Target& target) {
  using nlohmann::json;
  const auto reply = ask(target, {{"command", "status"}, {"paths", json::array()}}, kOwnerNs);
  if (!reply) return false;
  const json& status = part_of(*reply, "status");
  const json& peers = part_of(status, "peers");
  const json& images = part_of(status, "images");
  auto owned = [](const json& image) { return text_of(image, "role") == "primary"; };
  return !peers.empty() &&
         std::none_of(peers.begin(), peers.end(), [](const json& peer) { return text_of(peer, "state") == "in-sync"; }) &&
         (owned(part_of(status, "name_space")) || std::any_of(images.begin(), images.end(), owned));
}

Result<> unmount_volume(const std::string& path, bool lazy) {
  VMFS_ASSIGN(Target target, resolve_target(path, StoreAllowed::kYes));
  if (target.mountpoint.empty()) {
    if (auto status = read_holder_status(holder_status_path(target.store));
        status && !holder_alive(*status) && daemon_alive(*status))
      return fail(ErrorKind::kBusy, EBUSY,
                  fmt::format("{} is not mounted here any more, and its daemon (process {}) is still closing it, or serves it "
                              "to a container; when that has ended, its images are complete",
                              path, status->daemon_pid));
    if (!forget_lost_mount(target.store))
      return fail(ErrorKind::kNotFound, EINVAL, fmt::format("{} is not mounted", path));
    fmt::print("{} was not mounted any more; its images are complete after:  vmfs recover {}\n", path, target.store);
    return {};
  }
  std::optional<HolderStatus> status;
  if (auto read = read_holder_status(holder_status_path(target.store))) status = *read;
  // Without it the volume goes on, and waiting for its end would be for nothing. (A mount whose directory was renamed is
  // not where the status says, but nothing is there either.)
  if (const auto whole = status ? find_mount(status->mountpoint) : std::nullopt;
      whole && status->mountpoint != target.mountpoint && whole->source == target.store)
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("{0} only shows what is mounted on {1} (mount --bind)\nnot to show it there any more:  umount "
                            "{0}\nto unmount the volume:  vmfs umount {1}",
                            target.mountpoint, status->mountpoint));
  if (!target.path.empty())
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("{} is not a mount point; it lies in {}", path, target.mountpoint));
  const bool served = status && (holder_alive(*status) || daemon_alive(*status));
  const bool stays = served && !lazy && stays_owner(target);
  VMFS_TRY(unmount_and_wait(target.mountpoint, status, lazy, kUnmountNs));
  if (lazy) return {};
  if (stays)
    fmt::print("no peer was in sync: this node stays the owner of what it owned, and settles with its peers when it is "
               "mounted again;\nto go on without it, on the other node:  vmfs promote --force\n");
  // Who ends well takes the status with it when the store is complete.
  auto left = read_holder_status(holder_status_path(target.store));
  if (!left || left->holder_pid != status->holder_pid) return {};
  if (!served) {
    fmt::print("{} is unmounted, and nobody served it any more; its images are complete after:  vmfs recover {}\n",
               target.mountpoint, target.store);
    return {};
  }
  return fail(ErrorKind::kIo, EIO,
              fmt::format("{} is unmounted, but its store is not complete: {}\nnothing that was acknowledged is lost: "
                          "it is in the journal; when that is mended:  vmfs recover {}",
                          target.mountpoint,
                          left->state == HolderStatus::State::kGaveUp ? left->reason : "its daemon could not close it",
                          target.store));
}

Result<> restart_daemon(const std::string& path) {
  VMFS_ASSIGN(Target target, resolve_target(path, StoreAllowed::kYes));
  if (target.mountpoint.empty())
    return fail(ErrorKind::kNotFound, EINVAL, why_not_served(target.store, ""));
  // As long as the daemon works, guests need not learn of a mistake in vmfs.toml. Asked here and not by the
  // daemon, which may be older than what it is to make room for.
  if (auto good = check_start(target.store); !good) {
    good.error().message += "\nnothing was done: the volume goes on as it is";
    return good;
  }
  RunDirectoryWatch watch(target.store);
  auto holder_before = read_holder_status(holder_status_path(target.store));
  nlohmann::json before = nlohmann::json::object();
  if (holder_before && holder_before->state == HolderStatus::State::kStartFailed) {
    VMFS_TRY(ask_to_start(*holder_before));
  } else {
    VMFS_ASSIGN(auto client, connect_to(target));
    VMFS_ASSIGN(before, client->request({{"command", "ping"}}, kQuestionNs));
    VMFS_TRY(client->request({{"command", "restart"}}, kRestartNs));
  }
  std::int64_t deadline = system_clock().monotonic_ns() + kRestartNs;
  for (;;) {
    // The new daemon makes its socket once it serves.
    if (auto again = ControlClient::connect(target.store)) {
      auto answer = (*again)->request({{"command", "ping"}}, kQuestionNs);
      if (answer && number_of(*answer, "pid") != number_of(before, "pid")) {
        if (before.contains("pid"))
          fmt::print("restarted: daemon {:.0f} took over from {:.0f}\n", number_of(*answer, "pid"),
                     number_of(before, "pid"));
        else
          fmt::print("started: daemon {:.0f} serves\n", number_of(*answer, "pid"));
        return {};
      }
    }
    auto holder = read_holder_status(holder_status_path(target.store));
    bool hopeless = holder && (holder->state == HolderStatus::State::kGaveUp ||
                               (holder->state == HolderStatus::State::kStartFailed && holder_before &&
                                holder->starts != holder_before->starts));
    if (hopeless || !watch.wait(std::max<std::int64_t>(deadline - system_clock().monotonic_ns(), 0)))
      return fail(ErrorKind::kIo, hopeless ? EIO : ETIMEDOUT,
                  fmt::format("the new daemon does not serve yet: {}",
                              why_not_served(target.store, target.mountpoint)));
  }
}

}  // namespace

int run_mount_helper(int argc, char** argv) {
  // mount(8) puts its flags after the two names; systemd and people may not.
  std::vector<std::string> names;
  MountOptions options;
  bool pretend = false;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    bool with_value = argument == "-o" || argument == "-N" || argument == "-t";
    if (with_value && i + 1 < argc) {
      ++i;
      if (argument == "-o")
        if (auto applied = apply_mount_options(options, argv[i]); !applied) return report(applied);
    } else if (argument.starts_with('-') && argument.size() > 1) {
      // -f: fake; -s: be tolerant of options, -n: no mtab, -v: say more.
      for (char flag : argument.substr(1)) {
        if (flag == 'f') pretend = true;
        if (std::strchr("fsnvrw", flag) == nullptr)
          return report(Error{ErrorKind::kInvalid, EINVAL, fmt::format("unknown flag -{}", flag)});
        if (flag == 'r') options.read_only = true;
      }
    } else {
      names.push_back(argument);
    }
  }
  if (names.size() != 2)
    return report(Error{ErrorKind::kInvalid, EINVAL,
                        "usage: mount.vmfs STORE MOUNTPOINT [-o OPTIONS]   (see vmfs(1))"});
  if (pretend) return kSuccess;
  return report(mount_volume(names[0], absolute_path(names[1]), options, false));
}

void add_mount_commands(CommandLine& line) {
  struct Arguments {
    std::string store, mountpoint;
    std::vector<std::string> options;
    bool foreground = false, lazy = false;
  };
  auto arguments = std::make_shared<Arguments>();

  line.add("mount", "Mount a volume")
      .required("STORE", arguments->store, "the store on this machine")
      .required("MOUNTPOINT", arguments->mountpoint, "an empty directory")
      .flag("--foreground,-f", arguments->foreground,
            "stay until it is unmounted, log to standard error; for systemd")
      .optional("-o", arguments->options, "mount options: ro, rw, noexec, exec, noatime, relatime")
      .runs([arguments]() -> int {
        MountOptions options;
        for (const std::string& list : arguments->options)
          if (auto applied = apply_mount_options(options, list); !applied) return report(applied);
        return report(mount_volume(arguments->store, absolute_path(arguments->mountpoint), options,
                                   arguments->foreground));
      });

  line.add("umount", "Unmount a volume, and wait until its store is complete")
      .required("MOUNTPOINT", arguments->mountpoint, "where it is mounted")
      .flag("--lazy,-l", arguments->lazy,
            "detach it at once, also if it is busy; it ends when the last user has gone")
      .runs([arguments] { return report(unmount_volume(arguments->mountpoint, arguments->lazy)); });

  line.add("restart", "Start the daemon anew, after an upgrade say; guests only see a pause")
      .required("MOUNTPOINT", arguments->mountpoint, "where it is mounted")
      .runs([arguments] { return report(restart_daemon(arguments->mountpoint)); });
}

}  // namespace vmfs
