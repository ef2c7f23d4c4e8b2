// The name-space changes. See store.h for why they may be repeated.
#include <cerrno>

#include "fs/base/check.h"
#include "fs/base/log.h"
#include "fs/base/mistakes.h"
#include "fs/store/store_state.h"

namespace vmfs {

namespace {

// The objects that a volume has from its beginning are never named by a record.
Result<> refuse_fixed(ObjectId object) {
  if (raw(object) > raw(kSnapshotsDirectory)) return {};
  return fail(ErrorKind::kInvalid, EINVAL,
              fmt::format("a record names object {}, which no record may change", object));
}

}  // namespace

Result<> Store::create_object(const Create& change) {
  VMFS_TRY(refuse_fixed(change.object));
  std::unique_lock lock(state_->names_mutex);
  state_->concerns(change.object);
  if (!state_->tree.find(change.object)) VMFS_TRY(state_->make(change));
  VMFS_TRY(state_->place(change.object, change.parent, change.name));
  return state_->touch(change.parent, change.time_ns);
}

Result<> Store::unlink(const Unlink& change) {
  VMFS_TRY(refuse_fixed(change.object));
  std::unique_lock lock(state_->names_mutex);
  state_->concerns(change.object);
  VMFS_TRY(state_->lose_name(change.object));
  return state_->touch(change.parent, change.time_ns);
}

Result<> Store::rename(const Rename& change) {
  VMFS_TRY(refuse_fixed(change.object));
  std::unique_lock lock(state_->names_mutex);
  if (mistakes.rename_by_path) return state_->redo_rename_by_path(change);
  state_->concerns(change.object);
  if (raw(change.replaced) != 0) {
    VMFS_TRY(refuse_fixed(change.replaced));
    VMFS_TRY(state_->lose_name(change.replaced));
  }
  if (state_->tree.find(change.object))
    VMFS_TRY(state_->place(change.object, change.to_parent, change.to_name));
  VMFS_TRY(state_->touch(change.from_parent, change.time_ns));
  return state_->touch(change.to_parent, change.time_ns);
}

Result<> Store::delete_object(ObjectId object) {
  VMFS_TRY(refuse_fixed(object));
  std::unique_lock lock(state_->names_mutex);
  state_->concerns(object);
  if (!state_->tree.find(object)) return {};
  return state_->remove_object(object);
}

Result<> Store::place(ObjectId object, ObjectId parent, const std::string& name) {
  VMFS_TRY(refuse_fixed(object));
  std::unique_lock lock(state_->names_mutex);
  if (!state_->tree.find(object))
    return fail(ErrorKind::kNotFound, ENOENT, fmt::format("the store has no object {}", object));
  state_->concerns(object);
  state_->changed_directories.insert(parent);
  return state_->place(object, parent, name);
}

Result<> Store::set_attributes(ObjectId object, const FileAttributes& set) {
  // Exclusively: two changes of one object must come in the order of their records.
  std::unique_lock lock(state_->names_mutex);
  if (!state_->tree.find(object)) return {};
  VMFS_TRY(state_->disk.set_attributes(state_->tree.path(object), set, "store.set_attributes"));
  state_->changed_objects.insert(object);
  return {};
}

// What a redo finds done may have been done by a process that died before it synced it: the page cache has
// it, the disk need not. touch() says the same of the directories that a record names.
void Store::State::concerns(ObjectId object) {
  changed_objects.insert(object);
  changed_directories.insert(kUnlinkedParent);
}

Result<> Store::State::make(const Create& change) {
  const std::string path = fmt::format("{}/{}", kUnlinked, change.object);
  auto make_once = [&]() -> Result<> {
    switch (change.type) {
      case FileType::kDirectory:
        return disk.make_directory(path, "store.make");
      case FileType::kSymlink:
        return disk.make_symlink(path, change.target, "store.make");
      case FileType::kRegular: {
        auto file = disk.open(path, OpenMode::kCreate, "store.make");
        if (!file) return pass(file.error());
        return {};
      }
      default:
        return fail(ErrorKind::kInvalid, EINVAL,
                    fmt::format("object {} is of a type that no volume holds", change.object));
    }
  };
  Result<> made = make_once();
  if (!made && made.error().kind == ErrorKind::kExists) {
    VMFS_TRY(move_aside(path));
    made = make_once();
  }
  VMFS_TRY(std::move(made));
  FileAttributes attributes{.permissions = change.permissions,
                            .uid = change.uid,
                            .gid = change.gid,
                            .atime_ns = change.time_ns,
                            .mtime_ns = change.time_ns};
  if (change.type == FileType::kSymlink) attributes.permissions.reset();  // they have none
  auto finish = [&]() -> Result<> {
    VMFS_TRY(disk.set_attributes(path, attributes, "store.make"));
    return disk.set_tag(path, kIdTag, encode_id(change.object), "store.make");
  };
  if (Result<> finished = finish(); !finished) {
    // It has no id, so nobody would ever find it again. If it cannot be removed, the next open does.
    (void)(change.type == FileType::kDirectory ? disk.remove_directory(path, "store.make")
                                               : disk.remove(path, "store.make"));
    return finished;
  }
  tree.add(change.object, kUnlinkedParent, "", change.type);
  changed_objects.insert(change.object);
  changed_directories.insert(kUnlinkedParent);
  return {};
}

Result<> Store::State::place(ObjectId object, ObjectId parent, const std::string& name) {
  VMFS_TRY(forget_home(object));
  if (tree.child(parent, name) == object) return {};
  if (!tree.is_directory(parent)) return to_unlinked(object);
  if (tree.is_inside(parent, object)) VMFS_TRY(break_cycle(object, parent));
  if (ObjectId other = tree.child(parent, name); raw(other) != 0) VMFS_TRY(to_unlinked(other));
  return move(object, parent, name);
}

Result<> Store::State::move(ObjectId object, ObjectId parent, const std::string& name) {
  const std::string from = tree.path(object);
  const std::string to = parent == kUnlinkedParent ? fmt::format("{}/{}", kUnlinked, object)
                                                   : tree.path_in(parent, name);
  Result<> moved = disk.rename(from, to, /*replace=*/false, "store.rename");
  if (!moved && moved.error().kind == ErrorKind::kExists) {
    // None of ours has that name, so somebody else put it there.
    VMFS_TRY(move_aside(to));
    moved = disk.rename(from, to, /*replace=*/false, "store.rename");
  }
  VMFS_TRY(std::move(moved));
  changed_directories.insert(tree.find(object)->parent);
  changed_directories.insert(parent);
  tree.move(object, parent, name);
  return {};
}

Result<> Store::State::break_cycle(ObjectId directory, ObjectId inside) {
  if (inside == directory)
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("a record moves directory {} into itself", directory));
  while (tree.find(inside)->parent != directory) inside = tree.find(inside)->parent;
  const ObjectTree::Place& place = *tree.find(inside);
  Home home{place.parent, place.name};
  const std::string path = tree.path(inside);
  VMFS_TRY(disk.set_tag(path, kHomeTag, encode_home(home), "store.displace"));
  // Before it moves: a file system may keep the move and lose the tag, and nothing else tells where it was.
  VMFS_TRY(disk.sync_directory(path, "store.displace"));
  displaced[inside] = std::move(home);
  return to_unlinked(inside);
}

