// The disk seam: everything this program asks of a local file system. Production: PosixDisk. The
// simulator's disk loses, tears and reorders what was not synced, fills up, and fails single calls.
//
// Every call carries a label ("journal.append", "store.apply", ...): a test can fail exactly that
// call, and an error message says what was being done. All calls are thread-safe, except that one
// File must not be closed (destroyed) under a running call.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/base/bytes.h"
#include "fs/base/result.h"

namespace vmfs {

// A constant string.
using Label = const char*;

enum class FileType : std::uint8_t { kRegular = 1, kDirectory = 2, kSymlink = 3, kOther = 4 };

struct FileStat {
  FileType type = FileType::kRegular;
  std::uint32_t permissions = 0;  // the low 12 bits of st_mode
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t links = 1;
  std::uint64_t size = 0;
  std::uint64_t allocated = 0;  // bytes
  std::int64_t atime_ns = 0, mtime_ns = 0, ctime_ns = 0;  // ctime cannot be set
};

// What to change of a file's attributes; absent: leave.
struct FileAttributes {
  std::optional<std::uint32_t> permissions, uid, gid;
  std::optional<std::int64_t> atime_ns, mtime_ns;
};

// An open regular file. Nothing is durable before sync_data()/sync() succeeded. After a failed sync
// the unsynced bytes are lost and the next sync succeeds without them: never just sync again.
class File {
 public:
  virtual ~File() = default;
  // Reads up to buffer.size() bytes; fewer only at the end of the file.
  virtual Result<std::size_t> read(std::span<std::byte> buffer, std::uint64_t offset, Label) = 0;
  // Writes all of it or fails (then any part may have been written).
  virtual Result<> write(ByteView bytes, std::uint64_t offset, Label) = 0;
  // The same for many pieces, contiguous on disk. At most kMaxPieces.
  virtual Result<> write_pieces(std::span<const iovec> pieces, std::uint64_t offset, Label) = 0;
  static constexpr std::size_t kMaxPieces = 1024;  // IOV_MAX on Linux
  virtual Result<> sync_data(Label) = 0;  // fdatasync: data, and size when it grew
  virtual Result<> sync(Label) = 0;       // fsync: also attributes and tags
  // Begins to write dirty pages out, and promises nothing: sync_file_range(2).
  virtual void start_writeback(std::uint64_t offset, std::uint64_t length) = 0;
  virtual Result<> truncate(std::uint64_t size, Label) = 0;
  // Reserves blocks; with keep_size the size stays.
  virtual Result<> allocate(std::uint64_t offset, std::uint64_t length, bool keep_size, Label) = 0;
  // The range reads as zeros and its blocks are freed; the size stays.
  virtual Result<> punch_hole(std::uint64_t offset, std::uint64_t length, Label) = 0;
  virtual Result<FileStat> stat(Label) = 0;
  virtual Result<> set_attributes(const FileAttributes&, Label) = 0;
  // First offset >= `offset` that is in data (hole); nothing: none up to the end of the file.
  virtual Result<std::optional<std::uint64_t>> seek_data(std::uint64_t offset, Label) = 0;
  virtual Result<std::optional<std::uint64_t>> seek_hole(std::uint64_t offset, Label) = 0;
  // Whether all of the range has blocks, written or only allocated, that no other file shares: writing there takes no
  // more of the file system. False where that cannot be told.
  virtual Result<bool> owns_blocks(std::uint64_t offset, std::uint64_t length, Label) = 0;
  // Makes this file share all extents of `source` (FICLONE); kUnsupported where the file system cannot.
  virtual Result<> clone_from(File& source, Label) = 0;
};

enum class OpenMode {
  kRead,
  kReadWrite,
  kCreate,     // read-write; fails with kExists if the name is taken
  kCreateOrOpen,
};

struct DirectoryEntry {
  std::string name;
  FileType type;
};

struct DiskSpace {
  std::uint64_t total = 0, available = 0;  // bytes
  std::uint64_t files_total = 0, files_free = 0;  // total 0: not limited by itself
  std::uint64_t file_size_max = std::uint64_t{1} << 62;  // of one file
};

// Held as long as it lives; released by the system when the process dies.
class DiskLock {
 public:
  virtual ~DiskLock() = default;
};

// A directory tree on one file system. Paths are relative to its root, without a leading slash;
// "" is the root itself. Symlinks are never followed.
class Disk {
 public:
  virtual ~Disk() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode, Label) = 0;
  virtual Result<> make_directory(const std::string& path, Label) = 0;
  virtual Result<> remove_directory(const std::string& path, Label) = 0;
  virtual Result<> remove(const std::string& path, Label) = 0;
  // Replaces `to` if it exists, unless `replace` is false (then kExists).
  virtual Result<> rename(const std::string& from, const std::string& to, bool replace, Label) = 0;
  virtual Result<> make_symlink(const std::string& path, const std::string& target, Label) = 0;
  virtual Result<std::string> read_symlink(const std::string& path, Label) = 0;
  // Without "." and "..", in no order.
  virtual Result<std::vector<DirectoryEntry>> list(const std::string& path, Label) = 0;
  virtual Result<FileStat> stat(const std::string& path, Label) = 0;
  virtual Result<> set_attributes(const std::string& path, const FileAttributes&, Label) = 0;
  // A small value kept with the file, directory or symlink itself (an extended attribute
  // trusted.vmfs.NAME), through renames. get: kNotFound if it has none.
  virtual Result<> set_tag(const std::string& path, std::string_view name, ByteView value, Label) = 0;
  virtual Result<Bytes> get_tag(const std::string& path, std::string_view name, Label) = 0;
  // Makes the entries of the directory durable.
  virtual Result<> sync_directory(const std::string& path, Label) = 0;
  virtual Result<DiskSpace> space(Label) = 0;
  // kBusy if another process holds it. The file is created.
  virtual Result<std::unique_ptr<DiskLock>> lock(const std::string& path, Label) = 0;
  // For messages: the path as a person would type it.
  virtual std::string display(const std::string& path) const = 0;
};

// Whole small files (at most 1 GiB), read at once and replaced atomically: write beside, sync,
// rename, sync the directory. Durable when it returns.
Result<Bytes> read_whole_file(Disk& disk, const std::string& path, Label label);
Result<> replace_file(Disk& disk, const std::string& path, ByteView content, Label label);

// The real one. `root` must exist.
Result<std::unique_ptr<Disk>> open_posix_disk(const std::string& root);

}  // namespace vmfs
