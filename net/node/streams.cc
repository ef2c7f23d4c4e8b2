// Records in and out, what flushes wait for, who is in sync, and what the loss of a peer means.
#include <algorithm>

#include "fs/base/log.h"
#include "net/node/impl.h"

namespace vmfs {
namespace {

// A peer that nothing waits for counts when it is this close. In sync it is when it has confirmed everything written
// at that moment.
constexpr std::uint64_t kAsyncJoinGap = 32u << 20;
// So long writers wait for a peer that cannot take records; a full journal that empties is over sooner.
constexpr std::int64_t kFullPatience = 30'000'000'000;
// While records flow, the journal is looked at so often.
constexpr std::int64_t kPumpInterval = 2'000'000;
// So much that is newly confirmed is told to the volume at once.
constexpr std::uint64_t kConfirmedMuch = 1u << 20;
// A flush whose epoch finds the journal full looks again after this.
constexpr std::int64_t kFlushRetry = 100'000'000;

}  // namespace

PeerStream::PeerStream(Node::Impl& node, Peer& peer, Lsn from)
    : node_(node),
      peer_(peer),
      sender(node.volume, node.clock, *this, from),
      receiver(node.volume, node.sync, node.clock, *this),
      copies(node.volume, node.shell, node.clock, sender, *this,
             [&node] { return node.compression(); }),
      backlog(from) {}

void PeerStream::send_frame(Bytes frame) {
  if (peer_.connection != nullptr && !peer_.connection->over)
    peer_.connection->link->send(std::move(frame));
}

std::size_t PeerStream::unsent_bytes() {
  return peer_.connection == nullptr ? 0 : peer_.connection->link->unsent_bytes();
}

void PeerStream::needs_copy(GroupId group, const char* why) { node_.needs_copy(peer_, group, why); }
void PeerStream::send_ack(const Ack& ack) { node_.send(peer_, ack); }

// Of two copies neither would be whole. What a node had sent before its death may still come when another one, which
// has missed it sooner, takes over.
bool PeerStream::may_begin_copy(GroupId group) { return !node_.is_being_copied(group, &peer_); }

void PeerStream::received(const ReceivedRecord& record) {
  sender.positions().came_from_peer(record.header, record.payload);
  GroupId group{record.header.group};
  // Whoever releases a group has all of it.
  if (record.header.type == RecordType::kReleased)
    sender.note_durable(group, {EpochId{record.header.epoch}, record.header.seq});
  if (record.header.type != RecordType::kBaseBegin && record.header.type != RecordType::kBaseEnd)
    return;
  GroupCourse& course = peer_.courses[group];
  course.course = Course::kCopyFromPeer;
  course.started = true;
  if (record.header.type == RecordType::kBaseBegin) {
    log_warning("{}: a copy from {} begins; until it ends the image is inconsistent here",
                node_.shown(group), peer_.info.name);
  } else {
    // Whole again once this is durable.
    course.course = Course::kReceive;
    course.until = {EpochId{record.header.epoch}, record.header.seq};
  }
}

void PeerStream::published() {
  peer_.back_off.useful();
  node_.problem("receive", "");
  // What came in the meantime is due by itself.
  node_.wake_at(receiver.next_tick_ns());
  node_.poke();  // which passes it over, or on to other peers, once for all that came meanwhile
}

void PeerStream::not_shown() { node_.wake_at(receiver.next_tick_ns()); }

void PeerStream::takes_away(std::vector<Volume::Loss> losses) { node_.let_go(peer_, losses); }

void PeerStream::failed(const Error& error) {
  // Not from within: the receiver is still at work.
  std::string why = error.message.empty() ? "records could not be taken" : error.message;
  bool local = error.kind == ErrorKind::kIo || error.kind == ErrorKind::kNoSpace;
  log_error("{}: {}", peer_.info.name, why);
  if (local) node_.problem("receive", fmt::format("records cannot be stored: {}\nfree space where store and "
                                                    "journal are, or check their disks; it is tried again:  df, dmesg",
                                                    why));
  const std::uint64_t number = peer_.connection == nullptr ? 0 : peer_.connection->number;
  node_.post([&node = node_, id = peer_.info.id, number, why] {
    Peer* peer = node.peer_by_id(id);
    if (peer != nullptr && peer->connection != nullptr && peer->connection->number == number)
      node.close(*peer->connection, why, false);
  });
}

void PeerStream::copy_begun(GroupId, bool whole) { ++(whole ? peer_.copies_whole : peer_.copies_partial); }
void PeerStream::copy_advanced() { node_.pump(peer_); }
void PeerStream::copy_finished(GroupId group, Result<> result) {
  node_.copy_finished(peer_, group, result);
}

int Node::Impl::compression() const {
  if (options.settings.compression) return *options.settings.compression;
  return options.settings.mode == ReplicationMode::kAsync ? 1 : 0;
}

// How far the peers may be told: in async mode no further than is durable here, so that none holds what this
// node could still lose. The mode is the volume's, the same for every peer: when it is async there is no sync
// peer that an async one could overtake.
Lsn Node::Impl::ship_limit() {
  Journal& journal = volume.journal();
  return options.settings.mode == ReplicationMode::kAsync ? journal.durable_lsn()
                                                          : journal.written_lsn();
}

void Node::Impl::pump(Peer& peer) {
  if (!peer.stream || peer.connection == nullptr) return;
  Sender& sender = peer.stream->sender;
  bool sync_now = options.settings.mode == ReplicationMode::kSync && !flush_waits.empty() && peer.counts;
  const Lsn received = sender.received(), durable = sender.durable();
  auto result = sender.pump(ship_limit(), sync_now, compression());
  if (!result) {
    problem("journal-read", fmt::format("the journal cannot be read for {}: {}\ncheck its disk:  dmesg", peer.info.name,
                                        result.error().message));
    PeerStream& stream = *peer.stream;
    return stream.failed(result.error());
  }
  if (!problems.empty()) problem("journal-read", "");
  peer.stream->copies.advance();
  update_sync(peer);
  // The journal's room hangs on it, and a small journal is full before the next second.
  if (peer.stream && peer.persisted.present && sender.durable() >= peer.persisted.confirmed + kConfirmedMuch)
    persist(peer);
  // What was passed over counts as confirmed, and no acknowledgement will come that says so.
  if (peer.stream && (sender.received() != received || sender.durable() != durable)) check_flushes();
}

void Node::Impl::pump_all() {
  pump_at_ns = 0;
  written_times.note(volume.journal().written_lsn(), now());
  if (streams.load() == 0) {
    wake_sent.store(false);
    return;
  }
  for (auto& peer : peers) pump(*peer);
  // Idle is said before the last look: whoever writes after the look sees it and wakes us.
  wake_sent.store(false);
  Lsn written = volume.journal().written_lsn();
  Lsn behind = written;
  bool waiting_for_peer = true;
  for (auto& peer : peers) {
    if (!peer->stream) continue;
    behind = std::min(behind, peer->stream->sender.position());
    if (peer->stream->sender.has_room()) waiting_for_peer = false;
  }
  shipped.store(behind);
  if (behind < written && !waiting_for_peer) {
    wake_sent.store(true);
    pump_at_ns = now() + kPumpInterval;
    wake_at(pump_at_ns);
  } else if (behind < written) {
    wake_sent.store(true);  // the peer's next acknowledgement, or the link's room, goes on
  }
}

void Node::Impl::on_ack(Peer& peer, const Ack& ack) {
  if (!peer.stream) return;
  if (!peer.stream->sender.acknowledged(ack))
    return peer.stream->failed({ErrorKind::kProtocol, EPROTO,
                                fmt::format("it confirms frame {}, and {} were sent", ack.received,
                                            peer.stream->sender.last_number())});
  peer.back_off.useful();
  if (ack.full != peer.full) {
    peer.full = ack.full;
    peer.full_since_ns = now();
    problem("full-" + peer.info.name,
            ack.full ? fmt::format("{} cannot take records: its store is full, or its journal is and the store does not "
                                   "keep up, or its disk does not answer, or it keeps an image first that was removed "
                                   "here\n"
                                   "what it says of it, there:  vmfs status; free space on its store's file system:  df",
                                   peer.info.name)
                     : std::string());
  }
  // Before the stream takes all the room: a copy would wait for as long as somebody writes much.
  peer.stream->copies.advance();
  pump_all();
  check_flushes();
  if (hand_over || !wanted.empty()) poke();
}

// Decides whether flushes wait for the peer; what it says of the peer is this node's half alone.
PeerSync Node::Impl::standing_of(Peer& peer) {
  if (peer.stream && !peer.full && !peer.stream->copies.busy()) audit(peer);
  std::optional<PeerSync> apart;
  if (!peer.stream)
    apart = PeerSync::kLost;
  else if (peer.full)
    apart = PeerSync::kFull;
  else if (peer.stream->copies.busy())
    apart = PeerSync::kFullCopy;
  if (apart) {
    peer.counts = false;
    peer.join_lsn.reset();
  } else {
    const Sender& sender = peer.stream->sender;
    if (!peer.join_lsn) {
      Lsn written = volume.journal().written_lsn();
      // A flush waits for the rest.
      const std::uint64_t gap = options.settings.mode == ReplicationMode::kAsync ? kAsyncJoinGap
                                                                                 : peer.stream->backlog.bytes_max();
      if (written - std::min(written, sender.durable()) <= gap) {
        // In this order: a flush that does not wait for the peer lies below join_lsn.
        peer.counts = true;
        update_counting();
        peer.join_lsn = volume.journal().written_lsn();
        peer.join_number = sender.last_number();
      }
    }
    if (!peer.given && peer.audit.empty() && sender.durable() >= peer.audit_lsn && !parting(peer)) {
      if (!peer.given_number) peer.given_number = sender.last_number();
      peer.given = sender.durable_number() >= *peer.given_number;
    }
    if (peer.join_lsn && sender.durable() >= *peer.join_lsn &&
        sender.durable_number() >= peer.join_number && peer.audit.empty())
      peer.joined = true;
  }
  if (!peer.join_lsn) peer.joined = false;
  if (apart) return *apart;
  return peer.joined && !parting(peer) ? PeerSync::kInSync : PeerSync::kCatchingUp;
}

void Node::Impl::update_sync(Peer& peer) {
  PeerSync before = peer.sync;
  bool counted = peer.counts;
  peer.sync = standing_of(peer);
  if (peer.stream) {
    Standing standing{peer.sync == PeerSync::kInSync, peer.sync == PeerSync::kFullCopy, peer.given};
    if (peer.said != standing) {
      peer.said = standing;
      send(peer, standing);
    }
    // In sync is what both say of each other: who sends knows alone whether all has been sent.
    bool whole = peer.sync == PeerSync::kInSync || peer.sync == PeerSync::kCatchingUp;
    if (whole && peer.told.copying)
      peer.sync = PeerSync::kFullCopy;
    else if (whole && !peer.told.caught_up)
      peer.sync = PeerSync::kCatchingUp;
  }
  if (counted && !peer.counts && peer.stream) {
    // Connected, and lost for every promise: what is acknowledged without it is told by new epochs.
    volume.begin_epochs(EpochCause::kPeerLost);
    alone_from = volume.journal().written_lsn();
  }
  if (peer.counts != counted) {
    freeze_or_thaw();
    update_counting();
  }
  if (peer.sync == before) return;
  if (peer.sync == PeerSync::kInSync) peer.back_off.useful();
  log_notice("{}: {}", peer.info.name, to_string(peer.sync));
  // What it was when it was lost is what a person asks for later.
  if (peer.stream) peer.persisted.was_in_sync = peer.sync == PeerSync::kInSync;
  persist(peer);
  // Whoever asks after a restart must not be told what was true long before. It happens seldom.
  if (before == PeerSync::kInSync || peer.sync == PeerSync::kInSync)
    blocking(
        Shell::Lane::kCopy, [this] { return volume.checkpoint(); },
        [](Result<> done) {
          if (!done) log_warning("what is known of the peers is not on disk yet: {}", done.error().message);
        });
  freeze_or_thaw();
  poke();
}

// Some group is not the same on both sides yet and will be: in either direction. (Split brain is said
// group by group; it does not end by itself.)
bool Node::Impl::parting(const Peer& peer) {
  return std::any_of(peer.courses.begin(), peer.courses.end(), [this](const auto& entry) {
    return entry.second.course != Course::kSplit && volume.group(entry.first);  // not one that was removed meanwhile
  });
}

// Whom flushes wait for, as other threads see it: whoever is not waited for any more is so after freeze_or_thaw(), or a
// flush in between would neither wait nor be held.
void Node::Impl::update_counting() {
  std::uint32_t number = 0;
  Lsn least = volume.journal().written_lsn();
  std::uint64_t most = Backlog::kMost;
  for (const auto& peer : peers) {
    if (!peer->counts || !peer->stream || options.settings.mode == ReplicationMode::kAsync) continue;
    ++number;
    least = std::min(least, peer->stream->sender.received());
    most = std::min(most, peer->stream->backlog.bytes_max());
  }
  backlog_max.store(most);
  confirmed.store(least);
  counting.store(number);
}

void Node::Impl::check_flushes() {
  update_counting();
  std::uint64_t limit = backlog_max.load();
  Lsn written = volume.journal().written_lsn();
  if (throttled.load() &&
      (counting.load() == 0 || written - std::min(written, confirmed.load()) < limit / 2)) {
    throttled.store(false);
    volume.resume_writes();
  }
  if (flush_waits.empty()) return;
  std::multimap<Lsn, FlushWait> alone;
  std::vector<std::function<void(Result<>)>> ready;
  for (auto it = flush_waits.begin(); it != flush_waits.end();) {
    std::optional<Lsn> through = confirmed_through(it->second.group, it->first);
    // What is held on a branch that may be given up stays so though other groups go on.
    if (through ? *through < it->first : frozen.load() || volume.gate(it->second.group) == Gate::kFrozen) {
      ++it;
      continue;
    }
    if (through)
      ready.push_back(std::move(it->second.done));
    else
      alone.emplace(it->first, std::move(it->second));
    it = flush_waits.erase(it);
  }
  if (!alone.empty()) complete_alone(std::move(alone));
  for (auto& done : ready) done({});
}

// What every peer that counts has of this group, as the mode demands, for a flush of what ends at `lsn`; nothing: there
// is none.
std::optional<Lsn> Node::Impl::confirmed_through(GroupId group, Lsn lsn) {
  std::optional<Lsn> through;
  if (options.settings.mode == ReplicationMode::kAsync) return through;
  for (const auto& peer : peers) {
    if (!peer->counts || !peer->stream) continue;
    Sender& sender = peer->stream->sender;
    // A group that has parted from a peer's does not go there, however well the others do; nor one of which the peer
    // has nothing, whose records are passed over.
    if (sender.positions().stopped(group) || (!sender.positions().knows(group) && sender.position() >= lsn)) continue;
    Lsn has = options.settings.mode == ReplicationMode::kSync ? sender.durable() : sender.received();
    through = std::min(through.value_or(has), has);
  }
  return through;
}

// No peer counts: what is acknowledged now is acknowledged without them, so the new epochs, from which
// that can be told later, are durable first.
void Node::Impl::complete_alone(std::multimap<Lsn, FlushWait> waits) {
  auto held = std::make_shared<std::multimap<Lsn, FlushWait>>(std::move(waits));
  completing_alone.push_back(held);
  auto results = std::make_shared<std::map<GroupId, Result<>>>();
  for (const auto& [lsn, wait] : *held) results->try_emplace(wait.group);
  blocking(
      Shell::Lane::kSync,
      [this, results]() -> Result<> {
        for (auto& [group, result] : *results) result = volume.go_on_alone(group);
        return {};
      },
      [this, held, results](Result<>) {
        std::erase(completing_alone, held);
        for (auto& [lsn, wait] : *held) {
          const Result<>& result = results->at(wait.group);
          const ErrorKind kind = result ? ErrorKind::kNotFound : result.error().kind;
          const bool handed_over = kind == ErrorKind::kReadOnly && options.settings.mode == ReplicationMode::kAsync;
          if (kind == ErrorKind::kNotFound || handed_over) {
            wait.done({});  // of an image that is gone nothing can be lost; in async a flush is this disk's
          } else if (kind == ErrorKind::kWouldWait) {
            flush_waits.emplace(lsn, std::move(wait));
            retry_flushes_ns = now() + kFlushRetry;
            wake_at(retry_flushes_ns);
          } else {
            wait.done(result);
          }
        }
      });
}

void Node::Impl::peer_lost(Peer& peer, const std::string& why) {
  bool streamed = peer.stream != nullptr;
  peer.sent_positions = peer.got_positions = false;
  peer.told = {};
  peer.said.reset();
  peer.given = false;
  peer.given_number.reset();
  if (!streamed) return freeze_or_thaw();
  persist(peer);
  peer.held_when_lost.emplace();
  for (const GroupState& state : volume.groups())
    if (Held held = held_by(peer, state); held.kind == Held::Kind::kUpTo)
      (*peer.held_when_lost)[state.id] = held.position;
  bool was_in_sync = peer.sync == PeerSync::kInSync;
  --streams;
  // What it had to tell us did not all arrive: a tail of ours, or another branch, is still only there.
  // Ownership that waits for the peers goes on waiting for this one.
  for (const auto& [group, found] : peer.courses) {
    auto state = volume.group(group);
    bool arrived = found.course == Course::kReceive && state && !state->inconsistent &&
                   state->seq >= found.until.seq;
    bool ours = found.course == Course::kPeerFollows || found.course == Course::kCopyToPeer ||
                found.course == Course::kSplit;
    if (!state || arrived || ours) continue;
    peer.heard = false;
    if (unsettled.contains(group)) must_hear.insert(group);
  }
  peer.stream.reset();
  persist(peer);
  for (const auto& [group, found] : peer.courses) problem(fmt::format("follow-{}", group), "");
  peer.courses.clear();
  for (GroupId group : peer.leaving) problem(fmt::format("follow-{}", group), "");
  peer.leaving.clear();
  const std::map<GroupId, bool> closed = closed_to_follow;
  for (const auto& [group, was_open] : closed)
    if (!parted(group) && !parted(kNameSpace)) stop_following(group, false);
  peer.full = false;
  problem("full-" + peer.info.name, "");
  // The next change of every group owned here begins an epoch: said before anything is acknowledged
  // without the peer.
  volume.begin_epochs(EpochCause::kPeerLost);
  alone_from = volume.journal().written_lsn();
  update_sync(peer);
  freeze_or_thaw();
  update_counting();
  if (was_in_sync)
    log_warning("{}: lost while in sync ({}); {}", peer.info.name, why,
                frozen.load() ? "writes are held until it is back (on-peer-loss = freeze)"
                              : "going on without it");
  check_flushes();
  // Nobody will answer these any more.
  std::vector<GroupId> unanswered;
  for (const auto& [group, ask] : asking)
    if (ask.asked == peer.info.id) unanswered.push_back(group);
  for (GroupId group : unanswered)
    give_up_asking(group, {ErrorKind::kReadOnly, EROFS, {}});  // commands decide anew
  std::erase_if(wanted, [&](const auto& want) { return want.second.peer == peer.info.id; });
  tell_parts();  // of which it may have been the source
  poke();
}

// on-peer-loss = freeze: while no peer counts, groups owned here accept nothing.
void Node::Impl::freeze_or_thaw() {
  bool anybody = false;
  for (const auto& peer : peers) anybody |= peer->counts;
  bool freeze = !peers.empty() && !anybody && options.settings.mode != ReplicationMode::kAsync &&
                options.settings.on_peer_loss == OnPeerLoss::kFreeze;
  if (freeze == frozen.load()) return match_frozen();
  // Before histories are compared nobody knows whether what was held belongs to a branch that is given up.
  for (const auto& peer : peers)
    if (!freeze && peer->connection != nullptr && !peer->stream) return;
  frozen.store(freeze);
  for (const GroupState& state : volume.groups())
    if (state.owner == options.node) unmatched.insert(state.id);
  match_frozen();
  problem("frozen", freeze ? fmt::format("no peer is in sync: writes are held (on-peer-loss = freeze)\n"
                                         "go on without:  vmfs set {} on-peer-loss=continue",
                                         shown(kNameSpace))
                           : std::string());
  if (!freeze) check_flushes();
}

// One that is being released keeps its gate: if it stays here after all, its turn comes then.
void Node::Impl::match_frozen() {
  const Gate from = frozen.load() ? Gate::kOpen : Gate::kFrozen, to = idle_gate();
  bool opened = false;
  std::erase_if(unmatched, [&](GroupId group) {
    if (volume.gate(group) != from) return !releasing.contains(group);
    // What was held is not let go on a branch that is about to be given up.
    if (to == Gate::kOpen && parted(group)) return false;
    // What was received and cannot be shown yet keeps it closed; that is said by the volume, and tried again.
    if (!volume.change_gate(group, from, to)) return false;
    if (to == Gate::kOpen) volume.reopen(group);
    opened = opened || to == Gate::kOpen;
    return true;
  });
  if (opened && !flush_waits.empty()) check_flushes();
}

void Node::Impl::persist(Peer& peer) {
  if (raw(peer.info.id) == 0) return;
  // Writers wait for a peer that lags only while it moves: not for one whose store has been full for long,
  // nor while a group is parted, which may last until a person decides.
  peer.persisted.present =
      peer.stream && (!peer.full || now() - peer.full_since_ns < kFullPatience);
  if (peer.stream) {
    // While a group is parted, the records since then are what tells which ranges to fetch.
    bool is_parted = false;
    for (const auto& [group, found] : peer.courses)
      is_parted |= found.course == Course::kSplit || found.course == Course::kFollow ||
                   found.course == Course::kWaitFollow || found.course == Course::kPeerFollows;
    if (!is_parted) peer.persisted.confirmed = peer.stream->sender.durable();
    if (is_parted) peer.persisted.present = false;
    peer.persisted.last_contact_wall_ns = clock.wall_ns();
  }
  volume.set_peer(peer.persisted);
}

}  // namespace vmfs
