// One node's part of a volume: journal, not-yet-applied index, applier, store and name space, behind
// the operations that a file system front, replication and the command line need. The same engine
// serves a primary (fed by the front) and a secondary (fed by the network).
//
// What the operations promise: docs/SEMANTICS.md. In short: a change that returned success is written
// (survives this process); a flush that completed is durable (survives the machine; in sync mode, any
// one of the two).
//
// Threads: everything is thread-safe unless it says otherwise. No operation waits for the network, a
// token or free space: it returns kWouldWait, and the caller parks a retry with park(). Operations may
// wait for the disk.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "fs/journal/changes.h"
#include "fs/journal/journal.h"
#include "fs/seam/clock.h"
#include "fs/seam/disk.h"
#include "fs/store/state.h"
#include "fs/volume/replication_hooks.h"

namespace vmfs {

// Who asks, and for which kernel request: a repeat of a request that has a record is answered from it.
struct Caller {
  RequestId request;
  bool resent = false;  // the kernel says that it may have sent this before
  std::uint32_t uid = 0, gid = 0;
};

struct Attributes {
  ObjectId object{};
  FileStat stat;
};

// An image, directory or symlink that somebody works with. Opaque; keeps its object alive in memory.
class Object;
using ObjectRef = std::shared_ptr<Object>;

struct ListedEntry {
  std::string name;
  ObjectId object{};
  FileType type{};
};

struct AttributesToSet {
  FileAttributes set;
  std::optional<std::uint64_t> size;
};

struct VolumeOptions {
  JournalOptions journal;
  std::uint64_t memory_max = 256u << 20;        // bytes for the not-yet-applied index
  std::int64_t sync_interval_ns = 100'000'000;  // the journal is synced at least this often ...
  std::uint64_t sync_bytes = 32u << 20;         // ... and after this much
  std::int64_t apply_after_ns = 2'000'000'000;  // unapplied changes older than this are applied
  std::uint64_t peer_journal_max = 0;  // journal bytes kept for a peer that is away; 0: half of it
  bool has_peers = false;              // then owned groups start suspended
  // create(): for a node that joins. The volume knows nothing yet: its name space has an empty history
  // and no owner (gate kSecondary), and a peer's base copy brings everything.
  bool joining = false;
};

struct VolumeUsage {
  std::uint64_t journal_used = 0, journal_max = 0;
  std::uint64_t unapplied_bytes = 0, index_memory = 0;
  std::uint64_t images = 0;
  DiskSpace store;
};

struct Activity {
  bool in_flight = false;    // a change is being made right now
  bool unflushed = false;    // changes since the last flush
  bool open_writer = false;  // a handle that has written is open
  bool active(bool holds_lock) const { return in_flight || unflushed || (open_writer && holds_lock); }
};

// Where a write goes: at its offset, or, whatever that is, at the end of the image as it then is.
enum class Placed : std::uint8_t { kAtOffset, kAtEnd };

// A record as it came from a peer: header (local fields zero) and payload.
struct ReceivedRecord {
  RecordHeader header;
  ByteView payload;
};

class Volume {
 public:
  // --- Life (open.cc) ---------------------------------------------------------------------------

  // An empty volume in an empty store: store directories, journal, state. Durable on return.
  static Result<> create(Disk& store, Disk& journal, Clock& clock, const VolumeOptions& options);

  struct OpenArguments {
    // The FUSE connection that goes on, if only the daemon died; requests of it that were unanswered
    // are looked up among the records that replay passes.
    ConnectionId connection{};
    std::vector<std::uint64_t> unanswered;
    // The requests whose answer the kernel still waits for, as of now, in ascending order; asked now and
    // then, so that an answer outlives its record. From any thread, which may hold locks: it must not call the
    // volume. Null: no request outlives the daemon.
    std::function<std::vector<std::uint64_t>()> unanswered_now;
  };
  // Recovers: replays the journal from the last checkpoint into the index and the name space. When it
  // returns, everything acknowledged before is readable. If only the daemon died (`connection` is given)
  // ownership goes on as it was: what was still kSuspended stays so. Otherwise, with peers, owned groups
  // are kSuspended. After an unclean stop of the machine the next change of each owned group starts a
  // new epoch.
  static Result<std::unique_ptr<Volume>> open(Disk& store, Disk& journal, Clock& clock,
                                              const VolumeOptions& options,
                                              const OpenArguments& arguments);
  // Does not apply or sync: that is what close() is for.
  ~Volume();
  // Applies everything, checkpoints, marks the state clean. No operation may be running.
  Result<> close();

