// A volume's beginning and end.
#include "fs/base/log.h"
#include "fs/volume/impl.h"

namespace vmfs {

Volume::Impl::Impl(Disk& store_disk, Disk& journal_disk, Clock& clock,
                   const VolumeOptions& options)
    : store_disk_(store_disk), journal_disk_(journal_disk), clock_(clock), options_(options), node_(options.journal.node) {}

Volume::Volume(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Volume::~Volume() = default;

Result<> Volume::create(Disk& store, Disk& journal, Clock& clock, const VolumeOptions& options) {
  VMFS_TRY(Store::create(store));
  VMFS_TRY(Journal::create(journal, options.journal));
  CheckpointState state;
  state.volume = options.journal.volume;
  state.node = options.journal.node;
  state.clean = true;
  GroupState names;
  names.id = kNameSpace;
  if (!options.joining) {
    names.owner = options.journal.node;
    names.history = {{new_epoch_id(), options.journal.node, {}, EpochCause::kCreated,
                      clock.wall_ns()}};
  }
  state.groups.push_back(names);
  // Last: a volume without a state was never completed.
  return write_state(store, state);
}

Result<std::unique_ptr<Volume>> Volume::open(Disk& store, Disk& journal, Clock& clock,
                                             const VolumeOptions& options,
                                             const OpenArguments& arguments) {
  VMFS_ASSIGN(CheckpointState state, read_state(store, options.journal.volume));
  if (state.node != options.journal.node)
    return fail(ErrorKind::kRefused, EINVAL,
                fmt::format("{} is of node {}, and this is node {}: a store belongs to one node",
                            store.display(kStateFile), state.node, options.journal.node));
  auto impl = std::make_unique<Impl>(store, journal, clock, options);
  VMFS_ASSIGN(impl->store_, Store::open(store));
  bool continues = raw(arguments.connection) != 0;
  Journal::OpenArguments how;
  how.start = state.replay_from;
  how.generation = state.generation;
  how.quick = continues;
  VMFS_ASSIGN(impl->journal_, Journal::open(journal, clock, options.journal, how));
  VMFS_TRY(impl->recover(state, arguments));
  if (!continues) impl->life_began_ = impl->journal_->written_lsn();
  Impl* raw_impl = impl.get();
  impl->journal_->on_space([raw_impl] {
    raw_impl->space_events_.fetch_add(1, std::memory_order_acq_rel);
    raw_impl->wake_resources();
  });
  return std::unique_ptr<Volume>(new Volume(std::move(impl)));
}

Result<> Volume::close() {
  Impl& v = *impl_;
  // What is due before the next change must not be forgotten with the process. (Groups that are closed stay as they
  // are: the next start is to begin their epochs as if this one had not ended well.)
  bool all_begun = true;
  for (const GroupState& state : groups()) {
    if (state.owner != v.node_) continue;
    VMFS_ASSIGN(bool begun, begin_epoch_if_due(state.id));
    all_begun = all_begun && begun;
  }
  if (v.first_pending_.load() != 0) {
    VMFS_TRY(v.journal_->sync_through(v.journal_->written_lsn()));
    VMFS_TRY(publish_received(v.journal_->durable_lsn()));
  }
  {
    std::unique_lock lock(v.names_mutex_);
    VMFS_TRY(v.make_names());
  }
  // A failed sync makes one more round necessary; a disk that goes on failing ends it.
  constexpr int kRoundsMax = 1'000'000;
  for (int round = 0; round < kRoundsMax; ++round) {
    VMFS_ASSIGN(bool more, apply_some(true));
    if (!more) break;
  }
  std::lock_guard lock(v.apply_mutex_);
  bool restless = v.dirty_since_ns_.load() != 0 || v.checkpoint_wanted_ || v.pass_.active;
  CHECK_INVARIANT(!restless, "a volume is closed while it is used");
  // Nothing is to be replayed: the state takes account of every record.
  VMFS_TRY(v.start_pass());
  v.pass_.active = false;
  v.applied_through_ = v.pass_.through;
  v.clean_ = all_begun;
  return v.checkpoint_locked();
}

void Volume::set_hooks(ReplicationHooks* hooks) { impl_->hooks_ = hooks; }
void Volume::add_observer(Observer* observer) {
  std::unique_lock lock(impl_->observers_mutex_);
  impl_->observers_.push_back(observer);
}
void Volume::remove_observer(Observer* observer) {
  std::unique_lock lock(impl_->observers_mutex_);
  std::erase(impl_->observers_, observer);
}
Journal& Volume::journal() { return *impl_->journal_; }
NodeId Volume::node() const { return impl_->node_; }

}  // namespace vmfs
