// Copies of images that stay as they are: STORE/images/.snapshots.
#include <cerrno>

#include "fs/store/store_state.h"

namespace vmfs {

namespace {

// Enough to keep a disk streaming; allocated once a copy.
constexpr std::size_t kCopyBuffer = 1u << 20;

// Everything of `from` that is not a hole.
Result<> copy_data(File& from, File& to, std::uint64_t size) {
  Bytes buffer(kCopyBuffer);
  std::uint64_t offset = 0;
  while (offset < size) {
    VMFS_ASSIGN(std::optional<std::uint64_t> data, from.seek_data(offset, "store.copy"));
    if (!data || *data >= size) break;
    VMFS_ASSIGN(std::optional<std::uint64_t> hole, from.seek_hole(*data, "store.copy"));
    const std::uint64_t end = std::min(hole.value_or(size), size);
    for (offset = *data; offset < end;) {
      const std::size_t length =
          static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), end - offset));
      VMFS_ASSIGN(std::size_t got,
                  from.read(std::span(buffer).first(length), offset, "store.copy"));
      if (got == 0)
        return fail(ErrorKind::kIo, EIO,
                    fmt::format("an image ended at {} while it was copied; it had {} bytes", offset,
                                size));
      VMFS_TRY(to.write(ByteView(buffer).first(got), offset, "store.copy"));
      offset += got;
    }
  }
  return to.truncate(size, "store.copy");
}

Result<> copy_content(File& from, File& to, std::uint64_t size) {
  Result<> cloned = to.clone_from(from, "store.clone");
  if (cloned || cloned.error().kind != ErrorKind::kUnsupported) return cloned;
  return copy_data(from, to, size);
}

}  // namespace

Result<std::vector<StoredObject>> Store::State::keep_copy(ObjectId object,
                                                          const std::string& snapshot) {
  if (snapshot.empty() || snapshot == "." || snapshot == ".." || snapshot.size() > kNameMax ||
      snapshot.find('/') != snapshot.npos)
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("\"{}\" cannot be a snapshot's name", snapshot));
  std::unique_ptr<File> source;
  FileStat stat;
  std::vector<std::string> names;
  {
    std::unique_lock lock(names_mutex);
    const ObjectTree::Place* place = tree.find(object);
    if (!place)
      return fail(ErrorKind::kNotFound, ENOENT, fmt::format("the store has no object {}", object));
    if (place->type != FileType::kRegular)
      return fail(ErrorKind::kInvalid, EINVAL,
                  fmt::format("{} is no image", disk.display(tree.path(object))));
    names = snapshot_path(object, snapshot);
    if (names.empty()) return std::vector<StoredObject>{};
    VMFS_ASSIGN(source, disk.open(tree.path(object), OpenMode::kRead, "store.copy"));
    VMFS_ASSIGN(stat, source->stat("store.copy"));
  }

  // The long part, without any lock. A crash leaves a file without an id, which the next open removes.
  StoredObject copy{.object = new_object_id(), .parent = {}, .name = names.back(), .stat = stat,
                    .target = ""};
  copy.stat.permissions &= ~0222u;
  const std::string path = fmt::format("{}/{}", kUnlinked, copy.object);
  auto fill = [&]() -> Result<> {
    VMFS_ASSIGN(std::unique_ptr<File> file, disk.open(path, OpenMode::kCreate, "store.copy"));
    VMFS_TRY(copy_content(*source, *file, stat.size));
    VMFS_TRY(disk.set_attributes(path,
                                 {.permissions = copy.stat.permissions,
                                  .uid = stat.uid,
                                  .gid = stat.gid,
                                  .atime_ns = stat.atime_ns,
                                  .mtime_ns = stat.mtime_ns},
                                 "store.copy"));
    VMFS_TRY(disk.set_tag(path, kSourceTag, encode_id(object), "store.copy"));
    VMFS_TRY(file->sync("store.copy"));
    // Only now is it a copy.
    VMFS_TRY(disk.set_tag(path, kIdTag, encode_id(copy.object), "store.copy"));
    return file->sync("store.copy");
  };
  if (Result<> filled = fill(); !filled) {
    (void)disk.remove(path, "store.copy");  // if it cannot be removed, the next open does
    return pass(filled.error());
  }

  std::vector<StoredObject> made;
  auto give_name = [&]() -> Result<> {
    VMFS_ASSIGN(copy.parent, snapshot_directory(names, names.size() - 1, made));
    return move(copy.object, copy.parent, copy.name);
  };
  {
    std::unique_lock lock(names_mutex);
    tree.add(copy.object, kUnlinkedParent, "", FileType::kRegular);
    changed_objects.insert(copy.object);
    changed_directories.insert(kUnlinkedParent);
    if (Result<> named = give_name(); !named) {
      tree.remove(copy.object);
      changed_objects.erase(copy.object);
      (void)disk.remove(path, "store.copy");
      return pass(named.error());
    }
  }
  made.push_back(std::move(copy));
  return made;
}

