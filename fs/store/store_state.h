// What is behind a Store: private to fs/store.
#pragma once

#include <mutex>
#include <set>
#include <shared_mutex>

#include "fs/store/file_cache.h"
#include "fs/store/object_tree.h"
#include "fs/store/store.h"

namespace vmfs {

inline constexpr const char* kImages = "images";
inline constexpr const char* kUnlinked = "unlinked";
inline constexpr const char* kIdTag = "id";
// Of a snapshot's file: the image of which it is a copy.
inline constexpr const char* kSourceTag = "source";
// Enough for every image of a large host at once; far below the usual limit of open files.
inline constexpr std::size_t kOpenFilesMax = 512;

struct Store::State {
  explicit State(Disk& d) : disk(d), files(kOpenFilesMax) {}

  // --- Call these with names_mutex held exclusively. ----------------------------------------------

  // Makes a file, directory or symlink with its id and attributes in unlinked/, and knows it.
  Result<> make(const Create& change);
  // Brings a known object to that name. It goes to unlinked/ instead if the directory is gone (which a
  // later record explains), and stays where it is if it would come to be inside itself (likewise).
  Result<> place(ObjectId object, ObjectId parent, const std::string& name);
  Result<> move(ObjectId object, ObjectId parent, const std::string& name);
  Result<> to_unlinked(ObjectId object);
  // As a record says that it does: a regular file goes to unlinked/, all else is removed.
  Result<> lose_name(ObjectId object);
  Result<> remove_directory_object(ObjectId directory);
  Result<> remove_object(ObjectId object);
  // Renames what is at `path` and none of ours to unlinked/foreign-*.
  Result<> move_aside(const std::string& path);
  // What changes of a directory's entries leave behind.
  Result<> touch(ObjectId directory, std::int64_t time_ns);
  Result<> redo_rename_by_path(const Rename& change);

  // --- load.cc: before the store is shared. ---------------------------------------------------------

  Result<> load();
  Result<> load_directory(const std::string& path, ObjectId directory);
  Result<> load_unlinked();
  // The object's id, or none if the entry is foreign.
  Result<std::optional<ObjectId>> read_id(const std::string& path);
  Result<> load_entry(const std::string& path, ObjectId object, ObjectId parent,
                      const std::string& name);

  // --- keep_copy.cc ---------------------------------------------------------------------------------

  Result<std::vector<StoredObject>> keep_copy(ObjectId object, const std::string& snapshot);
  // Names from the root to the copy, without the root.
  std::vector<std::string> snapshot_path(ObjectId object, const std::string& snapshot);
  // The directory at names[0..count) below the root, made if it is missing, then appended to `made`.
  Result<ObjectId> snapshot_directory(const std::vector<std::string>& names, std::size_t count,
                                      std::vector<StoredObject>& made);

  Disk& disk;
  FileCache files;

  // Readers look up paths and hold it while they use them; name-space changes hold it exclusively.
  mutable std::shared_mutex names_mutex;
  ObjectTree tree;                        // guarded by names_mutex
  std::set<ObjectId> changed_directories; // guarded by names_mutex: entries changed since the last
                                          // sync; kUnlinkedParent means unlinked/
  std::set<ObjectId> changed_objects;     // guarded by names_mutex: attributes or tags changed
  std::mutex sync_mutex;                  // one sync_names() at a time; taken before names_mutex

  std::vector<StoredObject> loaded;    // constant after open, until forget_loaded()
  std::vector<std::string> foreign;    // constant after open
};

// The value of tag "id".
Bytes encode_id(ObjectId object);
std::optional<ObjectId> decode_id(ByteView tag);

}  // namespace vmfs
