#include "fs/fuse/reply.h"

#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <cstring>

namespace vmfs {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::uint32_t kPreferredSize = 4096;

// Times before 1970 have a negative second and a positive rest.
std::uint64_t seconds_of(std::int64_t time_ns) {
  std::int64_t seconds = time_ns / kSecond;
  if (time_ns % kSecond < 0) --seconds;
  return static_cast<std::uint64_t>(seconds);
}
std::uint32_t rest_of(std::int64_t time_ns) {
  const std::int64_t rest = time_ns % kSecond;
  return static_cast<std::uint32_t>(rest < 0 ? rest + kSecond : rest);
}
timespec timespec_of(std::int64_t time_ns) {
  return {static_cast<time_t>(seconds_of(time_ns)), static_cast<long>(rest_of(time_ns))};
}

void set_lifetime(double lifetime, std::uint64_t& seconds, std::uint32_t& nanoseconds) {
  seconds = static_cast<std::uint64_t>(lifetime);
  nanoseconds = static_cast<std::uint32_t>((lifetime - std::floor(lifetime)) * 1e9);
}

}  // namespace

int error_number(const Error& error) {
  if (error.number > 0) return error.number;
  switch (error.kind) {
    case ErrorKind::kNoSpace:
      return ENOSPC;
    case ErrorKind::kNotFound:
      return ENOENT;
    case ErrorKind::kExists:
      return EEXIST;
    case ErrorKind::kInvalid:
      return EINVAL;
    case ErrorKind::kUnsupported:
      return EPERM;
    case ErrorKind::kBusy:
      return EBUSY;
    case ErrorKind::kReadOnly:
      return EROFS;
    case ErrorKind::kWouldWait:
      return EAGAIN;
    case ErrorKind::kIo:
    case ErrorKind::kCorrupt:
    case ErrorKind::kProtocol:
    case ErrorKind::kRefused:
      return EIO;
  }
  return EIO;
}

std::uint32_t file_type_bits(FileType type) {
  switch (type) {
    case FileType::kRegular:
      return S_IFREG;
    case FileType::kDirectory:
      return S_IFDIR;
    case FileType::kSymlink:
      return S_IFLNK;
    case FileType::kOther:
      break;
  }
  return S_IFREG;
}

fuse_attr kernel_attributes(const Attributes& attributes) {
  const FileStat& from = attributes.stat;
  fuse_attr to{};
  to.ino = raw(attributes.object);
  to.size = from.size;
  to.blocks = from.allocated / 512;
  to.atime = seconds_of(from.atime_ns);
  to.mtime = seconds_of(from.mtime_ns);
  to.ctime = seconds_of(from.ctime_ns);
  to.atimensec = rest_of(from.atime_ns);
  to.mtimensec = rest_of(from.mtime_ns);
  to.ctimensec = rest_of(from.ctime_ns);
  to.mode = file_type_bits(from.type) | (from.permissions & 07777);
  to.nlink = from.links;
  to.uid = from.uid;
  to.gid = from.gid;
  to.blksize = kPreferredSize;
  return to;
}

struct stat stat_of(const Attributes& attributes) {
  const FileStat& from = attributes.stat;
  struct stat to {};
  to.st_ino = raw(attributes.object);
  to.st_size = static_cast<off_t>(from.size);
  to.st_blocks = static_cast<blkcnt_t>(from.allocated / 512);
  to.st_atim = timespec_of(from.atime_ns);
  to.st_mtim = timespec_of(from.mtime_ns);
  to.st_ctim = timespec_of(from.ctime_ns);
  to.st_mode = file_type_bits(from.type) | (from.permissions & 07777);
  to.st_nlink = from.links;
  to.st_uid = from.uid;
  to.st_gid = from.gid;
  to.st_blksize = kPreferredSize;
  return to;
}

fuse_entry_param entry_of(const Attributes& attributes, double name_seconds,
                          double attribute_seconds) {
  fuse_entry_param entry{};
  entry.ino = raw(attributes.object);
  entry.attr = stat_of(attributes);
  entry.attr_timeout = attribute_seconds;
  entry.entry_timeout = name_seconds;
  return entry;
}

fuse_open_out open_answer(std::uint64_t handle, bool direct) {
  fuse_open_out answer{};
  answer.fh = handle;
  // Without the second flag the kernel lets one direct write to a file in at a time. Without the third it
  // drops the pages when it has the answer, while others already write them: what is to go, we drop before.
  answer.open_flags = direct ? FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES : FOPEN_KEEP_CACHE;
  return answer;
}

fuse_entry_out entry_answer(const Attributes& attributes, double name_seconds,
                            double attribute_seconds) {
  fuse_entry_out answer{};
  answer.nodeid = raw(attributes.object);
  set_lifetime(name_seconds, answer.entry_valid, answer.entry_valid_nsec);
  set_lifetime(attribute_seconds, answer.attr_valid, answer.attr_valid_nsec);
  answer.attr = kernel_attributes(attributes);
  return answer;
}

std::uint64_t init_flags(const void* message, std::size_t size) {
  if (size < sizeof(fuse_in_header) + 16) return 0;
  fuse_init_in body{};
  std::memcpy(&body, static_cast<const std::byte*>(message) + sizeof(fuse_in_header),
              std::min(size - sizeof(fuse_in_header), sizeof body));
  std::uint64_t flags = body.flags;
  if ((flags & kInitExtended) != 0) flags |= std::uint64_t{body.flags2} << 32;
  return flags;
}

}  // namespace vmfs
