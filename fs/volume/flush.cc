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

// One record for what no flush has covered yet; a repeated or concurrent flush adds none. A full
// journal, or a gate that is closed, does not keep the flush itself from being made. Returns what has
// to become durable. The caller holds the group's lock.
Result<Lsn> Volume::Impl::append_flush(VolumeGroup& group, const Caller& caller) {
  Lsn through = group.last_change.load(std::memory_order_acquire);
  bool open = group.gate.load(std::memory_order_acquire) == Gate::kOpen &&
              group.epoch_events.load() == epoch_events_.load();
  if (!open || group.flush_appended.load(std::memory_order_acquire) >= through)
    return std::max(through, group.flush_appended.load(std::memory_order_acquire));
  auto end = append_flush_record(group, caller);
  if (!end && end.error().kind == ErrorKind::kWouldWait) return through;
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
  VMFS_ASSIGN(Journal::Reservation place, journal_->reserve(draft, &group.cursor));
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

void Volume::flush(Object& handle, const Caller& caller, std::function<void(Result<>)> done) {
  Impl& v = *impl_;
  const std::shared_ptr<Inode>& inode = handle.inode;
  if (inode->local) return done({});
  VolumeGroup& group = inode->image->group;
  if (group.flushed() && v.journal_->durable_lsn() >= group.last_change.load()) return done({});
  Result<Lsn> through = 0;
  for (;;) {
    // A peer may be counted lost at any moment: what is flushed here and not there belongs to a new epoch.
    const std::uint32_t events = v.epoch_events_.load();
    if (group.epoch_events.load() != events) {
      auto begun = begin_epoch_if_due(inode->id);
      if (!begun && begun.error().kind != ErrorKind::kWouldWait) return done(std::move(begun));
    }
    std::shared_lock<ImageLock> lock(inode->image->lock);
    through = v.append_flush(group, caller);
    if (!through || events == v.epoch_events_.load()) break;
  }
  if (!through) return done(pass(std::move(through.error())));
  // The group lives as long as its inode: until the answer.
  v.finish_flush(group, *through,
                 [inode, done = std::move(done)](Result<> result) { done(std::move(result)); });
}

void Volume::flush_names(const Caller& caller, std::function<void(Result<>)> done) {
  Impl& v = *impl_;
  VolumeGroup& group = v.names_;
  if (group.flushed() && v.journal_->durable_lsn() >= group.last_change.load()) return done({});
  Result<Lsn> through = 0;
  {
    std::unique_lock lock(v.names_mutex_);
    if (auto made = v.make_names(); !made) return done(Impl::unknown_outcome(made.error()));
    for (;;) {
      const std::uint32_t events = v.epoch_events_.load();
      auto begun = v.begin_epoch_locked(group);
      if (!begun && begun.error().kind != ErrorKind::kWouldWait) return done(std::move(begun));
      through = v.append_flush(group, caller);
      if (!through || events == v.epoch_events_.load()) break;
    }
  }
  if (!through) return done(pass(std::move(through.error())));
  v.finish_flush(group, *through, std::move(done));
}

}  // namespace vmfs
