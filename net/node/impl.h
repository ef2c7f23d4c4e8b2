// The parts of Node, private to net/node. One thread, unless a member says otherwise.
//
//   node.cc        life, timer, wake-ups
//   links.cc       dialling, handshakes, which connection to a peer counts
//   exchange.cc    positions: comparing histories and what follows from it
//   streams.cc     records in and out, what flushes wait for, who is in sync, loss of a peer
//   follow.cc      giving up a branch, copies, split brain
//   removed.cc     images that a peer has removed: what only this node has of them
//   tokens.cc      asking for, giving and taking ownership
//   promote.cc     promote
//   commands.cc    demote, resolve, hand over, peers, settings, waiting for a state
//   status.cc      what a person sees
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "net/node/node.h"
#include "net/node/written_times.h"
#include "net/ownership/decisions.h"
#include "net/replication/backlog.h"
#include "net/replication/base_source.h"
#include "net/replication/receiver.h"
#include "net/replication/sender.h"
#include "net/session/back_off.h"
#include "net/session/session.h"

namespace vmfs {

struct Peer;

// One link and its session; of a peer once it has said hello.
struct Connection {
  std::uint64_t number = 0;  // no two of a node's life have the same, as they may have the same address
  std::unique_ptr<Link> link;
  std::unique_ptr<Session> session;
  Peer* peer = nullptr;       // whom it was dialled for, or who said hello
  bool established = false;   // it is the peer's connection
  bool over = false;          // closed; removed soon
};

// How things stand between this node and one peer about one group; only what is not plain streaming.
struct GroupCourse {
  Course course = Course::kNothing;
  Comparison comparison;
  Position until;        // kReceive: the tail ends here
  GroupPosition remote;  // kFollow, kWaitFollow: what it was judged by
  bool started = false;  // kFollow: under way
};

// What a peer has of a group, durably.
struct Held {
  enum class Kind : std::uint8_t {
    kUnknown,  // it was not met since the start
    kNothing,  // no state of it: a copy is under way or due
    kUpTo,     // up to `seq`
  };
  Kind kind = Kind::kUnknown;
  Position position;
};

// Records to and from a connected peer whose histories were compared.
class PeerStream;

struct Peer {
  PeerInfo info;
  BackOff back_off{0};
  Connection* connection = nullptr;  // established
  LinkState link_state = LinkState::kConnecting;
  std::string link_reason;
  std::int64_t link_since_wall_ns = 0;
  PeerState persisted;  // as the volume keeps it

  // The exchange of positions on this connection.
  bool sent_positions = false, got_positions = false;
  std::unordered_map<GroupId, GroupPosition> ours, theirs;

  std::unique_ptr<PeerStream> stream;
  bool letting_go = false;  // images that its records take away are being kept
  std::set<GroupId> leaving;  // those images, on this connection
  bool heard = false;  // histories were compared since the start
  bool given = false;  // on this connection: it has confirmed all that was here when histories were compared
  std::optional<std::uint64_t> given_number;  // which it has once it has confirmed this frame
  bool brought = false;  // since the start it has said so of what it had
  std::int64_t connected_ns = 0;
  std::unordered_map<GroupId, GroupCourse> courses;
  // When the peer joined the flushes' wait: it is in sync once it has confirmed what was written then.
  bool counts = false;
  std::optional<Lsn> join_lsn;
  bool joined = false;  // it has
  std::uint64_t join_number = 0;  // and the frames sent by then (copies are in no LSN of ours)
  PeerSync sync = PeerSync::kLost;
  bool full = false;
  std::int64_t full_since_ns = 0;
  bool reuse_told = false;  // that the journal does not hold all that it lacks, since it was lost
  Lsn reuse_looked_at = 0;  // when that began there
  // How this node stands in the peer's eyes, and what it was told about itself last.
  Standing told;
  std::optional<Standing> said;
  // What it held of each group when it was lost; nothing: not known, it was not met since the start.
  std::optional<std::unordered_map<GroupId, Position>> held_when_lost;
  // Groups that the peer ought to know, checked once the stream has passed `audit_lsn`.
  std::vector<GroupId> audit;
  Lsn audit_lsn = 0;

