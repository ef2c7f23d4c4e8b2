// What a peer holds, group by group, as far as the sender has shipped, and whether a record of our
// journal is the next one that it lacks. Pure.
#pragma once

#include <functional>
#include <optional>
#include <unordered_map>

#include "fs/base/result.h"
#include "fs/journal/format.h"
#include "fs/store/state.h"
#include "fs/base/bytes.h"

namespace vmfs {

class StreamPosition {
 public:
  enum class Step : std::uint8_t {
    kShip,  // the next record that the peer lacks
    kSkip,  // the peer has it, or it is not for the peer (a dead branch, a stopped group)
    kGap,   // records between what the peer has and this one are missing here
  };

  // `state_of`: this node's present state of a group; nothing: deleted since.
  explicit StreamPosition(std::function<std::optional<GroupState>(GroupId)> state_of)
      : state_of_(std::move(state_of)) {}

  // The peer holds the group up to there (and, if it was stopped, its records flow again).
  void set(GroupId group, Position position);
  // As set(), if that is further along.
  void advance(GroupId group, Position position);
  // Records of the group are not shipped until set(): parted, split, or to be copied whole.
  void stop(GroupId group) { groups_[group].stopped = true; }
  void forget(GroupId group) { groups_.erase(group); }
  bool knows(GroupId group) const { return groups_.contains(group); }
  bool stopped(GroupId group) const;
  std::optional<Position> position(GroupId group) const;

  // This record came from the peer, which therefore has it, and whatever it begins or ends.
  void came_from_peer(const RecordHeader& header, ByteView payload);

  // Whether the header alone tells that the record is not for the peer: step() says kSkip whatever its payload.
  bool passes(const RecordHeader& header) const;

  // Judges a record; after kShip the peer counts as having it.
  Step step(const RecordHeader& header, ByteView payload);

 private:
  struct Group {
    Position shipped;
    bool stopped = false;
    // The history against which old epochs are judged; fetched when a record of another epoch than
    // its last comes by.
    std::vector<EpochEntry> history;
  };
  void follow_object(const RecordHeader& header, ByteView payload);
  bool belongs(Group& group, const RecordHeader& header);

  std::function<std::optional<GroupState>(GroupId)> state_of_;
  std::unordered_map<GroupId, Group> groups_;
};

}  // namespace vmfs
