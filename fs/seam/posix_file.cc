#include "fs/seam/posix_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

#include "fs/base/check.h"

namespace vmfs {
namespace {

class PosixFile : public File {
 public:
  PosixFile(Descriptor descriptor, std::string shown)
      : descriptor_(std::move(descriptor)), shown_(std::move(shown)) {}

  Result<std::size_t> read(std::span<std::byte> buffer, std::uint64_t offset,
                           Label label) override {
    std::size_t done = 0;
    while (done < buffer.size()) {
      ssize_t n = ::pread(descriptor_.get(), buffer.data() + done, buffer.size() - done,
                          static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_at("cannot read", offset + done, buffer.size() - done, label);
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    return done;
  }

  Result<> write(ByteView bytes, std::uint64_t offset, Label label) override {
    while (!bytes.empty()) {
      ssize_t n =
          ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_at("cannot write", offset, bytes.size(), label);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      offset += static_cast<std::uint64_t>(n);
    }
    return {};
  }

  Result<> write_pieces(std::span<const iovec> pieces, std::uint64_t offset, Label label) override {
    CHECK_COMPARE(pieces.size(), <=, kMaxPieces);
    while (!pieces.empty()) {
      ssize_t n = ::pwritev(descriptor_.get(), pieces.data(), static_cast<int>(pieces.size()),
                            static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_at("cannot write", offset, 0, label);
      offset += static_cast<std::uint64_t>(n);
      auto rest = static_cast<std::size_t>(n);
      while (!pieces.empty() && rest >= pieces.front().iov_len) {
        rest -= pieces.front().iov_len;
        pieces = pieces.subspan(1);
      }
      if (rest > 0) {
        // Cut inside a piece (a signal, or a disk that filled up): the piece's rest, then go on.
        const iovec& cut = pieces.front();
        auto* start = static_cast<const std::byte*>(cut.iov_base) + rest;
        VMFS_TRY(write({start, cut.iov_len - rest}, offset, label));
        offset += cut.iov_len - rest;
        pieces = pieces.subspan(1);
      }
    }
    return {};
  }

  Result<> sync_data(Label label) override {
    // Not repeated on EINTR or anything else: a failed sync has forgotten what it did not write.
    if (::fdatasync(descriptor_.get()) != 0)
      return fail_errno(errno, shown_, "cannot sync data", label);
    return {};
  }

  Result<> sync(Label label) override {
    if (::fsync(descriptor_.get()) != 0) return fail_errno(errno, shown_, "cannot sync", label);
    return {};
  }

  void start_writeback(std::uint64_t offset, std::uint64_t length) override {
    // An error here is also reported by the sync that must follow.
    (void)::sync_file_range(descriptor_.get(), static_cast<off_t>(offset),
                            static_cast<off_t>(length), SYNC_FILE_RANGE_WRITE);
  }

  Result<> truncate(std::uint64_t size, Label label) override {
    int result;
    do result = ::ftruncate(descriptor_.get(), static_cast<off_t>(size));
    while (result != 0 && errno == EINTR);
    if (result != 0) return fail_at("cannot truncate", size, 0, label);
    return {};
  }

  Result<> allocate(std::uint64_t offset, std::uint64_t length, bool keep_size,
                    Label label) override {
    return change_blocks(keep_size ? FALLOC_FL_KEEP_SIZE : 0, "cannot allocate", offset, length,
                         label);
  }

  Result<> punch_hole(std::uint64_t offset, std::uint64_t length, Label label) override {
    return change_blocks(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "cannot punch hole", offset,
                         length, label);
  }

  Result<FileStat> stat(Label label) override {
    struct stat s;
    if (::fstat(descriptor_.get(), &s) != 0) return fail_errno(errno, shown_, "cannot stat", label);
    return from_stat(s);
  }

  Result<> set_attributes(const FileAttributes& set, Label label) override {
    // The owner first: chown clears set-user-id bits, which chmod may then set.
    if ((set.uid || set.gid) &&
        ::fchown(descriptor_.get(), set.uid.value_or(static_cast<uid_t>(-1)),
                 set.gid.value_or(static_cast<gid_t>(-1))) != 0)
      return fail_errno(errno, shown_, "cannot change owner", label);
    if (set.permissions && ::fchmod(descriptor_.get(), *set.permissions) != 0)
      return fail_errno(errno, shown_, "cannot change permissions", label);
    if (set.atime_ns || set.mtime_ns) {
      timespec times[2] = {to_timespec(set.atime_ns), to_timespec(set.mtime_ns)};
      if (::futimens(descriptor_.get(), times) != 0)
        return fail_errno(errno, shown_, "cannot set times", label);
    }
    return {};
  }

  // Documentation/filesystems/fiemap.rst of the kernel.
  Result<bool> owns_blocks(std::uint64_t offset, std::uint64_t length, Label label) override {
    constexpr std::size_t kExtents = 32;
    alignas(fiemap) std::byte space[sizeof(fiemap) + kExtents * sizeof(fiemap_extent)];
    const std::uint64_t end = offset + length;
    while (offset < end) {
      std::memset(space, 0, sizeof space);
      auto* map = reinterpret_cast<fiemap*>(space);
      map->fm_start = offset;
      map->fm_length = end - offset;
      map->fm_extent_count = kExtents;
      if (::ioctl(descriptor_.get(), FS_IOC_FIEMAP, map) != 0) {
        if (errno == EOPNOTSUPP || errno == ENOTTY) return false;
        return fail_at("cannot ask for the blocks", offset, end - offset, label);
      }
      if (map->fm_mapped_extents == 0) return false;
      constexpr std::uint32_t kNoPlace = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_SHARED;
      for (std::uint32_t i = 0; i < map->fm_mapped_extents && offset < end; ++i) {
        const fiemap_extent& extent = map->fm_extents[i];
        if (extent.fe_logical > offset || (extent.fe_flags & kNoPlace) != 0) return false;
        offset = extent.fe_logical + extent.fe_length;
      }
    }
    return true;
  }

  Result<std::optional<std::uint64_t>> seek_data(std::uint64_t offset, Label label) override {
    return seek(offset, SEEK_DATA, "cannot seek data", label);
  }

  Result<std::optional<std::uint64_t>> seek_hole(std::uint64_t offset, Label label) override {
    VMFS_ASSIGN(auto found, seek(offset, SEEK_HOLE, "cannot seek hole", label));
    if (!found) return found;
    // The system counts the end of the file as a hole.
    VMFS_ASSIGN(FileStat now, stat(label));
    if (*found >= now.size) found.reset();
    return found;
  }

  Result<> clone_from(File& source, Label label) override {
    auto* other = dynamic_cast<PosixFile*>(&source);
    CHECK_INVARIANT(other != nullptr, "{}: clone from a file of another kind of disk", shown_);
    if (::ioctl(descriptor_.get(), FICLONE, other->descriptor_.get()) == 0) return {};
    int number = errno;
    // What file systems without shared extents answer: ext4 EOPNOTSUPP, tmpfs EOPNOTSUPP, overlays
    // EXDEV, some ENOTTY or EINVAL. The caller copies instead.
    if (number == EINVAL) number = EOPNOTSUPP;
    return fail_errno(number, shown_, fmt::format("cannot clone {}", other->shown_).c_str(), label);
  }

 private:
  tl::unexpected<Error> fail_at(const char* what, std::uint64_t offset, std::size_t length,
                                Label label) const {
    int number = errno;
    std::string text = length ? fmt::format("{} {} bytes at {}", what, length, offset)
                              : fmt::format("{} at {}", what, offset);
    return fail_errno(number, shown_, text.c_str(), label);
  }

  Result<> change_blocks(int mode, const char* what, std::uint64_t offset, std::uint64_t length,
                         Label label) {
    if (length == 0) return {};
    int result;
    do
      result = ::fallocate(descriptor_.get(), mode, static_cast<off_t>(offset),
                           static_cast<off_t>(length));
    while (result != 0 && errno == EINTR);
    if (result != 0) return fail_at(what, offset, length, label);
    return {};
  }

  Result<std::optional<std::uint64_t>> seek(std::uint64_t offset, int whence, const char* what,
                                            Label label) {
    off_t found = ::lseek(descriptor_.get(), static_cast<off_t>(offset), whence);
    if (found >= 0) return std::optional<std::uint64_t>(static_cast<std::uint64_t>(found));
    if (errno == ENXIO) return std::optional<std::uint64_t>();
    return fail_at(what, offset, 0, label);
  }

  const Descriptor descriptor_;
  const std::string shown_;
};

}  // namespace

std::unique_ptr<File> make_posix_file(Descriptor descriptor, std::string shown) {
  return std::make_unique<PosixFile>(std::move(descriptor), std::move(shown));
}

}  // namespace vmfs