  // For status: copies that were begun since the start, on whatever connection; rates.
  std::uint64_t copies_whole = 0, copies_partial = 0;
  std::uint64_t counted_sent = 0, counted_received = 0;
  std::uint64_t send_rate = 0, receive_rate = 0;
};

struct FlushWait {
  GroupId group{};
  std::function<void(Result<>)> done;
};

// A write (or a promote) waits for the token of a group.
struct Asking {
  NodeId asked{};  // 0: nobody yet
  std::int64_t deadline_ns = 0;
  bool force = false;
  bool writers = false;  // parked requests wait, not only commands
};

struct Wanted {
  NodeId peer{};
  std::int64_t since_ns = 0;
  bool force = false;
};

struct Promotion {
  std::set<GroupId> groups;
  bool whole = false;  // the volume: also what the name space turns out to hold once it is here
  bool force = false;
  std::int64_t deadline_ns = 0;
  Node::Done done;
  // What came of those that could not be taken: the first's error, the names of some others, their number.
  std::set<GroupId> refused;
  std::optional<Error> error;
  std::string others;
  std::uint64_t also_refused = 0;
};

struct Resolution {
  std::set<GroupId> groups;
  std::int64_t deadline_ns = 0;
  Node::Done done;
};

struct HandOver {
  Lsn through = 0;
  NodeId peer{};
  std::int64_t deadline_ns = 0;
  std::size_t groups = 0;
  std::string failure;  // of groups that stay
  Node::Done done;
};

// Groups that are being released, each on its own; the last one answers.
struct Demotion {
  std::size_t left = 0;
  std::string failure;
  Node::Done done;
};

struct WaitFor {
  Condition condition{};
  std::vector<GroupId> groups;
  Node::Done done;
};

struct Node::Impl final : Volume::Observer {
  Impl(Node& node, Volume& volume, Shell& shell, Clock& clock, NodeOptions options,
       NodeCallbacks callbacks);
  ~Impl() override;

  // --- node.cc
  void start();
  void stop();
  void tick();
  std::int64_t now() const { return clock.monotonic_ns(); }
  void wake_at(std::int64_t at_ns) { shell.wake_at(at_ns); }
  // Runs `work` elsewhere and `done` here, unless the node was stopped.
  void blocking(Shell::Lane lane, std::function<Result<>()> work,
                std::function<void(Result<>)> done);
  // Something changed that decisions depend on: they are taken again, once, soon.
  void poke();
  void reconsider();
  void problem(const std::string& key, std::string text);  // empty text: it is over
  void post(std::function<void()> f);
  void periodic(std::int64_t now_ns);

  // --- links.cc
  void dial_due_peers(std::int64_t now_ns);
  void adopt_link(std::unique_ptr<Link> link, Peer* dialed_for);
  Connection* find(Link& link);
  SessionIdentity identity() const;
  void perform(Connection& connection, Session::Actions actions);
  void established(Connection& connection);
  void close(Connection& connection, const std::string& why, bool refused);
  void on_closed(Link& link, const Error& why);
  void on_frame(Link& link, ByteView body);
  void on_message(Peer& peer, Message message);
  void send(Peer& peer, const Message& message);
  Peer* peer_by_id(NodeId id);
  const char* name_of(NodeId id);
  Peer& add_peer(const PeerInfo& info);
  void introduce(Connection& connection);
  void set_deference(Peer& peer);
  void set_link_state(Peer& peer, LinkState state, std::string reason);
  void sweep();
  void learn(const Peers& peers);

  // --- exchange.cc
  void begin_exchange(Peer& peer);
  std::optional<GroupPosition> position_of(GroupId group);
  void send_positions(Peer& peer, const std::vector<GroupPosition>& groups, bool update);
  void on_positions(Peer& peer, Positions positions);
  void compare_all(Peer& peer);
  void give_way(GroupId group, const Peer& peer);
  void regain(GroupId group, const Peer& peer);
  void apply_course(Peer& peer, GroupId group, const GroupPosition& local,
                    const GroupPosition& remote, bool first);
  bool is_source(const Peer& target, GroupId group, NodeId owner);
  void audit(Peer& peer);
  void audit_again(Peer& peer, GroupId group);
  bool receiving(GroupId group);  // what a connected peer had is not all visible here yet
  void forget_received();         // courses that have come to their end
  bool parted(GroupId group);     // this node follows a connected peer, or is about to
  GroupCourse* course(Peer& peer, GroupId group);

  // --- streams.cc
  Lsn ship_limit();
  int compression() const;
  void pump(Peer& peer);
  void pump_all();
  void on_ack(Peer& peer, const Ack& ack);
  void update_sync(Peer& peer);
  PeerSync standing_of(Peer& peer);
  void peer_lost(Peer& peer, const std::string& why);
  void check_flushes();
  std::optional<Lsn> confirmed_through(GroupId group, Lsn lsn);
  bool parting(const Peer& peer);
  void complete_alone(std::multimap<Lsn, FlushWait> waits);
  void update_counting();
  void persist(Peer& peer);
  void freeze_or_thaw();
  void match_frozen();
  // Of a group that is owned here and settled.
  Gate idle_gate() const { return frozen.load() ? Gate::kFrozen : Gate::kOpen; }

