// Attributes, the volume's space, and what is agreed with the kernel at INIT.
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <limits>

#include "fs/fuse/operations.h"

namespace vmfs {
namespace {

constexpr unsigned kBackgroundMax = 256;  // requests; direct I/O of one file counts as background
constexpr unsigned kCongestionAt = 192;

// Times are kept as nanoseconds since 1970: from 1677 to 2262. What lies beyond becomes the nearest.
std::int64_t nanoseconds_of(const timespec& time) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / kSecond - 1;
  return std::clamp<std::int64_t>(time.tv_sec, -kMost, kMost) * kSecond + time.tv_nsec;
}

void answer_attributes(Core& core, fuse_req_t request, const Attributes& attributes) {
  const struct stat status = stat_of(attributes);
  fuse_reply_attr(request, &status, core.attribute_seconds(attributes));
}

void get_attributes(fuse_req_t request, fuse_ino_t object, fuse_file_info*) noexcept {
  Core& core = core_of(request);
  auto found = core.volume().attributes(ObjectId{object});
  if (!found) return answer_error(request, found.error());
  answer_attributes(core, request, *found);
}

void set_attributes(fuse_req_t request, fuse_ino_t number, struct stat* to, int which,
                    fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  const ObjectId object{number};
  const Object* through = nullptr;
  if (info != nullptr && (which & FUSE_SET_ATTR_SIZE) != 0) {
    if (OpenTable::Handle* handle = core.opens().find(info->fh)) {
      if (!handle->image || handle->stale()) {
        fuse_reply_err(request, EIO);
        return;
      }
      handle->mark_wrote();
      through = &*handle->image;
    }
  }
  AttributesToSet change;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  if ((which & FUSE_SET_ATTR_MODE) != 0) change.set.permissions = to->st_mode & 07777;
  if ((which & FUSE_SET_ATTR_UID) != 0) change.set.uid = to->st_uid;
  if ((which & FUSE_SET_ATTR_GID) != 0) change.set.gid = to->st_gid;
  if ((which & FUSE_SET_ATTR_SIZE) != 0) change.size = static_cast<std::uint64_t>(to->st_size);
  if ((which & FUSE_SET_ATTR_ATIME_NOW) != 0)
    change.set.atime_ns = nanoseconds_of(now);
  else if ((which & FUSE_SET_ATTR_ATIME) != 0)
    change.set.atime_ns = nanoseconds_of(to->st_atim);
  if ((which & FUSE_SET_ATTR_MTIME_NOW) != 0)
    change.set.mtime_ns = nanoseconds_of(now);
  else if ((which & FUSE_SET_ATTR_MTIME) != 0)
    change.set.mtime_ns = nanoseconds_of(to->st_mtim);

  const FileAttributes& set = change.set;
  const bool nothing = !change.size && !set.permissions && !set.uid && !set.gid && !set.atime_ns &&
                       !set.mtime_ns;
  auto done = nothing ? core.volume().attributes(object)
                      : core.volume().set_attributes(caller_of(core, request), object, change, through);
  if (!done) return answer_error(core, request, done.error(), object);
  answer_attributes(core, request, *done);
}

void file_system_status(fuse_req_t request, fuse_ino_t) noexcept {
  Core& core = core_of(request);
  auto space = core.volume().space();
  if (!space) return answer_error(request, space.error());
  constexpr std::uint64_t kUnit = 4096;
  struct statvfs status {};
  status.f_bsize = kUnit;
  status.f_frsize = kUnit;
  status.f_blocks = space->total / kUnit;
  status.f_bfree = status.f_bavail = space->available / kUnit;
  status.f_files = space->files_total;
  status.f_ffree = status.f_favail = space->files_free;
  status.f_namemax = kNameMax;
  fuse_reply_statfs(request, &status);
}

void begin(void*, fuse_conn_info* connection) noexcept {
  // No automatic invalidation: whoever changes an image from elsewhere tells the kernel itself. (With
  // it, the image's own writes, which change its times, would empty its cache.) The set-user-id bits
  // are the kernel's to clear, and truncation at open comes as a request of its own.
  const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS |
                          FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS |
                          FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_EXPIRE_ONLY;
  connection->want = connection->capable & wanted;
  connection->max_background = kBackgroundMax;
  connection->congestion_threshold = kCongestionAt;
}

}  // namespace

void add_attribute_operations(fuse_lowlevel_ops& operations) {
  operations.init = begin;
  operations.getattr = get_attributes;
  operations.setattr = set_attributes;
  operations.statfs = file_system_status;
}

fuse_lowlevel_ops front_operations() {
  // What is not here is answered with ENOSYS, once for those that the kernel then no longer asks:
  // flush (a close syncs nothing), xattrs (asked for before each write otherwise), locks (the
  // kernel's), copy_file_range (the kernel reads and writes instead).
  fuse_lowlevel_ops operations{};
  add_name_operations(operations);
  add_image_operations(operations);
  add_attribute_operations(operations);
  add_directory_operations(operations);
  return operations;
}

}  // namespace vmfs
