// The volume's insides, shared by the files of this folder and by nobody else.
//
// Locks, in the order in which they may be taken:
//   apply_mutex_     applier, checkpoints, snapshots
//   receive_mutex_   receive(), publish_received(), take()
//   names_mutex_     the tree; exclusive for every change of the name space. Also what guards the
//                    name space's group as an image's lock guards the image's
//   VolumeImage::lock, VolumeImage::open_mutex
//   VolumeGroup::mutex
//   the journal's reservation lock
//   dirty_mutex_, parking_.mutex, answers_mutex_, peers_mutex_, problems_mutex_, Inode::attributes_lock
// No lock but observers_mutex_, shared, is held while an observer is called.
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <optional>
#include <shared_mutex>
#include <unordered_map>
#include <unordered_set>

#include "fs/base/check.h"
#include "fs/journal/journal.h"
#include "fs/store/store.h"
#include "fs/volume/name_tree.h"
#include "fs/volume/object.h"
#include "fs/volume/release.h"
#include "fs/volume/volume.h"

namespace vmfs {

// Bytes of the store that are never promised to guests: the state file and metadata need them.
inline constexpr std::uint64_t kSpaceMargin = 16u << 20;
// Data that one call of apply_some() carries over.
inline constexpr std::uint64_t kApplyStep = 16u << 20;

// Whether a history that ends with `seq` contains the position; nothing: it does not reach back so far. (removal.cc)
std::optional<bool> history_contains(const std::vector<EpochEntry>& epochs, std::uint64_t seq, Position position);

// A record that receive() has appended and publish_received() has not yet shown.
struct PendingRecord {
  Lsn lsn = 0, end = 0;
  RecordHeader header;
  Bytes payload;  // of all but data
};

// A name-space change that is in the journal and not yet in the store and in memory.
struct NameChange {
  Lsn end = 0;
  RecordHeader header;
  Bytes payload;
};

struct Volume::Impl {
  Impl(Disk& store_disk, Disk& journal_disk, Clock& clock, const VolumeOptions& options);

  Disk& store_disk_;
  Disk& journal_disk_;
  Clock& clock_;
  const VolumeOptions options_;
  const NodeId node_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Journal> journal_;
  ReplicationHooks* hooks_ = nullptr;
  std::shared_mutex observers_mutex_;  // shared while they are called, with no other lock
  std::vector<Observer*> observers_;
  std::function<std::vector<std::uint64_t>()> unanswered_now_;

  // For the observers, once no lock is held.
  struct Notice {
    GroupId group{};
    RecordType because{};
    bool group_changed = false;
    std::vector<std::pair<ObjectId, std::string>> names;
  };

  // --- Names (name_space.cc, name_changes.cc) -------------------------------------------------

  mutable std::shared_mutex names_mutex_;
  NameTree tree_;
  VolumeGroup names_{kNameSpace};
  std::deque<NameChange> unmade_names_;  // guarded by names_mutex_
  std::atomic<bool> names_late_{false};  // there are some which could not be made when they were recorded
  std::atomic<std::int64_t> names_tried_ns_{0};
  // Inodes of objects whose kCreate was received and is not yet published. Guarded by receive_mutex_.
  std::unordered_map<ObjectId, std::shared_ptr<Inode>> arriving_;
  // While a base copy of the name space comes in: where it began, and what it has listed. Guarded by
  // names_mutex_.
  std::optional<Lsn> base_names_from_;
  std::unordered_set<ObjectId> base_names_;
  bool base_names_ended_ = false;  // during recovery: to be finished once the tree is built

  std::shared_ptr<Inode> find(ObjectId object) const;          // takes names_mutex_ shared
  std::shared_ptr<Inode> find_image(ObjectId object) const;    // null if it is no image
  std::shared_ptr<Inode> make_inode(ObjectId object, FileType type);
  VolumeGroup* find_group(GroupId group, std::shared_ptr<Inode>& keeps_alive) const;
  Attributes attributes_now(Inode& inode);

