// What changes an image other than writes: zeros, truncation, allocation, attributes.
#include <shared_mutex>

#include "fs/volume/impl.h"

namespace vmfs {

namespace {

Draft draft_of(RecordType type, ObjectId object, std::uint64_t offset, std::uint64_t extent,
               std::int64_t wall_ns, const RequestId& request) {
  Draft draft;
  draft.header.type = type;
  draft.header.group = raw(object);
  draft.header.offset = offset;
  draft.header.extent = extent;
  draft.header.wall_ns = wall_ns;
  draft.header.connection = raw(request.connection);
  draft.header.unique = request.unique;
  return draft;
}

}  // namespace

// --- The effect of a record in memory ----------------------------------------------------------------

Result<> Volume::Impl::apply_image_record(Inode& inode, const RecordHeader& header, Lsn lsn,
                                          ByteView payload) {
  VolumeImage& image = *inode.image;
  switch (header.type) {
    case RecordType::kWrite:
      list(inode);
      image.index.insert(
          {header.offset, header.extent, lsn, lsn + sizeof(RecordHeader), false});
      inode.content_changed(lsn, header.wall_ns, header.offset + header.extent);
      return {};
    case RecordType::kZero: {
      list(inode);
      image.index.insert(
          {header.offset, header.extent, lsn, 0, (header.flags & kKeepAllocated) != 0});
      std::uint64_t end = (header.flags & kKeepSize) ? 0 : header.offset + header.extent;
      inode.content_changed(lsn, header.wall_ns, end);
      image.attributes_changed.store(true);
      return {};
    }
    case RecordType::kTruncate: {
      list(inode);
      std::uint64_t size = header.offset;
      if (size < image.size.load(std::memory_order_relaxed)) {
        // Void first: a reader that finds the index cut must not find the store's old bytes.
        image.make_void(size, lsn);
        image.size.store(size, std::memory_order_release);
        image.index.cut(size);
        std::erase_if(image.allocations, [&](const auto& a) { return a.offset >= size; });
        image.allocations_changed();
      }
      inode.content_changed(lsn, header.wall_ns, size);
      image.attributes_changed.store(true);
      return {};
    }
    case RecordType::kAllocate: {
      list(inode);
      bool keep_size = (header.flags & kKeepSize) != 0;
      image.allocations.push_back({header.offset, header.extent, keep_size, lsn});
      image.allocations_changed();
      inode.content_changed(lsn, header.wall_ns, keep_size ? 0 : header.offset + header.extent);
      image.attributes_changed.store(true);
      return {};
    }
    case RecordType::kSetAttributes: {
      VMFS_ASSIGN(AttributeChange change, decode<AttributeChange>(payload));
      list(inode);
      inode.set_attributes(change.set, lsn, change.time_ns);
      image.attributes_changed.store(true);
      return {};
    }
    case RecordType::kBaseBegin:
    case RecordType::kBaseData:
    case RecordType::kBaseEnd:
      return apply_image_base(inode, header, lsn, payload);
    default:
      return {};  // moments and ownership change no content
  }
}

void Volume::Impl::list_slowly(Inode& inode) {
  std::lock_guard lock(dirty_mutex_);
  if (inode.image->listed.load(std::memory_order_relaxed)) return;
  dirty_.push_back(inode.shared_from_this());
  inode.image->listed.store(true, std::memory_order_release);
  note_dirty_since();
}

void Volume::Impl::note_dirty_since() {
  std::int64_t none = 0;
  if (dirty_since_ns_.load(std::memory_order_relaxed) == 0)
    dirty_since_ns_.compare_exchange_strong(none, std::max<std::int64_t>(1, clock_.monotonic_ns()));
}

// --- Operations ----------------------------------------------------------------------------------------

Result<> Volume::zero(Object& handle, const Caller& caller, std::uint64_t offset,
                      std::uint64_t length, bool punch, bool extend) {
  Impl& v = *impl_;
  Inode& inode = *handle.inode;
  if (inode.local) return fail(ErrorKind::kReadOnly, EROFS);
  if (length == 0) return fail(ErrorKind::kInvalid, EINVAL);
  if (v.beyond_image_max(offset, length)) return fail(ErrorKind::kInvalid, EFBIG);
  VolumeImage& image = *inode.image;
  if (v.answer_to(caller)) return {};
  VMFS_TRY(v.admit(&inode, offset, punch ? 0 : length));
  VMFS_ASSIGN(auto lock, v.enter<std::unique_lock<ImageLock>>(image, &handle));
  std::uint64_t size = image.size.load();
  if (!extend) {
    if (offset >= size) return {};
    length = std::min(length, size - offset);
  }
  VMFS_TRY(v.begin_writing(handle));
  v.list(inode);
  Draft draft = draft_of(RecordType::kZero, inode.id, offset, length, v.clock_.wall_ns(),
                         caller.request);
  draft.header.flags = static_cast<std::uint16_t>((punch ? 0 : kKeepAllocated) |
                                                  (extend ? 0 : kKeepSize));
  VMFS_ASSIGN(Journal::Reservation place, v.reserve(draft, &image.group.cursor));
  VMFS_TRY(v.journal_->commit(draft, place));
  VMFS_TRY(v.apply_image_record(inode, draft.header, place.lsn, {}));
  v.changed(image.group, caller.request, place.end);
  return {};
}

Result<> Volume::allocate(Object& handle, const Caller& caller, std::uint64_t offset,
                          std::uint64_t length, bool keep_size) {
  Impl& v = *impl_;
  Inode& inode = *handle.inode;
  if (inode.local) return fail(ErrorKind::kReadOnly, EROFS);
  if (length == 0) return fail(ErrorKind::kInvalid, EINVAL);
  if (v.beyond_image_max(offset, length)) return fail(ErrorKind::kInvalid, EFBIG);
  VolumeImage& image = *inode.image;
  if (v.answer_to(caller)) return {};
  VMFS_TRY(v.admit(&inode, offset, length));
  VMFS_ASSIGN(auto lock, v.enter<std::unique_lock<ImageLock>>(image, &handle));
  VMFS_TRY(v.begin_writing(handle));
  v.list(inode);
  Draft draft = draft_of(RecordType::kAllocate, inode.id, offset, length, v.clock_.wall_ns(),
                         caller.request);
  draft.header.flags = keep_size ? kKeepSize : 0;
  VMFS_ASSIGN(Journal::Reservation place, v.reserve(draft, &image.group.cursor));
  VMFS_TRY(v.journal_->commit(draft, place));
  VMFS_TRY(v.apply_image_record(inode, draft.header, place.lsn, {}));
  v.changed(image.group, caller.request, place.end);
  return {};
}

Result<Attributes> Volume::set_attributes(const Caller& caller, ObjectId object, const AttributesToSet& change,
                                          const Object* handle) {
  Impl& v = *impl_;
  auto inode = v.find(object);
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT);
  if (inode->local) return fail(ErrorKind::kReadOnly, EROFS);
  if (v.answer_to(caller)) return v.attributes_now(*inode);
  const FileAttributes& set = change.set;
  bool sets = set.permissions || set.uid || set.gid || set.atime_ns || set.mtime_ns;
  std::int64_t now = v.clock_.wall_ns();
  Bytes payload = encode(AttributeChange{object, set, now});

