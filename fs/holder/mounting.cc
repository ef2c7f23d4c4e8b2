#include "fs/holder/mounting.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include <fmt/format.h>

#include "fs/base/digits.h"
#include "fs/base/log.h"
#include "fs/fuse/kernel.h"
#include "fs/holder/inherited.h"

namespace vmfs {
namespace {

constexpr const char* kType = "fuse.vmfs";

// Mount tables write blanks and the like as \040.
std::string unescaped(std::string_view text) {
  const auto digit = [&](std::size_t at, char most) { return at < text.size() && text[at] >= '0' && text[at] <= most; };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && digit(i + 1, '3') && digit(i + 2, '7') && digit(i + 3, '7')) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// Words stand between single blanks; one may be empty.
std::string_view next_word(std::string_view& line) {
  const std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(std::min(word.size() + 1, line.size()));
  return word;
}

std::vector<MountEntry> all_mounts() {
  std::ifstream table("/proc/self/mountinfo");
  return mounts_in(std::string{std::istreambuf_iterator<char>(table), {}});
}

std::string absolute(const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) != nullptr) return resolved;
  if (!path.empty() && path.front() == '/') return path;
  if (::getcwd(resolved, sizeof resolved) == nullptr) return path;
  return std::string(resolved) + "/" + path;
}

}  // namespace

std::vector<MountEntry> mounts_in(std::string_view table) {
  std::vector<MountEntry> mounts;
  while (!table.empty()) {
    std::string_view line = table.substr(0, table.find('\n'));
    table.remove_prefix(std::min(line.size() + 1, table.size()));
    next_word(line);  // its number
    next_word(line);  // its parent's
    const std::string_view device = next_word(line);
    MountEntry entry;
    entry.root = unescaped(next_word(line));
    entry.mountpoint = unescaped(next_word(line));
    while (!line.empty() && next_word(line) != "-") {
    }
    entry.type = next_word(line);
    entry.source = unescaped(next_word(line));
    const std::size_t colon = device.find(':');
    if (colon == device.npos || !parse_digits(device.substr(0, colon), entry.major) ||
        !parse_digits(device.substr(colon + 1), entry.minor) || entry.type.empty())
      continue;
    mounts.push_back(std::move(entry));
  }
  return mounts;
}

std::optional<MountEntry> find_mount(const std::string& mountpoint) {
  const std::string wanted = absolute(mountpoint);
  std::optional<MountEntry> found;
  for (MountEntry& entry : all_mounts())
    if (entry.mountpoint == wanted) found = std::move(entry);
  return found;
}

std::vector<MountEntry> vmfs_mounts() {
  std::vector<MountEntry> found;
  for (MountEntry& entry : all_mounts())
    if (entry.type == kType) found.push_back(std::move(entry));
  return found;
}

Result<std::string> check_mountpoint(const std::string& mountpoint) {
  if (auto there = find_mount(mountpoint)) {
    return fail(ErrorKind::kBusy, EBUSY,
                fmt::format("{} is in use: {} (type {}) is mounted there; unmount it first: umount {}",
                            mountpoint, there->source, there->type, mountpoint));
  }
  char resolved[PATH_MAX];
  struct stat status {};
  if (::realpath(mountpoint.c_str(), resolved) == nullptr || ::stat(resolved, &status) != 0) {
    const int number = errno;
    if (number == ENOENT) {
      return fail(ErrorKind::kInvalid, number,
                  fmt::format("mount point {} does not exist; make it: mkdir -p {}", mountpoint,
                              mountpoint));
    }
    return fail(ErrorKind::kInvalid, number,
                fmt::format("mount point {}: {}", mountpoint, strerror(number)));
  }
  if (!S_ISDIR(status.st_mode)) {
    return fail(ErrorKind::kInvalid, ENOTDIR,
                fmt::format("mount point {} is not a directory", mountpoint));
  }
  return std::string(resolved);
}

Result<int> move_up(int descriptor) {
  const int moved = ::fcntl(descriptor, F_DUPFD_CLOEXEC, kFirstUninherited);
  const int number = errno;
  ::close(descriptor);
  if (moved < 0) {
    return fail(ErrorKind::kIo, number, fmt::format("cannot keep a descriptor: {}", strerror(number)));
  }
  return moved;
}

namespace {

// 0: nothing is mounted there, or that cannot be told. Does not ask whoever serves the mount.
std::uint64_t mount_id_at(const std::string& mountpoint) {
  constexpr unsigned kUniqueMountId = 0x4000;  // STATX_MNT_ID_UNIQUE, Linux 6.8; before, an id may be used again
  struct statx found {};
  if (::statx(AT_FDCWD, mountpoint.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC,
              STATX_MNT_ID | kUniqueMountId, &found) != 0)
    return 0;
  return (found.stx_mask & (STATX_MNT_ID | kUniqueMountId)) != 0 ? found.stx_mnt_id : 0;
}

// Whether the kernel still serves anybody through this connection.
bool is_alive(int descriptor) {
  pollfd look{descriptor, 0, 0};
  return descriptor >= 0 && ::poll(&look, 1, 0) >= 0 && (look.revents & (POLLERR | POLLNVAL)) == 0;
}

}  // namespace

