// The name space as the front asks for it: checks, POSIX errors, and what each change records.
#include <mutex>

#include "fs/volume/impl.h"

namespace vmfs {

namespace {

constexpr std::uint32_t kSetGroupId = 02000;
constexpr std::uint64_t kNameCost = 4096;  // an inode or a directory block

Result<> check_name(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos ||
      name.find('\0') != name.npos)
    return fail(ErrorKind::kInvalid, EINVAL);
  if (name.size() > kNameMax) return fail(ErrorKind::kInvalid, ENAMETOOLONG);
  return {};
}

Attributes attributes_of(Inode& inode) { return {inode.id, inode.attributes()}; }

}  // namespace

// With what the image takes up now: in the store, and what will go there, which may replace what is
// there already. (Never 0 for an image that has data: some programs take that for one large hole.)
Attributes Volume::Impl::attributes_now(Inode& inode) {
  Attributes attributes = attributes_of(inode);
  if (!inode.image) return attributes;
  constexpr std::uint64_t kUnit = 4096;
  std::uint64_t stored = 0;
  if (auto file = store_->file(inode.id))
    if (auto stat = (*file)->stat("store.stat")) stored = stat->allocated;
  const auto rounded = [](std::uint64_t bytes) { return (bytes + kUnit - 1) / kUnit * kUnit; };
  attributes.stat.allocated =
      std::max(stored, std::min(stored + rounded(inode.image->index.bytes()), rounded(attributes.stat.size)));
  return attributes;
}

std::shared_ptr<Inode> Volume::Impl::find(ObjectId object) const {
  std::shared_lock lock(names_mutex_);
  return tree_.find(object);
}

std::shared_ptr<Inode> Volume::Impl::find_image(ObjectId object) const {
  auto inode = find(object);
  return inode && inode->image ? inode : nullptr;
}

Result<std::shared_ptr<Inode>> Volume::Impl::directory(ObjectId object) const {
  auto inode = tree_.find(object);
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT);
  if (!inode->is_directory()) return fail(ErrorKind::kInvalid, ENOTDIR);
  return inode;
}

Result<std::shared_ptr<Inode>> Volume::Impl::changeable_directory(ObjectId object,
                                                                  std::string_view name) const {
  VMFS_TRY(check_name(name));
  VMFS_ASSIGN(auto inode, directory(object));
  if (inode->local || (object == kRootObject && name == kSnapshotsName))
    return fail(ErrorKind::kReadOnly, EROFS);
  return inode;
}

Result<Attributes> Volume::lookup(ObjectId parent, std::string_view name) {
  std::shared_ptr<Inode> inode;
  {
    std::shared_lock lock(impl_->names_mutex_);
    VMFS_ASSIGN(auto directory, impl_->directory(parent));
    if (name.size() > kNameMax) return fail(ErrorKind::kInvalid, ENAMETOOLONG);
    inode = impl_->tree_.child(*directory, name);
  }
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT);
  return impl_->attributes_now(*inode);
}

Result<Attributes> Volume::attributes(ObjectId object) {
  auto inode = impl_->find(object);
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT);
  return impl_->attributes_now(*inode);
}

Result<Attributes> Volume::resolve(std::string_view path) {
  std::shared_lock lock(impl_->names_mutex_);
  auto inode = impl_->tree_.root();
  while (!path.empty()) {
    std::string_view name = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(path.size(), name.size() + 1));
    if (name.empty() || name == ".") continue;
    if (!inode->is_directory()) return fail(ErrorKind::kInvalid, ENOTDIR);
    inode = impl_->tree_.child(*inode, name);
    if (!inode) return fail(ErrorKind::kNotFound, ENOENT);
  }
  return attributes_of(*inode);
}

std::string Volume::path_of(ObjectId object) {
  std::shared_lock lock(impl_->names_mutex_);
  auto inode = impl_->tree_.find(object);
  return inode ? impl_->tree_.path_of(*inode) : fmt::format("unlinked {}", object);
}