  // --- follow.cc
  void start_follows(Peer& peer);
  void follow(Peer& peer, GroupId group);
  void kept_aside(Peer& peer, GroupId group, std::optional<std::vector<BaseRange>> ranges);
  std::vector<GroupId> images_only_here(Peer& peer);
  void close_to_follow(GroupId group);
  void stop_following(GroupId group, bool settled);
  void on_base_request(Peer& peer, BaseRequest request);
  void send_base_request(Peer& peer, GroupId group, Position common,
                         std::optional<std::vector<BaseRange>> ranges);
  void copy_finished(Peer& peer, GroupId group, const Result<>& result);
  void needs_copy(Peer& peer, GroupId group, const char* why);
  void win(GroupId group, std::function<void(Result<>)> done);  // resolved in favour of this node
  void mark_split(GroupId group, bool split);
  std::string snapshot_name(const std::vector<GroupId>& to_keep);

  // --- removed.cc
  void let_go(Peer& peer, const std::vector<Volume::Loss>& losses);
  void go_on_letting_go(Peer& peer);
  void forget_removed(Peer& peer);
  bool may_be_removed(GroupId group);  // a connected peer does not know it, and its names are on their way

  // --- tokens.cc
  void group_changed(GroupId group, RecordType because) override;  // any thread
  void on_group_changed(GroupId group, RecordType because);
  void gate_met(GroupId group, Gate gate);
  void ask(GroupId group, bool force, bool writers);
  void send_want(GroupId group, Asking& asking, const GroupState& state);
  void give_up_asking(GroupId group, Error error);
  void token_arrived(GroupId group);
  void on_want(Peer& peer, const Want& want);
  void answer_wants();
  void check_asking();
  void release(GroupId group, NodeId taker, std::function<void(Result<>)> done);
  // `done` gets kWouldWait if it was decided on what does not hold any more: to be decided anew.
  void take(GroupId group, EpochCause cause, std::function<void(Result<>)> done);
  bool may_still_take(const GroupState& state, EpochCause cause);
  void settle();
  bool all_heard() const;
  bool may_go_on_alone() const;
  bool is_split(const GroupState& state);
  bool can_be_completed(GroupId group);
  // From another peer than that one, or from any.
  bool is_being_copied(GroupId group, const Peer* but);
  void tell_parts();
  void look_at_parts();  // once a second, and when who could complete them comes or goes
  void end_splits_of_nobody();
  bool active(GroupId group);
  std::int64_t taker_lag(Peer& peer);

  // --- promote.cc
  void promote(std::vector<GroupId> groups, bool force, Done done);
  Result<bool> step_to_promote(GroupId group, bool force);
  void check_promotions(std::vector<std::pair<Done, Result<std::string>>>& finished);
  PromoteFacts promote_facts(GroupId group, bool force);
  std::string unreached();
  Error disconnected_error(GroupId group);

  // --- commands.cc
  Peer* best_peer();
  // Whether the peer, which is connected, gets this group's records as they come.
  bool goes_to(Peer& peer, GroupId group);
  void demote(std::vector<GroupId> groups, bool force, Done done);
  void resolve(std::vector<GroupId> groups, bool keep_local, Done done);
  void remove_peer(NodeId peer, Done done);
  void set_settings(VolumeSettings settings, Done done);
  void take_settings(const VolumeSettings& settings);
  void hand_over_all(std::int64_t deadline_ns, Done done);
  void check_commands();
  std::string shown(GroupId group);
  std::vector<GroupId> these_or_all(std::vector<GroupId> groups);  // empty: all
  std::optional<Result<std::string>> evaluate(const WaitFor& wait);

  // --- status.cc
  NodeStatus status(const std::vector<GroupId>& groups);
  Held held_by(const Peer& peer, const GroupState& state);
  PeerStatus peer_status(Peer& peer);
  bool lacks_reused(const Peer& peer);
  Lag most_lag(Peer& peer, bool stopped);
  Lag lag_of(Peer& peer, const GroupState& state, const Held& held, std::uint64_t size);
  ImageStatus image_status(const GroupState& state);
  static void add_lag(PeerStatus& status, const ImagePeerStatus& entry);
  std::string lost_text(const PeerStatus& status, std::size_t owned_there);
  std::string behind_text(const PeerStatus& status);
  void stranded_problems(const std::vector<GroupState>& groups, const std::vector<PeerStatus>& shown_peers,
                         std::vector<std::string>& out);
  // `groups` as in Node::wait(). `why`: what is missing, unless it is null.
  bool ready(const std::vector<GroupId>& groups, std::string* why);
  bool brings(const Peer& peer);

