// Positions: two nodes that have just connected tell each other where every group stands, compare
// histories, and set each group on its course.
#include <algorithm>

#include "fs/base/log.h"
#include "net/node/impl.h"

namespace vmfs {

// The group as this node has it durably; nothing: it is gone.
std::optional<GroupPosition> Node::Impl::position_of(GroupId group) {
  // In this order: the history read later has the epoch of the position read before.
  Position durable = volume.durable_position(group);
  auto state = volume.group(group);
  if (!state) return std::nullopt;
  GroupPosition out;
  out.group = group;
  out.owner = state->owner;
  out.taker = state->taker;
  out.inconsistent = state->inconsistent;
  out.split = state->split;
  out.open_writer = volume.activity(group).open_writer;
  out.history = std::move(state->history);
  // An epoch that began since is not told.
  while (!out.history.empty() && out.history.back().epoch != durable.epoch) out.history.pop_back();
  // Nor what no message takes; the newest are what is compared.
  if (out.history.size() > kHistoryMax) out.history.erase(out.history.begin(), out.history.end() - kHistoryMax);
  out.seq = out.history.empty() ? 0 : durable.seq;
  return out;
}

void Node::Impl::begin_exchange(Peer& peer) {
  peer.sent_positions = peer.got_positions = false;
  peer.ours.clear();
  peer.theirs.clear();
  // What came over the last connection is to count: durable and visible first.
  const std::uint64_t number = peer.connection->number;
  sync.request([this, alive = alive, id = peer.info.id, number](Result<Lsn> durable) {
    if (!*alive || stopped) return;
    Peer* peer = peer_by_id(id);
    if (peer == nullptr || peer->connection == nullptr || peer->connection->number != number) return;
    Connection* const connection = peer->connection;
    if (!durable && durable.error().kind == ErrorKind::kWouldWait) {
      // Which the volume tells as a problem of its own. The other node must not wait for this one meanwhile.
      const std::string why = fmt::format("what came before cannot be shown on {}: {}", options.node_name,
                                          durable.error().message);
      connection->link->send(encode_message(Bye{why}));
      return close(*connection, why, false);
    }
    if (!durable) {
      problem("journal", fmt::format("the journal cannot be synced: {}\ncheck its disk:  df, dmesg",
                                     durable.error().message));
      return close(*connection, "the local journal cannot be synced", false);
    }
    std::vector<GroupPosition> positions;
    for (const GroupState& state : volume.groups()) {
      auto position = position_of(state.id);
      if (!position) continue;
      positions.push_back(*position);
      peer->ours[state.id] = std::move(*position);
    }
    send_positions(*peer, positions, false);
    peer->sent_positions = true;
    if (peer->got_positions) compare_all(*peer);
  });
}

void Node::Impl::send_positions(Peer& peer, const std::vector<GroupPosition>& groups, bool update) {
  Positions message;
  message.update = update;
  std::size_t bytes = 0;
  for (const GroupPosition& group : groups) {
    std::size_t size = 64 + group.history.size() * 64;
    if (bytes + size > kPositionsBytes && !message.groups.empty()) {
      send(peer, message);
      message.groups.clear();
      bytes = 0;
    }
    bytes += size;
    message.groups.push_back(group);
  }
  message.last = true;
  send(peer, message);
}

void Node::Impl::on_positions(Peer& peer, Positions positions) {
  if (positions.update) {
    if (!peer.stream) return;
    for (const GroupPosition& remote : positions.groups) {
      const GroupCourse* now = course(peer, remote.group);
      if (now != nullptr && now->course == Course::kCopyToPeer && now->started && remote.inconsistent) continue;
      auto local = position_of(remote.group);
      // Neither has it whole: one that comes back may.
      if (local && local->inconsistent && remote.inconsistent) continue;
      if (local) apply_course(peer, remote.group, *local, remote, false);
    }
    return poke();
  }
  if (peer.got_positions) return;
  for (GroupPosition& group : positions.groups) {
    GroupId id = group.group;
    peer.theirs[id] = std::move(group);
  }
  if (!positions.last) return;
  peer.got_positions = true;
  if (peer.sent_positions) compare_all(peer);
}

void Node::Impl::compare_all(Peer& peer) {
  peer.courses.clear();
  peer.stream = std::make_unique<PeerStream>(*this, peer, peer.persisted.confirmed);
  for (const auto& [group, local] : peer.ours) {
    // One that only one side knows: its creation or its removal is on its way in the stream, or it needs a copy,
    // which audit() finds out.
    if (auto remote = peer.theirs.find(group); remote != peer.theirs.end())
      apply_course(peer, group, local, remote->second, true);
  }
  peer.ours.clear();
  peer.theirs.clear();
  peer.heard = true;
  peer.full = false;
  problem("journal", "");
  peer.counted_sent = peer.counted_received = 0;
  ++streams;
  peer.stream->sender.begin();
  peer.audit.clear();
  for (const GroupState& state : volume.groups()) peer.audit.push_back(state.id);
  peer.audit_lsn = volume.journal().written_lsn();
  end_splits_of_nobody();
  look_at_parts();
  update_sync(peer);
  pump_all();
  // Whatever waited for the owner to be reachable.
  poke();
}

GroupCourse* Node::Impl::course(Peer& peer, GroupId group) {
  auto it = peer.courses.find(group);
  return it == peer.courses.end() ? nullptr : &it->second;
}

void Node::Impl::apply_course(Peer& peer, GroupId group, const GroupPosition& local,
                              const GroupPosition& remote, bool first) {
  StreamPosition& positions = peer.stream->sender.positions();
  Judgement judgement = judge(local, remote);
  GroupCourse next;
  next.course = judgement.course;
  next.comparison = judgement.comparison;
  if (GroupCourse* now = course(peer, group); now != nullptr && !first) {
    // A follow or copy that is under way goes on.
    if (now->started && judgement.course == now->course) return;
  }
  const Comparison& compared = judgement.comparison;
  // Settled: what was said of a split brain is over, though a copy may have to follow. (Another peer may still be
  // in one with us.)
  const bool split_elsewhere = std::any_of(peers.begin(), peers.end(), [&](const auto& other) {
    GroupCourse* found = other.get() != &peer && other->stream ? course(*other, group) : nullptr;
    return found != nullptr && found->course == Course::kSplit;
  });
  if (judgement.course != Course::kSplit && !split_elsewhere) problem(fmt::format("split-{}", group), "");
  if (judgement.course != Course::kNothing && judgement.course != Course::kSend &&
      judgement.course != Course::kReceive)
    log_notice("{}: {} with {}: rule {}, {} records here and {} there beyond epoch {} seq {}",
               shown(group), to_string(judgement.course), peer.info.name, compared.rule,
               compared.local_extra, compared.remote_extra, compared.common.epoch,
               compared.common.seq);
  switch (judgement.course) {
    case Course::kNothing:
    case Course::kSend:
    case Course::kReceive:
      positions.set(group, remote.position());
      peer.stream->sender.note_durable(group, remote.position());
      next.until = remote.position();
      if (judgement.course == Course::kReceive) {
        peer.courses[group] = next;
        remote.owner == options.node ? regain(group, peer) : give_way(group, peer);
      } else {
        peer.courses.erase(group);
      }
      if (auto state = volume.group(group); state && state->split && !split_elsewhere) mark_split(group, false);
      return;
    case Course::kFollow:
    case Course::kWaitFollow:
      next.remote = remote;
      [[fallthrough]];
    case Course::kPeerFollows:
    case Course::kCopyFromPeer:
      positions.stop(group);
      peer.stream->sender.note_durable(group, compared.common);
      break;
    case Course::kCopyToPeer:
      if (!is_source(peer, local.group, local.owner)) {
        if (positions.knows(group)) positions.stop(group);
        peer.courses.erase(group);
        return;
      }
      positions.set(group, remote.position());
      positions.stop(group);
      peer.courses[group] = next;  // which is started, or not, by the following
      needs_copy(peer, group,
                 remote.inconsistent ? "an earlier copy was not finished" : "it has nothing of it yet");
      return;
    case Course::kSplit:
      positions.stop(group);
      peer.stream->sender.note_durable(group, compared.common);
      peer.courses[group] = next;  // what it says names both sides
      mark_split(group, true);
      break;
    case Course::kNeitherWhole:
      positions.stop(group);
      problem(fmt::format("whole-{}", group),
              fmt::format("{}: neither this node nor {} holds a whole copy\nbring back the node that it was "
                          "copied from; if that is gone for good:  vmfs peer remove {} NODE; then remove the image, "
                          "and restore it from a backup",
                          shown(group), peer.info.name, shown(kNameSpace)));
      break;
  }
  peer.courses[group] = next;
}

// Somebody was promoted by force while this node, the owner, was cut off and changed nothing: it is the owner
// no more, and what it has open for writing is for another's image. The records that say so are about to come.
void Node::Impl::give_way(GroupId group, const Peer& peer) {
  auto state = volume.group(group);
  if (!state || state->owner != options.node) return;
  const Gate gate = volume.gate(group);
  if (gate != Gate::kOpen && gate != Gate::kFrozen) return;
  log_warning("{}: {} was promoted while this node was cut off, and goes on from what this node has: it is the "
              "owner now",
              shown(group), peer.info.name);
  volume.set_gate(group, Gate::kSuspended);
  (void)volume.final_position(group);  // who came through the gate before has ended
  // Should the link be lost before those have come, it is not this node's again by that.
  unsettled.insert(group);
  must_hear.insert(group);
  if (callbacks.expire_write_handles) callbacks.expire_write_handles(group);
  volume.reopen(group);
}

// The peer has more of what this node wrote than this node: its journal failed, and the next daemon found less
// than had been shipped. Nothing may be changed until that is back; then ownership goes on.
void Node::Impl::regain(GroupId group, const Peer& peer) {
  auto state = volume.group(group);
  if (!state || state->owner != options.node) return;
  const Gate gate = volume.gate(group);
  if (gate != Gate::kOpen && gate != Gate::kFrozen) return;
  log_warning("{}: {} has records of this node that its own journal has lost: they are fetched before it is "
              "changed again",
              shown(group), peer.info.name);
  volume.set_gate(group, Gate::kSuspended);
  (void)volume.final_position(group);
  unsettled.insert(group);
  must_hear.insert(group);
}

// Whether it is this node that copies the group to that peer: its owner does; if that is away or nobody, one of those
// that have it. Never two: their copies would mix.
bool Node::Impl::is_source(const Peer& target, GroupId group, NodeId owner) {
  if (owner == options.node) return true;
  return std::none_of(peers.begin(), peers.end(), [&](const auto& other) {
    if (other.get() == &target || !other->stream) return false;
    return other->info.id == owner ||
           (raw(other->info.id) < raw(options.node) && other->stream->sender.positions().knows(group));
  });
}

// Groups that the peer has not learned of in any other way: whoever may change them sends a copy.
void Node::Impl::audit(Peer& peer) {
  if (peer.audit.empty() || peer.stream->sender.position() < peer.audit_lsn) return;
  StreamPosition& positions = peer.stream->sender.positions();
  // While the name space is not the same on both sides, a group may be about to come or to go.
  if (peer.stream->copies.has(kNameSpace) || positions.stopped(kNameSpace)) return;
  auto held = positions.position(kNameSpace);
  if (!held || receiving(kNameSpace) || parted(kNameSpace)) return;
  // An image that was removed there while this node was away is gone once that is shown here, not before.
  if (!volume.publish_received(volume.journal().durable_lsn())) return;  // it is tried again
  // A copy of the names has come and is not shown whole yet: what only this node has goes with that.
  if (auto names = volume.group(kNameSpace); !names || names->inconsistent) return;
  std::vector<GroupId> groups = std::move(peer.audit);
  peer.audit.clear();
  for (GroupId group : groups) {
    if (positions.knows(group)) continue;
    auto state = volume.group(group);
    if (!state || state->inconsistent || state->history.empty()) continue;
    if (!is_source(peer, group, state->owner)) continue;
    needs_copy(peer, group, "the peer has never had it");
  }
  // Nothing else may be on its way that would begin it.
  peer.stream->copies.advance();
}

// Once what is in the journal by now has been passed: the group's creation may be there.
void Node::Impl::audit_again(Peer& peer, GroupId group) {
  if (!peer.stream || peer.stream->sender.positions().knows(group)) return;
  peer.audit.push_back(group);
  peer.audit_lsn = volume.journal().written_lsn();
}

bool Node::Impl::receiving(GroupId group) {
  return std::any_of(peers.begin(), peers.end(), [&](const auto& peer) {
    const GroupCourse* found = peer->stream ? course(*peer, group) : nullptr;
    return found != nullptr && found->course == Course::kReceive;
  });
}

void Node::Impl::forget_received() {
  const auto arrived = [this](GroupId group, const GroupCourse& found) {
    if (found.course != Course::kReceive) return false;
    auto state = volume.group(group);
    return !state || state->seq >= found.until.seq;
  };
  std::optional<std::unordered_map<GroupId, std::uint64_t>> not_visible;
  for (auto& peer : peers)
    std::erase_if(peer->courses, [&](const auto& entry) {
      const auto& [group, found] = entry;
      if (!arrived(group, found)) return false;
      if (!not_visible && !(not_visible = volume.not_visible())) return false;
      auto first = not_visible->find(group);
      return first == not_visible->end() || first->second > found.until.seq;
    });
}

bool Node::Impl::parted(GroupId group) {
  for (auto& peer : peers) {
    if (!peer->stream) continue;
    GroupCourse* found = course(*peer, group);
    if (found == nullptr) continue;
    switch (found->course) {
      case Course::kFollow:
      case Course::kWaitFollow:
      case Course::kCopyFromPeer:
      case Course::kNeitherWhole: return true;
      default: break;
    }
  }
  return false;
}

}  // namespace vmfs
