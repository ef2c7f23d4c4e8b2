// Records from a peer: receive() appends them, publish_received() shows them once they are durable.
#include "fs/base/hash.h"
#include "fs/base/log.h"
#include "fs/volume/impl.h"

namespace vmfs {

namespace {

bool is_base(RecordType type) {
  return type >= RecordType::kBaseBegin && type <= RecordType::kBaseEnd;
}

bool is_data(const RecordHeader& header) {
  return header.type == RecordType::kWrite ||
         (header.type == RecordType::kBaseData && header.group != raw(kNameSpace));
}

bool may_travel(const RecordHeader& header) {
  switch (header.type) {
    case RecordType::kWrite:
    case RecordType::kZero:
    case RecordType::kTruncate:
    case RecordType::kAllocate:
      return header.group != raw(kNameSpace);
    case RecordType::kCreate:
    case RecordType::kUnlink:
    case RecordType::kRename:
    case RecordType::kDeleteObject:
      return header.group == raw(kNameSpace);
    case RecordType::kSetAttributes:
    case RecordType::kFlush:
    case RecordType::kOpen:
    case RecordType::kClose:
    case RecordType::kEpoch:
    case RecordType::kReleased:
    case RecordType::kTaken:
    case RecordType::kBaseBegin:
    case RecordType::kBaseData:
    case RecordType::kBaseEnd:
      return true;
    default:
      return false;
  }
}

tl::unexpected<Error> protocol(const RecordHeader& header, std::string_view why) {
  return fail(ErrorKind::kProtocol, EPROTO,
              fmt::format("record {}/{} of group {:016x} (type {}): {}",
                          EpochId{header.epoch}, header.seq, header.group,
                          static_cast<int>(header.type), why));
}

bool nothing_of(VolumeGroup& group) {
  std::lock_guard lock(group.mutex);
  return group.history.empty();
}

}  // namespace

// --- Checking -------------------------------------------------------------------------------------------

VolumeGroup* Volume::Impl::received_group(GroupId id, std::shared_ptr<Inode>& alive) {
  if (VolumeGroup* group = find_group(id, alive)) return group;
  auto arriving = arriving_.find(id);
  if (arriving == arriving_.end()) return nullptr;
  alive = arriving->second;
  return &alive->image->group;
}

Result<> Volume::Impl::check_received(const ReceivedRecord& record,
                                      std::unordered_map<GroupId, Position>& positions,
                                      bool& repeat) {
  const RecordHeader& header = record.header;
  repeat = false;
  if (!may_travel(header)) return protocol(header, "no such record leaves a node");
  if (header.payload_size != record.payload.size())
    return protocol(header, "its payload is not as long as its header says");
  if (hash64(record.payload) != header.payload_hash)
    return protocol(header, "its payload fails its checksum");
  if (header.type == RecordType::kWrite && header.extent != header.payload_size)
    return protocol(header, "its payload is not as long as its extent");
  const std::uint64_t most = std::uint64_t{1} << 62;
  // (Of a truncation both are sizes: the new one and the one before.)
  const std::uint64_t begin = header.type == RecordType::kTruncate ? 0 : header.offset;
  if (header.offset > most || header.extent > most - std::min(most, begin))
    return protocol(header, "its range is beyond any image");

  GroupId id{header.group};
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = received_group(id, alive);
  if (group && group->gate.load(std::memory_order_acquire) == Gate::kOpen) {
    std::lock_guard lock(group->mutex);
    bool ours = std::any_of(group->history.begin(), group->history.end(), [&](const auto& entry) {
      return raw(entry.epoch) == header.epoch;
    });
    // What came from here may come back as a repeat; nothing else may.
    if (!ours || is_base(header.type)) return protocol(header, "this node owns the group");
  }
  Position next{EpochId{header.epoch}, header.seq};
  if (header.type == RecordType::kBaseBegin) {
    VMFS_ASSIGN(BaseBegin begin, decode<BaseBegin>(record.payload));
    if (begin.history.empty() || !(begin.history.back().epoch == next.epoch))
      return protocol(header, "its history does not lead to its position");
    if (group && !may_replace(*group, begin, next))
      return protocol(header, "this node has records of the group that the copy lacks, and has not given them up");
    positions[id] = next;
    return {};
  }
  auto known = positions.find(id);
  Position at;
  if (known != positions.end()) {
    at = known->second;
  } else if (group) {
    at = position_of(*group);
  } else if (is_base(header.type)) {
    return protocol(header, "nothing created this group");
  } else {
    // Its creation comes before it in the stream, and the name space's sequence has no gap: so it was
    // deleted here by a record that has come already, and this comes again.
    repeat = true;
    return {};
  }
  if (header.type == RecordType::kBaseData) {
    if (id == kNameSpace)
      VMFS_TRY(decode<std::vector<BaseObject>>(record.payload));
    else if (header.extent != header.payload_size)
      return protocol(header, "its payload is not as long as its extent");
    return {};
  }
  if (header.type == RecordType::kBaseEnd) {
    if (next.epoch == at.epoch && next.seq > at.seq)
      return protocol(header, fmt::format("a base copy ends before the records up to its position "
                                          "have come: {}/{} is here",
                                          at.epoch, at.seq));
    return {};
  }
  if (next.epoch == at.epoch && next.seq <= at.seq) {
    repeat = true;
    return {};
  }
  if (next.epoch == at.epoch && next.seq == at.seq + 1) {
    positions[id] = next;
  } else if ((header.type == RecordType::kEpoch || header.type == RecordType::kTaken) &&
             next.seq == at.seq + 1) {
    VMFS_ASSIGN(EpochChange change, decode<EpochChange>(record.payload));
    if (!(change.entry.epoch == next.epoch)) return protocol(header, "it names another epoch");
    if (change.entry.parent == at) {
      positions[id] = next;
    } else {
      repeat = group && is_past(*group, next);
      if (!repeat)
        return protocol(header, fmt::format("its epoch leaves {}/{}, and {}/{} is here",
                                            change.entry.parent.epoch, change.entry.parent.seq,
                                            at.epoch, at.seq));
      return {};
    }
  } else {
    repeat = group && is_past(*group, next);
    if (!repeat)
      return protocol(header, fmt::format("it does not continue {}/{}", at.epoch, at.seq));
    return {};
  }
  // What its publishing will need is looked at now: afterwards it is in the journal.
  switch (header.type) {
    case RecordType::kCreate: {
      VMFS_ASSIGN(Create change, decode<Create>(record.payload));
      if (change.type == FileType::kRegular) positions[change.object] = {change.first_epoch, 0};
      return {};
    }
    case RecordType::kUnlink:
      VMFS_TRY(decode<Unlink>(record.payload));
      return {};
    case RecordType::kRename:
      VMFS_TRY(decode<Rename>(record.payload));
      return {};
    case RecordType::kDeleteObject:
      VMFS_TRY(decode<DeleteObject>(record.payload));
      return {};
    case RecordType::kSetAttributes:
      VMFS_TRY(decode<AttributeChange>(record.payload));
      return {};
    case RecordType::kReleased:
      VMFS_TRY(decode<Release>(record.payload));
      return {};
    default:
      return {};
  }
}

// Whether a copy that ends the group's present state loses nothing: there is none, or the copy contains it, or
// what this node alone has was given up (and kept) before the copy was asked for.
bool Volume::Impl::may_replace(VolumeGroup& group, const BaseBegin& begin, Position end) {
  if (group.gate.load() == Gate::kInconsistent) return true;
  std::lock_guard lock(group.mutex);
  if (group.history.empty() || group.inconsistent) return true;
  const Position here = position_of(group);
  return history_contains(begin.history, end.seq, here).value_or(group.owner != node_);
}

// Whether the position lies in an epoch that this group has left behind, below where it left it.
bool Volume::Impl::is_past(VolumeGroup& group, Position position) {
  std::lock_guard lock(group.mutex);
  for (std::size_t i = 0; i + 1 < group.history.size(); ++i) {
    if (group.history[i].epoch != position.epoch) continue;
    const Position& left = group.history[i + 1].parent;
    return left.epoch == position.epoch && position.seq <= left.seq;
  }
  return false;
}

// --- Appending --------------------------------------------------------------------------------------------

Result<Lsn> Volume::receive(std::span<const ReceivedRecord> records, std::vector<Loss>* losses) {
  Impl& v = *impl_;
  std::lock_guard lock(v.receive_mutex_);
  // Beyond the bound nothing is taken: what waits here is shown once it is durable, and what is shown the
  // applier takes out of the index. Neither needs anything from the peer.
  if (v.index_memory_->load() + v.pending_memory_ > v.options_.memory_max) {
    v.want_apply();
    return v.would_wait();
  }
  std::unordered_map<GroupId, Position> positions;
  std::vector<bool> repeats(records.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    bool repeat = false;
    VMFS_TRY(v.check_received(records[i], positions, repeat));
    repeats[i] = repeat;
  }
  // Before anything is in the journal: what is there happens, after a crash too.
  std::vector<Loss> found;
  for (std::size_t i = 0; i < records.size(); ++i)
    if (!repeats[i]) v.find_losses(records, i, found);
  if (!found.empty()) {
    Error error{ErrorKind::kBusy, EBUSY,
                fmt::format("image {} was removed by a peer, and this node has not given it up", found.front().group)};
    if (losses) *losses = std::move(found);
    return pass(std::move(error));
  }
  std::vector<Draft> drafts(records.size());
  Journal::Reservation last;
  Draft* last_draft = nullptr;
  Result<> outcome;
  for (std::size_t i = 0; i < records.size() && outcome; ++i) {
    if (repeats[i]) continue;
    drafts[i].header = records[i].header;
    drafts[i].payload = records[i].payload;
    auto place = v.append_received(drafts[i]);
    if (!place) {
      outcome = pass(std::move(place.error()));
      break;
    }
    last = *place;
    last_draft = &drafts[i];
  }
  // All are filled: whoever waits for the last waits for all.
  while (last_draft && v.journal_->written_lsn() < last.end) {
    VMFS_ASSIGN(bool written, v.journal_->poll_written(last));
    if (written) break;
  }
  VMFS_TRY(std::move(outcome));
  return last_draft ? last.end : v.journal_->written_lsn();
}

Result<Journal::Reservation> Volume::Impl::append_received(Draft& draft) {
  GroupId id{draft.header.group};
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = received_group(id, alive);
  if (!group) {
    // A base copy of an image whose name is not known yet: check_received() let nothing else pass.
    alive = arriving_[id] = make_inode(id, FileType::kRegular);
    group = &alive->image->group;
  }
  // Before the record has its place: a pass of the applier that begins now must not go past it.
  if (first_pending_.load() == 0) first_pending_.store(journal_->reserved_lsn());
  auto place = reserve(draft, nullptr);
  if (!place) {
    if (pending_.empty()) first_pending_.store(0);
    return place;
  }
  raise_to(group->last_record, place->end);
  PendingRecord pending{place->lsn, place->end, draft.header, {}};
  if (!is_data(draft.header)) pending.payload.assign(draft.payload.begin(), draft.payload.end());
  pending_memory_ += sizeof(PendingRecord) + pending.payload.size();
  pending_.push_back(std::move(pending));
  journal_->fill(draft, *place, true);
  if (draft.header.type == RecordType::kBaseBegin) {
    VMFS_ASSIGN(BaseBegin begin, decode<BaseBegin>(draft.payload));
    VMFS_TRY(begin_base(*group, draft.header, begin));
  } else if (!is_base(draft.header.type)) {
    VMFS_ASSIGN(bool next, advance(*group, draft.header, draft.payload));
    CHECK_INVARIANT(next, "group {} does not continue with {}/{}", id, draft.header.epoch,
                    draft.header.seq);
  }
  if (draft.header.type == RecordType::kCreate) {
    VMFS_ASSIGN(Create change, decode<Create>(draft.payload));
    if (change.type == FileType::kRegular && !arriving_.contains(change.object)) {
      // A copy of the names that was read after it was made may have brought it, with nothing of it.
      auto inode = find(change.object);
      if (!inode || !inode->image || !nothing_of(inode->image->group))
        inode = arriving_[change.object] = make_inode(change.object, FileType::kRegular);
      restore(inode->image->group, {.id = change.object,
                                    .owner = change.creator,
                                    .history = {{change.first_epoch, change.creator, {},
                                                 EpochCause::kCreated, change.time_ns}}});
    }
  }
  return place;
}

// --- Publishing ---------------------------------------------------------------------------------------------

Result<> Volume::publish_received(Lsn durable) {
  Impl& v = *impl_;
  std::vector<Impl::Notice> notices;
  Result<> outcome;
  {
    std::lock_guard lock(v.receive_mutex_);
    outcome = v.publish_locked(std::min(durable, v.journal_->durable_lsn()), notices);
  }
  v.tell(notices);
  return outcome;
}

std::optional<std::unordered_map<GroupId, std::uint64_t>> Volume::not_visible() {
  Impl& v = *impl_;
  std::unique_lock lock(v.receive_mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return std::nullopt;
  std::unordered_map<GroupId, std::uint64_t> lowest_of;
  for (const auto& record : v.pending_) {
    auto [lowest, added] = lowest_of.try_emplace(GroupId{record.header.group}, record.header.seq);
    lowest->second = std::min(lowest->second, record.header.seq);
  }
  return lowest_of;
}

Lsn Volume::Impl::first_pending_of(GroupId group) const {
  for (const PendingRecord& record : pending_)
    if (record.header.group == raw(group)) return record.lsn;
  return ~Lsn{0};
}

Result<> Volume::Impl::publish_locked(Lsn durable, std::vector<Notice>& notices) {
  while (!pending_.empty() && pending_.front().end <= durable) {
    Notice notice;
    auto published = publish_record(pending_.front(), notice, notices);
    if (!published) {
      problem("publish", fmt::format("cannot show a received record: {}; it is tried again\n"
                                     "free space on the store's file system, or check its disk:  df, dmesg",
                                     published.error().message));
      return published;
    }
    no_problem("publish");
    pending_memory_ -= sizeof(PendingRecord) + pending_.front().payload.size();
    pending_.pop_front();
    // After it is in the index: see start_pass().
    first_pending_.store(pending_.empty() ? 0 : pending_.front().lsn);
    if (notice.group_changed || !notice.names.empty())
      notices.push_back(std::move(notice));
  }
  return {};
}

Result<std::vector<std::pair<ObjectId, std::string>>> Volume::Impl::names_in(RecordType type, ByteView payload) {
  std::vector<std::pair<ObjectId, std::string>> names;
  if (type == RecordType::kCreate) {
    VMFS_ASSIGN(Create change, decode<Create>(payload));
    names.emplace_back(change.parent, change.name);
  } else if (type == RecordType::kUnlink) {
    VMFS_ASSIGN(Unlink change, decode<Unlink>(payload));
    names.emplace_back(change.parent, change.name);
  } else if (type == RecordType::kRename) {
    VMFS_ASSIGN(Rename change, decode<Rename>(payload));
    names.emplace_back(change.from_parent, change.from_name);
    names.emplace_back(change.to_parent, change.to_name);
  } else if (type == RecordType::kSetAttributes) {
    VMFS_ASSIGN(AttributeChange change, decode<AttributeChange>(payload));
    names.emplace_back(change.object, std::string());  // of a directory: it alone
  } else if (type == RecordType::kBaseData) {
    VMFS_ASSIGN(auto objects, decode<std::vector<BaseObject>>(payload));
    for (const BaseObject& object : objects) names.emplace_back(object.parent, object.name);
  }
  return names;
}

Result<> Volume::Impl::publish_record(const PendingRecord& record, Notice& notice, std::vector<Notice>& before) {
  const RecordHeader& header = record.header;
  notice.group = GroupId{header.group};
  notice.because = header.type;
  VolumeGroup* group = &names_;
  if (notice.group == kNameSpace) {
    std::unique_lock lock(names_mutex_);
    // What this node recorded before it lost the name space comes first.
    VMFS_TRY(make_names(&before));
    VMFS_ASSIGN(notice.names, names_in(header.type, record.payload));
    if (header.type == RecordType::kCreate) {
      VMFS_ASSIGN(Create change, decode<Create>(record.payload));
      bring_in(change.object);
    } else if (header.type == RecordType::kBaseData) {
      VMFS_ASSIGN(auto objects, decode<std::vector<BaseObject>>(record.payload));
      for (const BaseObject& object : objects) bring_in(object.object);
    }
    VMFS_TRY(apply_name_record(header, record.payload, true));
    settle_published(names_, header.type, notice);
    return {};
  }
  auto inode = find_image(notice.group);
  if (!inode && header.type == RecordType::kBaseBegin) {
    std::unique_lock lock(names_mutex_);
    Create unnamed;
    unnamed.object = notice.group;
    unnamed.type = FileType::kRegular;
    VMFS_TRY(store_->create_object(unnamed));
    bring_in(notice.group);
    inode = tree_.find(notice.group);
  }
  if (!inode) return {};  // deleted by a record that came in between
  group = &inode->image->group;
  if (header.type == RecordType::kWrite || header.type == RecordType::kZero) {
    std::shared_lock<ImageLock> lock(inode->image->lock);
    VMFS_TRY(apply_image_record(*inode, header, record.lsn, record.payload));
  } else {
    std::unique_lock<ImageLock> lock(inode->image->lock);
    VMFS_TRY(apply_image_record(*inode, header, record.lsn, record.payload));
  }
  settle_published(*group, header.type, notice);
  return {};
}

void Volume::Impl::bring_in(ObjectId object) {
  auto arriving = arriving_.find(object);
  if (arriving == arriving_.end()) return;
  if (!tree_.find(object)) tree_.insert(arriving->second);
  arriving_.erase(arriving);
}

// Gates and notices after a record was shown.
void Volume::Impl::settle_published(VolumeGroup& group, RecordType type, Notice& notice) {
  switch (type) {
    case RecordType::kBaseBegin: {
      std::lock_guard lock(group.mutex);
      group.inconsistent = true;
      break;
    }
    case RecordType::kBaseEnd: {
      // Another copy may have begun since, of which no state is shown yet.
      const bool again = std::any_of(pending_.begin() + 1, pending_.end(), [&](const PendingRecord& other) {
        return other.header.group == raw(notice.group) && other.header.type == RecordType::kBaseBegin;
      });
      std::lock_guard lock(group.mutex);
      group.inconsistent = again;
      break;
    }
    case RecordType::kTaken:
      // Whoever takes what was handed over holds all of it durably.
      raise_to(group.flush_completed, group.handed_over.load());
      break;
    case RecordType::kEpoch:
    case RecordType::kReleased:
      break;
    default:
      return;
  }
  notice.group_changed = true;
  Gate before = group.gate.load();
  Gate gate = resting_gate(group, true);
  // What was this node's is another's now: what its handles have not written yet, they never will.
  if ((before == Gate::kSuspended || before == Gate::kInconsistent || type == RecordType::kBaseBegin) &&
      gate != Gate::kSuspended)
    group.revocations.fetch_add(1);
  group.gate.store(gate);
}

void Volume::Impl::tell(const std::vector<Notice>& notices) {
  if (notices.empty()) return;
  std::shared_lock lock(observers_mutex_);
  for (const Notice& notice : notices) {
    for (Observer* observer : observers_) {
      if (notice.group_changed) observer->group_changed(notice.group, notice.because);
      for (const auto& [parent, name] : notice.names) observer->names_changed(parent, name);
    }
  }
}

}  // namespace vmfs
