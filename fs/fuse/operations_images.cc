// Operations on open images: the hot path.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "fs/base/log.h"
#include "fs/fuse/operations.h"

namespace vmfs {

Result<fuse_open_out> open_handle(Core& core, ObjectId object, std::uint32_t flags, bool made) {
  const RequestContext& current = *current_request();
  if (current.resent) {
    if (auto handle = core.opens().opened_by(current.unique)) {
      const OpenTable::Handle* found = core.opens().find(*handle);
      if (found != nullptr && found->object == object)
        return open_answer(*handle, found->direct);
    }
  }
  const bool writable = (flags & O_ACCMODE) != O_RDONLY;
  const std::uint32_t epoch = writable ? epoch_mark(core.volume().group(object)) : 0;
  VMFS_ASSIGN(ObjectRef image, core.volume().open_image(object, writable));
  auto handle = core.opens().add(image, object, flags, core.owned(object), made, epoch, current.unique);
  if (!handle) {
    core.volume().close_image(image);
    return pass(handle.error());
  }
  return open_answer(*handle, core.opens().find(*handle)->direct);
}

void answer_open(Core& core, fuse_req_t request, std::uint64_t number, std::function<int(fuse_req_t)> reply) {
  const auto answer = [number, reply = std::move(reply)](Core& answering, fuse_req_t waiting) {
    if (reply(waiting) == -ENOENT) answering.opens().remove(answering.volume(), number);
  };
  const OpenTable::Handle& handle = *core.opens().find(number);
  if (!core.opens().must_wait(handle)) [[likely]] return answer(core, request);
  const ObjectId object = handle.object;
  const auto users = handle.users;
  const auto later = core.detach(request);
  const bool ours = core.opens().await_drop(handle, [later, answer] {
    later->answer([&](fuse_req_t waiting) { answer(*later->core, waiting); });
  });
  if (!ours) return;
  core.invalidator().image(object);
  core.invalidator().then([dropping = later->core, users] {
    Core::Entered entered(*dropping);
    dropping->opens().dropped(*users, static_cast<bool>(entered));
  });
}

namespace {

// The handle of a request, or null after having answered that there is none.
OpenTable::Handle* handle_or_answer(Core& core, fuse_req_t request, const fuse_file_info* info) {
  OpenTable::Handle* handle = core.opens().find(info->fh);
  if (handle == nullptr) {
    fuse_reply_err(request, EBADF);
    return nullptr;
  }
  if (!handle->image) {
    fuse_reply_err(request, EIO);
    return nullptr;
  }
  return handle;
}

// The same for a change, which a handle whose image was handed over may not make any more.
OpenTable::Handle* writer_or_answer(Core& core, fuse_req_t request, const fuse_file_info* info) {
  OpenTable::Handle* handle = handle_or_answer(core, request, info);
  if (handle != nullptr && handle->stale()) [[unlikely]] {
    fuse_reply_err(request, EIO);
    return nullptr;
  }
  if (handle != nullptr) handle->mark_wrote();
  return handle;
}

void open(fuse_req_t request, fuse_ino_t object, fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  auto opened = open_handle(core, ObjectId{object}, static_cast<std::uint32_t>(info->flags));
  if (!opened) return answer_error(request, opened.error());
  answer_open(core, request, opened->fh, [answer = *opened](fuse_req_t waiting) {
    return fuse_reply_buf(waiting, reinterpret_cast<const char*>(&answer), sizeof answer);
  });
}

void release(fuse_req_t request, fuse_ino_t, fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  core.opens().remove(core.volume(), info->fh);
  fuse_reply_err(request, 0);
}

void read(fuse_req_t request, fuse_ino_t object, std::size_t size, off_t offset,
          fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  OpenTable::Handle* handle = handle_or_answer(core, request, info);
  if (handle == nullptr) return;
  const std::span<std::byte> out = current_request()->scratch;
  if (size > out.size()) {
    fuse_reply_err(request, EINVAL);  // larger than the kernel was told it may be
    return;
  }
  auto got = core.volume().read(*handle->image, static_cast<std::uint64_t>(offset), out.first(size));
  if (!got) return answer_error(core, request, got.error(), ObjectId{object});
  const bool direct = handle->direct;
  // Once it is answered, the handle may be released, and be another's.
  fuse_reply_buf(request, reinterpret_cast<const char*>(out.data()), *got);
  // A handle from when this node owned the image reads through the page cache: what it leaves there
  // must not outlive the moment.
  if (!direct && !core.owned(ObjectId{object})) core.invalidator().image(ObjectId{object});
}

// Calls flush of the volume and answers when it is done: with `reply` if it went well. If `forgotten`, not
// before the kernel has also dropped what it was asked to.
template <class Flush, class Reply>
void flush_and_answer(Core& core, fuse_req_t request, Flush&& flush, Reply reply, bool forgotten = false) {
  std::shared_ptr<Core::Later> later = core.detach(request);
  flush([later, reply, forgotten](Result<> done) {
    auto answer = [later, reply, done = std::move(done)] {
      later->answer([&](fuse_req_t waiting) {
        if (done)
          reply(waiting);
        else
          answer_error(waiting, done.error());
      });
    };
    if (forgotten)
      later->core->when_forgotten(std::move(answer));
    else
      answer();
  });
  core.watch(later);
}

// A write past the page cache by somebody who may not keep the set-id bits: the kernel, which takes them
// away before every other write, leaves it to us. A change of its own, not the request's: a repeat of the
// request must not be answered from it.
Result<> drop_set_id(Core& core, Object& image, ObjectId object) {
  const std::uint32_t permissions = core.volume().permissions(image);
  std::uint32_t kept = permissions & ~std::uint32_t{S_ISUID};
  if ((permissions & S_IXGRP) != 0) kept &= ~std::uint32_t{S_ISGID};
  if (kept == permissions) [[likely]] return {};
  AttributesToSet change;
  change.set.permissions = kept;
  auto done = core.volume().set_attributes({}, object, change, &image);
  if (!done) return pass(std::move(done.error()));
  core.invalidator().attributes(object);
  return {};
}

bool may_not_keep_set_id() {
  const std::span<const std::byte> message = current_request()->message;
  fuse_write_in body{};
  if (message.size() < sizeof(fuse_in_header) + sizeof body) return false;
  std::memcpy(&body, message.data() + sizeof(fuse_in_header), sizeof body);
  return (body.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
}

void write(fuse_req_t request, fuse_ino_t object, const char* bytes, std::size_t size, off_t offset,
           fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  OpenTable::Handle* handle = writer_or_answer(core, request, info);
  if (handle == nullptr) return;
  const Caller caller = caller_of(core, request);
  const ByteView payload{reinterpret_cast<const std::byte*>(bytes), size};
  if (may_not_keep_set_id()) {
    if (auto dropped = drop_set_id(core, *handle->image, ObjectId{object}); !dropped)
      return answer_error(core, request, dropped.error(), ObjectId{object});
  }
  // The kernel reckons the end of the image from what it knew when this node did not own it yet. (It
  // lets one append in at a time. Pages have their place already, and only come from an owner.)
  const bool append = handle->direct && (info->flags & O_APPEND) != 0 && !info->writepage;
  auto written = core.volume().write(*handle->image, caller, static_cast<std::uint64_t>(offset),
                                     payload, append ? Placed::kAtEnd : Placed::kAtOffset);
  if (!written) return answer_error(core, request, written.error(), ObjectId{object});
  // Others may read through the page cache: handles from when this node owned the image before, or, if this
  // one was opened while they were there, any. The kernel dropped the pages before it sent this, but those may
  // have brought them back as they were. (Kernels before 2026 do not look again after an asynchronous write.)
  const bool past_cache = (handle->direct || (info->flags & O_DIRECT) != 0) && !info->writepage;
  const bool shared = past_cache && handle->users->cached.load() != 0;
  if (shared) [[unlikely]] {
    if (append)
      core.invalidator().image(ObjectId{object});
    else
      core.invalidator().pages(ObjectId{object}, {static_cast<std::uint64_t>(offset), size});
  }
  const auto reply = [size](fuse_req_t waiting) { fuse_reply_write(waiting, size); };
  // O_SYNC contains O_DSYNC. What the page cache writes back later was never promised.
  if ((info->flags & O_DSYNC) != 0 && !info->writepage) {
    return flush_and_answer(
        core, request,
        [&](auto done) { core.volume().flush(*handle->image, caller, std::move(done)); }, reply, shared);
  }
  if (shared) [[unlikely]] {
    core.invalidator().then([later = core.detach(request), reply] { later->answer(reply); });
    return;
  }
  reply(request);
}

void sync(fuse_req_t request, fuse_ino_t, int, fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  OpenTable::Handle* handle = handle_or_answer(core, request, info);
  if (handle == nullptr) return;
  flush_and_answer(
      core, request,
      [&](auto done) {
        core.volume().flush(*handle->image, caller_of(core, request), std::move(done));
      },
      [](fuse_req_t waiting) { fuse_reply_err(waiting, 0); });
}

void sync_directory(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) noexcept {
  Core& core = core_of(request);
  flush_and_answer(
      core, request,
      [&](auto done) { core.volume().flush_names(caller_of(core, request), std::move(done)); },
      [](fuse_req_t waiting) { fuse_reply_err(waiting, 0); });
}

void allocate(fuse_req_t request, fuse_ino_t object, int mode, off_t offset, off_t length,
              fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const int what = mode & ~FALLOC_FL_KEEP_SIZE;
  if (what != 0 && what != FALLOC_FL_ZERO_RANGE && !(what == FALLOC_FL_PUNCH_HOLE && keep_size)) {
    fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  OpenTable::Handle* handle = writer_or_answer(core, request, info);
  if (handle == nullptr) return;
  const Caller caller = caller_of(core, request);
  const auto start = static_cast<std::uint64_t>(offset), size = static_cast<std::uint64_t>(length);
  Volume& volume = core.volume();
  auto done = what == 0
                  ? volume.allocate(*handle->image, caller, start, size, keep_size)
                  : volume.zero(*handle->image, caller, start, size, what == FALLOC_FL_PUNCH_HOLE,
                                what == FALLOC_FL_ZERO_RANGE && !keep_size);
  if (!done) return answer_error(core, request, done.error(), ObjectId{object});
  fuse_reply_err(request, 0);
}

void seek(fuse_req_t request, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  OpenTable::Handle* handle = handle_or_answer(core, request, info);
  if (handle == nullptr) return;
  auto found = core.volume().seek(*handle->image, static_cast<std::uint64_t>(offset),
                                  whence == SEEK_DATA);
  if (!found) {
    const bool end = found.error().kind == ErrorKind::kNotFound;
    fuse_reply_err(request, end ? ENXIO : error_number(found.error()));
    return;
  }
  fuse_reply_lseek(request, static_cast<off_t>(*found));
}

}  // namespace

void add_image_operations(fuse_lowlevel_ops& operations) {
  operations.open = open;
  operations.release = release;
  operations.read = read;
  operations.write = write;
  operations.fsync = sync;
  operations.fsyncdir = sync_directory;
  operations.fallocate = allocate;
  operations.lseek = seek;
}

}  // namespace vmfs