  // names_mutex_, exclusively, once every change that is in the journal is made: what is looked up under it is
  // what the next change follows on. What keeps one from being made is the answer.
  Result<std::unique_lock<std::shared_mutex>> lock_names();
  // With lock_names(): may the name space change now? `bytes`: what the change will need in the store.
  Result<> enter_names(std::uint64_t bytes);
  struct NameRecord {
    RecordType type{};
    Bytes payload;
    RequestId request;
  };
  // Appends changes of the name space, makes them durable, applies them to store and memory. After
  // enter_names().
  Result<> change_names(std::span<const NameRecord> changes);
  Result<Attributes> create_named(const Caller& caller, ObjectId parent, std::string_view name,
                                  Create change);
  Result<> remove_named(const Caller& caller, ObjectId parent, std::string_view name, bool directory);
  // The directory, or why it cannot be changed. names_mutex_ held.
  Result<std::shared_ptr<Inode>> directory(ObjectId object) const;
  Result<std::shared_ptr<Inode>> changeable_directory(ObjectId object, std::string_view name) const;
  // Applies what is in unmade_names_; stops at the first that cannot be. names_mutex_ held exclusively. `late`: gets
  // what the observers are to be told, because the client was told of a failure.
  Result<> make_names(std::vector<Notice>* late = nullptr);
  // The same for what could not be made at once, when there is such; tells the observers. No lock held.
  Result<> make_late_names();
  // Whether a change that is not made yet takes the image's name away. names_mutex_ held.
  bool loses_its_name(ObjectId object) const;
  // What the guest is told when that fails after its change was recorded: kIo, EIO.
  static tl::unexpected<Error> unknown_outcome(const Error& error);
  // One record of the name space: to the store by redo, then to memory.
  Result<> apply_name_record(const RecordHeader& header, ByteView payload, bool to_memory);
  Result<> apply_base_object(const BaseObject& object, bool to_memory);
  Result<> finish_base_names(bool to_memory);
  // Deletes unlinked images that nobody has open, if this node may.
  Result<> delete_orphan(const std::shared_ptr<Inode>& inode);
  void delete_orphans();
  std::atomic<bool> orphans_wait_{false};

  // --- Images (image_io.cc, image_changes.cc, image_records.cc) ----------------------------------

  const std::shared_ptr<std::atomic<std::uint64_t>> index_memory_ =
      std::make_shared<std::atomic<std::uint64_t>>(0);
  std::mutex dirty_mutex_;
  std::vector<std::shared_ptr<Inode>> dirty_;  // images with something to apply
  std::atomic<std::int64_t> dirty_since_ns_{0};  // 0: nothing is

  void list(Inode& inode) {
    if (!inode.image->listed.load(std::memory_order_acquire)) list_slowly(inode);
  }
  void list_slowly(Inode& inode);
  void note_dirty_since();
  // The effect in memory of an image's record, as made here, received, or replayed. `payload` is only
  // looked at for attributes. The caller holds the image's lock: exclusively for all but kWrite and
  // kZero.
  Result<> apply_image_record(Inode& inode, const RecordHeader& header, Lsn lsn, ByteView payload);
  // Of the base copy records of an image. Exclusively locked.
  Result<> apply_image_base(Inode& inode, const RecordHeader& header, Lsn lsn, ByteView payload);
  Result<std::size_t> read_image(Inode& inode, File& file, std::uint64_t offset,
                                 std::span<std::byte> out);
  Result<std::uint64_t> seek_image(Inode& inode, File& file, std::uint64_t offset, bool data);
  Result<> read_pieces(Inode& inode, File& file, std::uint64_t offset, std::span<std::byte> out);

  // --- Admission (admission.cc) -------------------------------------------------------------------

