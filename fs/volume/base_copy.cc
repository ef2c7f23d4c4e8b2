// Full copies: reading a group for one, and what their records do to the copy.
#include <shared_mutex>

#include "fs/base/log.h"
#include "fs/volume/impl.h"

namespace vmfs {

// --- The source ----------------------------------------------------------------------------------------------

Result<Volume::BaseImage> Volume::base_image(GroupId id) {
  Impl& v = *impl_;
  if (id == kNameSpace) {
    // The position takes account of changes that are still to be made, so they are.
    VMFS_ASSIGN(auto lock, v.lock_names());
    return BaseImage{v.state_of(v.names_), v.tree_.root()->attributes()};
  }
  auto inode = v.find_image(id);
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT, fmt::format("no image {}", id));
  // Writers under way have their records in the journal and not yet in the index: wait for them.
  std::unique_lock<ImageLock> lock(inode->image->lock);
  return BaseImage{v.state_of(inode->image->group), inode->attributes()};
}

Result<std::vector<BaseObject>> Volume::base_names() {
  Impl& v = *impl_;
  std::shared_lock lock(v.names_mutex_);
  std::vector<BaseObject> objects;
  auto add = [&](Inode& inode) {
    BaseObject object;
    object.object = inode.id;
    object.parent = inode.parent ? inode.parent->id : ObjectId{};
    object.name = inode.name;
    object.type = inode.type;
    object.stat = inode.attributes();
    object.target = inode.target;
    objects.push_back(std::move(object));
  };
  // Parents before children, without recursion: trees may be deep.
  add(*v.tree_.root());
  std::vector<Inode*> directories{v.tree_.root().get()};
  while (!directories.empty()) {
    Inode* directory = directories.back();
    directories.pop_back();
    for (const auto& [name, inode] : directory->children) {
      if (inode->local) continue;
      add(*inode);
      if (inode->is_directory()) directories.push_back(inode.get());
    }
  }
  for (const auto& [id, inode] : v.tree_.objects())
    if (inode->image && !inode->parent && !inode->dropped.load()) add(*inode);
  return objects;
}

Result<std::optional<BaseRange>> Volume::base_next(GroupId id, std::uint64_t offset,
                                                   std::uint64_t length_max) {
  Impl& v = *impl_;
  auto inode = v.find_image(id);
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT, fmt::format("no image {}", id));
  {
    std::unique_lock<ImageLock> barrier(inode->image->lock);
  }
  VMFS_ASSIGN(auto file, v.store_->file(id));
  auto begin = v.seek_image(*inode, *file, offset, true);
  if (!begin) {
    if (begin.error().kind == ErrorKind::kNotFound) return std::nullopt;
    return pass(std::move(begin.error()));
  }
  VMFS_ASSIGN(std::uint64_t end, v.seek_image(*inode, *file, *begin, false));
  return BaseRange{*begin, std::min(end - *begin, length_max)};
}

Result<> Volume::base_read(GroupId id, std::uint64_t offset, std::span<std::byte> out) {
  Impl& v = *impl_;
  auto inode = v.find_image(id);
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT, fmt::format("no image {}", id));
  {
    std::unique_lock<ImageLock> barrier(inode->image->lock);
  }
  VMFS_ASSIGN(auto file, v.store_->file(id));
  VMFS_ASSIGN(std::size_t got, v.read_image(*inode, *file, offset, out));
  // Shorter by now: the record of that is in the stream after this.
  std::memset(out.data() + got, 0, out.size() - got);
  return {};
}

// --- The target: images ------------------------------------------------------------------------------------------

