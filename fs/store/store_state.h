// What is behind a Store: private to fs/store.
#pragma once

#include <map>
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
// Where an object belongs that a redo had to take out of its directory for a while: see
// State::displaced. Empty or absent: where it is.
inline constexpr const char* kHomeTag = "home";
// Of a snapshot's file: the image of which it is a copy.
inline constexpr const char* kSourceTag = "source";
// Enough for every image of a large host at once; far below the usual limit of open files.
inline constexpr std::size_t kOpenFilesMax = 512;

struct Store::State {
  explicit State(Disk& d) : disk(d), files(kOpenFilesMax) {}

  // --- Call these with names_mutex held exclusively. ----------------------------------------------

  // A record names the object: whatever is to be done, the next sync covers it.
  void concerns(ObjectId object);
  // Makes a file, directory or symlink with its id and attributes in unlinked/, and knows it.
  Result<> make(const Create& change);
  // Brings a known object to that name. It goes to unlinked/ instead if the directory is gone (which a
  // later record explains).
  Result<> place(ObjectId object, ObjectId parent, const std::string& name);
  // Takes a directory between `directory` and `inside` out of the way, so that the one can be moved
  // into the other.
  Result<> break_cycle(ObjectId directory, ObjectId inside);
  // The object is where a record wants it, or gone.
  Result<> forget_home(ObjectId object);
  // At the end of a redo: what no record has moved since goes back.
  Result<> restore_displaced();
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
  struct Home {
    ObjectId parent{};
    std::string name;
  };
  // A redo on a store that is further may have to move a directory into one that is, by now, below it.
  // Then one of those between is where a later record put it, but nothing tells which: one is taken out,
  // and put back at the next sync_names() unless a record has said where it belongs. Also kept in tag
  // "home", for a redo that is cut short. Guarded by names_mutex.
  std::map<ObjectId, Home> displaced;
  std::mutex sync_mutex;                  // one sync_names() at a time; taken before names_mutex

  std::vector<StoredObject> loaded;    // constant after open, until forget_loaded()
  std::vector<std::string> foreign;    // constant after open
};

// The value of tag "home".
Bytes encode_home(const Store::State::Home& home);
std::optional<Store::State::Home> decode_home(ByteView tag);
// The value of tag "id".
Bytes encode_id(ObjectId object);
std::optional<ObjectId> decode_id(ByteView tag);

}  // namespace vmfs