  // Takes the lock of the image if its group may be changed now, through that handle if there is one, and begins an
  // epoch first if one is due.
  template <class Lock>
  Result<Lock> enter(VolumeImage& image, const Object* handle = nullptr) {
    for (;;) {
      Lock lock(image.lock);
      // First: who was handed over must not ask for it back.
      if (handle != nullptr &&
          handle->revocations != image.group.revocations.load(std::memory_order_acquire)) [[unlikely]]
        return fail(ErrorKind::kReadOnly, EIO, "the image was handed over since it was opened");
      Gate gate = image.group.gate.load(std::memory_order_acquire);
      if (gate != Gate::kOpen) [[unlikely]] {
        lock.unlock();
        return pass(closed_gate(image.group.id, gate));
      }
      if (image.group.epoch_events.load(std::memory_order_acquire) ==
          epoch_events_.load(std::memory_order_acquire)) [[likely]]
        return lock;
      lock.unlock();
      std::unique_lock<ImageLock> exclusive(image.lock);
      VMFS_TRY(begin_epoch_locked(image.group));
    }
  }
  // To take the image's name from it: so may a part of a copy that nobody completes.
  Result<std::unique_lock<ImageLock>> enter_to_remove(VolumeImage& image) {
    if (image.group.may_go.load()) {
      std::unique_lock lock(image.lock);
      if (image.group.may_go.load() && image.group.gate.load() == Gate::kInconsistent) return lock;
    }
    return enter<std::unique_lock<ImageLock>>(image);
  }
  Result<> begin_writing(Object& handle);
  void end_writing(Object& handle);
  Result<> append_moment(VolumeGroup& group, RecordType type);
  // With the image's lock from enter(): the record, the journal, the index.
  Result<> write_locked(Object& handle, const Caller& caller, std::uint64_t offset, ByteView bytes);
  Error closed_gate(GroupId group, Gate gate);
  // kWouldWait for something else than a gate.
  static tl::unexpected<Error> would_wait();
  // Whether the volume can take `bytes` more now: memory, backlog, space in the store. Reserves them.
  Result<> admit(Inode* inode, std::uint64_t offset, std::uint64_t bytes) {
    if (index_memory_->load(std::memory_order_relaxed) > options_.memory_max) [[unlikely]] {
      want_apply();
      return would_wait();
    }
    if (peers_behind()) [[unlikely]] return would_wait();
    if (admitted_.fetch_add(bytes, std::memory_order_relaxed) + bytes >
        admission_limit_.load(std::memory_order_relaxed)) [[unlikely]]
      return admit_closely(inode, offset, bytes);
    return {};
  }
  // A peer that is present lags as far as it may.
  bool peers_behind() {
    return journal_->written_lsn() > write_limit_.load(std::memory_order_relaxed) ||
           (hooks_ && hooks_->backlog_full());
  }
  Result<> admit_closely(Inode* inode, std::uint64_t offset, std::uint64_t bytes);
  // Asks the file system how much is free. `wanted`: what is asked for at once, if that is much.
  void refresh_admission(std::uint64_t wanted = 0);
  // Whether the store has room for another file, with those that it needs itself.
  Result<> admit_file();
  bool beyond_image_max(std::uint64_t offset, std::uint64_t length) const {
    const std::uint64_t most = image_max_.load(std::memory_order_relaxed);
    return offset > most || length > most - offset;
  }
  std::uint64_t unapplied_bytes();

  std::atomic<std::uint64_t> admitted_{0};         // bytes ever admitted in this life
  std::atomic<std::uint64_t> admission_limit_{0};  // admitted_ may grow up to here
  std::atomic<std::int64_t> space_asked_ns_{0};
  std::atomic<std::uint64_t> image_max_{DiskSpace{}.file_size_max};  // bytes: what the store can hold
  std::atomic<std::uint64_t> files_kept_{0};                         // for state and journal
  std::mutex admission_mutex_;
  bool journal_complete_ = false;  // guarded by admission_mutex_: all its segments exist
  // What the journal will yet take of the file system that the store is on.
  std::uint64_t journal_growth(const DiskSpace& store);  // admission_mutex_ is held
  std::uint64_t set_aside(const DiskSpace& store);       // likewise

  // Reserves a place in the journal, and remembers when it was full.
  Result<Journal::Reservation> reserve(Draft& draft, SequenceCursor* cursor) {
    std::uint64_t events = space_events_.load(std::memory_order_acquire);
    auto reservation = journal_->reserve(draft, cursor);
    if (!reservation && reservation.error().kind == ErrorKind::kWouldWait) [[unlikely]] {
      full_at_.store(events, std::memory_order_release);
      want_apply();
      return would_wait();
    }
    return reservation;
  }
  static constexpr std::uint64_t kNeverFull = ~std::uint64_t{0};
  std::atomic<std::uint64_t> space_events_{0};
  std::atomic<std::uint64_t> full_at_{kNeverFull};

