// Where every object of a store is: the tree of names in memory. Pure data, no I/O.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fs/base/ids.h"
#include "fs/seam/disk.h"

namespace vmfs {

// The parent of what has no name: the directory unlinked/.
inline constexpr ObjectId kUnlinkedParent{0};

// Not thread-safe. The root directory is always there.
class ObjectTree {
 public:
  struct Place {
    ObjectId parent{};
    std::string name;  // empty in unlinked/
    FileType type{};
    std::map<std::string, ObjectId, std::less<>> children;  // of a directory
  };

  ObjectTree();
  // Null if there is no such object.
  const Place* find(ObjectId object) const;
  bool is_directory(ObjectId object) const;
  // 0 if nothing has that name.
  ObjectId child(ObjectId parent, std::string_view name) const;
  // Whether `object` is `ancestor` or somewhere below it.
  bool is_inside(ObjectId object, ObjectId ancestor) const;
  // Relative to STORE: "images/a/b", "unlinked/0123456789abcdef". The object must exist.
  std::string path(ObjectId object) const;
  // The path that `name` in the directory `parent` has or would have.
  std::string path_in(ObjectId parent, const std::string& name) const;

  // The name must be free, the parent a directory or kUnlinkedParent (then the name is ignored).
  void add(ObjectId object, ObjectId parent, const std::string& name, FileType type);
  // The same demands, and no directory may come to be inside itself.
  void move(ObjectId object, ObjectId parent, const std::string& name);
  // A directory must be empty.
  void remove(ObjectId object);

  std::size_t size() const { return places_.size(); }

 private:
  void take_name(ObjectId object);
  void give_name(ObjectId object, Place& place, ObjectId parent, const std::string& name);

  std::unordered_map<ObjectId, Place> places_;
};

}  // namespace vmfs
