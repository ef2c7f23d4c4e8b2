#include "fs/store/store.h"

#include <cerrno>

#include "fs/base/check.h"
#include "fs/store/store_state.h"

namespace vmfs {

Store::Store(std::unique_ptr<State> state) : state_(std::move(state)) {}
Store::~Store() = default;

Result<> Store::create(Disk& disk) {
  VMFS_TRY(disk.make_directory(kUnlinked, "store.create"));
  VMFS_TRY(disk.make_directory(kImages, "store.create"));
  VMFS_TRY(disk.set_attributes(kImages, {.permissions = 0755}, "store.create"));
  VMFS_TRY(disk.set_tag(kImages, kIdTag, encode_id(kRootObject), "store.create"));
  VMFS_TRY(disk.sync_directory(kImages, "store.create"));
  VMFS_TRY(disk.sync_directory(kUnlinked, "store.create"));
  return disk.sync_directory("", "store.create");
}

Result<std::unique_ptr<Store>> Store::open(Disk& disk) {
  auto state = std::make_unique<State>(disk);
  VMFS_TRY(state->load());
  return std::unique_ptr<Store>(new Store(std::move(state)));
}

const std::vector<StoredObject>& Store::loaded() const { return state_->loaded; }

void Store::forget_loaded() { std::vector<StoredObject>().swap(state_->loaded); }

const std::vector<std::string>& Store::foreign() const { return state_->foreign; }

bool Store::exists(ObjectId object) const {
  std::shared_lock lock(state_->names_mutex);
  return state_->tree.find(object) != nullptr;
}

std::optional<std::string> Store::path_of(ObjectId object) const {
  std::shared_lock lock(state_->names_mutex);
  if (!state_->tree.find(object)) return {};
  return state_->tree.path(object);
}

Result<std::shared_ptr<File>> Store::file(ObjectId object) {
  if (auto file = state_->files.find(object)) return file;
  // Held until the file is in the cache, so that delete_object() cannot come in between and leave a
  // deleted file there.
  std::shared_lock lock(state_->names_mutex);
  const ObjectTree::Place* place = state_->tree.find(object);
  if (!place)
    return fail(ErrorKind::kNotFound, ENOENT, fmt::format("the store has no object {}", object));
  std::string path = state_->tree.path(object);
  if (place->type != FileType::kRegular)
    return fail(ErrorKind::kInvalid, place->type == FileType::kDirectory ? EISDIR : EINVAL,
                fmt::format("{} is no image", state_->disk.display(path)));
  VMFS_ASSIGN(std::unique_ptr<File> file,
              state_->disk.open(path, OpenMode::kReadWrite, "store.open_image"));
  return state_->files.insert(object, std::move(file));
}

Result<> Store::sync_names() {
  std::lock_guard one_at_a_time(state_->sync_mutex);
  std::set<ObjectId> directories, objects;
  {
    std::unique_lock lock(state_->names_mutex);
    VMFS_TRY(state_->restore_displaced());
    directories.swap(state_->changed_directories);
    objects.swap(state_->changed_objects);
  }
  auto sync_all = [&]() -> Result<> {
    // Shared: paths stay what they are, and images can still be opened meanwhile.
    std::shared_lock lock(state_->names_mutex);
    const ObjectTree& tree = state_->tree;
    // Ids before names.
    for (ObjectId object : objects) {
      const ObjectTree::Place* place = tree.find(object);
      if (!place) continue;  // deleted since
      if (place->type == FileType::kDirectory) {
        directories.insert(object);
      } else if (place->type == FileType::kSymlink) {
        directories.insert(place->parent);  // a symlink cannot be synced by itself
      } else {
        VMFS_ASSIGN(std::unique_ptr<File> file,
                    state_->disk.open(tree.path(object), OpenMode::kRead, "store.sync_attributes"));
        VMFS_TRY(file->sync("store.sync_attributes"));
      }
    }
    for (ObjectId directory : directories) {
      if (directory == kUnlinkedParent) continue;
      if (!tree.find(directory)) continue;
      VMFS_TRY(state_->disk.sync_directory(tree.path(directory), "store.sync_names"));
    }
    // Last: what left it is safe at its new place by now.
    if (directories.contains(kUnlinkedParent))
      VMFS_TRY(state_->disk.sync_directory(kUnlinked, "store.sync_names"));
    return {};
  };
  Result<> result = sync_all();
  if (!result) {
    // Nothing of it counts as durable: after a redo, the next call syncs all of it again.
    std::unique_lock lock(state_->names_mutex);
    state_->changed_directories.merge(directories);
    state_->changed_objects.merge(objects);
  }
  return result;
}

Result<DiskSpace> Store::space() { return state_->disk.space("store.space"); }

Result<std::vector<StoredObject>> Store::keep_copy(ObjectId object, const std::string& snapshot) {
  return state_->keep_copy(object, snapshot);
}

}  // namespace vmfs