  // After a change of `group` was committed: counts for flushes, resends and the sender.
  void changed(VolumeGroup& group, const RequestId& request, Lsn end) {
    raise_to(group.last_record, end);
    raise_to(group.last_change, end);
    if (request.unique != 0) remember_request(request);
    if (hooks_) hooks_->written(end);
    if (journal_->unsynced_bytes() >= options_.sync_bytes) [[unlikely]] want_sync();
  }

  // --- Parking (parking.cc) -----------------------------------------------------------------------

  struct Parked {
    GroupId group{};
    std::function<void()> retry;
  };
  struct Parking {
    std::mutex mutex;
    std::vector<Parked> on_gate, on_resources;
    std::deque<std::function<void()>> ready;
    std::condition_variable ready_changed;
    bool stopped = false;
    // The last wakes of gates: one may come between a call that was told to wait and its park().
    struct Wake {
      std::uint64_t number = 0;
      GroupId group{};
      std::optional<Error> refusal;
    };
    std::deque<Wake> wakes;
    std::atomic<std::uint64_t> wake_number{0};
  };
  static constexpr std::size_t kWakesKept = 256;
  Parking parking_;
  bool resources_lack();
  void make_ready(std::vector<Parked> retries, const Error* refusal);
  void wake_gate(GroupId group, const Error* refusal);
  void wake_resources();
  // The journal may take records again without having said so (a disk that refused and does not any
  // more): now and then, those who wait try.
  void retry_parked();
  std::atomic<std::int64_t> retried_ns_{0};

  // --- Work for the background (workers.cc) ---------------------------------------------------------

  struct Wanted {
    std::mutex mutex;
    std::condition_variable changed;
    std::atomic<bool> sync{false}, apply{false};
    std::atomic<bool> release{false};  // journal space may be free, though there is nothing to apply
    bool stopped = false;
  };
  Wanted wanted_;
  void want_sync();
  void want_apply();

  // --- Requests that come again (requests.cc) ---------------------------------------------------------

  static constexpr std::size_t kRecentRequests = 8192;  // changes; see keep_unanswered()
  std::array<std::atomic<std::uint64_t>, kRecentRequests> recent_requests_{};
  std::atomic<std::uint64_t> recent_next_{0};
  std::atomic<std::uint64_t> connection_{0};
  std::mutex answers_mutex_;
  std::unordered_map<std::uint64_t, AnsweredRequest> answers_;          // of this connection's past
  std::deque<AnsweredRequest> recent_creations_;  // those whose answer names an object
  // Of this life's: changes whose requests were unanswered at the last look.
  std::unordered_map<std::uint64_t, AnsweredRequest> kept_;  // guarded by answers_mutex_

  void remember_request(const RequestId& request);
  void remember_creation(const RequestId& request, ObjectId object);
  std::optional<AnsweredRequest> answer_to(const Caller& caller);
  void keep_unanswered(const std::vector<std::uint64_t>& unanswered);  // with answers_mutex_ held
  std::vector<AnsweredRequest> answers_to_keep();
  Result<> find_answer(Lsn lsn, const SealEntry& record);

  // --- Groups (groups.cc) -------------------------------------------------------------------------------

  // Groups were settled or suspended since the state was saved: see GroupState::suspended.
  std::atomic<bool> settling_unsaved_{false};
  // Where the journal ended when it was opened; 0: a mount goes on whose programs have made changes below.
  Lsn life_began_ = 0;
  Lsn opened_at_ = 0;  // where this process began to write
  std::atomic<std::uint32_t> epoch_events_{0};
  std::atomic<EpochCause> epoch_cause_{EpochCause::kUncleanStop};