  void set_hooks(ReplicationHooks* hooks);  // before use; may be null

  // --- Name space (name_space.cc) -----------------------------------------------------------------

  // A negative answer is kNotFound.
  Result<Attributes> lookup(ObjectId parent, std::string_view name);
  Result<Attributes> attributes(ObjectId object);
  Result<Attributes> create(const Caller&, ObjectId parent, std::string_view name,
                            std::uint32_t permissions);
  Result<Attributes> make_directory(const Caller&, ObjectId parent, std::string_view name,
                                    std::uint32_t permissions);
  Result<Attributes> make_symlink(const Caller&, ObjectId parent, std::string_view name,
                                  std::string_view target);
  Result<std::string> read_symlink(ObjectId object);
  Result<> unlink(const Caller&, ObjectId parent, std::string_view name);
  Result<> remove_directory(const Caller&, ObjectId parent, std::string_view name);
  Result<> rename(const Caller&, ObjectId from_parent, std::string_view from_name,
                  ObjectId to_parent, std::string_view to_name, bool no_replace);
  // Entries as of now, without "." and "..".
  Result<std::vector<ListedEntry>> list(ObjectId directory);
  // Through `handle`, if there is one: it fails (EIO) if the image was handed over since that was opened.
  Result<Attributes> set_attributes(const Caller&, ObjectId object, const AttributesToSet& change,
                                    const Object* handle = nullptr);
  Result<DiskSpace> space();
  // For a path relative to the mount point ("" is the root).
  Result<Attributes> resolve(std::string_view path);
  std::string path_of(ObjectId object);  // "unlinked <id>" if it has none

  // --- Images (image_io.cc) -----------------------------------------------------------------------

  // Each open is matched by one close. The first change of an image through any handle, and the close of the last
  // handle that made one, are records (kOpen, kClose), the latter if it can be written. `writable`: the handle may
  // write. `has_written`: it goes on after a restart and had written before, so that its image counts as active
  // while it is locked.
  Result<ObjectRef> open_image(ObjectId object, bool writable, bool has_written = false);
  // The last close of an unlinked image deletes it, on its owner.
  void close_image(const ObjectRef& image);

  // Reads up to out.size(); fewer only at the end of the image.
  Result<std::size_t> read(Object& image, std::uint64_t offset, std::span<std::byte> out);
  // Written when it returns; all or nothing. At most kPayloadMax bytes.
  Result<> write(Object& image, const Caller&, std::uint64_t offset, ByteView bytes,
                 Placed placed = Placed::kAtOffset);
  std::uint32_t permissions(Object& image);
  // punch: zeros and frees; else zeros and keeps blocks. Does not change the size unless `extend`.
  Result<> zero(Object& image, const Caller&, std::uint64_t offset, std::uint64_t length, bool punch,
                bool extend);
  Result<> allocate(Object& image, const Caller&, std::uint64_t offset, std::uint64_t length,
                    bool keep_size);
  // Whence data or hole; kNotFound (ENXIO) past the end.
  Result<std::uint64_t> seek(Object& image, std::uint64_t offset, bool data);
  // Makes what the image has so far durable, as the mode demands. `done` is called once, maybe before
  // this returns, from any thread. Without peers it is called before this returns, unless the flush is parked: one
  // that begins an epoch waits for room in the journal, as changes do.
  void flush(Object& image, const Caller&, std::function<void(Result<>)> done);
  // The same for the name space: fsync of a directory.
  void flush_names(const Caller&, std::function<void(Result<>)> done);

  // A request got kWouldWait from a change of `group`: `retry` is called once, by run_parked() (that is, by
  // VolumeWorkers' slow lane or by a test), when that may have changed (maybe at once). The retry must make its
  // call before it returns, on the same thread: that is how refuse() answers it.
  void park(GroupId group, std::function<void()> retry);
  // Runs the retries that may go on. True if there was one.
  bool run_parked();

