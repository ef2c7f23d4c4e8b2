// Finding out what a store holds.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fs/base/digits.h"
#include "fs/base/log.h"
#include "fs/store/store_state.h"

namespace vmfs {

Bytes encode_id(ObjectId object) {
  Bytes bytes(sizeof object);
  std::memcpy(bytes.data(), &object, sizeof object);
  return bytes;
}

std::optional<ObjectId> decode_id(ByteView tag) {
  Reader in(tag);
  auto object = in.get<ObjectId>();
  if (!in.at_end() || raw(object) == 0 || raw(object) >> 63) return {};
  return object;
}

Bytes encode_home(const Store::State::Home& home) {
  Bytes bytes;
  bytes.reserve(sizeof home.parent + sizeof(std::uint32_t) + home.name.size());
  Writer(bytes).put(home.parent).text(home.name);
  return bytes;
}

std::optional<Store::State::Home> decode_home(ByteView tag) {
  Reader in(tag);
  Store::State::Home home;
  home.parent = in.get<ObjectId>();
  home.name = in.text(kNameMax);
  if (!in.at_end() || raw(home.parent) == 0 || raw(home.parent) >> 63 || why_invalid_name(home.name)) return {};
  return home;
}

namespace {

// A tag that is there and is none that we write. To pass it over would take an image for somebody else's
// file or, in unlinked/, for an unfinished one, and those are removed.
tl::unexpected<Error> damaged(const Disk& disk, const std::string& path, std::string_view tag, ByteView value) {
  constexpr std::size_t kShownMax = 32;
  std::string digits;
  for (std::byte each : value.first(std::min(value.size(), kShownMax)))
    digits += fmt::format("{:02x}", static_cast<unsigned>(each));
  const std::string shown = disk.display(path);
  return fail(ErrorKind::kCorrupt, EINVAL,
              fmt::format("{}: its extended attribute trusted.vmfs.{} is damaged ({} bytes: {}{}), so that what it is "
                          "in the volume cannot be told\nmove it out of the store and mount again; if it is wanted, "
                          "copy it in through the mount point then:\n  mv {} ELSEWHERE",
                          shown, tag, value.size(), digits, value.size() > kShownMax ? "..." : "", shown));
}

// unlinked/'s names are ids; nothing else there is ours.
bool is_id_name(const std::string& name) {
  std::uint64_t value = 0;
  return parse_digits(name, value, 16) && fmt::format("{}", ObjectId{value}) == name;
}

}  // namespace

Result<> Store::State::load() {
  auto id = read_id(kImages);
  if (!id && id.error().kind != ErrorKind::kNotFound) return pass(id.error());
  if (!id || *id != kRootObject)
    return fail(ErrorKind::kRefused, EINVAL,
                fmt::format("{} is no store of vmfs: {} {}. `vmfs init` makes one.",
                            disk.display(""), disk.display(kImages),
                            id ? "does not carry the root's id" : "is missing"));
  VMFS_ASSIGN(FileStat stat, disk.stat(kImages, "store.load"));
  loaded.push_back({.object = kRootObject, .parent = {}, .name = "", .stat = stat, .target = ""});
  VMFS_TRY(load_directory(kImages, kRootObject));
  return load_unlinked();
}

Result<> Store::State::load_directory(const std::string& path, ObjectId directory) {
  VMFS_ASSIGN(std::vector<DirectoryEntry> entries, disk.list(path, "store.load"));
  for (const DirectoryEntry& entry : entries) {
    const std::string entry_path = path + "/" + entry.name;
    VMFS_ASSIGN(std::optional<ObjectId> object, read_id(entry_path));
    if (!object || entry.type == FileType::kOther) {
      foreign.push_back(entry_path);
      continue;
    }
    VMFS_TRY(load_entry(entry_path, *object, directory, entry.name));
  }
  return {};
}

Result<> Store::State::load_unlinked() {
  VMFS_ASSIGN(std::vector<DirectoryEntry> entries, disk.list(kUnlinked, "store.load"));
  for (const DirectoryEntry& entry : entries) {
    const std::string path = fmt::format("{}/{}", kUnlinked, entry.name);
    if (!is_id_name(entry.name)) {
      foreign.push_back(path);
      continue;
    }
    VMFS_ASSIGN(std::optional<ObjectId> object, read_id(path));
    if (object) {
      if (disk.get_tag(path, kSourceTag, "store.load")) {
        // A copy that was to be kept, cut off before it had its name under .snapshots: it is made again.
        VMFS_TRY(disk.remove(path, "store.load"));
        changed_directories.insert(kUnlinkedParent);
        continue;
      }
      if (entry.type != FileType::kRegular && tree.find(*object) && fmt::format("{}", *object) == entry.name) {
        // A redo had made it again, and the power went before its removal elsewhere was on the disk: one does.
        VMFS_TRY(entry.type == FileType::kDirectory ? disk.remove_directory(path, "store.load")
                                                    : disk.remove(path, "store.load"));
        changed_directories.insert(kUnlinkedParent);
        continue;
      }
      // Its name is its id. What the tag says instead would be looked for where nothing is.
      if (fmt::format("{}", *object) != entry.name) return damaged(disk, path, kIdTag, encode_id(*object));
      VMFS_TRY(load_entry(path, *object, kUnlinkedParent, ""));
      if (auto tag = disk.get_tag(path, kHomeTag, "store.load")) {
        auto home = decode_home(*tag);
        if (!home && !tag->empty()) return damaged(disk, path, kHomeTag, *tag);
        if (home) displaced[*object] = std::move(*home);
      } else if (tag.error().kind != ErrorKind::kNotFound) {
        return pass(tag.error());
      }
      continue;
    }
    // A creation or a copy that was cut short: whatever it was to become is in the journal, or was
    // never promised.
    VMFS_TRY(entry.type == FileType::kDirectory ? disk.remove_directory(path, "store.load")
                                                : disk.remove(path, "store.load"));
    changed_directories.insert(kUnlinkedParent);
  }
  return {};
}

Result<std::optional<ObjectId>> Store::State::read_id(const std::string& path) {
  auto tag = disk.get_tag(path, kIdTag, "store.load");
  if (tag) {
    auto object = decode_id(*tag);
    if (!object) return damaged(disk, path, kIdTag, *tag);
    return object;
  }
  // The same kind says that the file has no tag and that there is no file.
  if (tag.error().kind != ErrorKind::kNotFound || tag.error().number == ENOENT)
    return pass(tag.error());
  return std::nullopt;
}

Result<> Store::State::load_entry(const std::string& path, ObjectId object, ObjectId parent,
                                  const std::string& name) {
  if (object == kRootObject || tree.find(object))
    return fail(
        ErrorKind::kRefused, EINVAL,
        fmt::format("{} and {} carry the same object id {}: one of them is a copy that was made with "
                    "its extended attributes. Take the id off the copy, then mount again:\n"
                    "  setfattr -x trusted.vmfs.{} PATH",
                    disk.display(tree.path(object)), disk.display(path), object, kIdTag));
  VMFS_ASSIGN(FileStat stat, disk.stat(path, "store.load"));
  tree.add(object, parent, name, stat.type);
  StoredObject found{
      .object = object, .parent = parent, .name = name, .stat = stat, .target = ""};
  if (stat.type == FileType::kSymlink) {
    VMFS_ASSIGN(found.target, disk.read_symlink(path, "store.load"));
  }
  loaded.push_back(std::move(found));
  return stat.type == FileType::kDirectory ? load_directory(path, object) : Result<>();
}

}  // namespace vmfs
