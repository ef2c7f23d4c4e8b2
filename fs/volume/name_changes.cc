// How a change of the name space is made: record, journal sync, redo in the store, memory.
#include "fs/base/log.h"
#include "fs/volume/impl.h"
#include "fs/volume/refusal.h"

namespace vmfs {

Result<std::unique_lock<std::shared_mutex>> Volume::Impl::lock_names() {
  for (;;) {
    std::unique_lock lock(names_mutex_);
    if (unmade_names_.empty()) return lock;
    lock.unlock();
    VMFS_TRY(make_late_names());
  }
}

Result<> Volume::Impl::enter_names(std::uint64_t bytes) {
  Gate gate = names_.gate.load(std::memory_order_acquire);
  if (gate != Gate::kOpen) return pass(closed_gate(kNameSpace, gate));
  VMFS_TRY(begin_epoch_locked(names_));
  if (bytes != 0) {
    VMFS_TRY(admit_file());
    return admit(nullptr, 0, bytes);
  }
  if (peers_behind()) return would_wait();
  return {};
}

Result<> Volume::Impl::change_names(std::span<const NameRecord> changes) {
  constexpr std::size_t kMost = 4;
  CHECK_COMPARE(changes.size(), <=, kMost);
  std::array<Draft, kMost> drafts;
  std::array<Journal::Reservation, kMost> places;
  std::int64_t now = clock_.wall_ns();
  for (std::size_t i = 0; i < changes.size(); ++i) {
    RecordHeader& header = drafts[i].header;
    header.type = changes[i].type;
    header.group = raw(kNameSpace);
    header.wall_ns = now;
    header.connection = raw(changes[i].request.connection);
    header.unique = changes[i].request.unique;
    drafts[i].payload = changes[i].payload;
  }
  std::uint64_t events = space_events_.load(std::memory_order_acquire);
  auto reserved = journal_->reserve_all({drafts.data(), changes.size()}, &names_.cursor,
                                        {places.data(), changes.size()});
  if (!reserved) {
    if (reserved.error().kind != ErrorKind::kWouldWait) return pass(std::move(reserved.error()));
    full_at_.store(events, std::memory_order_release);
    want_apply();
    return would_wait();
  }
  Result<> committed;
  for (std::size_t i = 0; i < changes.size(); ++i) {
    if (auto one = journal_->commit(drafts[i], places[i]); !one && committed)
      committed = pass(std::move(one.error()));
    // Whatever comes of it, the change is in the sequence: if the journal heals, it happens.
    unmade_names_.push_back({places[i].end, drafts[i].header, changes[i].payload});
  }
  Lsn end = places[changes.size() - 1].end;
  raise_to(names_.last_record, end);
  raise_to(names_.last_change, end);
  if (committed) {
    changed(names_, changes[0].request, end);
    committed = make_names();
  }
  if (committed) return {};
  names_late_.store(true);
  want_apply();
  // Nor may a full store, say, be taken for a refusal.
  return unknown_outcome(committed.error());
}

tl::unexpected<Error> Volume::Impl::unknown_outcome(const Error& error) {
  return fail(ErrorKind::kIo, EIO,
              fmt::format("a change of the name space is in the journal and not in the store, and will be made "
                          "later: {}; `vmfs status` says when it is",
                          error.message));
}

Result<> Volume::Impl::make_names(std::vector<Notice>* late) {
  while (!unmade_names_.empty()) {
    NameChange& change = unmade_names_.front();
    VMFS_TRY(journal_->sync_through(change.end));
    auto made = apply_name_record(change.header, change.payload, true);
    if (!made) {
      problem("names", fmt::format("the store refuses a change of the name space: {}; it is in the "
                                   "journal and is tried again\n"
                                   "free space on the store's file system, or check its disk:  df, dmesg",
                                   made.error().message));
      return made;
    }
    if (late) {
      VMFS_ASSIGN(auto names, names_in(change.header.type, change.payload));
      late->push_back({.group = kNameSpace, .because = change.header.type, .names = std::move(names)});
    }
    unmade_names_.pop_front();
    no_problem("names");
  }
  return {};
}

Result<> Volume::Impl::make_late_names() {
  std::vector<Notice> notices;
  Result<> made;
  {
    std::unique_lock lock(names_mutex_);
    made = make_names(&notices);
    names_late_.store(!unmade_names_.empty());
  }
  // The kernel knows them as they were when the client was told of the failure.
  tell(notices);
  return made;
}

bool Volume::Impl::loses_its_name(ObjectId object) const {
  return std::any_of(unmade_names_.begin(), unmade_names_.end(), [object](const NameChange& change) {
    if (change.header.type == RecordType::kUnlink) {
      auto unlink = decode<Unlink>(change.payload);
      return unlink && unlink->object == object;
    }
    if (change.header.type == RecordType::kRename) {
      auto rename = decode<Rename>(change.payload);
      return rename && rename->replaced == object;
    }
    return false;
  });
}

namespace {
void directory_changed(Inode* directory, std::int64_t time_ns) {
  if (!directory) return;
  std::lock_guard guard(directory->attributes_lock);
  directory->stat.mtime_ns = directory->stat.ctime_ns = time_ns;
}
void lost_name(Inode& inode, std::int64_t time_ns) {
  std::lock_guard guard(inode.attributes_lock);
  inode.stat.ctime_ns = time_ns;
  inode.stat.links = 0;
}
}  // namespace

std::shared_ptr<Inode> Volume::Impl::make_inode(ObjectId object, FileType type) {
  auto inode = std::make_shared<Inode>(object, type);
  inode->stat.type = type;
  if (type == FileType::kRegular) inode->image = std::make_unique<VolumeImage>(object, index_memory_);
  return inode;
}

Result<> Volume::Impl::apply_name_record(const RecordHeader& header, ByteView payload,
                                         bool to_memory) {
  if (to_memory) note_dirty_since();
  switch (header.type) {
    case RecordType::kCreate: {
      VMFS_ASSIGN(Create change, decode<Create>(payload));
      VMFS_TRY(store_->create_object(change));
      if (base_names_from_) base_names_.insert(change.object);
      if (!to_memory) return {};
      auto inode = tree_.find(change.object);
      if (!inode) {
        inode = make_inode(change.object, change.type);
        tree_.insert(inode);
      }
      {
        std::lock_guard guard(inode->attributes_lock);
        inode->stat.permissions = change.permissions;
        inode->stat.uid = change.uid;
        inode->stat.gid = change.gid;
        inode->stat.atime_ns = inode->stat.mtime_ns = inode->stat.ctime_ns = change.time_ns;
        inode->stat.size = change.type == FileType::kSymlink     ? change.target.size()
                           : change.type == FileType::kDirectory ? kBlock
                                                                 : 0;
      }
      inode->target = change.target;
      if (inode->image) {
        VolumeGroup& group = inode->image->group;
        bool begins = false;
        {
          std::lock_guard guard(group.mutex);
          begins = group.history.empty();
        }
        if (begins) {
          GroupState state;
          state.id = change.object;
          state.owner = change.creator;
          state.history = {{change.first_epoch, change.creator, {}, EpochCause::kCreated,
                            change.time_ns}};
          restore(group, state);
        }
        bool open = change.creator == node_ && names_.gate.load() == Gate::kOpen;
        // Its first epoch is as old as the name space's: a peer lost since was lost to both.
        if (open) group.epoch_events.store(names_.epoch_events.load());
        group.gate.store(open ? Gate::kOpen : resting_gate(group, true));
      }
      if (auto parent = tree_.find(change.parent)) {
        tree_.place(inode, *parent, change.name);
        directory_changed(parent.get(), change.time_ns);
      }
      return {};
    }
    case RecordType::kUnlink: {
      VMFS_ASSIGN(Unlink change, decode<Unlink>(payload));
      VMFS_TRY(store_->unlink(change));
      if (!to_memory) return {};
      auto inode = tree_.find(change.object);
      if (!inode) return {};
      directory_changed(tree_.find(change.parent).get(), change.time_ns);
      lost_name(*inode, change.time_ns);
      if (inode->image) {
        tree_.detach(*inode);
        orphans_wait_.store(true);
      } else {
        tree_.erase(*inode);
      }
      return {};
    }
    case RecordType::kRename: {
      VMFS_ASSIGN(Rename change, decode<Rename>(payload));
      VMFS_TRY(store_->rename(change));
      if (!to_memory) return {};
      auto inode = tree_.find(change.object);
      auto parent = tree_.find(change.to_parent);
      if (!inode || !parent) return {};
      if (auto replaced = tree_.child(*parent, change.to_name); replaced && replaced != inode) {
        lost_name(*replaced, change.time_ns);
        if (replaced->image) {
          tree_.detach(*replaced);
          orphans_wait_.store(true);
        } else {
          tree_.erase(*replaced);
        }
      }
      tree_.place(inode, *parent, change.to_name);
      directory_changed(tree_.find(change.from_parent).get(), change.time_ns);
      directory_changed(parent.get(), change.time_ns);
      {
        std::lock_guard guard(inode->attributes_lock);
        inode->stat.ctime_ns = change.time_ns;
      }
      return {};
    }
    case RecordType::kDeleteObject: {
      VMFS_ASSIGN(DeleteObject change, decode<DeleteObject>(payload));
      VMFS_TRY(store_->delete_object(change.object));
      if (!to_memory) return {};
      auto inode = tree_.find(change.object);
      if (!inode) return {};
      // Whoever has it open here goes on reading through the index, as long as the journal lasts.
      tree_.erase(*inode);
      return {};
    }
    case RecordType::kSetAttributes: {
      VMFS_ASSIGN(AttributeChange change, decode<AttributeChange>(payload));
      VMFS_TRY(store_->set_attributes(change.object, change.set));
      if (!to_memory) return {};
      if (auto inode = tree_.find(change.object))
        inode->set_attributes(change.set, header.lsn, change.time_ns);
      return {};
    }
    case RecordType::kBaseBegin:
      base_names_from_ = header.lsn;
      base_names_ = {kRootObject};
      base_names_ended_ = false;  // a copy that ended before is not the one that begins now
      return {};
    case RecordType::kBaseData: {
      VMFS_ASSIGN(auto objects, decode<std::vector<BaseObject>>(payload));
      for (const BaseObject& object : objects) VMFS_TRY(apply_base_object(object, to_memory));
      return {};
    }
    case RecordType::kBaseEnd:
      // Redo may begin behind the copy's beginning: then its end was made in the store, or the state would still
      // name the beginning.
      return base_names_from_ ? finish_base_names(to_memory) : Result<>{};
    default:
      return {};  // moments and ownership: nothing in the store
  }
}

Result<> Volume::Impl::delete_orphan(const std::shared_ptr<Inode>& inode) {
  {
    std::lock_guard open_lock(inode->image->open_mutex);
    if (inode->image->opens != 0 || inode->parent || inode->deleted) return {};
  }
  if (inode->dropped) {
    VMFS_TRY(store_->delete_object(inode->id));
    tree_.erase(*inode);
    return {};
  }
  // Whoever opens a gate lets the orphans be looked at again.
  if (inode->image->group.gate.load() != Gate::kOpen) return {};
  if (Gate gate = names_.gate.load(); gate != Gate::kOpen) {
    // The name space has moved away since the name was removed: no other node may change the image, so it
    // would stay for ever if this one did not ask.
    if (gate == Gate::kSecondary) [[maybe_unused]] Error asked = closed_gate(kNameSpace, gate);
    Refusal::waits_for = {};
    return {};
  }
  auto deleted = [&]() -> Result<> {
    VMFS_TRY(enter_names(0));
    std::unique_lock<ImageLock> image_lock(inode->image->lock);
    NameRecord record{RecordType::kDeleteObject,
                      encode(DeleteObject{inode->id, final_history(inode->image->group)}), {}};
    return change_names({&record, 1});
  }();
  if (!deleted) orphans_wait_.store(true);
  return deleted;
}

void Volume::Impl::delete_orphans() {
  if (!orphans_wait_.exchange(false)) return;
  auto lock = lock_names();
  if (!lock) {
    orphans_wait_.store(true);
    return;
  }
  std::vector<std::shared_ptr<Inode>> orphans;
  for (const auto& [id, inode] : tree_.objects())
    if (inode->image && !inode->parent) orphans.push_back(inode);
  for (const auto& inode : orphans)
    if (!delete_orphan(inode)) return;  // tried again later: the flag stands
}

}  // namespace vmfs
