// What a volume must hold, by brute force: every change that was asked for, in order, and the state
// that any beginning of that sequence makes. After a crash the volume must be in one of these
// states, and not in one before what was promised.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "fs/journal/format.h"
#include "fs/seam/disk.h"

namespace vmfs::sim {

// Content is compared by cells: each holds either zeros or the mark of the one write it came from.
inline constexpr std::uint64_t kCell = 256;
using ChangeNumber = std::uint32_t;  // 0: zeros

void mark_cell(std::byte* cell, ChangeNumber change, std::uint64_t index);
// Nothing: the bytes are neither zeros nor any write's.
std::optional<ChangeNumber> read_mark(const std::byte* cell, std::uint64_t index);

struct ModelObject {
  FileType type = FileType::kRegular;
  ObjectId parent{};
  std::string name;
  std::string target;               // of a symlink
  std::uint32_t permissions = 0;    // of an image
  std::vector<ChangeNumber> cells;  // of an image; its size is their number
  friend bool operator==(const ModelObject&, const ModelObject&) = default;
};
using ModelState = std::map<ObjectId, ModelObject>;

enum class ChangeKind {
  kCreate,
  kMakeDirectory,
  kMakeSymlink,
  kRemove,
  kRename,
  kWrite,
  kZero,
  kAllocate,
  kTruncate,
  kSetPermissions,
};
const char* to_string(ChangeKind kind);

struct Change {
  ChangeNumber number = 0;
  ChangeKind kind{};
  ObjectId object{};  // for those that create: known once it is done
  ObjectId parent{};  // kRename: the new parent
  std::string name;   // kRename: the new name
  std::string target;
  std::uint64_t first = 0, count = 0;  // cells; kTruncate: first is the new size
  bool extends = false;
  std::uint32_t permissions = 0;
  Lsn end = 0;  // the journal's records of it lie below
};

std::string describe(const Change& change);
GroupId group_of(const Change& change);
// Which objects it changed.
std::vector<ObjectId> apply_change(ModelState& state, const Change& change);
// The first difference, for a person; empty: none.
std::string difference(const ModelState& expected, const ModelState& found);

class History {
 public:
  const ModelState& now() const { return now_; }
  // Asked for and acknowledged.
  void acknowledged(Change change);
  // Asked for, with unknown outcome; nothing may follow before settle().
  void in_doubt(Change change) { doubt_ = std::move(change); }
  bool has_doubt() const { return doubt_.has_value(); }
  // The group's changes so far were promised to survive the loss of power, and with them all before
  // the last of them: there is one journal.
  void flushed(GroupId group);
  void all_flushed();

  // The volume was opened again and holds `found`. `all`: nothing that was acknowledged may be
  // missing, flushed or not. Empty: a state that may be; then that is the present. Else what is
  // wrong with it.
  std::string settle(const ModelState& found, bool all);
  std::size_t unflushed() const { return changes_.size(); }

 private:
  ModelState base_;              // what has been promised
  std::vector<Change> changes_;  // since
  ModelState now_;               // base_ with changes_
  std::optional<Change> doubt_;
};

}  // namespace vmfs::sim