Result<Mounted> mount_connection(const HolderOptions& options) {
  Mounted mounted;
  VMFS_ASSIGN(mounted.mountpoint, check_mountpoint(options.mountpoint));
  const auto open_device = []() -> Result<int> {
    const int descriptor = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (descriptor < 0) {
      return fail(ErrorKind::kIo, errno,
                  fmt::format("cannot open /dev/fuse: {}{}", strerror(errno),
                              errno == ENOENT || errno == ENODEV ? "; load the module: modprobe fuse"
                                                                 : ""));
    }
    return move_up(descriptor);
  };
  VMFS_ASSIGN(mounted.descriptor, open_device());
  const std::string data = fmt::format(
      "fd={},rootmode=40000,user_id={},group_id={},allow_other,default_permissions,max_read={}",
      mounted.descriptor, ::getuid(), ::getgid(), 1u << 20);
  unsigned long flags = MS_NOSUID | MS_NODEV;
  if (options.read_only) flags |= MS_RDONLY;
  if (options.no_exec) flags |= MS_NOEXEC;
  if (options.no_atime) flags |= MS_NOATIME;
  if (::mount(options.source.c_str(), mounted.mountpoint.c_str(), kType, flags, data.c_str()) != 0) {
    const int number = errno;
    ::close(mounted.descriptor);
    return fail(ErrorKind::kIo, number,
                fmt::format("cannot mount on {}: {}{}", mounted.mountpoint, strerror(number),
                            number == EPERM ? "; this needs root" : ""));
  }
  mounted.mount_id = mount_id_at(mounted.mountpoint);
  const auto undo = [&](Error error) {
    abort_connection(mounted);
    detach_mount(mounted);
    return tl::unexpected<Error>(std::move(error));
  };
  const auto entry = find_mount(mounted.mountpoint);
  if (!entry || entry->type != kType) {
    return undo({ErrorKind::kIo, EIO,
                 fmt::format("{} does not show up in /proc/self/mountinfo", mounted.mountpoint)});
  }
  mounted.major = entry->major;
  mounted.minor = entry->minor;
  for (unsigned i = 0; i < options.threads; ++i) {
    auto clone = open_device();
    if (!clone) return undo(std::move(clone.error()));
    mounted.clones.push_back(*clone);
    auto original = static_cast<std::uint32_t>(mounted.descriptor);
    if (::ioctl(*clone, FUSE_DEV_IOC_CLONE, &original) != 0) {
      return undo({ErrorKind::kIo, errno,
                   fmt::format("cannot clone the connection's descriptor: {}", strerror(errno))});
    }
  }
  return mounted;
}

bool is_mounted(const Mounted& mounted) {
  if (mounted.mount_id != 0) return mount_id_at(mounted.mountpoint) == mounted.mount_id;
  const auto entry = find_mount(mounted.mountpoint);  // a kernel that numbers no mounts
  return entry && entry->type == kType && entry->minor == mounted.minor;
}

void abort_connection(Mounted& mounted) {
  // Of one that has ended, number and place may be another's by now.
  if (is_alive(mounted.descriptor)) {
    if (is_mounted(mounted)) ::umount2(mounted.mountpoint.c_str(), MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW);
    // Was it detached before, only sysfs is left (if it is there), and:
    const std::string path = fmt::format("/sys/fs/fuse/connections/{}/abort", mounted.minor);
    if (const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
        descriptor >= 0 && is_alive(mounted.descriptor)) {
      if (::write(descriptor, "1", 1) < 0)
        log_warning("cannot abort the connection through {}: {}", path, strerror(errno));
      ::close(descriptor);
    }
  }
  // The kernel ends a connection whose last descriptor is closed.
  for (int clone : mounted.clones) ::close(clone);
  mounted.clones.clear();
  if (mounted.descriptor >= 0) ::close(mounted.descriptor);
  mounted.descriptor = -1;
}

void detach_mount(const Mounted& mounted) {
  if (!is_mounted(mounted)) return;
  if (::umount2(mounted.mountpoint.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL)
    log_warning("cannot unmount {}: {}", mounted.mountpoint, strerror(errno));
}

Result<> unmount_and_wait(const std::string& mountpoint, const std::optional<HolderStatus>& status,
                          bool lazy, std::int64_t timeout_ns) {
  const auto entry = find_mount(mountpoint);
  const bool holder = status && holder_alive(*status);
  if (!entry || entry->type != kType) {
    if (!holder) {
      return fail(ErrorKind::kInvalid, EINVAL,
                  fmt::format("{} is not a mounted vmfs volume; see: vmfs status", mountpoint));
    }
  } else if (::umount2(entry->mountpoint.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) != 0) {
    const int number = errno;
    if (number == EBUSY) {
      return fail(ErrorKind::kBusy, number,
                  fmt::format("{} is busy; who uses it: fuser -vm {}; to detach it now and end when "
                              "the last user is gone: vmfs umount --lazy {}",
                              mountpoint, mountpoint, mountpoint));
    }
    return fail(ErrorKind::kIo, number,
                fmt::format("cannot unmount {}: {}", mountpoint, strerror(number)));
  }
  if (!status || lazy) return {};
  // A daemon whose holder has died closes the volume by itself.
  if (!holder && !daemon_alive(*status)) return {};
  const int process =
      static_cast<int>(::syscall(SYS_pidfd_open, holder ? status->holder_pid : status->daemon_pid, 0));
  if (process < 0) return {};  // it has ended meanwhile
  pollfd waiting{process, POLLIN, 0};
  const int ready = ::poll(&waiting, 1, static_cast<int>(timeout_ns / 1'000'000));
  ::close(process);
  if (ready > 0) return {};
  return fail(ErrorKind::kBusy, ETIMEDOUT,
              fmt::format("{0} is unmounted, but its daemon (process {1}) goes on: it is still closing the volume (wait "
                          "for it, or look at its log), or a container has the mount too; which:  grep -ls {0} "
                          "/proc/[0-9]*/mountinfo",
                          mountpoint, status->daemon_pid));
}

}  // namespace vmfs
