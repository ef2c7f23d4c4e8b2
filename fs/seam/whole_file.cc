#include <cerrno>

#include "fs/base/check.h"
#include "fs/seam/disk.h"

namespace vmfs {

namespace {
constexpr std::uint64_t kWholeFileMax = 1u << 30;  // bytes; what is larger is damage, not a setting
}

Result<Bytes> read_whole_file(Disk& disk, const std::string& path, Label label) {
  VMFS_ASSIGN(std::unique_ptr<File> file, disk.open(path, OpenMode::kRead, label));
  VMFS_ASSIGN(FileStat stat, file->stat(label));
  if (stat.size > kWholeFileMax)
    return fail(ErrorKind::kCorrupt, EFBIG,
                fmt::format("{}: {} bytes, where at most {} can be ({})", disk.display(path),
                            stat.size, kWholeFileMax, label));
  Bytes content(stat.size);
  VMFS_ASSIGN(std::size_t size, file->read(content, 0, label));
  content.resize(size);
  return content;
}

Result<> replace_file(Disk& disk, const std::string& path, ByteView content, Label label) {
  CHECK_COMPARE(content.size(), <=, kWholeFileMax);
  const std::string beside = path + ".new";
  auto write_beside = [&]() -> Result<> {
    // One may be left from a crash: it was never renamed, so nobody has read it.
    VMFS_ASSIGN(std::unique_ptr<File> file, disk.open(beside, OpenMode::kCreateOrOpen, label));
    VMFS_TRY(file->truncate(0, label));
    VMFS_TRY(file->write(content, 0, label));
    VMFS_TRY(file->sync(label));
    return disk.rename(beside, path, true, label);
  };
  if (Result<> result = write_beside(); !result) {
    // The file that could not be finished must not take space from the next attempt.
    (void)disk.remove(beside, label);
    return result;
  }
  std::size_t slash = path.rfind('/');
  return disk.sync_directory(slash == std::string::npos ? "" : path.substr(0, slash), label);
}

}  // namespace vmfs
