// The real disk: system calls relative to the root's descriptor. A path is walked directory by
// directory with O_NOFOLLOW, so that a symlink planted anywhere in a store (images/ belongs to
// guests and their administrators) never leads out of it.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>

#include "fs/base/check.h"
#include "fs/seam/posix_file.h"

namespace vmfs {

tl::unexpected<Error> fail_errno(int number, const std::string& shown, const char* what,
                                 Label label) {
  return fail(kind_of_errno(number), number,
              fmt::format("{}: {} ({}): {}", shown, what, label, std::strerror(number)));
}

FileStat from_stat(const struct stat& s) {
  FileStat out;
  out.type = S_ISREG(s.st_mode)   ? FileType::kRegular
             : S_ISDIR(s.st_mode) ? FileType::kDirectory
             : S_ISLNK(s.st_mode) ? FileType::kSymlink
                                  : FileType::kOther;
  auto ns = [](const timespec& t) { return t.tv_sec * std::int64_t{1'000'000'000} + t.tv_nsec; };
  out.permissions = s.st_mode & 07777;
  out.uid = s.st_uid;
  out.gid = s.st_gid;
  out.links = static_cast<std::uint32_t>(s.st_nlink);
  out.size = static_cast<std::uint64_t>(s.st_size);
  out.allocated = static_cast<std::uint64_t>(s.st_blocks) * 512;
  out.atime_ns = ns(s.st_atim);
  out.mtime_ns = ns(s.st_mtim);
  out.ctime_ns = ns(s.st_ctim);
  return out;
}

timespec to_timespec(const std::optional<std::int64_t>& ns) {
  if (!ns) return {.tv_sec = 0, .tv_nsec = UTIME_OMIT};
  constexpr std::int64_t kSecond = 1'000'000'000;
  std::int64_t seconds = *ns / kSecond, rest = *ns % kSecond;
  if (rest < 0) {  // before 1970
    rest += kSecond;
    --seconds;
  }
  return {.tv_sec = seconds, .tv_nsec = rest};
}

namespace {

constexpr std::string_view kTagPrefix = "trusted.vmfs.";

class PosixLock : public DiskLock {
 public:
  explicit PosixLock(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

 private:
  Descriptor descriptor_;
};

class PosixDisk : public Disk {
 public:
  PosixDisk(std::string root, Descriptor descriptor)
      : root_(std::move(root)), descriptor_(std::move(descriptor)) {}

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode, Label label) override {
    VMFS_ASSIGN(Place place, find(path, "open", label));
    // O_NONBLOCK: a FIFO under that name must not hang us before we see that it is one.
    int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    flags |= mode == OpenMode::kRead ? O_RDONLY : O_RDWR;
    if (mode == OpenMode::kCreate) flags |= O_CREAT | O_EXCL;
    if (mode == OpenMode::kCreateOrOpen) flags |= O_CREAT;
    Descriptor file(open_at(place.directory(), place.name, flags, 0600));
    if (!file) return fail_errno(errno, display(path), "cannot open", label);
    struct stat s;
    if (::fstat(file.get(), &s) != 0) return fail_errno(errno, display(path), "cannot stat", label);
    if (!S_ISREG(s.st_mode))
      return fail(ErrorKind::kInvalid, S_ISDIR(s.st_mode) ? EISDIR : EINVAL,
                  fmt::format("{}: cannot open ({}): not a regular file", display(path), label));
    return make_posix_file(std::move(file), display(path));
  }

  Result<> make_directory(const std::string& path, Label label) override {
    VMFS_ASSIGN(Place place, find(path, "make directory", label));
    if (::mkdirat(place.directory(), place.name.c_str(), 0700) != 0)
      return fail_errno(errno, display(path), "cannot make directory", label);
    return {};
  }

  Result<> remove_directory(const std::string& path, Label label) override {
    VMFS_ASSIGN(Place place, find(path, "remove directory", label));
    if (::unlinkat(place.directory(), place.name.c_str(), AT_REMOVEDIR) != 0)
      return fail_errno(errno, display(path), "cannot remove directory", label);
    return {};
  }

  Result<> remove(const std::string& path, Label label) override {
    VMFS_ASSIGN(Place place, find(path, "remove", label));
    if (::unlinkat(place.directory(), place.name.c_str(), 0) != 0)
      return fail_errno(errno, display(path), "cannot remove", label);
    return {};
  }

  Result<> rename(const std::string& from, const std::string& to, bool replace,
                  Label label) override {
    VMFS_ASSIGN(Place source, find(from, "rename", label));
    VMFS_ASSIGN(Place target, find(to, "rename", label));
    if (::renameat2(source.directory(), source.name.c_str(), target.directory(),
                    target.name.c_str(), replace ? 0 : RENAME_NOREPLACE) != 0) {
      int number = errno;
      return fail_errno(number, display(from),
                        fmt::format("cannot rename to {}", display(to)).c_str(), label);
    }
    return {};
  }

  Result<> make_symlink(const std::string& path, const std::string& target, Label label) override {
    VMFS_ASSIGN(Place place, find(path, "make symlink", label));
    if (::symlinkat(target.c_str(), place.directory(), place.name.c_str()) != 0)
      return fail_errno(errno, display(path), "cannot make symlink", label);
    return {};
  }

  Result<std::string> read_symlink(const std::string& path, Label label) override {
    VMFS_ASSIGN(Place place, find(path, "read symlink", label));
    std::string target(4096, '\0');
    ssize_t size =
        ::readlinkat(place.directory(), place.name.c_str(), target.data(), target.size());
    if (size < 0) return fail_errno(errno, display(path), "cannot read symlink", label);
    target.resize(static_cast<std::size_t>(size));
    return target;
  }

  Result<std::vector<DirectoryEntry>> list(const std::string& path, Label label) override {
    VMFS_ASSIGN(Descriptor directory, open_directory(path, "list", label));
    DIR* stream = ::fdopendir(directory.get());
    if (!stream) return fail_errno(errno, display(path), "cannot list", label);
    directory.release();  // the stream owns it now
    std::vector<DirectoryEntry> entries;
    int number = 0;
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(stream);
      if (!entry) {
        number = errno;
        break;
      }
      std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      entries.push_back({name, type_of(::dirfd(stream), *entry)});
    }
    ::closedir(stream);
    if (number != 0) return fail_errno(number, display(path), "cannot list", label);
    return entries;
  }

  Result<FileStat> stat(const std::string& path, Label label) override {
    VMFS_ASSIGN(Descriptor node, open_path(path, "stat", label));
    struct stat s;
    if (::fstat(node.get(), &s) != 0) return fail_errno(errno, display(path), "cannot stat", label);
    return from_stat(s);
  }

  Result<> set_attributes(const std::string& path, const FileAttributes& set,
                          Label label) override {
    VMFS_ASSIGN(Descriptor node, open_path(path, "set attributes", label));
    struct stat s;
    if (::fstat(node.get(), &s) != 0) return fail_errno(errno, display(path), "cannot stat", label);
    // The owner first: chown clears set-user-id bits, which chmod may then set.
    if ((set.uid || set.gid) &&
        ::fchownat(node.get(), "", set.uid.value_or(static_cast<uid_t>(-1)),
                   set.gid.value_or(static_cast<gid_t>(-1)), AT_EMPTY_PATH) != 0)
      return fail_errno(errno, display(path), "cannot change owner", label);
    // A symlink has no permissions of its own.
    if (set.permissions && !S_ISLNK(s.st_mode) &&
        ::chmod(node.proc_path().c_str(), *set.permissions) != 0)
      return fail_errno(errno, display(path), "cannot change permissions", label);
    if (set.atime_ns || set.mtime_ns) {
      timespec times[2] = {to_timespec(set.atime_ns), to_timespec(set.mtime_ns)};
      VMFS_ASSIGN(Place place, find(path, "set times", label));
      if (::utimensat(place.directory(), place.name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0)
        return fail_errno(errno, display(path), "cannot set times", label);
    }
    return {};
  }

  Result<> set_tag(const std::string& path, std::string_view name, ByteView value,
                   Label label) override {
    VMFS_ASSIGN(Descriptor node, open_path(path, "set tag", label));
    std::string attribute = std::string(kTagPrefix) += name;
    // The magic link leads to the opened file itself, and no further if that is a symlink.
    if (::setxattr(node.proc_path().c_str(), attribute.c_str(), value.data(), value.size(), 0) != 0)
      return fail_errno(errno, display(path),
                        fmt::format("cannot set extended attribute {}", attribute).c_str(), label);
    return {};
  }

  Result<Bytes> get_tag(const std::string& path, std::string_view name, Label label) override {
    VMFS_ASSIGN(Descriptor node, open_path(path, "get tag", label));
    std::string attribute = std::string(kTagPrefix) += name;
    Bytes value(256);
    for (;;) {
      ssize_t size =
          ::getxattr(node.proc_path().c_str(), attribute.c_str(), value.data(), value.size());
      if (size >= 0) {
        value.resize(static_cast<std::size_t>(size));
        return value;
      }
      if (errno != ERANGE || value.size() >= 65536)  // XATTR_SIZE_MAX on Linux
        return fail_errno(errno, display(path),
                          fmt::format("cannot read extended attribute {}", attribute).c_str(),
                          label);
      value.resize(65536);
    }
  }

  Result<> sync_directory(const std::string& path, Label label) override {
    VMFS_ASSIGN(Descriptor directory, open_directory(path, "sync directory", label));
    if (::fsync(directory.get()) != 0)
      return fail_errno(errno, display(path), "cannot sync directory", label);
    return {};
  }

  Result<DiskSpace> space(Label label) override {
    struct statvfs s;
    if (::fstatvfs(descriptor_.get(), &s) != 0)
      return fail_errno(errno, root_, "cannot read free space", label);
    DiskSpace out;
    out.total = s.f_blocks * s.f_frsize;
    out.available = s.f_bavail * s.f_frsize;
    out.files_total = s.f_files;
    out.files_free = s.f_ffree;
    std::call_once(file_size_asked_, [this] { file_size_max_ = largest_file(); });
    out.file_size_max = file_size_max_;
    return out;
  }

  Result<std::unique_ptr<DiskLock>> lock(const std::string& path, Label label) override {
    VMFS_ASSIGN(Place place, find(path, "lock", label));
    Descriptor file(
        open_at(place.directory(), place.name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) return fail_errno(errno, display(path), "cannot open lock file", label);
    // A lock of the open file description: gone when its last descriptor is closed, so by the end
    // of the process at the latest, and unlike a POSIX lock not by closing some other descriptor.
    struct flock range = {};
    range.l_type = F_WRLCK;
    range.l_whence = SEEK_SET;
    if (::fcntl(file.get(), F_OFD_SETLK, &range) == 0)
      return std::make_unique<PosixLock>(std::move(file));
    if (errno == EAGAIN || errno == EACCES)
      return fail(ErrorKind::kBusy, EBUSY,
                  fmt::format("{}: in use by another process ({}): see `fuser {}`", display(path),
                              label, display(path)));
    return fail_errno(errno, display(path), "cannot lock", label);
  }

  std::string display(const std::string& path) const override {
    return path.empty() ? root_ : root_ + "/" + path;
  }

 private:
  // Where a name is: an open directory and the last component.
  struct Place {
    Descriptor opened;  // none: the root itself
    int root = -1;
    std::string name;  // "." for the root
    int directory() const { return opened ? opened.get() : root; }
  };

  static int open_at(int directory, const std::string& name, int flags, mode_t mode = 0) {
    int descriptor;
    do descriptor = ::openat(directory, name.c_str(), flags, mode);
    while (descriptor < 0 && errno == EINTR);
    return descriptor;
  }

  Result<Place> find(const std::string& path, const char* what, Label label) const {
    Place place;
    place.root = descriptor_.get();
    place.name = ".";
    if (path.empty()) return place;
    std::size_t start = 0;
    for (;;) {
      std::size_t slash = path.find('/', start);
      std::string part = path.substr(start, slash == std::string::npos ? slash : slash - start);
      if (part.empty() || part == "." || part == ".." || part.find('\0') != std::string::npos)
        return fail(ErrorKind::kInvalid, EINVAL,
                    fmt::format("{}: cannot {} ({}): not a plain relative path", display(path),
                                what, label));
      if (slash == std::string::npos) {
        place.name = std::move(part);
        return place;
      }
      Descriptor next(
          open_at(place.directory(), part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!next)
        return fail_errno(errno, display(path.substr(0, slash)),
                          fmt::format("cannot {}: directory", what).c_str(), label);
      place.opened = std::move(next);
      start = slash + 1;
    }
  }

  // By trying, on a file that never has a name: no call tells it.
  std::uint64_t largest_file() const {
    std::uint64_t possible = 0, impossible = DiskSpace{}.file_size_max;
    Descriptor file(open_at(descriptor_.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!file) return impossible;
    if (::ftruncate(file.get(), static_cast<off_t>(impossible)) == 0) return impossible;
    while (possible + 1 < impossible) {
      const std::uint64_t between = possible + (impossible - possible) / 2;
      (::ftruncate(file.get(), static_cast<off_t>(between)) == 0 ? possible : impossible) = between;
    }
    return possible;
  }

  // The node itself, whatever it is: for calls that take descriptors opened with O_PATH.
  Result<Descriptor> open_path(const std::string& path, const char* what, Label label) const {
    VMFS_ASSIGN(Place place, find(path, what, label));
    Descriptor node(open_at(place.directory(), place.name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!node)
      return fail_errno(errno, display(path), fmt::format("cannot {}", what).c_str(), label);
    return node;
  }

  Result<Descriptor> open_directory(const std::string& path, const char* what, Label label) const {
    VMFS_ASSIGN(Place place, find(path, what, label));
    Descriptor directory(
        open_at(place.directory(), place.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!directory)
      return fail_errno(errno, display(path), fmt::format("cannot {}", what).c_str(), label);
    return directory;
  }

  static FileType type_of(int directory, const dirent& entry) {
    switch (entry.d_type) {
      case DT_REG:
        return FileType::kRegular;
      case DT_DIR:
        return FileType::kDirectory;
      case DT_LNK:
        return FileType::kSymlink;
      case DT_UNKNOWN: {  // some file systems leave it to stat
        struct stat s;
        if (::fstatat(directory, entry.d_name, &s, AT_SYMLINK_NOFOLLOW) == 0)
          return from_stat(s).type;
        return FileType::kOther;
      }
      default:
        return FileType::kOther;
    }
  }

  const std::string root_;
  const Descriptor descriptor_;
  std::once_flag file_size_asked_;
  std::uint64_t file_size_max_ = 0;  // constant once asked
};

}  // namespace

Result<std::unique_ptr<Disk>> open_posix_disk(const std::string& root) {
  Descriptor descriptor(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor) return fail_errno(errno, root, "cannot open directory", "disk.open");
  std::string shown = root;
  while (shown.size() > 1 && shown.back() == '/') shown.pop_back();
  return std::make_unique<PosixDisk>(std::move(shown), std::move(descriptor));
}

}  // namespace vmfs