  if (!inode->image) {
    if (change.size)
      return fail(ErrorKind::kInvalid, inode->is_directory() ? EISDIR : EINVAL);
    VMFS_ASSIGN(auto names_lock, v.lock_names());
    if (inode->deleted) return fail(ErrorKind::kNotFound, ENOENT);
    if (sets) {
      VMFS_TRY(v.enter_names(0));
      Impl::NameRecord record{RecordType::kSetAttributes, std::move(payload), caller.request};
      VMFS_TRY(v.change_names({&record, 1}));
    }
    return Attributes{object, inode->attributes()};
  }

  if (change.size && v.beyond_image_max(0, *change.size)) return fail(ErrorKind::kInvalid, EFBIG);
  VolumeImage& image = *inode->image;
  if (!sets && !change.size) return v.attributes_now(*inode);
  VMFS_TRY(v.admit(inode.get(), 0, 0));
  VMFS_ASSIGN(auto lock, v.enter<std::unique_lock<ImageLock>>(image, handle));
  v.list(*inode);
  // The size first: the times that are set explicitly stand.
  for (RecordType type : {RecordType::kTruncate, RecordType::kSetAttributes}) {
    bool truncate = type == RecordType::kTruncate;
    if (truncate ? !change.size : !sets) continue;
    bool last = !truncate || !sets;
    Draft draft = draft_of(type, object, truncate ? *change.size : 0, truncate ? image.size.load() : 0,
                           now, last ? caller.request : RequestId{});
    if (!truncate) draft.payload = payload;
    VMFS_ASSIGN(Journal::Reservation place, v.reserve(draft, &image.group.cursor));
    VMFS_TRY(v.journal_->commit(draft, place));
    VMFS_TRY(v.apply_image_record(*inode, draft.header, place.lsn, payload));
    v.changed(image.group, draft.header.unique ? caller.request : RequestId{}, place.end);
  }
  lock.unlock();
  return v.attributes_now(*inode);
}

}  // namespace vmfs