std::vector<std::string> Store::State::snapshot_path(ObjectId object,
                                                     const std::string& snapshot) {
  std::vector<std::string> names;
  for (ObjectId at = object; at != kRootObject;) {
    const ObjectTree::Place& place = *tree.find(at);
    if (place.parent == kUnlinkedParent) {
      names.insert(names.begin(), fmt::format("unlinked-{}", at));
      break;
    }
    names.insert(names.begin(), place.name);
    at = place.parent;
  }
  names.insert(names.begin(), {kSnapshotsName, snapshot});
  // Another image may have had that path, or a part of it, when the snapshot began.
  ObjectId directory = kRootObject;
  for (std::size_t i = 0; i + 1 < names.size() && raw(directory) != 0; ++i) {
    directory = tree.child(directory, names[i]);
    if (raw(directory) != 0 && !tree.is_directory(directory)) {
      names.resize(2);
      names.push_back(fmt::format("image-{}", object));
    }
  }
  for (;;) {
    ObjectId at = kRootObject;
    for (const std::string& name : names) at = tree.child(at, name);
    if (raw(at) == 0) return names;
    auto source = disk.get_tag(tree.path(at), kSourceTag, "store.copy");
    if (source && decode_id(*source) == object) {
      // By a process that may have died before it was durable.
      for (concerns(at); at != kRootObject; at = tree.find(at)->parent)
        changed_directories.insert(tree.find(at)->parent);
      return {};
    }
    names.back() += fmt::format(".{}", object);
    if (names.back().size() > kNameMax) names.back() = fmt::format("image-{}", object);
  }
}

Result<ObjectId> Store::State::snapshot_directory(const std::vector<std::string>& names,
                                                  std::size_t count,
                                                  std::vector<StoredObject>& made) {
  ObjectId parent = kRootObject;
  for (std::size_t i = 0; i < count; ++i) {
    if (ObjectId child = tree.child(parent, names[i]); tree.is_directory(child)) {
      // An attempt that failed may have made it, and told nobody.
      VMFS_ASSIGN(FileStat stat, disk.stat(tree.path(child), "store.copy"));
      made.push_back({.object = child, .parent = parent, .name = names[i], .stat = stat, .target = ""});
      parent = child;
      continue;
    }
    Create change{.object = i == 0 ? kSnapshotsDirectory : new_object_id(),
                  .parent = parent,
                  .name = names[i],
                  .type = FileType::kDirectory,
                  .permissions = 0755};
    VMFS_ASSIGN(FileStat stat, disk.stat(tree.path(parent), "store.copy"));
    change.uid = stat.uid;
    change.gid = stat.gid;
    change.time_ns = stat.mtime_ns;
    if (!tree.find(change.object)) VMFS_TRY(make(change));
    VMFS_TRY(place(change.object, parent, names[i]));
    VMFS_ASSIGN(FileStat made_stat, disk.stat(tree.path(change.object), "store.copy"));
    made.push_back({.object = change.object, .parent = parent, .name = names[i], .stat = made_stat,
                    .target = ""});
    parent = change.object;
  }
  return parent;
}

}  // namespace vmfs
