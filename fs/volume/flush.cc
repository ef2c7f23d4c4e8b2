// Flushes: what was written so far becomes durable here and, as the mode demands, on the peers.
#include "fs/volume/impl.h"

namespace vmfs {

namespace {

// Both halves of a flush; whoever ends last answers.
class Flush {
 public:
  Flush(std::function<void(Result<>)> done, int parts) : done_(std::move(done)), parts_(parts) {}
  void ended(Result<> result) {
    {
      std::lock_guard lock(mutex_);
      if (!result && result_) result_ = std::move(result);
    }
    if (parts_.fetch_sub(1) == 1) done_(std::move(result_));
  }

 private:
  std::mutex mutex_;
  Result<> result_;
  std::function<void(Result<>)> done_;
  std::atomic<int> parts_;
};

}  // namespace

// Whether nothing but its beginning says that this node went on in the present epoch: whoever compares histories
// later takes such an epoch for one that nobody was answered in.
bool Volume::Impl::epoch_unused(VolumeGroup& group) {
  std::lock_guard lock(group.mutex);
  return group.owner == node_ && !group.history.empty() &&
         position_of(group).seq <= group.history.back().parent.seq + 1;
}

// One record for what no flush has covered yet; a repeated or concurrent flush adds none. A gate that is closed
// does not keep the flush itself from being made, nor does a full journal, but in an epoch that is unused: then it
// is kWouldWait. Returns what has to become durable. The caller holds the group's lock.
Result<Lsn> Volume::Impl::append_flush(VolumeGroup& group, const Caller& caller) {
  Lsn through = group.last_change.load(std::memory_order_acquire);
  bool open = group.gate.load(std::memory_order_acquire) == Gate::kOpen &&
              group.epoch_events.load() == epoch_events_.load();
  if (!open || group.flush_appended.load(std::memory_order_acquire) >= through)
    return std::max(through, group.flush_appended.load(std::memory_order_acquire));
  auto end = append_flush_record(group, caller);
  if (!end && end.error().kind == ErrorKind::kWouldWait && !(hooks_ && epoch_unused(group))) return through;
  return end;
}

Result<Lsn> Volume::Impl::append_flush_record(VolumeGroup& group, const Caller& caller) {
  PeerConfirmations confirmations;
  {
    std::lock_guard lock(peers_mutex_);
    for (const PeerState& peer : peers_) confirmations.push_back({peer.id, peer.confirmed});
  }
  Bytes payload = encode(confirmations);
  Draft draft;
  draft.header.type = RecordType::kFlush;
  draft.header.group = raw(group.id);
  draft.header.wall_ns = clock_.wall_ns();
  draft.header.connection = raw(caller.request.connection);
  draft.header.unique = caller.request.unique;
  draft.payload = payload;
  VMFS_ASSIGN(Journal::Reservation place, reserve(draft, &group.cursor));
  VMFS_TRY(journal_->commit(draft, place));
  raise_to(group.last_record, place.end);
  raise_to(group.flush_appended, place.end);
  if (hooks_) hooks_->written(place.end);
  return place.end;
}

// With no lock held: a hand-over, the applier and other writers need not wait for the disk.
void Volume::Impl::finish_flush(VolumeGroup& group, Lsn through, std::function<void(Result<>)> done) {
  if (!hooks_) {
    auto synced = journal_->sync_through(through);
    if (synced) raise_to(group.flush_completed, through);
    return done(std::move(synced));
  }
  auto flush = std::make_shared<Flush>(
      [&group, through, done = std::move(done)](Result<> result) {
        if (result) raise_to(group.flush_completed, through);
        done(std::move(result));
      },
      2);
  hooks_->await_peers(group.id, through,
                      [flush](Result<> result) { flush->ended(std::move(result)); });
  flush->ended(journal_->sync_through(through));
}

tl::unexpected<Error> Volume::Impl::given_up() {
  return fail(ErrorKind::kIo, EIO, "the image was given up since it was opened; what was in it is kept");
}

// How far the journal has to be durable to answer a flush of a closed group; kWouldWait: it is to be opened first.
Result<Lsn> Volume::Impl::flush_of_closed(VolumeGroup& group) {
  const Lsn through = group.last_change.load(std::memory_order_acquire);
  if (through <= life_began_) return through;  // nobody whom this mount serves has changed it
  if (group.gate.load() == Gate::kInconsistent) return given_up();
  return pass(closed_gate(group.id, Gate::kSuspended));
}

// What is flushed here and not on a peer that was counted lost belongs to a new epoch, so a flush waits for that
// epoch's room in the journal. The applier makes it: it needs no flush, and nothing from the peers that are away.
void Volume::Impl::flush_image(Volume& volume, std::shared_ptr<Inode> inode, const Caller& caller,
                               std::function<void(Result<>)> done) {
  VolumeGroup& group = inode->image->group;
  if (group.flushed() && journal_->durable_lsn() >= group.last_change.load()) return done({});
  Result<Lsn> through = 0;
  for (;;) {
    if (is_closed(group)) {
      through = flush_of_closed(group);
      if (through) return done(journal_->sync_through(*through));
      break;
    }
    // A peer may be counted lost at any moment.
    const std::uint32_t events = epoch_events_.load();
    if (group.epoch_events.load() != events) {
      std::unique_lock<ImageLock> lock(inode->image->lock);
      auto begun = begin_epoch_locked(group);
      if (!begun && flush_needs(begun.error())) through = pass(std::move(begun.error()));
    }
    if (!through) break;
    std::shared_lock<ImageLock> lock(inode->image->lock);
    through = append_flush(group, caller);
    if (is_closed(group)) continue;
    if (!through || events == epoch_events_.load()) break;
  }
  if (!through && through.error().kind == ErrorKind::kWouldWait)
    return volume.park(inode->id, [this, &volume, inode, caller, done = std::move(done)]() mutable {
      flush_image(volume, std::move(inode), caller, std::move(done));
    });
  if (!through) return done(pass(std::move(through.error())));
  // The group lives as long as its inode: until the answer.
  finish_flush(group, *through,
               [inode, done = std::move(done)](Result<> result) { done(std::move(result)); });
}

void Volume::flush(Object& handle, const Caller& caller, std::function<void(Result<>)> done) {
  if (handle.inode->local) return done({});
  // What this handle wrote is not in the image any more, if it was given up and not handed over.
  const VolumeGroup& group = handle.inode->image->group;
  if (handle.wrote.load() && handle.revocations != group.revocations.load() && !group.flushed() &&
      group.last_change.load() > group.handed_over.load())
    return done(Impl::given_up());
  impl_->flush_image(*this, handle.inode, caller, std::move(done));
}

void Volume::flush_names(const Caller& caller, std::function<void(Result<>)> done) {
  Impl& v = *impl_;
  VolumeGroup& group = v.names_;
  if (group.flushed() && v.journal_->durable_lsn() >= group.last_change.load()) return done({});
  Result<Lsn> through = 0;
  std::optional<Lsn> of_closed;
  {
    auto lock = v.lock_names();
    if (!lock) return done(Impl::unknown_outcome(lock.error()));
    for (;;) {
      const std::uint32_t events = v.epoch_events_.load();
      if (v.is_closed(group)) {
        through = v.flush_of_closed(group);
        if (through) of_closed = *through;
        break;
      }
      if (auto begun = v.begin_epoch_locked(group); !begun && v.flush_needs(begun.error()))
        through = pass(std::move(begun.error()));
      else
        through = v.append_flush(group, caller);
      if (v.is_closed(group)) continue;
      if (!through || events == v.epoch_events_.load()) break;
    }
  }
  if (of_closed) return done(v.journal_->sync_through(*of_closed));
  if (!through && through.error().kind == ErrorKind::kWouldWait)
    return park(kNameSpace, [this, caller, done = std::move(done)] { flush_names(caller, done); });
  if (!through) return done(pass(std::move(through.error())));
  v.finish_flush(group, *through, std::move(done));
}

}  // namespace vmfs
