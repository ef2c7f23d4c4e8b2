// Checkpoints: the store durable, the state written, journal space freed; and what is done when the
// store cannot be made durable.
#include <algorithm>

#include "fs/base/log.h"
#include "fs/journal/record_reader.h"
#include "fs/volume/impl.h"

namespace vmfs {

namespace {

// Whether it is a position of that history, and not of a branch that was left.
bool lies_on(const std::vector<EpochEntry>& history, const Position& position) {
  for (std::size_t i = 0; i < history.size(); ++i)
    if (history[i].epoch == position.epoch)
      return i + 1 == history.size() || position.seq <= history[i + 1].parent.seq;
  return !history.empty() && history.front().parent.epoch == position.epoch &&
         position.seq <= history.front().parent.seq;
}

}  // namespace

Result<> Volume::checkpoint() {
  std::lock_guard lock(impl_->apply_mutex_);
  return impl_->checkpoint_locked();
}

Result<> Volume::Impl::checkpoint_locked() {
  auto made = make_checkpoint();
  if (made)
    no_problem("checkpoint");
  else
    problem("checkpoint", fmt::format("no checkpoint can be made: {}; journal space is not freed until "
                                      "one is\nfree space on the store's file system, or check its disk:  df, dmesg",
                                      made.error().message));
  return made;
}

Result<> Volume::Impl::make_checkpoint() {
  VMFS_TRY(put_back());
  // What is set in the store must be durable in the journal first, sizes and attributes too.
  std::vector<std::pair<std::shared_ptr<Inode>, FileStat>> images;
  for (const auto& inode : touched_) images.emplace_back(inode, inode->attributes());
  VMFS_TRY(journal_->sync_through(journal_->reserved_lsn()));

  Result<> outcome;
  touched_.clear();
  for (auto& [inode, stat] : images) {
    inode->image->touched = false;
    auto synced = sync_image(*inode, stat);
    inode->image->touched_file.reset();
    if (synced) continue;
    forgotten_by_store(*inode, synced.error());
    outcome = std::move(synced);
  }
  if (!outcome) {
    // Readers must not wait for the next pass: what the disk has not taken may leave the page cache.
    if (auto again = put_back(); !again) log_error("{}", again.error().message);
    return outcome;
  }
  // What the store is asked for from here on may not be in what is synced now.
  const Lsn redo_from = replay_from(applied_through_);
  if (auto synced = store_->sync_names(); !synced) {
    log_error("cannot make the store's directories durable: {}; their changes are made again from the "
              "journal",
              synced.error().message);
    names_forgotten_ = true;
    VMFS_TRY(put_back());
    return synced;
  }

  std::optional<Lsn> release = choose_release(redo_from);
  CheckpointState state = checkpoint_state(redo_from);
  VMFS_TRY(journal_->sync_through(journal_->reserved_lsn()));
  VMFS_TRY(write_state(store_disk_, state));
  stored_replay_from_ = state.replay_from;
  ++checkpoints_;
  checkpoint_wanted_ = false;
  if (release) {
    while (!samples_.empty() && samples_.front().lsn <= *release) samples_.pop_front();
    VMFS_TRY(journal_->release_through(*release));
  }
  refresh_admission();
  return {};
}

// The kernel forgets what it could not write, and says so once: the next sync succeeds without it. So
// nothing counts as being in the store, no state may say so and no journal space be freed, before all that
// came into this file since the last checkpoint was put back and is applied and synced again.
void Volume::Impl::forgotten_by_store(Inode& inode, const Error& error) {
  log_error("cannot make {} durable: {}; all since the last checkpoint is applied again from the journal",
            store_->path_of(inode.id).value_or("an unlinked image"), error.message);
  touch(inode);
  forgotten_.push_back(inode.shared_from_this());
  checkpoint_wanted_ = false;  // another pass comes first, from the beginning
  pass_.active = false;
  applied_through_ = stored_replay_from_;
  want_apply();
}

Result<> Volume::Impl::put_back() {
  while (!forgotten_.empty()) {
    if (!forgotten_.back()->deleted.load()) VMFS_TRY(reapply(*forgotten_.back()));
    forgotten_.pop_back();
  }
  if (names_forgotten_) {
    VMFS_TRY(reapply_names());
    names_forgotten_ = false;
  }
  return {};
}

// Between checkpoints: what the store has had since is not said, because no sync has confirmed it.
Result<> Volume::Impl::save_state() {
  CheckpointState state = checkpoint_state(replay_from(stored_replay_from_));
  VMFS_TRY(journal_->sync_through(journal_->reserved_lsn()));
  VMFS_TRY(write_state(store_disk_, state));
  ++checkpoints_;
  return {};
}

CheckpointState Volume::Impl::checkpoint_state(Lsn replay_from) {
  CheckpointState state;
  state.volume = options_.journal.volume;
  state.node = node_;
  state.clean = clean_;
  state.checkpoints = checkpoints_ + 1;
  state.generation = journal_->generation();
  state.replay_from = replay_from;
  {
    std::shared_lock lock(names_mutex_);
    state.groups.push_back(state_of(names_));
    for (const auto& [id, inode] : tree_.objects())
      if (inode->image) state.groups.push_back(state_of(inode->image->group));
  }
  std::sort(state.groups.begin(), state.groups.end(),
            [](const auto& a, const auto& b) { return raw(a.id) < raw(b.id); });
  {
    std::lock_guard lock(peers_mutex_);
    state.peers = peers_;
  }
  state.answered = answers_to_keep();
  return state;
}

JournalFacts Volume::Impl::journal_facts() {
  JournalFacts facts;
  facts.oldest = journal_->oldest_lsn();
  facts.written = journal_->reserved_lsn();
  facts.segment_size = journal_->options().segment_size;
  facts.bytes_max = journal_->bytes_max();
  facts.kept_for_absent =
      options_.peer_journal_max ? options_.peer_journal_max : facts.bytes_max / 2;
  return facts;
}

std::vector<PeerClaim> Volume::Impl::peer_claims() {
  std::vector<PeerClaim> claims;
  std::lock_guard lock(peers_mutex_);
  for (const PeerState& peer : peers_) claims.push_back({peer.confirmed, peer.present});
  return claims;
}

// Where the next process has to begin, if what is of images is in the store up to `applied`.
Lsn Volume::Impl::replay_from(Lsn applied) {
  std::shared_lock lock(names_mutex_);
  // A base copy of the name space is finished with what all its records listed.
  if (base_names_from_) applied = std::min(applied, *base_names_from_);
  // Changes of names that the store refused so far are only in the journal.
  if (!unmade_names_.empty()) applied = std::min(applied, unmade_names_.front().header.lsn);
  return applied;
}

std::optional<Lsn> Volume::Impl::release_place(Lsn applied) {
  std::vector<Lsn> places;
  for (const Sample& sample : samples_) places.push_back(sample.lsn);
  return vmfs::choose_release(journal_facts(), applied, peer_claims(), places);
}

// Writers wait while a peer that is present lags too far: see write_limit().
void Volume::Impl::limit_writes() {
  const Lsn before = write_limit_.exchange(write_limit(journal_facts(), peer_claims()));
  if (write_limit_.load() > before) wake_resources();
}

// While a peer is away, all may long be in the store when its share of the journal is used up: no pass is
// due then, and nothing but this would free what the writers wait for.
bool Volume::Impl::release_due() {
  if (!nearly_full(journal_facts())) return false;
  std::optional<Lsn> place = release_place(replay_from(applied_through_));
  return place && *place >= journal_->oldest_lsn() + journal_->options().segment_size;
}

std::optional<Lsn> Volume::Impl::choose_release(Lsn applied) {
  std::optional<Lsn> release = release_place(applied);
  if (!release) return release;
  for (const Sample& sample : samples_) {
    if (sample.lsn > *release) break;
    for (const auto& [id, position] : sample.groups) {
      std::shared_ptr<Inode> alive;
      if (VolumeGroup* group = find_group(id, alive)) {
        std::lock_guard lock(group->mutex);
        // Of a branch that was left meanwhile nobody lacks anything, and what was copied since counts more.
        if (lies_on(group->history, position) && position.seq > group->recycled.seq)
          group->recycled = position;
      }
    }
  }
  return release;
}

// The image's file; null if the image is gone. That its file is not there is another matter: somebody has taken it
// away, and what the journal has of it waits.
Result<std::shared_ptr<File>> Volume::Impl::file_to_apply(Inode& inode) {
  if (inode.deleted.load()) return std::shared_ptr<File>();
  if (inode.image->touched_file) return inode.image->touched_file;
  auto file = store_->file(inode.id);
  if (!file && !store_->exists(inode.id)) return std::shared_ptr<File>();
  return file;
}

Result<> Volume::Impl::sync_image(Inode& inode, const FileStat& stat) {
  VMFS_ASSIGN(auto file, file_to_apply(inode));
  if (!file) return {};
  VMFS_ASSIGN(FileStat stored, file->stat("store.checkpoint"));
  // Beyond the image's end there is nothing that anybody can read, in neither direction: longer images
  // have their last bytes in the index, or none.
  if (stored.size != stat.size) VMFS_TRY(file->truncate(stat.size, "store.checkpoint"));
  FileAttributes set;
  set.permissions = stat.permissions;
  set.uid = stat.uid;
  set.gid = stat.gid;
  set.atime_ns = stat.atime_ns;
  set.mtime_ns = stat.mtime_ns;
  VMFS_TRY(file->set_attributes(set, "store.checkpoint"));
  return file->sync("store.checkpoint");
}

namespace {
bool is_content(RecordType type) {
  switch (type) {
    case RecordType::kWrite:
    case RecordType::kZero:
    case RecordType::kTruncate:
    case RecordType::kAllocate:
    case RecordType::kBaseBegin:
    case RecordType::kBaseData:
      return true;
    default:
      return false;
  }
}
}  // namespace

// Puts back into the index what the journal has of the image since the last checkpoint. Built aside
// first: readers go on meanwhile, and the index must never show less than it does now.
Result<> Volume::Impl::reapply(Inode& inode) {
  VolumeImage& image = *inode.image;
  // What has been received and not shown is in no index, and stays out of it: nothing of this image is
  // shown while its lock is held.
  std::unique_lock received(receive_mutex_);
  std::unique_lock<ImageLock> lock(image.lock);
  const Lsn pending = first_pending_of(inode.id);
  received.unlock();
  Inode aside(inode.id, FileType::kRegular);
  aside.image = std::make_unique<VolumeImage>(inode.id, index_memory_);
  aside.image->size.store(~std::uint64_t{0} >> 2);  // so that every truncation is seen as one
  aside.image->listed.store(true);                  // nowhere
  Lsn end = journal_->reserved_lsn();
  VMFS_TRY(journal_->sync_through(end));
  RecordReader reader(*journal_, stored_replay_from_);
  for (;;) {
    VMFS_ASSIGN(auto view, reader.next(end));
    if (!view || view->header.lsn >= pending) break;
    if (view->header.group != raw(inode.id) || !is_content(view->header.type)) continue;
    VMFS_TRY(apply_image_record(aside, view->header, view->header.lsn, view->payload));
  }
  std::vector<UnappliedExtent> extents;
  std::uint64_t offset = 0;
  do {
    offset = aside.image->index.collect(offset, ~std::uint64_t{0} >> 1, extents);
    for (const UnappliedExtent& extent : extents) image.index.insert(extent);
  } while (offset != 0);
  // After the extents: who reads zeros there now must find them first.
  if (aside.image->void_from.load() != VolumeImage::kNothingVoid)
    image.make_void(aside.image->void_from.load(), aside.image->void_lsn);
  for (const auto& allocation : aside.image->allocations) image.allocations.push_back(allocation);
  image.allocations_changed();
  image.attributes_changed.store(true);
  list(inode);
  return {};
}

Result<> Volume::Impl::reapply_names() {
  std::unique_lock received(receive_mutex_);
  std::unique_lock lock(names_mutex_);
  const Lsn pending = first_pending_of(kNameSpace);
  received.unlock();
  Lsn end = journal_->durable_lsn();
  RecordReader reader(*journal_, stored_replay_from_);
  for (;;) {
    VMFS_ASSIGN(auto view, reader.next(end));
    if (!view || view->header.lsn >= pending) return {};
    if (view->header.group != raw(kNameSpace)) continue;
    if (!unmade_names_.empty() && view->header.lsn >= unmade_names_.front().header.lsn) return {};
    if (view->header.type >= RecordType::kBaseBegin && view->header.type <= RecordType::kBaseEnd)
      continue;  // made equal by ids: nothing that a directory could forget and a record names
    VMFS_TRY(apply_name_record(view->header, view->payload, false));
  }
}

}  // namespace vmfs