  GroupState state_of(VolumeGroup& group);
  Position position_of(VolumeGroup& group);
  void restore(VolumeGroup& group, const GroupState& state);
  Gate resting_gate(VolumeGroup& group, bool suspended);
  bool is_closed(VolumeGroup& group);
  Result<> begin_epoch_locked(VolumeGroup& group);
  // With the group's own lock held exclusively. Durable on return.
  Result<Lsn> append_epoch(VolumeGroup& group, RecordType type, EpochCause cause);
  Result<Lsn> release_locked(VolumeGroup& group, NodeId taker, Gate before);
  Result<Lsn> take_locked(VolumeGroup& group, EpochCause cause, Gate gate);
  // Runs `f` with the group's own lock held exclusively; kNotFound if there is no such group.
  template <class F>
  auto with_group_locked(GroupId id, F&& f) -> decltype(f(names_)) {
    if (id == kNameSpace) {
      std::unique_lock lock(names_mutex_);
      return f(names_);
    }
    auto inode = find_image(id);
    if (!inode) return fail(ErrorKind::kNotFound, ENOENT, fmt::format("no group {}", id));
    std::unique_lock<ImageLock> lock(inode->image->lock);
    return f(inode->image->group);
  }
  // If the record is the next one of the group, takes account of it: position, history, owner. For
  // replay and receive(). True if it was.
  Result<bool> advance(VolumeGroup& group, const RecordHeader& header, ByteView payload);
  Result<> begin_base(VolumeGroup& group, const RecordHeader& header, const BaseBegin& begin);
  void flush_image(Volume& volume, std::shared_ptr<Inode> inode, const Caller& caller,
                   std::function<void(Result<>)> done);
  bool epoch_unused(VolumeGroup& group);
  // Why an epoch could not begin: without peers there is nobody whom a full journal would keep from learning of it.
  bool flush_needs(const Error& error) const { return hooks_ || error.kind != ErrorKind::kWouldWait; }
  Result<Lsn> append_flush(VolumeGroup& group, const Caller& caller);
  static tl::unexpected<Error> given_up();
  Result<Lsn> flush_of_closed(VolumeGroup& group);
  // Its end. kWouldWait: the journal is full.
  Result<Lsn> append_flush_record(VolumeGroup& group, const Caller& caller);
  void finish_flush(VolumeGroup& group, Lsn through, std::function<void(Result<>)> done);

  // --- Replica (replica.cc) -----------------------------------------------------------------------------

  std::mutex receive_mutex_;
  std::deque<PendingRecord> pending_;
  std::uint64_t pending_memory_ = 0;  // bytes
  std::atomic<Lsn> first_pending_{0};  // 0: none
  Lsn first_pending_of(GroupId group) const;  // beyond all: none; with receive_mutex_ held
  // The names that a record of the name space concerns; an empty one: the directory itself.
  static Result<std::vector<std::pair<ObjectId, std::string>>> names_in(RecordType type, ByteView payload);
  Result<> check_received(const ReceivedRecord& record,
                          std::unordered_map<GroupId, Position>& positions, bool& repeat);
  // arriving_ is guarded by receive_mutex_ and looked at by these only.
  VolumeGroup* received_group(GroupId id, std::shared_ptr<Inode>& alive);
  void bring_in(ObjectId object);
  bool is_past(VolumeGroup& group, Position position);
  bool may_replace(VolumeGroup& group, const BaseBegin& begin, Position end);
  // removal.cc, with receive_mutex_ held.
  FinalHistory final_history(VolumeGroup& group);
  std::optional<Loss> loss_of(ObjectId object, FinalHistory had);
  std::vector<ObjectId> unlisted(std::span<const ReceivedRecord> records) const;
  // What the record at `at` would take away.
  void find_losses(std::span<const ReceivedRecord> records, std::size_t at, std::vector<Loss>& losses);
  Result<Journal::Reservation> append_received(Draft& draft);
  void settle_published(VolumeGroup& group, RecordType type, Notice& notice);
  // `before`: gets what has to be told besides, because it came first.
  Result<> publish_record(const PendingRecord& record, Notice& notice, std::vector<Notice>& before);
  Result<> publish_locked(Lsn durable, std::vector<Notice>& notices);
  void tell(const std::vector<Notice>& notices);

  // --- Applier and checkpoints (applier.cc, checkpoint.cc) ------------------------------------------------