  // --- Groups: what replication and ownership need (groups.cc) -------------------------------------

  std::vector<GroupState> groups();
  std::optional<GroupState> group(GroupId group);  // history and last written position
  // What was changed after that record, and since when; nothing: it lies too far back (before what this life
  // has seen, or before the sequence went on from elsewhere). See SequenceTrail for how exact it is.
  std::optional<SequenceTrail::Since> changed_since(GroupId group, std::uint64_t seq);
  // The end of the group's last record in the journal; 0: it has none that this life knows of.
  Lsn last_record(GroupId group);
  Position durable_position(GroupId group);
  // Of a group whose gate is closed: once the changes that were under way have ended.
  Position final_position(GroupId group);
  Gate gate(GroupId group);
  void set_gate(GroupId group, Gate gate);
  // Only if it is `from` still: a hand-over may be closing it on another thread. False if it is not, or if
  // it cannot be opened yet because what was received cannot be made durable and shown. Opening may sync.
  bool change_gate(GroupId group, Gate from, Gate to);
  // Wakes parked requests: they retry, or fail with `error`.
  void reopen(GroupId group);
  void refuse(GroupId group, Error error);
  void resume_writes();
  Activity activity(GroupId group);

  // Closes the gate, waits for changes under way, appends kReleased and makes it durable. The group
  // then has no owner here; old write handles fail with EIO until reopened. If it fails before kReleased has
  // its place, the gate is as it was before.
  Result<Lsn> release(GroupId group, NodeId taker);
  // Appends kTaken (or kEpoch for other causes) with a new epoch whose parent is the last position
  // here, makes it durable, sets the owner to this node and its gate to `gate` (kOpen or kFrozen).
  // kRefused, and nothing is changed: the group is not at `decided_at` any more, where that was decided.
  Result<Lsn> take(GroupId group, EpochCause cause, Gate gate = Gate::kOpen, std::optional<Position> decided_at = {});
  // A peer was counted lost: the next change of every group owned here begins with a durable kEpoch.
  void begin_epochs(EpochCause cause);
  // Begins it now for this group if one is due. Durable on return. False: it is due still, as the group is closed.
  Result<bool> begin_epoch_if_due(GroupId group);
  // For a flush that is about to be acknowledged without the peer: begins the epoch if one is due, and sees
  // to it that the epoch has a record besides the one that begins it, so that whoever compares histories
  // later sees that this node went on in it. Durable on return. kNotFound: the group is gone. kReadOnly (EIO): it is
  // another's by now, who alone could say so.
  Result<> go_on_alone(GroupId group);
  // Forgets history that all peers have.
  void trim_history(GroupId group, Position confirmed_by_all);

  // --- Replica (replica.cc) ------------------------------------------------------------------------

  // Appends records of groups that others own, in order; written when it returns, nothing visible yet.
  // kProtocol if a record does not continue its group here (wrong epoch, gap in seq): nothing of the
  // call is appended then. A repeat of records already here is passed over. kWouldWait: journal
  // full, or memory used up: nothing of the call is shown; call again when what came before was published and
  // applied.
  // A group owned here is received too while its gate is not open (kSuspended: a tail that this node
  // lost comes back from the peer that has it; or a follow replaces it).
  // kBaseBegin sets the group's history and position to those that it carries (the group comes to be
  // if it was unknown); from its publishing until that of kBaseEnd the group is inconsistent. Later
  // records of the group continue from there, interleaved with kBaseData; their order in the stream
  // decides which bytes are newer.
  // kBusy: a record would take away the images that `losses` then names, and nothing of the call is appended.
  // Close their gates, keep those of which this node alone has something (keep_as_snapshot()), and call again.
  struct Loss {
    GroupId group{};
    bool alone = false;  // it has changes that whoever removed it never had; else its gate is merely open
    FinalHistory had;    // what that node had of it; empty: not known
  };
  Result<Lsn> receive(std::span<const ReceivedRecord> records, std::vector<Loss>* losses = nullptr);
  // Makes visible what receive() appended below `durable` (at most journal().durable_lsn()): index,
  // sizes, name space, owners. Calls the observer for each group whose owner or history changed.
  Result<> publish_received(Lsn durable);
  // The lowest seq of each group that was received and is not visible. Nothing while somebody receives or publishes:
  // it waits for no disk.
  std::optional<std::unordered_map<GroupId, std::uint64_t>> not_visible();
  struct Observer {
    virtual ~Observer() = default;
    virtual void group_changed(GroupId group, RecordType because) = 0;
    // With an empty name: the directory's own attributes.
    virtual void names_changed(ObjectId parent, const std::string& name) {
      (void)parent, (void)name;
    }
  };
  // Any thread calls them, none after remove_observer() has returned; they call neither of these. Closing publishes
  // what is left, so who goes before the volume is closed removes itself.
  void add_observer(Observer* observer);
  void remove_observer(Observer* observer);

