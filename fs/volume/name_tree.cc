#include "fs/volume/name_tree.h"

namespace vmfs {

void NameTree::set_root(std::shared_ptr<Inode> root) {
  root_ = root;
  insert(std::move(root));
}

std::shared_ptr<Inode> NameTree::find(ObjectId object) const {
  auto found = objects_.find(object);
  return found == objects_.end() ? nullptr : found->second;
}

std::shared_ptr<Inode> NameTree::child(const Inode& directory, std::string_view name) const {
  auto found = directory.children.find(name);
  return found == directory.children.end() ? nullptr : found->second;
}

bool NameTree::is_within(const Inode& inode, const Inode& ancestor) const {
  for (const Inode* at = &inode; at; at = at->parent)
    if (at == &ancestor) return true;
  return false;
}

bool NameTree::place(const std::shared_ptr<Inode>& inode, Inode& parent, const std::string& name) {
  if (is_within(parent, *inode)) return false;
  auto occupant = child(parent, name);
  if (occupant == inode) return true;
  if (occupant) detach(*occupant);
  detach(*inode);
  parent.children[name] = inode;
  if (inode->is_directory()) ++parent.subdirectories;
  inode->parent = &parent;
  inode->name = name;
  return true;
}

void NameTree::detach(Inode& inode) {
  if (!inode.parent) return;
  // The map may hold the last reference.
  auto keep = inode.shared_from_this();
  if (inode.is_directory()) --inode.parent->subdirectories;
  inode.parent->children.erase(inode.name);
  inode.parent = nullptr;
  inode.name.clear();
}

void NameTree::erase(Inode& inode) {
  auto keep = inode.shared_from_this();
  detach(inode);
  for (auto& [name, entry] : inode.children) {
    entry->parent = nullptr;
    entry->name.clear();
  }
  inode.children.clear();
  inode.deleted.store(true, std::memory_order_release);
  objects_.erase(inode.id);
}

std::string NameTree::path_of(const Inode& inode) const {
  if (!inode.parent)
    return &inode == root_.get() ? std::string() : fmt::format("unlinked {}", inode.id);
  std::string path = inode.name;
  for (const Inode* at = inode.parent; at->parent; at = at->parent)
    path.insert(0, at->name + "/");
  return path;
}

}  // namespace vmfs