  std::mutex apply_mutex_;
  struct Pass {
    bool active = false;
    Lsn through = 0;  // records below are durable, and in the store when the pass is complete
    std::int64_t started_ns = 0;
    std::vector<std::shared_ptr<Inode>> images;
    std::size_t image = 0;
    std::uint64_t offset = 0;
    bool visited = false;
  };
  Pass pass_;
  // A pass covers one in so many bytes of the journal: a sixteenth after a start, then more.
  static constexpr std::uint64_t kPassShareLeast = 4;
  std::uint64_t pass_share_ = 4 * kPassShareLeast;
  bool checkpoint_wanted_ = false;
  Lsn applied_through_ = 0;  // of the last complete pass; in the store, but not yet synced there
  // Of the last checkpoint: all below is durable in the store. Written under apply_mutex_.
  std::atomic<Lsn> stored_replay_from_{0};
  std::vector<std::shared_ptr<Inode>> touched_;
  // What a failed sync of the store has lost and the index (the store's directories) has not got back.
  std::vector<std::shared_ptr<Inode>> forgotten_;
  bool names_forgotten_ = false;
  std::vector<UnappliedExtent> extents_;  // reused
  Bytes buffer_;                          // reused
  bool clean_ = false;
  std::uint64_t checkpoints_ = 0;
  // Where every group stood at a place in the journal: journal space is freed up to such places only,
  // so that GroupState::recycled is exact.
  struct Sample {
    Lsn lsn = 0;
    std::vector<std::pair<GroupId, Position>> groups;  // changed since the sample before
  };
  std::deque<Sample> samples_;

  std::uint64_t sample_distance() const { return journal_->bytes_max() / 16; }
  Result<Lsn> take_sample();
  Result<> sample_if_due();
  Result<std::int64_t> sync_journal_if_due();
  bool apply_due();
  Result<> start_pass();
  Result<bool> apply_step();
  Result<> visit(Inode& inode, File& file);
  Result<> cut_and_reserve(Inode& inode, File& file, Lsn durable);
  Result<> apply_extents(Inode& inode, File& file, std::vector<UnappliedExtent>& extents);
  Result<> apply_zeros(File& file, const UnappliedExtent& extent);
  Result<> apply_fully(Inode& inode);
  void unlist_if_applied(Inode& inode);
  void give_back_memory();
  void touch(Inode& inode);
  Result<> checkpoint_locked();
  Result<> make_checkpoint();
  Result<std::shared_ptr<File>> file_to_apply(Inode& inode);
  Result<> sync_image(Inode& inode, const FileStat& stat);
  void forgotten_by_store(Inode& inode, const Error& error);
  Result<> put_back();
  Result<> reapply(Inode& inode);
  Result<> reapply_names();
  Result<> save_state();
  CheckpointState checkpoint_state(Lsn replay_from);
  // How far the journal may be freed once the checkpoint is durable; nothing: not at all.
  std::optional<Lsn> release_place(Lsn applied);
  Lsn replay_from(Lsn applied);
  JournalFacts journal_facts();
  std::vector<PeerClaim> peer_claims();
  void limit_writes();
  std::atomic<Lsn> write_limit_{~Lsn{0}};  // writes wait while the journal is written beyond
  bool release_due();
  std::optional<Lsn> choose_release(Lsn applied);  // the same, and the groups take account of it

  std::mutex peers_mutex_;
  std::vector<PeerState> peers_;

  std::mutex problems_mutex_;
  std::map<std::string, std::string> problems_;  // by subject
  void problem(const std::string& subject, const std::string& text);
  void no_problem(const std::string& subject);
  std::atomic<bool> any_problem_{false};

  // --- Life (open.cc, recovery.cc) ----------------------------------------------------------------

  Result<> recover(const CheckpointState& state, const OpenArguments& arguments);
  Result<> redo_names(bool& any);
  void build_tree();
  Result<> replay_record(Lsn lsn, const SealEntry& record);
  Result<Bytes> payload_of(Lsn lsn, const SealEntry& record);

  // --- What a node keeps of its past (snapshots.cc) ------------------------------------------------

  // Puts what the store made or found under .snapshots into the tree. names_mutex_ held exclusively.
  void show_stored(const StoredObject& stored);
};

}  // namespace vmfs
