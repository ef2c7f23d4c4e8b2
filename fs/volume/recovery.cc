// What open() does between reading the state and taking requests: the name space is made as the
// journal has it, then the records from the last checkpoint on are put into the index.
#include "fs/base/log.h"
#include "fs/volume/impl.h"

namespace vmfs {

namespace {

bool is_name_change(const SealEntry& record) {
  if (record.group != raw(kNameSpace)) return false;
  switch (record.type) {
    case RecordType::kCreate:
    case RecordType::kUnlink:
    case RecordType::kRename:
    case RecordType::kDeleteObject:
    case RecordType::kSetAttributes:
    case RecordType::kBaseBegin:
    case RecordType::kBaseData:
    case RecordType::kBaseEnd:
      return true;
    default:
      return false;
  }
}

RecordHeader header_from(Lsn lsn, const SealEntry& record) {
  RecordHeader header;
  header.lsn = lsn;
  header.type = record.type;
  header.flags = record.flags;
  header.payload_size = record.payload_size;
  header.group = record.group;
  header.epoch = record.epoch;
  header.seq = record.seq;
  header.offset = record.offset;
  header.extent = record.extent;
  header.wall_ns = record.wall_ns;
  header.unique = record.unique;
  return header;
}

}  // namespace

Result<Bytes> Volume::Impl::payload_of(Lsn lsn, const SealEntry& record) {
  Bytes payload(record.payload_size);
  VMFS_ASSIGN(bool there, journal_->read_payload(lsn + sizeof(RecordHeader), payload));
  CHECK_INVARIANT(there, "record {} was recycled during recovery", lsn);
  return payload;
}

// The store's tree may be behind the journal or ahead of it: redo by ids makes both the same.
Result<> Volume::Impl::redo_names(bool& any) {
  return journal_->replay([&](Lsn lsn, const SealEntry& record) -> Result<> {
    if (!is_name_change(record)) return {};
    any = true;
    VMFS_ASSIGN(Bytes payload, payload_of(lsn, record));
    return apply_name_record(header_from(lsn, record), payload, false);
  });
}

void Volume::Impl::show_stored(const StoredObject& stored) {
  auto parent = tree_.find(stored.parent);
  bool local = stored.object == kSnapshotsDirectory || (parent && parent->local);
  auto inode = local ? std::make_shared<Inode>(stored.object, stored.stat.type)
                     : make_inode(stored.object, stored.stat.type);
  inode->local = local;
  inode->stat = stored.stat;
  inode->target = stored.target;
  if (inode->image) inode->image->size.store(stored.stat.size);
  if (stored.object == kRootObject) {
    tree_.set_root(inode);
    return;
  }
  tree_.insert(inode);
  if (parent) {
    tree_.place(inode, *parent, stored.name);
  } else {
    std::lock_guard guard(inode->attributes_lock);
    inode->stat.links = 0;
    orphans_wait_.store(true);
  }
}

void Volume::Impl::build_tree() {
  for (const StoredObject& stored : store_->loaded()) show_stored(stored);
  store_->forget_loaded();
}

Result<> Volume::Impl::replay_record(Lsn lsn, const SealEntry& record) {
  if (record.unique != 0 && answers_.contains(record.unique))
    VMFS_TRY(find_answer(lsn, record));
  RecordHeader header = header_from(lsn, record);
  Bytes payload;
  bool needless = record.type == RecordType::kWrite || record.type == RecordType::kFlush ||
                  record.type == RecordType::kBaseData;
  if (!needless && record.payload_size != 0) {
    VMFS_ASSIGN(payload, payload_of(lsn, record));
  }

  Inode* inode = nullptr;
  VolumeGroup* group = &names_;
  if (record.group != raw(kNameSpace)) {
    auto found = tree_.find(ObjectId{record.group});
    if (!found || !found->image) return {};  // deleted by a later record
    inode = found.get();
    group = &inode->image->group;
  }
  raise_to(group->last_record, lsn + record_size(record.payload_size));
  switch (record.type) {
    case RecordType::kBaseBegin: {
      VMFS_ASSIGN(BaseBegin begin, decode<BaseBegin>(payload));
      VMFS_TRY(begin_base(*group, header, begin));
      break;
    }
    case RecordType::kBaseData:
      break;
    case RecordType::kBaseEnd: {
      std::lock_guard lock(group->mutex);
      group->inconsistent = false;
      break;
    }
    case RecordType::kCreate: {
      VMFS_ASSIGN(Create change, decode<Create>(payload));
      auto created = tree_.find(change.object);
      if (created && created->image) {
        VolumeGroup& own = created->image->group;
        if (own.history.empty() && !own.inconsistent)
          restore(own, {.id = change.object,
                        .owner = change.creator,
                        .history = {{change.first_epoch, change.creator, {}, EpochCause::kCreated,
                                     change.time_ns}}});
      }
      [[fallthrough]];
    }
    default: {
      VMFS_ASSIGN(bool next, advance(*group, header, payload));
      (void)next;  // if not, the state took account of it already
    }
  }
  if (!inode) return {};
  return apply_image_record(*inode, header, lsn, payload);
}

Result<> Volume::Impl::recover(const CheckpointState& state, const OpenArguments& arguments) {
  const bool continues = raw(arguments.connection) != 0;
  connection_.store(raw(arguments.connection));
  unanswered_now_ = arguments.unanswered_now;
  checkpoints_ = state.checkpoints;
  applied_through_ = stored_replay_from_ = state.replay_from;
  peers_ = state.peers;
  // What was confirmed beyond the log's end was cut off (see recover()), and its places are used again.
  for (PeerState& peer : peers_) peer.confirmed = std::min(peer.confirmed, journal_->written_lsn());
  // Which of the open requests have an answer? Those found stay here, see below.
  for (std::uint64_t unique : arguments.unanswered) answers_[unique] = {};
  for (const AnsweredRequest& answer : state.answered)
    if (answer.request.connection == arguments.connection && continues)
      answers_[answer.request.unique] = answer;

  bool names_redone = false;
  VMFS_TRY(redo_names(names_redone));
  if (names_redone) {
    // What is in the store now is what the journal says; it is read again rather than reckoned. The
    // redo must not be forgotten with the store's object: nobody would sync it.
    VMFS_TRY(store_->sync_names());
    store_.reset();
    VMFS_ASSIGN(store_, Store::open(store_disk_));
  }
  build_tree();
  if (base_names_ended_) VMFS_TRY(finish_base_names(true));

  for (const GroupState& group : state.groups) {
    if (group.id == kNameSpace) {
      restore(names_, group);
    } else if (auto inode = tree_.find(group.id); inode && inode->image) {
      restore(inode->image->group, group);
    }
  }
  // What is replayed is freed bit by bit as well: see start_pass(). A group's cursor may be ahead of the record.
  Sample passed;
  passed.lsn = state.replay_from;
  std::unordered_map<GroupId, Position> positions;
  VMFS_TRY(journal_->replay([&](Lsn lsn, const SealEntry& record) -> Result<> {
    if (lsn - std::min(lsn, passed.lsn) >= sample_distance() && !positions.empty()) {
      passed.lsn = lsn;
      passed.groups.assign(positions.begin(), positions.end());
      positions.clear();
      samples_.push_back(passed);
    }
    const bool base = record.type == RecordType::kBaseData || record.type == RecordType::kBaseEnd;
    if (record.seq != 0 && !base) positions[GroupId{record.group}] = {EpochId{record.epoch}, record.seq};
    return replay_record(lsn, record);
  }));
  std::erase_if(answers_, [](const auto& entry) { return entry.second.request.unique == 0; });

  // Gates. A group goes on by itself only if its owner's life goes on, or if there is nobody to ask. What
  // the daemon before had not settled yet is not settled by its death; what is not in the state has come
  // with the name space.
  std::unordered_map<GroupId, bool> suspended_before;
  for (const GroupState& group : state.groups) suspended_before[group.id] = group.suspended;
  auto suspended = [&](GroupId id) {
    if (!options_.has_peers || !continues) return options_.has_peers;
    auto before = suspended_before.find(id);
    return before != suspended_before.end() ? before->second : suspended_before[kNameSpace];
  };
  bool unclean = !state.clean && !continues;
  if (unclean) {
    epoch_cause_.store(EpochCause::kUncleanStop);
    epoch_events_.store(1);
  } else if (continues && options_.has_peers) {
    // Whether a peer was counted lost just before is not known any more: as if it was.
    epoch_cause_.store(EpochCause::kPeerLost);
    epoch_events_.store(1);
  }
  opened_at_ = journal_->written_lsn();
  // Of some groups all lies below, and may still be kept for a peer.
  Sample applied, sample;
  applied.lsn = state.replay_from;
  sample.lsn = journal_->reserved_lsn();
  auto settle = [&](VolumeGroup& group) {
    group.gate.store(resting_gate(group, suspended(group.id)));
    group.sampled = {group.cursor.epoch, group.cursor.seq};
    // Recovery made all of it durable here; what the peers have of it is for the next flush to ask.
    // What was flushed before this process began is not known any more.
    if (options_.has_peers && group.owner == node_)
      group.last_change.store(continues ? opened_at_ : group.last_record.load());
    (group.last_record.load() != 0 ? sample : applied).groups.emplace_back(group.id, group.sampled);
  };
  settle(names_);
  for (const auto& [id, inode] : tree_.objects()) {
    if (!inode->image) continue;
    VolumeGroup& group = inode->image->group;
    if (group.history.empty() && !group.inconsistent) {
      // A base copy of the name space brought it, and its own has not begun; or the record of its
      // creation was cut off. Where nobody else can have more of it, it begins anew with what is here.
      const bool alone = !options_.has_peers && names_.owner == node_;
      group.inconsistent = !alone;
      if (alone) {
        restore(group, {.id = id,
                        .owner = node_,
                        .history = {{new_epoch_id(), node_, {}, EpochCause::kCreated,
                                     clock_.wall_ns()}}});
        problem("group " + std::to_string(raw(id)),
                fmt::format("{} is known neither to the last checkpoint nor to the journal: it is kept "
                            "with what the store has of it\n"
                            "look whether that is what it should be (for a guest's disk: a check of its file "
                            "system); the next mount does not say this again",
                            tree_.path_of(*inode)));
      }
    }
    settle(group);
  }
  samples_.push_front(std::move(applied));
  samples_.push_back(std::move(sample));
  for (const std::string& path : store_->foreign())
    problem("foreign " + path,
            fmt::format("{} was put into the store by somebody else and is not part of the volume\n"
                        "move it away, or copy it in through the mount point",
                        store_disk_.display(path)));
  refresh_admission();
  // From here on a stop is unclean.
  return save_state();
}

}  // namespace vmfs
