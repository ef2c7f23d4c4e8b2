// Images that a peer's records take away: what only this node has of them may not go unkept.
#include "fs/volume/impl.h"

namespace vmfs {

std::optional<bool> history_contains(const std::vector<EpochEntry>& epochs, std::uint64_t seq, Position position) {
  for (std::size_t i = 0; i < epochs.size(); ++i)
    if (epochs[i].epoch == position.epoch)
      return position.seq <= (i + 1 < epochs.size() ? epochs[i + 1].parent.seq : seq);
  if (epochs.empty()) return {};
  const Position& oldest = epochs.front().parent;
  if (oldest.epoch == position.epoch) return position.seq <= oldest.seq;
  return {};
}

// The lock under which the group changes is held.
FinalHistory Volume::Impl::final_history(VolumeGroup& group) {
  GroupState state = state_of(group);
  return {std::move(state.history), state.seq};
}

// What would be lost if this image went now.
std::optional<Volume::Loss> Volume::Impl::loss_of(ObjectId object, FinalHistory had) {
  auto inode = find_image(object);
  if (!inode) return {};
  VolumeGroup& group = inode->image->group;
  const Gate gate = group.gate.load(std::memory_order_acquire);
  const bool open = gate == Gate::kOpen || gate == Gate::kFrozen || gate == Gate::kReleasing;
  // Who came through the gate before it was closed has ended.
  if (!open) std::unique_lock<ImageLock>(inode->image->lock).unlock();
  bool alone = false;
  {
    std::lock_guard lock(group.mutex);
    const Position here = position_of(group);
    // A part of a copy is no state; what was here before was kept when the copy was asked for.
    if (!group.history.empty() && !group.inconsistent && group.kept != here) {
      auto known = history_contains(had.epochs, had.seq, here);
      // Whether the other node had all of it cannot be told: it had, if this node was not the owner.
      const bool whole = !had.epochs.empty() && raw(had.epochs.front().parent.epoch) == 0;
      const bool own = group.owner == node_ || (raw(group.owner) == 0 && group.taker != node_);
      alone = !known.value_or(!whole && !own);
    }
  }
  if (!open && !alone) return {};
  return Loss{object, alone, std::move(had)};
}

// The images that the base copy of the name space does not list whose end follows on `records`.
std::vector<ObjectId> Volume::Impl::unlisted(std::span<const ReceivedRecord> records) const {
  std::unordered_set<ObjectId> listed;
  std::shared_lock lock(names_mutex_);
  if (base_names_from_) listed = base_names_;
  auto take = [&](RecordType type, ByteView payload) {
    if (type == RecordType::kBaseBegin) {
      listed.clear();
    } else if (type == RecordType::kBaseData) {
      if (auto objects = decode<std::vector<BaseObject>>(payload))
        for (const BaseObject& object : *objects) listed.insert(object.object);
    } else if (type == RecordType::kCreate) {
      if (auto create = decode<Create>(payload)) listed.insert(create->object);
    }
  };
  for (const PendingRecord& record : pending_)
    if (record.header.group == raw(kNameSpace)) take(record.header.type, record.payload);
  for (const ReceivedRecord& record : records)
    if (record.header.group == raw(kNameSpace)) take(record.header.type, record.payload);
  std::vector<ObjectId> out;
  for (const auto& [id, inode] : tree_.objects())
    if (inode->image && !listed.contains(id)) out.push_back(id);
  return out;
}

void Volume::Impl::find_losses(std::span<const ReceivedRecord> records, std::size_t at,
                               std::vector<Loss>& losses) {
  const ReceivedRecord& record = records[at];
  if (record.header.group != raw(kNameSpace)) return;
  auto goes = [&](ObjectId object, FinalHistory had) {
    for (const Loss& known : losses)
      if (known.group == object) return;
    if (auto loss = loss_of(object, std::move(had))) losses.push_back(std::move(*loss));
  };
  switch (record.header.type) {
    case RecordType::kUnlink:
      if (auto change = decode<Unlink>(record.payload)) goes(change->object, std::move(change->had));
      break;
    case RecordType::kRename:
      if (auto change = decode<Rename>(record.payload)) goes(change->replaced, std::move(change->had));
      break;
    case RecordType::kDeleteObject:
      if (auto change = decode<DeleteObject>(record.payload)) goes(change->object, std::move(change->had));
      break;
    case RecordType::kBaseEnd:
      for (ObjectId object : unlisted(records.first(at))) goes(object, {});
      break;
    default:
      break;
  }
}

}  // namespace vmfs
