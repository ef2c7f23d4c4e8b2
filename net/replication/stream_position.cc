#include "net/replication/stream_position.h"

#include "fs/journal/changes.h"

namespace vmfs {

void StreamPosition::set(GroupId group, Position position) {
  Group& entry = groups_[group];
  entry.shipped = position;
  entry.history.clear();  // the group may have followed another branch
  entry.stopped = false;
}

void StreamPosition::advance(GroupId group, Position position) {
  auto [it, inserted] = groups_.try_emplace(group);
  if (inserted || position.seq > it->second.shipped.seq) it->second.shipped = position;
}

bool StreamPosition::stopped(GroupId group) const {
  auto it = groups_.find(group);
  return it != groups_.end() && it->second.stopped;
}

std::optional<Position> StreamPosition::position(GroupId group) const {
  auto it = groups_.find(group);
  if (it == groups_.end()) return std::nullopt;
  return it->second.shipped;
}

// Whether the record lies on this node's present history of the group. A journal also holds branches
// that were left when the node followed a peer.
bool StreamPosition::belongs(Group& group, const RecordHeader& header) {
  EpochId epoch{header.epoch};
  if (group.history.empty() || group.history.back().epoch != epoch) {
    auto state = state_of_(GroupId{header.group});
    if (!state) return false;
    group.history = std::move(state->history);
  }
  for (std::size_t i = 0; i < group.history.size(); ++i) {
    if (group.history[i].epoch != epoch) continue;
    return i + 1 == group.history.size() || header.seq <= group.history[i + 1].parent.seq;
  }
  return !group.history.empty() && group.history.front().parent.epoch == epoch &&
         header.seq <= group.history.front().parent.seq;
}

bool StreamPosition::passes(const RecordHeader& header) const {
  if (header.type >= RecordType::kBaseBegin && header.type <= RecordType::kBaseEnd) return true;
  auto it = groups_.find(GroupId{header.group});
  // Unknown: its creation is still to come (then it becomes known), or it is gone.
  return it == groups_.end() || it->second.stopped || header.seq <= it->second.shipped.seq;
}

StreamPosition::Step StreamPosition::step(const RecordHeader& header, ByteView payload) {
  if (passes(header)) return Step::kSkip;
  Group& group = groups_.at(GroupId{header.group});
  if (!belongs(group, header)) return Step::kSkip;
  bool next = false;
  if (header.seq == group.shipped.seq + 1) {
    if (EpochId{header.epoch} == group.shipped.epoch) {
      next = true;
    } else if (header.type == RecordType::kEpoch || header.type == RecordType::kTaken) {
      auto change = decode<EpochChange>(payload);
      next = change && change->entry.parent == group.shipped;
    }
  }
  if (!next) return Step::kGap;
  group.shipped = {EpochId{header.epoch}, header.seq};
  follow_object(header, payload);
  return Step::kShip;
}

void StreamPosition::follow_object(const RecordHeader& header, ByteView payload) {
  if (header.type == RecordType::kCreate) {
    // The image's group begins with its creation.
    if (auto create = decode<Create>(payload); create && create->type == FileType::kRegular)
      advance(create->object, {create->first_epoch, 0});
  } else if (header.type == RecordType::kDeleteObject) {
    if (auto deleted = decode<DeleteObject>(payload)) forget(deleted->object);
  }
}

void StreamPosition::came_from_peer(const RecordHeader& header, ByteView payload) {
  Position position{EpochId{header.epoch}, header.seq};
  if (header.type == RecordType::kBaseBegin) {
    set(GroupId{header.group}, position);
  } else if (header.type != RecordType::kBaseData && header.type != RecordType::kBaseEnd) {
    advance(GroupId{header.group}, position);
    follow_object(header, payload);
  }
}

}  // namespace vmfs
