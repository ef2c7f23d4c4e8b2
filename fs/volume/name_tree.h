// The name space in memory: every object, by id and by name. Knows no journal and no locks.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "fs/volume/object.h"

namespace vmfs {

class NameTree {
 public:
  void insert(std::shared_ptr<Inode> inode) { objects_[inode->id] = std::move(inode); }
  const std::shared_ptr<Inode>& root() const { return root_; }
  void set_root(std::shared_ptr<Inode> root);
  // Null if there is none.
  std::shared_ptr<Inode> find(ObjectId object) const;
  std::shared_ptr<Inode> child(const Inode& directory, std::string_view name) const;

  // Gives the object this name, whatever had it or was its name before; what had the name loses it.
  // False, and nothing is changed, if that would put a directory under itself.
  bool place(const std::shared_ptr<Inode>& inode, Inode& parent, const std::string& name);
  // The object loses its name.
  void detach(Inode& inode);
  // The object is gone.
  void erase(Inode& inode);

  bool is_within(const Inode& inode, const Inode& ancestor) const;  // or the same
  // Relative to the mount point; "unlinked <id>" without a name.
  std::string path_of(const Inode& inode) const;

  const std::unordered_map<ObjectId, std::shared_ptr<Inode>>& objects() const { return objects_; }

 private:
  std::shared_ptr<Inode> root_;
  std::unordered_map<ObjectId, std::shared_ptr<Inode>> objects_;
};

}  // namespace vmfs