  Node& node;
  Volume& volume;
  Shell& shell;
  Clock& clock;
  NodeOptions options;
  NodeCallbacks callbacks;
  LocalSync sync;
  const std::uint64_t life;
  std::shared_ptr<bool> alive;  // false once destroyed: posted functions look
  bool started = false, stopped = false;
  bool poked = false;
  std::size_t blocking_jobs = 0;
  std::int64_t started_ns = 0;
  Lsn started_lsn = 0;  // the journal's end then
  std::int64_t next_periodic_ns = 0;
  std::uint64_t write_rate = 0;  // bytes a second into the journal
  Lsn rate_counted_lsn = 0;
  bool settled_once = false;

  std::vector<std::unique_ptr<Peer>> peers;
  std::vector<std::unique_ptr<Connection>> connections;

  std::multimap<Lsn, FlushWait> flush_waits;
  // Taken out of flush_waits while their epochs are made durable.
  std::vector<std::shared_ptr<std::multimap<Lsn, FlushWait>>> completing_alone;
  std::unordered_map<GroupId, Asking> asking;
  std::unordered_map<GroupId, Wanted> wanted;
  std::set<GroupId> releasing, taking;
  std::unordered_map<GroupId, std::int64_t> reopen_again_ns;  // see give_up_asking()
  std::set<GroupId> revived;         // owned here, and brought back by a peer's copy: taken anew before they are changed
  std::set<GroupId> unsettled;       // owned here since before the start, or named to us: not resumed yet
  std::vector<std::unique_ptr<Promotion>> promotions;
  std::vector<std::unique_ptr<Resolution>> resolutions;
  std::vector<std::shared_ptr<Demotion>> demotions;
  std::unique_ptr<HandOver> hand_over;
  std::map<std::uint64_t, WaitFor> waits;
  std::uint64_t next_wait = 1;
  std::map<std::string, std::string> problems;
  std::map<GroupId, std::string> promote_errors;  // why an ask for a command failed
  // What follows that were cut off have kept aside already: the snapshot, and the position that it is of.
  struct Kept {
    std::string name;
    Position position;
  };
  std::map<GroupId, Kept> kept;
  // What is not in `done` yet as it is now. Not on the node's thread.
  Result<> keep_aside(const std::vector<GroupId>& to_keep, const std::string& name, std::map<GroupId, Kept>& done);
  // Groups that are closed because they follow, or their name is about to go: whether they were open.
  std::map<GroupId, bool> closed_to_follow;
  std::uint64_t last_connection = 0;
  // Of these what is unsettled waits until every peer was heard, also long after the start: a peer has a tail or
  // another branch of them.
  std::set<GroupId> must_hear;
  std::int64_t tell_parts_ns = 0;
  std::set<GroupId> parts;  // of which this node has a part of a copy
  // Owned here; whether they are open or frozen may not be as `frozen` says yet.
  std::set<GroupId> unmatched;
  std::int64_t retry_flushes_ns = 0;  // 0: none waits for room in the journal

  // Looked at by any thread.
  std::atomic<std::uint32_t> streams{0};    // connected peers whose histories were compared
  std::atomic<std::uint32_t> counting{0};   // peers that a flush waits for
  std::atomic<bool> frozen{false};
  std::atomic<Lsn> alone_from{0};    // flushes below may belong to a time with a peer: see await_peers
  std::atomic<Lsn> shipped{0};       // every stream has dealt with what is below
  std::atomic<bool> wake_sent{false};
  std::atomic<Lsn> confirmed{0};     // received by every counting peer
  std::atomic<std::uint64_t> backlog_max{Backlog::kStart};
  std::atomic<bool> throttled{false};
  std::atomic<ReplicationMode> mode{ReplicationMode::kAsync};
  std::int64_t pump_at_ns = 0;  // 0: not planned
  WrittenTimes written_times;
};

class PeerStream final : public Sender::Events, public Receiver::Events, public BaseSource::Events {
 public:
  PeerStream(Node::Impl& node, Peer& peer, Lsn from);

  void send_frame(Bytes frame) override;
  std::size_t unsent_bytes() override;
  void needs_copy(GroupId group, const char* why) override;
  void send_ack(const Ack& ack) override;
  bool may_begin_copy(GroupId group) override;
  void received(const ReceivedRecord& record) override;
  void published() override;
  void not_shown() override;
  void takes_away(std::vector<Volume::Loss> losses) override;
  void failed(const Error& error) override;
  void copy_begun(GroupId group, bool whole) override;
  void copy_advanced() override;
  void copy_finished(GroupId group, Result<> result) override;

 private:
  Node::Impl& node_;
  Peer& peer_;

 public:
  Sender sender;
  Receiver receiver;
  BaseSource copies;
  Backlog backlog;
};

}  // namespace vmfs
