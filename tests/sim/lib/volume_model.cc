#include "tests/sim/lib/volume_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "tests/sim/lib/sim_random.h"

namespace vmfs::sim {

namespace {
std::uint64_t mark_word(ChangeNumber change, std::uint64_t index, std::uint64_t word) {
  return Random((std::uint64_t{change} << 32) + index * 64 + word).next();
}
}  // namespace

void mark_cell(std::byte* cell, ChangeNumber change, std::uint64_t index) {
  std::uint64_t words[kCell / 8];
  for (std::uint64_t i = 1; i < kCell / 8; ++i) words[i] = mark_word(change, index, i % 4);
  words[0] = change;
  std::memcpy(cell, words, kCell);
}

std::optional<ChangeNumber> read_mark(const std::byte* cell, std::uint64_t index) {
  std::uint64_t words[kCell / 8];
  std::memcpy(words, cell, kCell);
  if (std::all_of(words, words + kCell / 8, [](std::uint64_t word) { return word == 0; })) return 0;
  std::byte expected[kCell];
  mark_cell(expected, static_cast<ChangeNumber>(words[0]), index);
  if (words[0] == 0 || std::memcmp(expected, cell, kCell) != 0) return std::nullopt;
  return static_cast<ChangeNumber>(words[0]);
}

const char* to_string(ChangeKind kind) {
  static constexpr const char* kNames[] = {"create",   "make directory", "make symlink", "remove",
                                           "rename",   "write",          "zero",         "allocate",
                                           "truncate", "set permissions"};
  return kNames[static_cast<int>(kind)];
}

std::string describe(const Change& c) {
  return fmt::format("change {}: {} {} in {} as \"{}\" cells {}+{}", c.number, to_string(c.kind),
                     c.object, c.parent, c.name, c.first, c.count);
}

std::vector<ObjectId> apply_change(ModelState& state, const Change& change) {
  ModelObject* object = nullptr;
  if (auto entry = state.find(change.object); entry != state.end()) object = &entry->second;
  switch (change.kind) {
    case ChangeKind::kCreate:
    case ChangeKind::kMakeDirectory:
    case ChangeKind::kMakeSymlink: {
      ModelObject made;
      made.type = change.kind == ChangeKind::kCreate          ? FileType::kRegular
                  : change.kind == ChangeKind::kMakeDirectory ? FileType::kDirectory
                                                              : FileType::kSymlink;
      made.parent = change.parent;
      made.name = change.name;
      made.target = change.target;
      if (made.type == FileType::kRegular) made.permissions = change.permissions;
      state[change.object] = std::move(made);
      return {change.object};
    }
    case ChangeKind::kRemove:
      state.erase(change.object);
      return {change.object};
    case ChangeKind::kRename: {
      std::vector<ObjectId> touched{change.object};
      for (auto entry = state.begin(); entry != state.end(); ++entry)
        if (entry->second.parent == change.parent && entry->second.name == change.name &&
            entry->first != change.object) {
          touched.push_back(entry->first);
          state.erase(entry);
          break;
        }
      object->parent = change.parent;
      object->name = change.name;
      return touched;
    }
    case ChangeKind::kWrite:
    case ChangeKind::kZero:
    case ChangeKind::kAllocate: {
      std::size_t end = change.first + change.count;
      if (change.extends)
        object->cells.resize(std::max(object->cells.size(), end));
      else
        end = std::min(end, object->cells.size());
      const ChangeNumber mark = change.kind == ChangeKind::kWrite ? change.number : 0;
      if (change.kind != ChangeKind::kAllocate)
        for (std::size_t i = change.first; i < end; ++i) object->cells[i] = mark;
      return {change.object};
    }
    case ChangeKind::kTruncate:
      object->cells.resize(change.first);
      return {change.object};
    case ChangeKind::kSetPermissions:
      object->permissions = change.permissions;
      return {change.object};
  }
  return {};
}

namespace {
std::string object_difference(const ModelObject& expected, const ModelObject& found) {
  if (expected.type != found.type) return "another type";
  if (expected.parent != found.parent || expected.name != found.name)
    return fmt::format("expected as \"{}\" in {}, found as \"{}\" in {}", expected.name,
                       expected.parent, found.name, found.parent);
  if (expected.target != found.target) return "another target";
  if (expected.permissions != found.permissions)
    return fmt::format("expected permissions {:o}, found {:o}", expected.permissions,
                       found.permissions);
  if (expected.cells.size() != found.cells.size())
    return fmt::format("expected {} cells, found {}", expected.cells.size(), found.cells.size());
  for (std::size_t i = 0; i < expected.cells.size(); ++i)
    if (expected.cells[i] != found.cells[i])
      return fmt::format("cell {}: expected change {}, found change {}", i, expected.cells[i],
                         found.cells[i]);
  return {};
}
}  // namespace

std::string difference(const ModelState& expected, const ModelState& found) {
  for (const auto& [id, object] : expected) {
    auto other = found.find(id);
    if (other == found.end())
      return fmt::format("object {} (\"{}\" in {}) is missing", id, object.name, object.parent);
    if (std::string text = object_difference(object, other->second); !text.empty())
      return fmt::format("object {} (\"{}\"): {}", id, object.name, text);
  }
  for (const auto& [id, object] : found)
    if (!expected.contains(id))
      return fmt::format("object {} (\"{}\" in {}) must not be there", id, object.name,
                         object.parent);
  return {};
}

void History::acknowledged(Change change) {
  apply_change(now_, change);
  changes_.push_back(std::move(change));
}

GroupId group_of(const Change& change) {
  return change.kind < ChangeKind::kWrite ? kNameSpace : change.object;
}

void History::flushed(GroupId group) {
  std::size_t promised = changes_.size();
  while (promised > 0 && group_of(changes_[promised - 1]) != group) --promised;
  for (std::size_t i = 0; i < promised; ++i) apply_change(base_, changes_[i]);
  changes_.erase(changes_.begin(), changes_.begin() + static_cast<std::ptrdiff_t>(promised));
}

void History::all_flushed() {
  base_ = now_;
  changes_.clear();
}

std::string History::settle(const ModelState& found, bool all) {
  const std::size_t acknowledged = changes_.size();
  if (doubt_) {
    // What it created got an id that only the volume knows.
    if (raw(doubt_->object) == 0)
      for (const auto& [id, object] : found)
        if (!now_.contains(id) && object.parent == doubt_->parent && object.name == doubt_->name)
          doubt_->object = id;
    changes_.push_back(*doubt_);
    doubt_.reset();
  }
  ModelState state = base_;
  std::set<ObjectId> unequal;
  auto compare = [&](ObjectId id) {
    ModelState::const_iterator expected = state.find(id), other = found.find(id);
    const bool equal = expected == state.end()
                           ? other == found.end()
                           : other != found.end() && expected->second == other->second;
    if (equal)
      unequal.erase(id);
    else
      unequal.insert(id);
  };
  for (const auto& [id, object] : state) compare(id);
  for (const auto& [id, object] : found) compare(id);
  std::optional<std::size_t> admissible;
  std::size_t closest = 0, closest_unequal = ~std::size_t{0};
  ModelState closest_state;
  for (std::size_t count = 0;; ++count) {
    if (unequal.size() <= closest_unequal) {
      closest = count;
      closest_unequal = unequal.size();
      closest_state = state;
    }
    if (unequal.empty() && (!all || count >= acknowledged)) admissible = count;
    if (count == changes_.size()) break;
    for (ObjectId id : apply_change(state, changes_[count])) compare(id);
  }
  if (!admissible) {
    if (closest_unequal == 0)
      return fmt::format("{} acknowledged changes are lost without a loss of power, from {} on",
                         acknowledged - closest, describe(changes_[closest]));
    return fmt::format(
        "no state that ever was: nearest after {} of {} changes since the last flush; there: {}",
        closest, changes_.size(), difference(closest_state, found));
  }
  changes_.resize(*admissible);
  now_ = found;
  return {};
}

}  // namespace vmfs::sim
