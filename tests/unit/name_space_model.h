// A reference for the store's tree: random name-space records, and where each leaves every object.
#pragma once

#include <map>
#include <random>
#include <set>
#include <variant>
#include <vector>

#include "fs/journal/changes.h"
#include "fs/store/store.h"

namespace vmfs::test {

using NameSpaceRecord = std::variant<Create, Unlink, Rename, DeleteObject>;

inline Result<> redo(Store& store, const NameSpaceRecord& record) {
  if (auto* create = std::get_if<Create>(&record)) return store.create_object(*create);
  if (auto* unlink = std::get_if<Unlink>(&record)) return store.unlink(*unlink);
  if (auto* rename = std::get_if<Rename>(&record)) return store.rename(*rename);
  return store.delete_object(std::get<DeleteObject>(record).object);
}

class NameSpaceModel {
 public:
  struct Where {
    ObjectId parent{};
    std::string name;
    FileType type{};
    friend bool operator==(const Where&, const Where&) = default;
  };
  using Tree = std::map<ObjectId, Where>;

  explicit NameSpaceModel(std::uint64_t seed) : random_(seed) {
    tree_[kRootObject] = {{}, "", FileType::kDirectory};
  }

  const Tree& tree() const { return tree_; }

  // A record that a volume in this state could make; the model then has it behind it.
  NameSpaceRecord next() {
    for (;;) {
      switch (random_() % 8) {
        case 0:
        case 1: return create();
        case 2:
          if (auto record = unlink()) return *record;
          break;
        case 3:
          if (auto record = delete_object()) return *record;
          break;
        default:
          if (auto record = rename()) return *record;
          break;
      }
    }
  }

  std::uint64_t pick(std::uint64_t bound) { return random_() % bound; }

 private:
  ObjectId child(ObjectId parent, const std::string& name) const {
    for (const auto& [object, where] : tree_)
      if (object != kRootObject && where.parent == parent && where.name == name) return object;
    return {};
  }
  bool empty(ObjectId directory) const {
    for (const auto& [object, where] : tree_)
      if (object != kRootObject && where.parent == directory) return false;
    return true;
  }
  bool inside(ObjectId object, ObjectId ancestor) const {
    for (; raw(object) != 0; object = tree_.at(object).parent)
      if (object == ancestor) return true;
    return false;
  }
  template <class Condition>
  ObjectId any(Condition condition) {
    std::vector<ObjectId> fitting;
    for (const auto& [object, where] : tree_)
      if (condition(object, where)) fitting.push_back(object);
    return fitting.empty() ? ObjectId{} : fitting[pick(fitting.size())];
  }
  ObjectId any_directory() {
    return any([](ObjectId, const Where& w) { return w.type == FileType::kDirectory; });
  }
  // Few, so that names are often used again.
  std::string any_name() { return std::string(1, static_cast<char>('a' + pick(5))); }

  NameSpaceRecord create() {
    for (;;) {
      Create record{.object = ObjectId{next_id_}, .parent = any_directory(), .name = any_name(),
                    .time_ns = ++time_};
      if (raw(child(record.parent, record.name)) != 0) {
        record.name += std::to_string(pick(1000));
        if (raw(child(record.parent, record.name)) != 0) continue;
      }
      ++next_id_;
      record.permissions = 0640;
      switch (pick(4)) {
        case 0: record.type = FileType::kSymlink; record.target = "somewhere"; break;
        case 1: record.type = FileType::kRegular; record.first_epoch = EpochId{9}; break;
        default: record.type = FileType::kDirectory; break;
      }
      tree_[record.object] = {record.parent, record.name, record.type};
      return record;
    }
  }

  void lose_name(ObjectId object) {
    Where& where = tree_.at(object);
    if (where.type == FileType::kRegular) {
      where.parent = {};
      where.name.clear();
    } else {
      tree_.erase(object);
    }
  }

  std::optional<NameSpaceRecord> unlink() {
    ObjectId object = any([&](ObjectId o, const Where& w) {
      return raw(w.parent) != 0 && (w.type != FileType::kDirectory || empty(o));
    });
    if (raw(object) == 0) return {};
    const Where where = tree_.at(object);
    lose_name(object);
    return Unlink{object, where.parent, where.name, ++time_};
  }

  std::optional<NameSpaceRecord> delete_object() {
    ObjectId object = any([&](ObjectId o, const Where& w) {
      return o != kRootObject && raw(w.parent) == 0;
    });
    if (raw(object) == 0) return {};
    tree_.erase(object);
    return DeleteObject{object};
  }

  std::optional<NameSpaceRecord> rename() {
    ObjectId object = any([&](ObjectId, const Where& w) { return raw(w.parent) != 0; });
    if (raw(object) == 0) return {};
    const Where from = tree_.at(object);
    ObjectId to_parent = any_directory();
    std::string to_name = any_name();
    ObjectId replaced = child(to_parent, to_name);
    if (inside(to_parent, object) || replaced == object) return {};
    if (raw(replaced) != 0) {
      bool directory = tree_.at(replaced).type == FileType::kDirectory;
      if (directory != (from.type == FileType::kDirectory) || inside(from.parent, replaced)) return {};
      if (directory && !empty(replaced)) return {};
      lose_name(replaced);
    }
    tree_.at(object) = {to_parent, to_name, from.type};
    return Rename{object, from.parent, from.name, to_parent, to_name, replaced, ++time_};
  }

  std::mt19937_64 random_;
  Tree tree_;
  std::uint64_t next_id_ = 1000;
  std::int64_t time_ = 1'700'000'000'000'000'000;
};

// The tree that a fresh scan finds.
inline NameSpaceModel::Tree tree_of(const Store& store) {
  NameSpaceModel::Tree tree;
  for (const StoredObject& object : store.loaded())
    tree[object.object] = {object.parent, object.name, object.stat.type};
  return tree;
}

}  // namespace vmfs::test
