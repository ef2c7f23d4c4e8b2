// Checkpoints: the store durable, the state written, journal space freed; and what is done when the
// store cannot be made durable.
#include <algorithm>

#include "fs/base/log.h"
#include "fs/journal/record_reader.h"
#include "fs/volume/impl.h"

namespace vmfs {

Result<> Volume::checkpoint() {
  std::lock_guard lock(impl_->apply_mutex_);
  return impl_->checkpoint_locked();
}

Result<> Volume::Impl::checkpoint_locked() {
  // What is set in the store must be durable in the journal first, sizes and attributes too.
  std::vector<std::pair<std::shared_ptr<Inode>, FileStat>> images;
  for (const auto& inode : touched_) images.emplace_back(inode, inode->attributes());
  VMFS_TRY(journal_->sync_through(journal_->reserved_lsn()));

  Result<> outcome;
  touched_.clear();
  for (auto& [inode, stat] : images) {
    inode->image->touched = false;
    auto synced = sync_image(*inode, stat);
    if (synced) continue;
    // The kernel forgets what it could not write, and says so once. All that came into this file since
    // the last checkpoint is unapplied again.
    problem("sync", fmt::format("cannot make {} durable: {}; all since the last checkpoint is applied "
                                "again from the journal",
                                store_->path_of(inode->id).value_or("an unlinked image"),
                                synced.error().message));
    touch(*inode);
    if (auto again = reapply(*inode); !again) log_error("{}", again.error().message);
    outcome = std::move(synced);
  }
  if (!outcome) {
    checkpoint_wanted_ = false;  // another pass comes first, from the beginning
    pass_.active = false;
    // What was put back is not applied: no state may say so, nor its journal space be freed, before.
    applied_through_ = stored_replay_from_;
    want_apply();
    return outcome;
  }
  if (auto synced = store_->sync_names(); !synced) {
    problem("sync", fmt::format("cannot make the store's directories durable: {}; their changes are "
                                "made again from the journal",
                                synced.error().message));
    VMFS_TRY(reapply_names());
    return synced;
  }
  no_problem("sync");

  std::optional<Lsn> release = choose_release();
  CheckpointState state = checkpoint_state();
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

Result<> Volume::Impl::save_state() {
  CheckpointState state = checkpoint_state();
  VMFS_TRY(journal_->sync_through(journal_->reserved_lsn()));
  VMFS_TRY(write_state(store_disk_, state));
  stored_replay_from_ = state.replay_from;
  ++checkpoints_;
  return {};
}

CheckpointState Volume::Impl::checkpoint_state() {
  CheckpointState state;
  state.volume = options_.journal.volume;
  state.node = node_;
  state.clean = clean_;
  state.checkpoints = checkpoints_ + 1;
  state.generation = journal_->generation();
  state.replay_from = applied_through_;
  {
    std::shared_lock lock(names_mutex_);
    // A base copy of the name space is finished with what all its records listed.
    if (base_names_from_) state.replay_from = std::min(state.replay_from, *base_names_from_);
    // Changes of names that the store refused so far are only in the journal.
    if (!unmade_names_.empty())
      state.replay_from = std::min(state.replay_from, unmade_names_.front().header.lsn);
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

// The last sample below which all is in the store, and either at every peer or beyond what is kept for it.
// When the journal is nearly full and there is none such, the first that is in the store: an absent peer
// then loses more of its share than it need, and is copied whole, but no writer waits for it.
std::optional<Lsn> Volume::Impl::release_place() {
  Lsn applied = applied_through_;
  {
    std::shared_lock lock(names_mutex_);
    if (base_names_from_) applied = std::min(applied, *base_names_from_);
    if (!unmade_names_.empty()) applied = std::min(applied, unmade_names_.front().header.lsn);
  }
  Lsn limit = applied;
  {
    std::lock_guard lock(peers_mutex_);
    std::uint64_t keep = options_.peer_journal_max ? options_.peer_journal_max
                                                   : journal_->bytes_max() / 2;
    Lsn written = journal_->written_lsn();
    Lsn kept_from = written > keep ? written - keep : 0;
    for (const PeerState& peer : peers_)
      limit = std::min(limit, std::max(peer.confirmed, kept_from));
  }
  // Below this nothing would become free.
  const Lsn next = journal_->oldest_lsn() + journal_->options().segment_size;
  std::optional<Lsn> place;
  for (const Sample& sample : samples_) {
    if (sample.lsn > applied) break;
    bool enough = place && *place >= next;
    if (sample.lsn > limit && (enough || !journal_nearly_full())) break;
    place = sample.lsn;
  }
  return place;
}

bool Volume::Impl::journal_nearly_full() const {
  return journal_->bytes_used() > journal_->bytes_max() / 4 * 3;
}

// While a peer is away, all may long be in the store when its share of the journal is used up: no pass is
// due then, and nothing but this would free what the writers wait for.
bool Volume::Impl::release_due() {
  if (!journal_nearly_full()) return false;
  std::optional<Lsn> place = release_place();
  return place && *place >= journal_->oldest_lsn() + journal_->options().segment_size;
}

std::optional<Lsn> Volume::Impl::choose_release() {
  std::optional<Lsn> release = release_place();
  if (!release) return release;
  for (const Sample& sample : samples_) {
    if (sample.lsn > *release) break;
    for (const auto& [id, position] : sample.groups) {
      std::shared_ptr<Inode> alive;
      if (VolumeGroup* group = find_group(id, alive)) {
        std::lock_guard lock(group->mutex);
        group->recycled = position;
      }
    }
  }
  return release;
}

Result<> Volume::Impl::sync_image(Inode& inode, const FileStat& stat) {
  if (inode.deleted.load()) return {};
  auto file = store_->file(inode.id);
  if (!file) {
    if (file.error().kind == ErrorKind::kNotFound) return {};
    return pass(std::move(file.error()));
  }
  VMFS_ASSIGN(FileStat stored, (*file)->stat("store.checkpoint"));
  // Beyond the image's end there is nothing that anybody can read, in neither direction: longer images
  // have their last bytes in the index, or none.
  if (stored.size != stat.size) VMFS_TRY((*file)->truncate(stat.size, "store.checkpoint"));
  FileAttributes set;
  set.permissions = stat.permissions;
  set.uid = stat.uid;
  set.gid = stat.gid;
  set.atime_ns = stat.atime_ns;
  set.mtime_ns = stat.mtime_ns;
  VMFS_TRY((*file)->set_attributes(set, "store.checkpoint"));
  return (*file)->sync("store.checkpoint");
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
  std::unique_lock<ImageLock> lock(image.lock);
  Inode aside(inode.id, FileType::kRegular);
  aside.image = std::make_unique<VolumeImage>(inode.id, index_memory_);
  aside.image->size.store(~std::uint64_t{0} >> 2);  // so that every truncation is seen as one
  aside.image->listed.store(true);                  // nowhere
  Lsn end = journal_->reserved_lsn();
  VMFS_TRY(journal_->sync_through(end));
  RecordReader reader(*journal_, stored_replay_from_);
  for (;;) {
    VMFS_ASSIGN(auto view, reader.next(end));
    if (!view) break;
    if (view->header.group != raw(inode.id) || !is_content(view->header.type)) continue;
    if (first_pending_.load() != 0 && view->header.lsn >= first_pending_.load()) break;
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
  image.attributes_changed.store(true);
  list(inode);
  return {};
}

Result<> Volume::Impl::reapply_names() {
  std::unique_lock lock(names_mutex_);
  Lsn end = journal_->durable_lsn();
  RecordReader reader(*journal_, stored_replay_from_);
  for (;;) {
    VMFS_ASSIGN(auto view, reader.next(end));
    if (!view) return {};
    if (view->header.group != raw(kNameSpace)) continue;
    if (first_pending_.load() != 0 && view->header.lsn >= first_pending_.load()) return {};
    if (!unmade_names_.empty() && view->header.lsn >= unmade_names_.front().header.lsn) return {};
    if (view->header.type >= RecordType::kBaseBegin && view->header.type <= RecordType::kBaseEnd)
      continue;  // made equal by ids: nothing that a directory could forget and a record names
    VMFS_TRY(apply_name_record(view->header, view->payload, false));
  }
}

}  // namespace vmfs