Result<std::string> Volume::read_symlink(ObjectId object) {
  std::shared_lock lock(impl_->names_mutex_);
  auto inode = impl_->tree_.find(object);
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT);
  if (inode->type != FileType::kSymlink) return fail(ErrorKind::kInvalid, EINVAL);
  return inode->target;
}

Result<std::vector<ListedEntry>> Volume::list(ObjectId object) {
  std::shared_lock lock(impl_->names_mutex_);
  VMFS_ASSIGN(auto directory, impl_->directory(object));
  std::vector<ListedEntry> entries;
  entries.reserve(directory->children.size());
  for (const auto& [name, inode] : directory->children)
    entries.push_back({name, inode->id, inode->type});
  return entries;
}

Result<DiskSpace> Volume::space() {
  VMFS_ASSIGN(DiskSpace space, impl_->store_->space());
  std::lock_guard lock(impl_->admission_mutex_);
  space.available -= std::min(space.available, impl_->set_aside(space));
  return space;
}

// --- Creating ------------------------------------------------------------------------------------

Result<Attributes> Volume::Impl::create_named(const Caller& caller, ObjectId parent,
                                              std::string_view name, Create change) {
  if (auto answer = answer_to(caller)) {
    auto inode = find(answer->object);
    if (!inode) return fail(ErrorKind::kNotFound, ENOENT);
    return attributes_now(*inode);
  }
  VMFS_ASSIGN(auto lock, lock_names());
  VMFS_ASSIGN(auto directory, changeable_directory(parent, name));
  if (tree_.child(*directory, name)) return fail(ErrorKind::kExists, EEXIST);
  VMFS_TRY(enter_names(kNameCost));

  change.object = new_object_id();
  change.parent = parent;
  change.name = std::string(name);
  change.uid = caller.uid;
  change.gid = caller.gid;
  change.time_ns = clock_.wall_ns();
  FileStat above = directory->attributes();
  if (above.permissions & kSetGroupId) {
    // As on every Linux file system: the group is the directory's, and a directory passes that on.
    change.gid = above.gid;
    if (change.type == FileType::kDirectory) change.permissions |= kSetGroupId;
  }
  change.creator = node_;
  if (change.type == FileType::kRegular) change.first_epoch = new_epoch_id();
  NameRecord record{RecordType::kCreate, encode(change), caller.request};
  VMFS_TRY(change_names({&record, 1}));
  remember_creation(caller.request, change.object);
  auto inode = tree_.find(change.object);
  CHECK_INVARIANT(inode != nullptr, "{} was created", change.object);
  return attributes_of(*inode);
}

Result<Attributes> Volume::create(const Caller& caller, ObjectId parent, std::string_view name,
                                  std::uint32_t permissions) {
  Create change;
  change.type = FileType::kRegular;
  change.permissions = permissions & 07777;
  return impl_->create_named(caller, parent, name, std::move(change));
}

Result<Attributes> Volume::make_directory(const Caller& caller, ObjectId parent,
                                          std::string_view name, std::uint32_t permissions) {
  Create change;
  change.type = FileType::kDirectory;
  change.permissions = permissions & 07777;
  return impl_->create_named(caller, parent, name, std::move(change));
}

Result<Attributes> Volume::make_symlink(const Caller& caller, ObjectId parent,
                                        std::string_view name, std::string_view target) {
  if (target.empty()) return fail(ErrorKind::kNotFound, ENOENT);
  if (target.size() > kSymlinkStoreMax) return fail(ErrorKind::kInvalid, ENAMETOOLONG);
  Create change;
  change.type = FileType::kSymlink;
  change.permissions = 0777;
  change.target = std::string(target);
  return impl_->create_named(caller, parent, name, std::move(change));
}

// --- Removing and renaming -------------------------------------------------------------------------

