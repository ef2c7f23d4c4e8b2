// Carries durable records from the journal into the store, the latest version of each block, in the
// order of offsets. A pass goes once through what was unapplied below a place of the journal, a quarter of the
// journal further at most; then a checkpoint follows (checkpoint.cc).
#include "fs/base/log.h"
#include "fs/base/mistakes.h"
#include "fs/volume/impl.h"

namespace vmfs {

namespace {
// A file system that cannot reserve goes without: it is no promise that a guest could see broken.
Result<> reserve_blocks(File& file, std::uint64_t offset, std::uint64_t length, bool keep_size) {
  auto allocated = file.allocate(offset, length, keep_size, "store.apply");
  if (!allocated && allocated.error().kind != ErrorKind::kUnsupported && allocated.error().number != EOPNOTSUPP)
    return allocated;
  return {};
}
}  // namespace

// --- When ----------------------------------------------------------------------------------------------

Result<std::int64_t> Volume::sync_if_due() {
  Impl& v = *impl_;
  v.retry_parked();
  VMFS_ASSIGN(std::int64_t next, v.sync_journal_if_due());
  // What a peer sent before its connection ended: nobody else would show it, and the applier waits for that. Why it
  // cannot be shown is a problem that the volume tells by itself.
  if (v.first_pending_.load() != 0) (void)publish_received(v.journal_->durable_lsn());
  return next;
}

Result<std::int64_t> Volume::Impl::sync_journal_if_due() {
  std::uint64_t bytes = journal_->unsynced_bytes();
  if (bytes == 0) return options_.sync_interval_ns;
  const std::int64_t age = journal_->unsynced_since_ns();
  if (bytes < options_.sync_bytes && age < options_.sync_interval_ns) return options_.sync_interval_ns - age;
  auto synced = journal_->sync_through(journal_->written_lsn());
  if (!synced) {
    problem("journal", fmt::format("the journal cannot be made durable: {}; nothing is acknowledged until it can\n"
                                   "check the disk of the journal:  df, dmesg",
                                   synced.error().message));
    return pass(std::move(synced.error()));
  }
  no_problem("journal");
  return options_.sync_interval_ns;
}

bool Volume::Impl::apply_due() {
  std::int64_t since = dirty_since_ns_.load();
  if (!forgotten_.empty() || names_forgotten_) return true;
  Lsn reserved = journal_->reserved_lsn();
  std::uint64_t quarter = journal_->bytes_max() / 4;
  if (wanted_.release.exchange(false)) return true;
  if (wanted_.apply.exchange(false) && (since != 0 || reserved > applied_through_)) return true;
  // Also without data: ownership, flushes and names use up journal space too.
  if (reserved - std::min(reserved, applied_through_) > quarter) return true;
  if (since == 0) return false;
  if (index_memory_->load() > options_.memory_max / 2) return true;
  return clock_.monotonic_ns() - since >= options_.apply_after_ns;
}

Result<bool> Volume::apply_some(bool all) {
  Impl& v = *impl_;
  constexpr std::int64_t kTryNamesNs = 200'000'000;
  if (std::int64_t now = v.clock_.monotonic_ns();
      v.names_late_.load() && (all || now - v.names_tried_ns_.load() >= kTryNamesNs)) {
    v.names_tried_ns_.store(now);
    (void)v.make_late_names();  // what keeps it is a problem that status shows; data are carried on all the same
  }
  v.delete_orphans();
  constexpr std::int64_t kAskSpaceNs = 1'000'000'000;
  if (std::int64_t now = v.clock_.monotonic_ns(); now - v.space_asked_ns_.load() >= kAskSpaceNs) {
    v.space_asked_ns_.store(now);
    v.refresh_admission();
  }
  std::lock_guard lock(v.apply_mutex_);
  if (v.settling_unsaved_.exchange(false)) {
    if (auto saved = v.save_state(); !saved) {
      v.settling_unsaved_.store(true);
      return pass(std::move(saved.error()));
    }
  }
  VMFS_TRY(v.sample_if_due());
  if (v.checkpoint_wanted_ || (!v.pass_.active && v.release_due())) {
    VMFS_TRY(v.checkpoint_locked());
    return all && v.dirty_since_ns_.load() != 0;
  }
  if (!v.pass_.active) {
    bool due = v.apply_due() || (all && v.dirty_since_ns_.load() != 0);
    if (!due) return false;
    VMFS_TRY(v.start_pass());
  }
  Result<bool> more = v.apply_step();
  if (!more) {
    v.problem("apply", fmt::format("cannot carry changes into the store: {}; they stay in the journal, "
                                   "and it is tried again\n"
                                   "free space on the store's file system, or check its disk:  df, dmesg",
                                   more.error().message));
    return more;
  }
  v.no_problem("apply");
  if (*more) return true;
  VMFS_TRY(v.checkpoint_locked());
  v.pass_share_ = std::max(Impl::kPassShareLeast, v.pass_share_ / 2);
  return all && v.dirty_since_ns_.load() != 0;
}

// --- A pass ---------------------------------------------------------------------------------------------

// Notes where every group stands, at one place of the journal. Returns the place.
Result<Lsn> Volume::Impl::take_sample() {
  Sample sample;
  std::shared_lock names(names_mutex_);
  journal_->with_reservations_locked([&] {
    sample.lsn = journal_->reserved_lsn();
    auto look = [&](VolumeGroup& group) {
      Position now{group.cursor.epoch, group.cursor.seq};
      if (now == group.sampled) return;
      group.sampled = now;
      sample.groups.emplace_back(group.id, now);
    };
    look(names_);
    for (const auto& [id, inode] : tree_.objects())
      if (inode->image) look(inode->image->group);
  });
  Lsn place = sample.lsn;
  samples_.push_back(std::move(sample));
  return place;
}

// Journal space is freed up to a sample: they must not lie further apart than what is freed at a time.
Result<> Volume::Impl::sample_if_due() {
  Lsn last = samples_.empty() ? applied_through_ : samples_.back().lsn;
  if (journal_->reserved_lsn() - std::min(last, journal_->reserved_lsn()) < sample_distance()) return {};
  VMFS_ASSIGN([[maybe_unused]] Lsn place, take_sample());
  return {};
}

Result<> Volume::Impl::start_pass() {
  VMFS_TRY(put_back());
  // The space of what was removed comes back though no checkpoint can be made.
  for (const auto& inode : touched_)
    if (inode->deleted.load()) inode->image->touched_file.reset();
  VMFS_ASSIGN(Lsn place, take_sample());
  pass_.started_ns = std::max<std::int64_t>(1, clock_.monotonic_ns());
  // At most as much of the journal as makes a pass due, and less at first. When more has gathered (after a start,
  // or behind a slow disk) it is freed bit by bit, and a daemon that dies again and again still gets on. (It may
  // be any place: a record counts by its beginning, here and in replay, and what is durable ends with a record.)
  const Lsn begin = std::max(applied_through_, journal_->oldest_lsn());  // the log does not begin at 0
  pass_.through = std::min(place, begin + journal_->bytes_max() / pass_share_);
  if (!mistakes.apply_before_durable) VMFS_TRY(journal_->sync_through(pass_.through));
  // Received records that are not yet shown are in no index. Asked before the list is: what has been
  // shown by now has also been listed.
  if (Lsn pending = first_pending_.load(); pending != 0) pass_.through = std::min(pass_.through, pending);
  {
    // A writer lists its image before it reserves, so whatever has a record below is among these.
    std::lock_guard lock(dirty_mutex_);
    pass_.images = dirty_;
  }
  pass_.image = 0;
  pass_.offset = 0;
  pass_.visited = false;
  pass_.active = true;
  return {};
}

// One step: about kApplyStep bytes. True if the pass goes on.
Result<bool> Volume::Impl::apply_step() {
  std::uint64_t applied = 0;
  while (pass_.image < pass_.images.size() && applied < kApplyStep) {
    Inode& inode = *pass_.images[pass_.image];
    VolumeImage& image = *inode.image;
    bool at_end = true;
    VMFS_ASSIGN(auto file, file_to_apply(inode));
    if (file) {
      image.touched_file = file;
      if (!pass_.visited) {
        VMFS_TRY(visit(inode, *file));
        pass_.visited = true;
      }
      pass_.offset = image.index.collect(pass_.offset, kApplyStep - applied, extents_);
      at_end = pass_.offset == 0;
      // What is newer than the pass waits for the next: it need not be durable yet, and may well be
      // written again before.
      if (!mistakes.apply_before_durable)
        std::erase_if(extents_, [&](const auto& extent) { return extent.lsn >= pass_.through; });
      for (const UnappliedExtent& extent : extents_) applied += extent.length;
      auto result = apply_extents(inode, *file, extents_);
      if (!result) {
        // The pass begins again, with all that is still in the index.
        pass_.active = false;
        return pass(std::move(result.error()));
      }
      if (!image.touched) image.touched_file.reset();
    }
    if (!at_end) continue;
    unlist_if_applied(inode);
    ++pass_.image;
    pass_.offset = 0;
    pass_.visited = false;
  }
  const bool complete = pass_.image >= pass_.images.size();
  if (complete) give_back_memory();
  if ((applied != 0 || complete) && index_memory_->load() <= options_.memory_max) wake_resources();
  if (!complete) return true;
  pass_.active = false;
  pass_.images.clear();
  applied_through_ = std::max(applied_through_, pass_.through);
  {
    std::lock_guard lock(dirty_mutex_);
    dirty_since_ns_.store(dirty_.empty() ? 0 : pass_.started_ns);
  }
  checkpoint_wanted_ = true;
  return false;
}

// What many images keep for their next writes must not be what writers wait for: nothing would end that.
void Volume::Impl::give_back_memory() {
  if (index_memory_->load() <= options_.memory_max / 2) return;
  std::shared_lock names(names_mutex_);
  for (const auto& [id, inode] : tree_.objects())
    if (inode->image) inode->image->index.give_back_memory();
}

void Volume::Impl::touch(Inode& inode) {
  if (inode.image->touched) return;
  inode.image->touched = true;
  touched_.push_back(inode.shared_from_this());
}

// The image as a whole, before its extents: truncations first, so that what is written later is not cut
// off again; then blocks to reserve. What was truncated since stays cut off from readers, and waits for the
// next pass; but no extent may come into the store while a truncation from before it is still to be made.
Result<> Volume::Impl::visit(Inode& inode, File& file) {
  VolumeImage& image = *inode.image;
  Lsn durable = 0;  // what has been waited for
  for (;;) {
    Lsn needed = 0;
    {
      // Whoever had reserved a place below the pass's has entered the index once this is held.
      std::unique_lock<ImageLock> lock(image.lock);
      if (image.attributes_changed.exchange(false)) touch(inode);
      if (image.void_from.load() != VolumeImage::kNothingVoid) needed = image.void_lsn + 1;
      if (needed <= durable && durable != 0) return cut_and_reserve(inode, file, durable);
      for (const auto& allocation : image.allocations) needed = std::max(needed, allocation.lsn + 1);
    }
    if (needed == 0) return {};
    // Without the lock: writers need not wait for the disk. Another truncation may come in meanwhile.
    if (!mistakes.apply_before_durable) VMFS_TRY(journal_->sync_through(needed));
    durable = needed;
  }
}

// Makes the truncation that is pending and the allocations below `durable`. The image's lock is held.
Result<> Volume::Impl::cut_and_reserve(Inode& inode, File& file, Lsn durable) {
  VolumeImage& image = *inode.image;
  touch(inode);
  std::uint64_t void_from = image.void_from.load();
  if (void_from != VolumeImage::kNothingVoid) {
    VMFS_ASSIGN(FileStat stat, file.stat("store.apply"));
    if (stat.size > void_from) VMFS_TRY(file.truncate(void_from, "store.apply"));
    image.nothing_void();
  }
  while (!image.allocations.empty() && image.allocations.front().lsn < durable) {
    const auto& allocation = image.allocations.front();
    VMFS_TRY(reserve_blocks(file, allocation.offset, allocation.length, allocation.keep_size));
    image.allocations.erase(image.allocations.begin());
    image.allocations_changed();
  }
  return {};
}

// Reads the extents' bytes from the journal and writes them, neighbours together.
Result<> Volume::Impl::apply_extents(Inode& inode, File& file,
                                     std::vector<UnappliedExtent>& extents) {
  if (extents.empty()) return {};
  touch(inode);
  std::size_t i = 0;
  while (i < extents.size()) {
    if (extents[i].payload == 0) {
      VMFS_TRY(apply_zeros(file, extents[i]));
      ++i;
      continue;
    }
    std::size_t first = i;
    std::uint64_t length = 0;
    while (i < extents.size() && extents[i].payload != 0 && length < kApplyStep &&
           extents[i].offset == extents[first].offset + length)
      length += extents[i++].length;
    if (buffer_.size() < length) buffer_.resize(std::max<std::uint64_t>(length, kApplyStep));
    std::span<std::byte> run(buffer_.data(), length);
    for (std::size_t k = first; k < i; ++k) {
      VMFS_ASSIGN(bool there,
                  journal_->read_payload(extents[k].payload,
                                         run.subspan(extents[k].offset - extents[first].offset,
                                                     extents[k].length)));
      // Only what is in the store is recycled, and this is not.
      CHECK_INVARIANT(there, "record {} of {} was recycled before it was applied", extents[k].lsn,
                      inode.id);
    }
    VMFS_TRY(file.write(run, extents[first].offset, "store.apply"));
  }
  // In one go: the kernel merges what lies together, and a call for each extent costs as much as its
  // write.
  file.start_writeback(extents.front().offset,
                       extents.back().offset + extents.back().length - extents.front().offset);
  inode.image->index.remove(extents);
  return {};
}

Result<> Volume::Impl::apply_zeros(File& file, const UnappliedExtent& extent) {
  VMFS_TRY(file.punch_hole(extent.offset, extent.length, "store.apply"));
  if (!extent.keep_allocated) return {};
  // Blocks without content: however long the range is, this takes no longer. It lies within the image, and what lies
  // behind the file's end could be lost when the file gets the image's size.
  return reserve_blocks(file, extent.offset, extent.length, false);
}

void Volume::Impl::unlist_if_applied(Inode& inode) {
  VolumeImage& image = *inode.image;
  // No writer is between listing the image and entering its index while this is held.
  std::unique_lock<ImageLock> lock(image.lock);
  bool applied = image.index.empty() && image.allocations.empty() &&
                 image.void_from.load() == VolumeImage::kNothingVoid &&
                 !image.attributes_changed.load();
  if (!applied && !inode.deleted.load()) return;
  std::lock_guard dirty(dirty_mutex_);
  std::erase_if(dirty_, [&](const auto& entry) { return entry.get() == &inode; });
  image.listed.store(false, std::memory_order_release);
}

// All of one image, for a snapshot. apply_mutex_ and the image's lock are held: nothing comes in.
Result<> Volume::Impl::apply_fully(Inode& inode) {
  VolumeImage& image = *inode.image;
  VMFS_TRY(journal_->sync_through(journal_->reserved_lsn()));
  VMFS_ASSIGN(auto file, file_to_apply(inode));
  if (!file) return fail(ErrorKind::kNotFound, ENOENT);
  touch(inode);
  image.touched_file = file;
  if (std::uint64_t from = image.void_from.load(); from != VolumeImage::kNothingVoid) {
    VMFS_ASSIGN(FileStat stat, file->stat("store.apply"));
    if (stat.size > from) VMFS_TRY(file->truncate(from, "store.apply"));
    image.nothing_void();
  }
  std::vector<UnappliedExtent> extents;
  std::uint64_t offset = 0;
  do {
    offset = image.index.collect(offset, kApplyStep, extents);
    VMFS_TRY(apply_extents(inode, *file, extents));
  } while (offset != 0);
  auto synced = sync_image(inode, inode.attributes());
  if (!synced) forgotten_by_store(inode, synced.error());
  return synced;
}

}  // namespace vmfs
