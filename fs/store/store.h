// The store: images as plain sparse files under STORE/images, in the tree that the mount shows.
//
//   STORE/images/...          the tree; every entry carries its object id (tag "id")
//   STORE/images/.snapshots/  copies that keep_copy() made; see kSnapshotsDirectory
//   STORE/unlinked/<id>       images that lost their name while somebody has them open
//   STORE/unlinked/foreign-*  what somebody else had put where a name of the volume belongs
//   STORE/state               the last checkpoint (see state.h)
//
// The name-space calls below are redo: given an object id and the result that a record names, each
// checks what is there first, does what is missing, and may be repeated from any earlier record of
// the same journal on a store that is already further. What stands in the way of a name is moved to
// unlinked/, never deleted. None is durable before sync_names().
//
// Why that works: each call brings the objects that it names to where the record leaves them, wherever
// they are. So after record j of a redo that began at record i, every object that records i..j name is
// where the volume had it at j (or waits in unlinked/ because its directory, or itself, is moved or
// removed later), and every other object is where it stays to the end.
//
// A new file is made in unlinked/, gets its id there, and is then renamed to its place, so that no
// file of ours ever stands in the tree without its id.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "fs/seam/disk.h"
#include "fs/journal/changes.h"

namespace vmfs {

// STORE/images/.snapshots. It and what is below it belong to this node alone: nothing there is
// replicated, counted in base copies or compared with a peer. The mount shows it read-only, and the
// volume refuses to create, replace or remove that name. Its objects have ids like all others, so that
// they can be looked up and opened; the ids below it are random and differ between nodes.
inline constexpr ObjectId kSnapshotsDirectory{2};
inline constexpr const char* kSnapshotsName = ".snapshots";

// What open() finds and keep_copy() makes.
struct StoredObject {
  ObjectId object{};
  ObjectId parent{};  // 0: in unlinked/
  std::string name;
  FileStat stat;
  std::string target;  // of a symlink
};

// Thread-safe.
class Store {
 public:
  // Makes the directories of an empty store. Durable on return.
  static Result<> create(Disk& disk);
  // Scans the tree: O(number of files), metadata only. An entry without an id was put there by
  // somebody else while the volume was not mounted: reported by foreign(), and left alone. kRefused if
  // it is no store, or if two entries carry one id (one is a copy that somebody made with its tags).
  // kCorrupt if a tag is none that a store writes.
  // Removes unfinished files from unlinked/ (a creation or copy that was cut short).
  static Result<std::unique_ptr<Store>> open(Disk& disk);
  ~Store();

  // What was found, parents before children, the root first. After a redo: sync_names(), then open again
  // and build the name space from that. (Replaying records over the first scan's result would not do: a
  // store that is further may hold a directory inside one that a record moves into it.)
  const std::vector<StoredObject>& loaded() const;
  void forget_loaded();
  const std::vector<std::string>& foreign() const;

  // Times of directories follow the records: a change of its entries sets its mtime to time_ns.
  Result<> create_object(const Create& change);
  Result<> unlink(const Unlink& change);
  Result<> rename(const Rename& change);
  Result<> delete_object(ObjectId object);  // nothing to do if it is gone
  // Puts `object`, which must exist, under that name, wherever it is now. For base copies.
  Result<> place(ObjectId object, ObjectId parent, const std::string& name);
  // Nothing to do if the object is gone: a later record deletes it.
  Result<> set_attributes(ObjectId object, const FileAttributes& set);
  bool exists(ObjectId object) const;
  // Where it is now, relative to STORE ("images/a/b"); for messages and tools.
  std::optional<std::string> path_of(ObjectId object) const;

  // The image's file, open for reading and writing; kept open in a bounded cache. kNotFound if the
  // object is gone. The File stays usable after a rename or unlink.
  Result<std::shared_ptr<File>> file(ObjectId object);

  // Makes every name-space change so far durable, attributes included. Ends a redo as well: what that had
  // to take out of the way, and no record has placed, goes back.
  Result<> sync_names();
  Result<DiskSpace> space();

  // A read-only copy of the image as the store has it now, at STORE/images/.snapshots/NAME/<its path>
  // (an unlinked image: .snapshots/NAME/unlinked-<id>); shares extents where the file system can, else
  // copies the data. Durable after the next sync_names(). If the image has been copied to that snapshot
  // already, nothing is done. Returns the objects that came to be, parents before children, for the name space.
  // Nobody may write to the image's file meanwhile.
  Result<std::vector<StoredObject>> keep_copy(ObjectId object, const std::string& snapshot);

  struct State;

 private:
  explicit Store(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace vmfs