Result<> Volume::Impl::apply_image_base(Inode& inode, const RecordHeader& header, Lsn lsn,
                                        ByteView payload) {
  VolumeImage& image = *inode.image;
  if (header.type == RecordType::kBaseEnd) return {};
  list(inode);
  if (header.type == RecordType::kBaseData) {
    image.index.insert({header.offset, header.extent, lsn, lsn + sizeof(RecordHeader), false});
    return {};
  }
  VMFS_ASSIGN(BaseBegin begin, decode<BaseBegin>(payload));
  std::uint64_t size = begin.stat.size;
  if (begin.whole) {
    image.make_void(0, lsn);
    image.size.store(size, std::memory_order_release);
    image.index.clear();
    image.allocations.clear();
    image.allocations_changed();
  } else {
    if (size < image.size.load()) {
      image.make_void(size, lsn);
      image.index.cut(size);
    }
    image.size.store(size, std::memory_order_release);
    // Only data is sent: what is a hole at the source is one here, too.
    for (const BaseRange& range : begin.ranges)
      image.index.insert({range.offset, range.length, lsn, 0, false});
  }
  {
    std::lock_guard guard(inode.attributes_lock);
    inode.stat.permissions = begin.stat.permissions;
    inode.stat.uid = begin.stat.uid;
    inode.stat.gid = begin.stat.gid;
    inode.stat.atime_ns = begin.stat.atime_ns;
    inode.stat.mtime_ns = begin.stat.mtime_ns;
    inode.stat.ctime_ns = begin.stat.ctime_ns;
    inode.times_lsn = lsn;
  }
  image.attributes_changed.store(true);
  return {};
}

// --- The target: the name space ------------------------------------------------------------------------------------

Result<> Volume::Impl::apply_base_object(const BaseObject& object, bool to_memory) {
  FileAttributes set;
  set.permissions = object.stat.permissions;
  set.uid = object.stat.uid;
  set.gid = object.stat.gid;
  set.mtime_ns = object.stat.mtime_ns;
  if (object.type == FileType::kSymlink) set.permissions.reset();
  if (object.object != kRootObject) {
    if (!store_->exists(object.object)) {
      Create change;
      change.object = object.object;
      change.parent = object.parent;
      change.name = object.name;
      change.type = object.type;
      change.permissions = object.stat.permissions;
      change.uid = object.stat.uid;
      change.gid = object.stat.gid;
      change.time_ns = object.stat.mtime_ns;
      change.target = object.target;
      VMFS_TRY(store_->create_object(change));
    } else if (raw(object.parent) != 0) {
      VMFS_TRY(store_->place(object.object, object.parent, object.name));
    } else {
      VMFS_TRY(store_->unlink({object.object, object.parent, object.name, object.stat.ctime_ns}));
    }
  }
  // An image's attributes come with its own base.
  if (object.type != FileType::kRegular) VMFS_TRY(store_->set_attributes(object.object, set));
  base_names_.insert(object.object);
  if (!to_memory) return {};

  auto inode = tree_.find(object.object);
  if (!inode) {
    inode = make_inode(object.object, object.type);
    tree_.insert(inode);
    inode->stat = object.stat;
    inode->target = object.target;
    if (inode->image) {
      // Its content is yet to come.
      std::lock_guard lock(inode->image->group.mutex);
      inode->image->group.inconsistent = true;
      inode->image->group.gate.store(Gate::kInconsistent);
    }
  } else if (!inode->image) {
    std::lock_guard guard(inode->attributes_lock);
    inode->stat = object.stat;
  }
  if (object.object == kRootObject) return {};
  auto parent = tree_.find(object.parent);
  if (parent)
    tree_.place(inode, *parent, object.name);
  else
    tree_.detach(*inode);
  return {};
}

// What the base did not list has no name at the source. Images go last of all: whoever has one open
// keeps it until its close.
Result<> Volume::Impl::finish_base_names(bool to_memory) {
  if (!to_memory) {
    base_names_ended_ = true;
    return {};
  }
  std::vector<std::pair<std::size_t, std::shared_ptr<Inode>>> extra;
  for (const auto& [id, inode] : tree_.objects()) {
    if (inode->local || id == kRootObject || base_names_.contains(id)) continue;
    std::size_t depth = 0;
    for (Inode* at = inode.get(); at->parent; at = at->parent) ++depth;
    extra.emplace_back(depth, inode);
  }
  std::sort(extra.begin(), extra.end(),
            [](const auto& a, const auto& b) { return a.first > b.first; });
  std::int64_t now = clock_.wall_ns();
  for (const auto& [depth, inode] : extra) {
    ObjectId parent = inode->parent ? inode->parent->id : ObjectId{};
    VMFS_TRY(store_->unlink({inode->id, parent, inode->name, now}));
    if (!inode->image) {
      tree_.erase(*inode);
      continue;
    }
    tree_.detach(*inode);
    inode->dropped.store(true);
    VMFS_TRY(delete_orphan(inode));
  }
  base_names_from_.reset();
  base_names_.clear();
  base_names_ended_ = false;
  return {};
}

}  // namespace vmfs