Result<> Volume::Impl::remove_named(const Caller& caller, ObjectId parent, std::string_view name,
                                    bool directory) {
  if (answer_to(caller)) return {};
  VMFS_ASSIGN(auto lock, lock_names());
  VMFS_ASSIGN(auto above, changeable_directory(parent, name));
  auto inode = tree_.child(*above, name);
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT);
  if (directory && !inode->is_directory()) return fail(ErrorKind::kInvalid, ENOTDIR);
  if (!directory && inode->is_directory()) return fail(ErrorKind::kInvalid, EISDIR);
  if (directory && !inode->children.empty()) return fail(ErrorKind::kInvalid, ENOTEMPTY);

  // Exclusively: no record of the image comes between what its removal says of it and the removal.
  std::unique_lock<ImageLock> image_lock;
  if (inode->image) {
    VMFS_ASSIGN(image_lock, enter_to_remove(*inode->image));
  }
  VMFS_TRY(enter_names(0));
  FinalHistory had;
  if (inode->image) had = final_history(inode->image->group);
  Unlink change{inode->id, parent, std::string(name), clock_.wall_ns(), had};
  std::vector<NameRecord> records;
  records.push_back({RecordType::kUnlink, encode(change), caller.request});
  bool delete_now = false;
  if (inode->image) {
    std::lock_guard open_lock(inode->image->open_mutex);
    delete_now = inode->image->opens == 0;
  }
  // Nobody can open it in between: that takes names_mutex_.
  if (delete_now)
    records.push_back({RecordType::kDeleteObject, encode(DeleteObject{inode->id, std::move(had)}), {}});
  return change_names(records);
}

Result<> Volume::unlink(const Caller& caller, ObjectId parent, std::string_view name) {
  return impl_->remove_named(caller, parent, name, false);
}

Result<> Volume::remove_directory(const Caller& caller, ObjectId parent, std::string_view name) {
  return impl_->remove_named(caller, parent, name, true);
}

Result<> Volume::rename(const Caller& caller, ObjectId from_parent, std::string_view from_name,
                        ObjectId to_parent, std::string_view to_name, bool no_replace) {
  Impl& v = *impl_;
  if (v.answer_to(caller)) return {};
  VMFS_ASSIGN(auto lock, v.lock_names());
  VMFS_ASSIGN(auto from, v.changeable_directory(from_parent, from_name));
  VMFS_ASSIGN(auto to, v.changeable_directory(to_parent, to_name));
  auto inode = v.tree_.child(*from, from_name);
  if (!inode) return fail(ErrorKind::kNotFound, ENOENT);
  auto replaced = v.tree_.child(*to, to_name);
  if (replaced && no_replace) return fail(ErrorKind::kExists, EEXIST);
  if (replaced == inode) return {};
  if (v.tree_.is_within(*to, *inode)) return fail(ErrorKind::kInvalid, EINVAL);
  if (replaced && inode->is_directory() && !replaced->is_directory())
    return fail(ErrorKind::kInvalid, ENOTDIR);
  if (replaced && !inode->is_directory() && replaced->is_directory())
    return fail(ErrorKind::kInvalid, EISDIR);
  if (replaced && !replaced->children.empty()) return fail(ErrorKind::kInvalid, ENOTEMPTY);

  bool delete_now = false;
  std::unique_lock<ImageLock> image_lock;
  if (replaced && replaced->image) {
    // A name taken from an image needs its token, as unlink does.
    VMFS_ASSIGN(image_lock, v.enter_to_remove(*replaced->image));
    std::lock_guard open_lock(replaced->image->open_mutex);
    delete_now = replaced->image->opens == 0;
  }
  VMFS_TRY(v.enter_names(0));
  FinalHistory had;
  if (replaced && replaced->image) had = v.final_history(replaced->image->group);
  Rename change{inode->id,           from_parent, std::string(from_name),
                to_parent,           std::string(to_name),
                replaced ? replaced->id : ObjectId{}, v.clock_.wall_ns(), had};
  std::vector<Impl::NameRecord> records;
  records.push_back({RecordType::kRename, encode(change), caller.request});
  if (delete_now)
    records.push_back({RecordType::kDeleteObject, encode(DeleteObject{replaced->id, std::move(had)}), {}});
  return v.change_names(records);
}

}  // namespace vmfs
