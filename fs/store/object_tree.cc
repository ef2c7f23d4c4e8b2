#include "fs/store/object_tree.h"

#include "fs/base/check.h"

namespace vmfs {

ObjectTree::ObjectTree() { places_[kRootObject].type = FileType::kDirectory; }

const ObjectTree::Place* ObjectTree::find(ObjectId object) const {
  auto found = places_.find(object);
  return found == places_.end() ? nullptr : &found->second;
}

bool ObjectTree::is_directory(ObjectId object) const {
  const Place* place = find(object);
  return place && place->type == FileType::kDirectory;
}

ObjectId ObjectTree::child(ObjectId parent, std::string_view name) const {
  const Place* place = find(parent);
  if (!place) return {};
  auto found = place->children.find(name);
  return found == place->children.end() ? ObjectId{} : found->second;
}

bool ObjectTree::is_inside(ObjectId object, ObjectId ancestor) const {
  for (const Place* place = find(object); place; place = find(object)) {
    if (object == ancestor) return true;
    object = place->parent;
  }
  return false;
}

std::string ObjectTree::path(ObjectId object) const {
  if (object == kRootObject) return "images";
  const Place* place = find(object);
  CHECK_INVARIANT(place != nullptr, "no object {}", object);
  if (place->parent == kUnlinkedParent) return fmt::format("unlinked/{}", object);
  return path_in(place->parent, place->name);
}

std::string ObjectTree::path_in(ObjectId parent, const std::string& name) const {
  return path(parent) + "/" + name;
}

void ObjectTree::add(ObjectId object, ObjectId parent, const std::string& name, FileType type) {
  auto [entry, added] = places_.try_emplace(object);
  CHECK_INVARIANT(added, "object {} is there already", object);
  entry->second.type = type;
  give_name(object, entry->second, parent, name);
}

void ObjectTree::move(ObjectId object, ObjectId parent, const std::string& name) {
  CHECK_INVARIANT(!is_inside(parent, object), "{} would come to be inside itself", object);
  take_name(object);
  give_name(object, places_.at(object), parent, name);
}

void ObjectTree::remove(ObjectId object) {
  CHECK_INVARIANT(object != kRootObject && places_.at(object).children.empty(),
                  "{} is not empty", object);
  take_name(object);
  places_.erase(object);
}

void ObjectTree::take_name(ObjectId object) {
  const Place& place = places_.at(object);
  if (place.parent != kUnlinkedParent) places_.at(place.parent).children.erase(place.name);
}

void ObjectTree::give_name(ObjectId object, Place& place, ObjectId parent,
                           const std::string& name) {
  place.parent = parent;
  place.name.clear();
  if (parent == kUnlinkedParent) return;
  place.name = name;
  bool free = places_.at(parent).children.try_emplace(name, object).second;
  CHECK_INVARIANT(free, "the name {} in {} is taken", name, parent);
}

}  // namespace vmfs