  // Reading a group for a base copy, while it changes. base_image() and base_names() report a position
  // P such that every record up to P is reflected by base_read() and base_names() calls from then on;
  // base_read() reflects every record that was written (journal().written_lsn()) before the call: both
  // wait for changes of the group that are written and not yet in the index. They may reflect later
  // ones too: those come again in the stream. How the stream goes:
  //   kBaseBegin   header: the position P that base_image() returned, before anything is read;
  //                payload: BaseBegin with that history and stat. The target takes P as its own: the
  //                records up to P that are still in the stream are repeats (the bytes have them).
  //   kBaseData    bytes read after that, so as new as P or newer.
  //   (records of the group after P, as usual, in between: applied over the data in order)
  //   kBaseEnd     header: the group's position Q after the last byte was read. Must come after the
  //                record Q in the stream: only then is what the target has a state of the group.
  // The name space likewise, from base_names(). All on the source's one stream.
  struct BaseImage {
    GroupState state;
    FileStat stat;
  };
  Result<BaseImage> base_image(GroupId group);
  Result<std::vector<BaseObject>> base_names();
  // The next range of data (not holes) at or after `offset`, at most `length_max` long; none: end.
  Result<std::optional<BaseRange>> base_next(GroupId group, std::uint64_t offset,
                                             std::uint64_t length_max);
  Result<> base_read(GroupId group, std::uint64_t offset, std::span<std::byte> out);

  // What the records after `since` in this journal did.
  struct Touched {
    bool changed = true;  // false: there are none but flushes, opens, closes and who owned it
    std::optional<std::vector<BaseRange>> ranges;  // nothing: recycled, so the whole image must be copied
  };
  Result<Touched> touched_since(GroupId group, Position since);
  // Keeps the group's present state (image, or for the name space nothing but its listing) as
  // .snapshots/NAME/<path>, read-only. Applies what is unapplied first. Durable on return. Nothing may
  // change the group meanwhile: its gate is closed, and no peer sends it.
  Result<> keep_as_snapshot(GroupId group, const std::string& name);
  // An image of which this node has a part of a copy (inconsistent) may be removed, though nobody may write it: whoever
  // could complete it has left the volume. Until this is taken back.
  void set_may_go(GroupId group, bool may);
  // Marks a split brain, or its end.
  Result<> set_split(GroupId group, bool split);

  Journal& journal();
  // Journal space below PeerState::confirmed is no longer needed by that peer; remembered in the
  // checkpoint. Writes wait while a peer that is present lags too far behind what is written.
  void set_peer(const PeerState& peer);
  void remove_peer(NodeId peer);
  std::vector<PeerState> peers();
  NodeId node() const;

  // --- Background (applier.cc); called by workers.h's threads, or by the simulator -------------------

  // Syncs the journal if an interval or amount is exceeded, and shows what was received and is durable. Returns ns
  // until a sync may be due again.
  Result<std::int64_t> sync_if_due();
  // Applies durable records if enough has gathered or waited (all of it if `all`), a bounded amount a
  // call; checkpoints when a pass is complete. True if there is more to do now.
  Result<bool> apply_some(bool all);
  // Makes the store durable up to what was applied, writes the state, releases journal space.
  Result<> checkpoint();

  // What lies below is in the store, durably.
  Lsn stored_lsn() const;
  VolumeUsage usage();
  // What went wrong and stands, for `status`: empty when healthy.
  std::vector<std::string> problems();

  struct Impl;
  Impl& impl() { return *impl_; }  // for this folder

 private:
  explicit Volume(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmfs
