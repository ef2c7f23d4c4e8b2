// The hot path: open, read, write, close.
#include <shared_mutex>

#include "fs/base/log.h"
#include "fs/volume/impl.h"

namespace vmfs {

Result<ObjectRef> Volume::open_image(ObjectId object, bool writable, bool has_written) {
  Impl& v = *impl_;
  std::shared_lock lock(v.names_mutex_);
  auto inode = v.tree_.find(object);
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT);
  if (inode->is_directory()) return fail(ErrorKind::kInvalid, EISDIR);
  auto handle = std::make_shared<Object>();
  handle->inode = inode;
  if (inode->local) {
    if (writable) return fail(ErrorKind::kReadOnly, EROFS);
    VMFS_ASSIGN(handle->local_file, v.store_->file(object));
    return handle;
  }
  if (!inode->image) return fail(ErrorKind::kInvalid, ELOOP);
  if (v.loses_its_name(object))
    return fail(ErrorKind::kIo, EIO,
                fmt::format("image {} was removed, which the store has refused so far; see vmfs status", object));
  VolumeImage& image = *inode->image;
  handle->revocations = image.group.revocations.load(std::memory_order_acquire);
  std::lock_guard open_lock(image.open_mutex);
  if (image.opens == 0) {
    VMFS_ASSIGN(image.file, v.store_->file(object));
  }
  ++image.opens;
  if (has_written) {
    handle->wrote.store(true);
    image.writers.fetch_add(1);
  }
  return handle;
}

void Volume::close_image(const ObjectRef& handle) {
  Impl& v = *impl_;
  const auto& inode = handle->inode;
  if (inode->local) return;
  VolumeImage& image = *inode->image;
  v.end_writing(*handle);
  {
    std::lock_guard open_lock(image.open_mutex);
    CHECK_COMPARE(image.opens, >, 0u);
    if (--image.opens != 0) return;
    image.file.reset();
  }
  {
    std::shared_lock look(v.names_mutex_);
    if (inode->parent || inode->deleted) return;
  }
  // What fails is tried again in the background: the object is only kept too long.
  auto lock = v.lock_names();
  if (!lock || !v.delete_orphan(inode)) v.orphans_wait_.store(true);
}

// From its first change through any handle until the last handle that made one is closed an image is open for
// writing: a record says when that begins, so that later it can be told at which moments nobody wrote. The caller
// has come through the group's gate.
Result<> Volume::Impl::begin_writing(Object& handle) {
  if (handle.wrote.load(std::memory_order_acquire)) [[likely]] return {};
  VolumeImage& image = *handle.inode->image;
  std::lock_guard open_lock(image.open_mutex);
  if (handle.wrote.load(std::memory_order_relaxed)) return {};
  if (image.writers.load() == 0) VMFS_TRY(append_moment(image.group, RecordType::kOpen));
  image.writers.fetch_add(1);
  handle.wrote.store(true, std::memory_order_release);
  return {};
}

// No record where nothing may be added, or an epoch would have to begin for it: what cannot be said does not
// keep a handle from being closed.
void Volume::Impl::end_writing(Object& handle) {
  if (!handle.wrote.load()) return;  // nobody writes through a handle that is being closed
  VolumeImage& image = *handle.inode->image;
  VolumeGroup& group = image.group;
  std::shared_lock<ImageLock> lock(image.lock);
  std::lock_guard open_lock(image.open_mutex);
  if (!handle.wrote.exchange(false) || image.writers.fetch_sub(1) != 1) return;
  if (handle.inode->deleted.load() || group.gate.load(std::memory_order_acquire) != Gate::kOpen ||
      group.epoch_events.load() != epoch_events_.load() || epoch_unused(group))
    return;
  if (auto noted = append_moment(group, RecordType::kClose); !noted)
    log_debug("the closing of {} is not in the journal: {}", handle.inode->id, noted.error().message);
}

Result<> Volume::Impl::append_moment(VolumeGroup& group, RecordType type) {
  Draft draft;
  draft.header.type = type;
  draft.header.group = raw(group.id);
  draft.header.wall_ns = clock_.wall_ns();
  VMFS_ASSIGN(Journal::Reservation place, reserve(draft, &group.cursor));
  VMFS_TRY(journal_->commit(draft, place));
  raise_to(group.last_record, place.end);
  if (hooks_) hooks_->written(place.end);
  return {};
}

Result<std::size_t> Volume::read(Object& handle, std::uint64_t offset, std::span<std::byte> out) {
  if (handle.local_file) return handle.local_file->read(out, offset, "store.snapshot_read");
  return impl_->read_image(*handle.inode, *handle.inode->image->file, offset, out);
}

