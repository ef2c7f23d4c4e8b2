// Groups: who may change them, their epochs, and how they are handed over.
#include "fs/base/log.h"
#include "fs/base/mistakes.h"
#include "fs/volume/impl.h"

namespace vmfs {

// --- State -----------------------------------------------------------------------------------------

Position Volume::Impl::position_of(VolumeGroup& group) {
  Position position;
  journal_->with_reservations_locked(
      [&] { position = {group.cursor.epoch, group.cursor.seq}; });
  return position;
}

GroupState Volume::Impl::state_of(VolumeGroup& group) {
  std::lock_guard lock(group.mutex);
  GroupState state;
  state.id = group.id;
  state.owner = group.owner;
  state.taker = group.taker;
  state.history = group.history;
  state.seq = position_of(group).seq;
  state.recycled = group.recycled;
  state.inconsistent = group.inconsistent;
  state.split = group.split;
  const Gate gate = group.gate.load();
  state.suspended =
      group.owner == node_ && (gate == Gate::kSuspended || gate == Gate::kInconsistent);
  return state;
}

void Volume::Impl::restore(VolumeGroup& group, const GroupState& state) {
  std::lock_guard lock(group.mutex);
  group.owner = state.owner;
  group.taker = state.taker;
  group.history = state.history;
  group.recycled = state.recycled;
  group.inconsistent = state.inconsistent;
  group.split = state.split;
  EpochId epoch = state.history.empty() ? EpochId{} : state.history.back().epoch;
  journal_->with_reservations_locked([&] { group.cursor.move_to({epoch, state.seq}); });
}

Gate Volume::Impl::resting_gate(VolumeGroup& group, bool suspended) {
  std::lock_guard lock(group.mutex);
  if (group.inconsistent) return Gate::kInconsistent;
  if (group.owner == node_) return suspended ? Gate::kSuspended : Gate::kOpen;
  return group.split ? Gate::kSplit : Gate::kSecondary;
}

VolumeGroup* Volume::Impl::find_group(GroupId group, std::shared_ptr<Inode>& keeps_alive) const {
  if (group == kNameSpace) return const_cast<VolumeGroup*>(&names_);
  keeps_alive = find_image(group);
  return keeps_alive ? &keeps_alive->image->group : nullptr;
}

std::vector<GroupState> Volume::groups() {
  Impl& v = *impl_;
  std::vector<std::shared_ptr<Inode>> images;
  {
    std::shared_lock lock(v.names_mutex_);
    for (const auto& [id, inode] : v.tree_.objects())
      if (inode->image && !inode->dropped.load()) images.push_back(inode);
  }
  std::vector<GroupState> states;
  states.reserve(images.size() + 1);
  states.push_back(v.state_of(v.names_));
  for (const auto& inode : images) states.push_back(v.state_of(inode->image->group));
  return states;
}

std::optional<GroupState> Volume::group(GroupId id) {
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = impl_->find_group(id, alive);
  if (!group) return {};
  return impl_->state_of(*group);
}

std::optional<SequenceTrail::Since> Volume::changed_since(GroupId id, std::uint64_t seq) {
  Impl& v = *impl_;
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = v.find_group(id, alive);
  std::optional<SequenceTrail::Since> since;
  if (group) v.journal_->with_reservations_locked([&] { since = group->trail.since(seq); });
  return since;
}

Lsn Volume::last_record(GroupId id) {
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = impl_->find_group(id, alive);
  return group ? group->last_record.load() : 0;
}

Position Volume::durable_position(GroupId id) {
  Impl& v = *impl_;
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = v.find_group(id, alive);
  if (!group) return {};
  Position position = v.position_of(*group);
  // What was reserved by now is below this, and so is the position's record.
  Lsn through = v.journal_->reserved_lsn();
  if (v.journal_->durable_lsn() < std::min<Lsn>(through, group->last_record.load()) ||
      group->last_record.load() == 0) {
    if (!v.journal_->sync_through(through)) return {};
  }
  return position;
}

Position Volume::final_position(GroupId id) {
  Impl& v = *impl_;
  auto position = v.with_group_locked(id, [&](VolumeGroup& group) -> Result<Position> { return v.position_of(group); });
  return position ? *position : Position{};
}

Gate Volume::gate(GroupId id) {
  if (id == kNameSpace) return impl_->names_.gate.load(std::memory_order_acquire);
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = impl_->find_group(id, alive);
  return group ? group->gate.load(std::memory_order_acquire) : Gate::kSecondary;
}

void Volume::set_gate(GroupId id, Gate gate) {
  for (Gate now = this->gate(id); now != gate; now = this->gate(id))
    if (!change_gate(id, now, gate) && this->gate(id) == now) return;
}

bool Volume::change_gate(GroupId id, Gate from, Gate to) {
  Impl& v = *impl_;
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = v.find_group(id, alive);
  if (!group) return false;
  // A tail that came back from a peer belongs to the state that is opened: who may change the group must
  // not read it as it was before. All of it: a removal that came, and is shown later, would take new changes with it.
  if (to == Gate::kOpen && v.first_pending_.load() != 0) {
    if (!v.journal_->sync_through(v.journal_->written_lsn())) return false;
    if (!publish_received(v.journal_->durable_lsn())) return false;
    group = v.find_group(id, alive);
    if (!group) return false;
  }
  if (!group->gate.compare_exchange_strong(from, to, std::memory_order_acq_rel)) return false;
  // Another daemon of this connection is to know.
  if ((from == Gate::kSuspended) != (to == Gate::kSuspended)) {
    v.settling_unsaved_.store(true);
    v.want_apply();
  }
  if (to == Gate::kOpen) {
    v.orphans_wait_.store(true);
    v.want_apply();
  }
  return true;
}

Activity Volume::activity(GroupId id) {
  Impl& v = *impl_;
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = v.find_group(id, alive);
  Activity activity;
  if (!group) return activity;
  if (alive) {
    activity.in_flight = alive->image->lock.held();
    activity.open_writer = alive->image->writers.load() != 0;
    bool open = false;
    {
      std::lock_guard open_lock(alive->image->open_mutex);
      open = alive->image->opens != 0;
    }
    // Of one that is closed nobody would ever flush it; who takes it has all of it. Nor would who has it open for reading
    // flush what the process before may have had.
    const bool to_flush = activity.open_writer || (open && group->last_change.load() > v.opened_at_);
    std::lock_guard lock(group->mutex);
    activity.unflushed = to_flush && group->owner == v.node_ && !group->flushed();
  }
  return activity;  // the name space is never active
}

// --- Epochs ------------------------------------------------------------------------------------------

void Volume::begin_epochs(EpochCause cause) {
  impl_->epoch_cause_.store(cause);
  impl_->epoch_events_.fetch_add(1);
}

Result<bool> Volume::begin_epoch_if_due(GroupId id) {
  Impl& v = *impl_;
  return v.with_group_locked(id, [&](VolumeGroup& group) -> Result<bool> {
    VMFS_TRY(v.begin_epoch_locked(group));
    return group.epoch_events.load() == v.epoch_events_.load();
  });
}

// Nothing may be added to it, not even an epoch: who owns it is yet to be found out, or it is about to be given up.
// A record more, and what would have been settled by itself is a split brain.
bool Volume::Impl::is_closed(VolumeGroup& group) {
  const Gate gate = group.gate.load(std::memory_order_acquire);
  return gate == Gate::kSuspended || gate == Gate::kInconsistent;
}

Result<> Volume::go_on_alone(GroupId id) {
  Impl& v = *impl_;
  Result<Lsn> end = v.with_group_locked(id, [&](VolumeGroup& group) -> Result<Lsn> {
    if (group.gate.load() == Gate::kInconsistent) return v.given_up();
    if (v.is_closed(group)) return fail(ErrorKind::kWouldWait, EAGAIN);
    {
      std::lock_guard lock(group.mutex);
      if (group.owner != v.node_)
        return fail(ErrorKind::kReadOnly, EIO, "the image was handed over, and who was to have it was lost");
    }
    VMFS_TRY(v.begin_epoch_locked(group));
    if (!v.epoch_unused(group)) return group.last_record.load();
    return v.append_flush_record(group, {});
  });
  if (!end) return pass(std::move(end.error()));
  return v.journal_->sync_through(*end);
}

Result<> Volume::Impl::begin_epoch_locked(VolumeGroup& group) {
  std::uint32_t events = epoch_events_.load(std::memory_order_acquire);
  if (group.epoch_events.load() == events || is_closed(group)) return {};
  bool owned = false;
  {
    std::lock_guard lock(group.mutex);
    owned = group.owner == node_;
  }
  if (!owned) return {};
  if (!mistakes.one_epoch_twice)
    VMFS_TRY(append_epoch(group, RecordType::kEpoch, epoch_cause_.load()));
  group.epoch_events.store(events, std::memory_order_release);
  return {};
}

Result<Lsn> Volume::Impl::append_epoch(VolumeGroup& group, RecordType type, EpochCause cause) {
  Draft draft;
  Bytes payload;
  Journal::Reservation place;
  {
    // Under the group's mutex, so that nobody sees the cursor in one epoch and the history in another.
    std::lock_guard lock(group.mutex);
    EpochChange change;
    change.entry = {new_epoch_id(), node_, position_of(group), cause, clock_.wall_ns()};
    payload = encode(change);
    draft.header.type = type;
    draft.header.group = raw(group.id);
    draft.header.wall_ns = change.entry.wall_ns;
    draft.payload = payload;
    SequenceCursor before = group.cursor;
    journal_->with_reservations_locked(
        [&] { group.cursor.move_to({change.entry.epoch, change.entry.parent.seq}); });
    auto reserved = reserve(draft, &group.cursor);
    if (!reserved) {
      journal_->with_reservations_locked([&] { group.cursor = before; });
      return pass(std::move(reserved.error()));
    }
    place = *reserved;
    group.history.push_back(change.entry);
    group.owner = node_;
    group.taker = {};
  }
  raise_to(group.last_record, place.end);
  VMFS_TRY(journal_->commit(draft, place));
  VMFS_TRY(journal_->sync_through(place.end));
  if (hooks_) hooks_->written(place.end);
  return place.end;
}

void Volume::trim_history(GroupId id, Position confirmed_by_all) {
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = impl_->find_group(id, alive);
  if (!group) return;
  std::lock_guard lock(group->mutex);
  auto keep = std::find_if(group->history.begin(), group->history.end(), [&](const EpochEntry& e) {
    return e.epoch == confirmed_by_all.epoch;
  });
  if (keep != group->history.end()) group->history.erase(group->history.begin(), keep);
}

// --- Handing over --------------------------------------------------------------------------------------

Result<Lsn> Volume::release(GroupId id, NodeId taker) {
  Impl& v = *impl_;
  Gate before = Gate::kOpen;
  {
    std::shared_ptr<Inode> alive;
    VolumeGroup* group = v.find_group(id, alive);
    if (!group) return fail(ErrorKind::kNotFound, ENOENT, fmt::format("no group {}", id));
    // Before the lock, so that no new change gets in front of it.
    before = group->gate.exchange(Gate::kReleasing, std::memory_order_acq_rel);
  }
  return v.with_group_locked(id, [&](VolumeGroup& group) { return v.release_locked(group, taker, before); });
}

Result<Lsn> Volume::Impl::release_locked(VolumeGroup& group, NodeId taker, Gate before) {
  {
    std::lock_guard lock(group.mutex);
    if (group.owner != node_) {
      group.gate.store(before == Gate::kOpen || before == Gate::kFrozen ? Gate::kSecondary : before);
      return fail(ErrorKind::kRefused, EROFS, fmt::format("group {} is not owned here", group.id));
    }
  }
  if (group.id == kNameSpace) {
    if (auto made = make_names(); !made) {
      group.gate.store(before);
      return pass(std::move(made.error()));
    }
  }
  // A release is a record like others: after a lost peer it needs a new epoch too.
  if (auto begun = begin_epoch_locked(group); !begun) {
    group.gate.store(before);
    return pass(std::move(begun.error()));
  }
  Bytes payload = encode(Release{taker});
  Draft draft;
  draft.header.type = RecordType::kReleased;
  draft.header.group = raw(group.id);
  draft.header.wall_ns = clock_.wall_ns();
  draft.payload = payload;
  Journal::Reservation place;
  {
    std::lock_guard lock(group.mutex);
    auto reserved = reserve(draft, &group.cursor);
    if (!reserved) {
      group.gate.store(before);
      return pass(std::move(reserved.error()));
    }
    place = *reserved;
    group.owner = {};
    group.taker = taker;
  }
  raise_to(group.last_record, place.end);
  raise_to(group.handed_over, place.end);
  // From here on the record may exist: nothing is accepted any more, whatever comes of the sync.
  group.revocations.fetch_add(1, std::memory_order_acq_rel);
  group.gate.store(Gate::kSecondary, std::memory_order_release);
  VMFS_TRY(journal_->commit(draft, place));
  VMFS_TRY(journal_->sync_through(place.end));
  // The record does for a flush, which waits until the peers have it as for any other.
  raise_to(group.flush_appended, place.end);
  if (hooks_) hooks_->written(place.end);
  return place.end;
}

Result<Lsn> Volume::take(GroupId id, EpochCause cause, Gate gate, std::optional<Position> decided_at) {
  Impl& v = *impl_;
  bool was_suspended = false;
  std::vector<Impl::Notice> notices;
  auto take_all = [&]() -> Result<Lsn> {
    // All that was received belongs to the state that is taken, and nothing arrives meanwhile.
    std::lock_guard lock(v.receive_mutex_);
    if (v.first_pending_.load() != 0) {
      VMFS_TRY(v.journal_->sync_through(v.journal_->written_lsn()));
      VMFS_TRY(v.publish_locked(v.journal_->durable_lsn(), notices));
    }
    return v.with_group_locked(id, [&](VolumeGroup& group) -> Result<Lsn> {
      was_suspended = group.gate.load() == Gate::kSuspended;
      if (decided_at && v.position_of(group) != *decided_at)
        return fail(ErrorKind::kRefused, EBUSY, fmt::format("group {} has been changed by a peer meanwhile", id));
      return v.take_locked(group, cause, gate);
    });
  };
  Result<Lsn> end = take_all();
  v.tell(notices);
  if (!end) return end;
  // Whoever took it by force may start its guest now: the death of this daemon must not stop that.
  if (was_suspended) {
    std::lock_guard lock(v.apply_mutex_);
    if (!v.save_state()) v.settling_unsaved_.store(true);  // it is the owner all the same
  }
  return end;
}

Result<Lsn> Volume::Impl::take_locked(VolumeGroup& group, EpochCause cause, Gate gate) {
  {
    std::lock_guard lock(group.mutex);
    if (group.inconsistent)
      return fail(ErrorKind::kRefused, EROFS,
                  fmt::format("group {} is inconsistent: a full copy of it has not ended", group.id));
  }
  std::uint32_t events = epoch_events_.load();
  VMFS_ASSIGN(Lsn end, append_epoch(group,
                                    cause == EpochCause::kTaken ? RecordType::kTaken
                                                                : RecordType::kEpoch,
                                    cause));
  group.epoch_events.store(events);
  group.gate.store(gate, std::memory_order_release);
  orphans_wait_.store(true);
  return end;
}

// --- Following a sequence -----------------------------------------------------------------------------------

Result<bool> Volume::Impl::advance(VolumeGroup& group, const RecordHeader& header,
                                   ByteView payload) {
  std::lock_guard lock(group.mutex);
  Position at{group.cursor.epoch, group.cursor.seq};
  bool begins = header.type == RecordType::kEpoch || header.type == RecordType::kTaken;
  if (begins && raw(at.epoch) != header.epoch) {
    VMFS_ASSIGN(EpochChange change, decode<EpochChange>(payload));
    if (!(change.entry.parent == at) || header.seq != at.seq + 1) return false;
    group.history.push_back(change.entry);
    group.owner = change.entry.node;
    group.taker = {};
  } else if (header.epoch != raw(at.epoch) || header.seq != at.seq + 1) {
    return false;
  }
  if (header.type == RecordType::kReleased) {
    VMFS_ASSIGN(Release change, decode<Release>(payload));
    group.owner = {};
    group.taker = change.taker;
  }
  journal_->with_reservations_locked([&] {
    group.cursor.move_to({EpochId{header.epoch}, header.seq});
    group.trail.note(header.seq, record_size(header.payload_size), header.wall_ns, is_housekeeping(header.type));
  });
  return true;
}

Result<> Volume::Impl::begin_base(VolumeGroup& group, const RecordHeader& header,
                                  const BaseBegin& begin) {
  if (begin.history.empty() || raw(begin.history.back().epoch) != header.epoch)
    return fail(ErrorKind::kProtocol, EPROTO,
                fmt::format("base copy of {}: its history does not lead to its position", group.id));
  std::lock_guard lock(group.mutex);
  group.history = begin.history;
  group.owner = begin.owner;
  group.taker = begin.taker;
  group.inconsistent = true;
  group.split = false;
  // This journal may hold records beyond that position, of a branch that was given up: they keep their numbers.
  if (begin.owner == node_) group.epoch_events.store(epoch_events_.load() - 1);
  // Whoever is behind what was copied cannot be caught up from here.
  group.recycled = {EpochId{header.epoch}, header.seq};
  journal_->with_reservations_locked(
      [&] { group.cursor.move_to({EpochId{header.epoch}, header.seq}); });
  return {};
}

void Volume::set_may_go(GroupId id, bool may) {
  std::shared_ptr<Inode> alive;
  if (VolumeGroup* group = impl_->find_group(id, alive)) group->may_go.store(may);
}

Result<> Volume::set_split(GroupId id, bool split) {
  Impl& v = *impl_;
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = v.find_group(id, alive);
  if (!group) return fail(ErrorKind::kNotFound, ENOENT, fmt::format("no group {}", id));
  {
    std::lock_guard lock(group->mutex);
    group->split = split;
  }
  Gate gate = group->gate.load();
  if (gate == Gate::kSecondary && split) group->gate.store(Gate::kSplit);
  if (gate == Gate::kSplit && !split) group->gate.store(Gate::kSecondary);
  std::lock_guard lock(v.apply_mutex_);
  return v.save_state();
}

}  // namespace vmfs