Result<> Store::State::forget_home(ObjectId object) {
  if (displaced.empty() || displaced.erase(object) == 0) return {};
  changed_objects.insert(object);
  return disk.set_tag(tree.path(object), kHomeTag, {}, "store.displace");
}

Result<> Store::State::restore_displaced() {
  while (!displaced.empty()) {
    const auto [object, home] = *displaced.begin();
    if (tree.find(object) && tree.is_directory(home.parent) &&
        !tree.is_inside(home.parent, object) && raw(tree.child(home.parent, home.name)) == 0)
      VMFS_TRY(move(object, home.parent, home.name));
    VMFS_TRY(forget_home(object));
  }
  return {};
}

Result<> Store::State::to_unlinked(ObjectId object) {
  if (tree.find(object)->parent == kUnlinkedParent) return {};
  return move(object, kUnlinkedParent, "");
}

Result<> Store::State::lose_name(ObjectId object) {
  const ObjectTree::Place* place = tree.find(object);
  if (!place) return {};
  VMFS_TRY(forget_home(object));
  return place->type == FileType::kRegular ? to_unlinked(object) : remove_object(object);
}

Result<> Store::State::remove_object(ObjectId object) {
  const ObjectTree::Place& place = *tree.find(object);
  if (place.type == FileType::kDirectory) return remove_directory_object(object);
  Result<> removed = disk.remove(tree.path(object), "store.remove");
  if (!removed && removed.error().kind != ErrorKind::kNotFound) return removed;
  files.forget(object);
  changed_directories.insert(place.parent);
  changed_objects.erase(object);
  tree.remove(object);
  return {};
}

Result<> Store::State::remove_directory_object(ObjectId directory) {
  const ObjectTree::Place& place = *tree.find(directory);
  // It was empty when the record was made: what is in it now came later or goes elsewhere later.
  while (!place.children.empty()) VMFS_TRY(to_unlinked(place.children.begin()->second));
  const std::string path = tree.path(directory);
  Result<> removed = disk.remove_directory(path, "store.remove");
  if (!removed && removed.error().kind == ErrorKind::kExists) {
    VMFS_TRY(move_aside(path));  // something foreign is in it
  } else if (!removed && removed.error().kind != ErrorKind::kNotFound) {
    return removed;
  }
  changed_directories.insert(place.parent);
  changed_directories.erase(directory);
  changed_objects.erase(directory);
  tree.remove(directory);
  return {};
}

Result<> Store::State::move_aside(const std::string& path) {
  std::string to = fmt::format("{}/foreign-{:016x}", kUnlinked, random_u64());
  VMFS_TRY(disk.rename(path, to, /*replace=*/false, "store.move_aside"));
  changed_directories.insert(kUnlinkedParent);
  log_warning("{} is not of this volume and stood in its way: moved to {}", disk.display(path),
              disk.display(to));
  return {};
}

Result<> Store::State::touch(ObjectId directory, std::int64_t time_ns) {
  if (!tree.is_directory(directory)) return {};
  VMFS_TRY(disk.set_attributes(tree.path(directory), {.mtime_ns = time_ns}, "store.touch"));
  changed_directories.insert(directory);
  return {};
}

Result<> Store::State::redo_rename_by_path(const Rename& change) {
  ObjectId object = tree.child(change.from_parent, change.from_name);
  if (raw(object) == 0 || tree.is_inside(change.to_parent, object)) return {};
  return place(object, change.to_parent, change.to_name);
}

}  // namespace vmfs