Result<std::size_t> Volume::Impl::read_image(Inode& inode, File& file, std::uint64_t offset,
                                             std::span<std::byte> out) {
  VolumeImage& image = *inode.image;
  // In this order, so that the index is never older than the size: a write enters the index first.
  std::uint64_t size = image.size.load(std::memory_order_acquire);
  if (offset >= size) return 0;
  out = out.first(std::min<std::uint64_t>(out.size(), size - offset));
  std::uint32_t version = image.void_version.load(std::memory_order_acquire);
  if (image.void_from.load(std::memory_order_acquire) == VolumeImage::kNothingVoid &&
      image.index.empty() && version == image.void_version.load(std::memory_order_acquire) &&
      version % 2 == 0) [[likely]] {
    VMFS_ASSIGN(std::size_t got, file.read(out, offset, "store.read"));
    // The store's file may be shorter: sizes reach it with the checkpoint.
    if (got < out.size()) std::memset(out.data() + got, 0, out.size() - got);
    return out.size();
  }
  VMFS_TRY(read_pieces(inode, file, offset, out));
  return out.size();
}

Result<> Volume::Impl::read_pieces(Inode& inode, File& file, std::uint64_t offset,
                                   std::span<std::byte> out) {
  VolumeImage& image = *inode.image;
  thread_local std::vector<Piece> pieces;
  for (;;) {
    std::uint32_t version = image.void_version.load(std::memory_order_acquire);
    std::uint64_t void_from = image.void_from.load(std::memory_order_acquire);
    if (version % 2 != 0) continue;  // a truncation is two instructions from its end
    image.index.lookup(offset, out.size(), pieces);
    // A truncation cuts the index and voids the store's bytes: with one and without the other, bytes
    // from before the last write would come up.
    if (version != image.void_version.load(std::memory_order_acquire)) continue;
    bool recycled = false;
    for (const Piece& piece : pieces) {
      std::span<std::byte> part = out.subspan(piece.offset - offset, piece.length);
      if (piece.source == Piece::Source::kJournal) {
        VMFS_ASSIGN(bool there, journal_->read_payload(piece.payload, part));
        if (!there) {
          recycled = true;
          break;
        }
        continue;
      }
      std::size_t got = 0;
      if (piece.source == Piece::Source::kStore && piece.offset < void_from) {
        std::uint64_t wanted = std::min<std::uint64_t>(part.size(), void_from - piece.offset);
        VMFS_ASSIGN(got, file.read(part.first(wanted), piece.offset, "store.read"));
      }
      if (got < part.size()) std::memset(part.data() + got, 0, part.size() - got);
    }
    if (!recycled) return {};
    // Applied and recycled since the lookup: the next one finds it in the store. An image that was
    // deleted is not applied any more.
    if (inode.deleted.load(std::memory_order_acquire)) return fail(ErrorKind::kNotFound, ESTALE);
  }
}

std::uint32_t Volume::permissions(Object& handle) {
  Inode& inode = *handle.inode;
  std::lock_guard guard(inode.attributes_lock);
  return inode.stat.permissions;
}

Result<> Volume::write(Object& handle, const Caller& caller, std::uint64_t offset, ByteView bytes,
                       Placed placed) {
  Impl& v = *impl_;
  Inode& inode = *handle.inode;
  if (inode.local) [[unlikely]] return fail(ErrorKind::kReadOnly, EROFS);
  if (bytes.empty()) return {};
  if (bytes.size() > kPayloadMax) [[unlikely]] return fail(ErrorKind::kInvalid, EINVAL);
  if (offset > v.image_max_.load(std::memory_order_relaxed) - bytes.size()) [[unlikely]]
    return fail(ErrorKind::kInvalid, EFBIG);
  VolumeImage& image = *inode.image;
  if (caller.resent && v.answer_to(caller)) [[unlikely]] return {};
  VMFS_TRY(v.admit(&inode, offset, bytes.size()));
  if (placed == Placed::kAtEnd) [[unlikely]] {
    // The kernel lets one writer in at a time, but sends the parts of a long asynchronous write at once.
    VMFS_ASSIGN(auto lock, v.enter<std::unique_lock<ImageLock>>(image, &handle));
    offset = image.size.load(std::memory_order_acquire);
    if (v.beyond_image_max(offset, bytes.size())) return fail(ErrorKind::kInvalid, EFBIG);
    return v.write_locked(handle, caller, offset, bytes);
  }
  VMFS_ASSIGN(auto lock, v.enter<std::shared_lock<ImageLock>>(image, &handle));
  return v.write_locked(handle, caller, offset, bytes);
}

Result<> Volume::Impl::write_locked(Object& handle, const Caller& caller, std::uint64_t offset, ByteView bytes) {
  Inode& inode = *handle.inode;
  VolumeImage& image = *inode.image;
  VMFS_TRY(begin_writing(handle));
  list(inode);

  Draft draft;
  draft.header.type = RecordType::kWrite;
  draft.header.group = raw(inode.id);
  draft.header.offset = offset;
  draft.header.extent = bytes.size();
  draft.header.wall_ns = clock_.wall_ns();
  draft.header.connection = raw(caller.request.connection);
  draft.header.unique = caller.request.unique;
  draft.payload = bytes;
  VMFS_ASSIGN(Journal::Reservation place, reserve(draft, &image.group.cursor));
  VMFS_TRY(journal_->commit(draft, place));

  image.index.insert({offset, bytes.size(), place.lsn, place.lsn + sizeof(RecordHeader), false});
  inode.content_changed(place.lsn, draft.header.wall_ns, offset + bytes.size());
  changed(image.group, caller.request, place.end);
  return {};
}

Result<std::uint64_t> Volume::seek(Object& handle, std::uint64_t offset, bool data) {
  Inode& inode = *handle.inode;
  if (handle.local_file) {
    VMFS_ASSIGN(FileStat stat, handle.local_file->stat("store.snapshot_seek"));
    if (offset >= stat.size) return fail(ErrorKind::kNotFound, ENXIO);
    VMFS_ASSIGN(auto found, data ? handle.local_file->seek_data(offset, "store.snapshot_seek")
                                 : handle.local_file->seek_hole(offset, "store.snapshot_seek"));
    if (found) return *found;
    if (data) return fail(ErrorKind::kNotFound, ENXIO);
    return stat.size;
  }
  // Holes lie between whole blocks, as on every local file system (QEMU counts on it): a block with one byte
  // of data is data.
  std::uint64_t size = inode.image->size.load(std::memory_order_acquire);
  if (offset >= size) return fail(ErrorKind::kNotFound, ENXIO);
  std::uint64_t at = offset / kBlock * kBlock;
  while (at < size) {
    auto begin = impl_->seek_image(inode, *inode.image->file, at, true);
    if (!begin && begin.error().number != ENXIO) return begin;
    if (!begin && data) return fail(ErrorKind::kNotFound, ENXIO);
    if (!begin) return std::max(at, offset);
    std::uint64_t block = *begin / kBlock * kBlock;
    if (data) return std::max(block, offset);
    if (block > at) return std::max(at, offset);
    auto end = impl_->seek_image(inode, *inode.image->file, *begin, false);
    if (!end && end.error().number != ENXIO) return end;
    at = end ? (*end + kBlock - 1) / kBlock * kBlock : size;  // truncated meanwhile
  }
  return size;
}

Result<std::uint64_t> Volume::Impl::seek_image(Inode& inode, File& file, std::uint64_t offset,
                                               bool data) {
  VolumeImage& image = *inode.image;
  std::uint64_t size = image.size.load(std::memory_order_acquire);
  if (offset >= size) return fail(ErrorKind::kNotFound, ENXIO);
  // What is unapplied is walked in windows: their number follows the number of changes, because runs
  // of the store are skipped whole.
  constexpr std::uint64_t kWindow = 4u << 20;
  std::vector<Piece> pieces;
  std::uint64_t at = offset;
  while (at < size) {
    std::uint64_t run_end = image.index.next_unapplied(at, size);
    if (run_end > at) {
      std::uint64_t end = std::min(run_end, image.void_from.load(std::memory_order_acquire));
      if (at < end) {
        VMFS_ASSIGN(auto found, data ? file.seek_data(at, "store.seek")
                                     : file.seek_hole(at, "store.seek"));
        if (found && *found < end) return *found;
        // No hole to be found: the file ends here, and what follows its end is one.
        if (!data && !found) {
          VMFS_ASSIGN(FileStat stat, file.stat("store.seek"));
          if (stat.size < end) return std::max(at, stat.size);
        }
      }
      if (!data && end < run_end) return std::max(at, end);
      at = run_end;
      continue;
    }
    image.index.lookup(at, std::min(kWindow, size - at), pieces);
    for (const Piece& piece : pieces) {
      if (piece.source == Piece::Source::kStore) break;
      if ((piece.source == Piece::Source::kJournal) == data) return piece.offset;
      at = piece.offset + piece.length;
    }
  }
  if (data) return fail(ErrorKind::kNotFound, ENXIO);
  return size;
}

}  // namespace vmfs
