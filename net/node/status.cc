// What a person sees.
#include "net/node/status.h"

#include <algorithm>

#include "net/node/impl.h"

namespace vmfs {

const char* to_string(LinkState state) {
  switch (state) {
    case LinkState::kConnecting: return "connecting";
    case LinkState::kConnected: return "connected";
    case LinkState::kRefused: return "refused";
  }
  return "?";
}

const char* to_string(PeerSync sync) {
  switch (sync) {
    case PeerSync::kLost: return "lost";
    case PeerSync::kCatchingUp: return "catching-up";
    case PeerSync::kFullCopy: return "full-copy";
    case PeerSync::kInSync: return "in-sync";
    case PeerSync::kFull: return "full";
  }
  return "?";
}

const char* to_string(Role role) {
  switch (role) {
    case Role::kPrimary: return "primary";
    case Role::kSecondary: return "secondary";
    case Role::kSuspended: return "suspended";
    case Role::kReleased: return "released";
    case Role::kFrozen: return "frozen";
    case Role::kInconsistent: return "inconsistent";
    case Role::kSplit: return "split";
  }
  return "?";
}

namespace {

Role role_of(const GroupState& state, Gate gate, NodeId self) {
  if (state.split) return Role::kSplit;
  if (state.inconsistent) return Role::kInconsistent;
  if (raw(state.owner) == 0) return Role::kReleased;
  if (state.owner != self) return Role::kSecondary;
  switch (gate) {
    case Gate::kOpen: return Role::kPrimary;
    case Gate::kFrozen: return Role::kFrozen;
    case Gate::kReleasing: return Role::kReleased;
    case Gate::kInconsistent: return Role::kInconsistent;
    default: return Role::kSuspended;
  }
}

}  // namespace

bool Node::Impl::ready(std::string* why) {
  auto because = [&](std::string text) {
    if (why != nullptr) *why = std::move(text);
    return false;
  };
  if (!unsettled.empty()) {
    for (const auto& peer : peers)
      if (!peer->heard) return because(fmt::format("{} has not been heard since the start", peer->info.name));
    return because(fmt::format("still being settled: {}{}", shown(*unsettled.begin()),
                               unsettled.size() > 1
                                   ? fmt::format(" and {} more", unsettled.size() - 1)
                                   : std::string()));
  }
  if (all_heard()) return true;
  // Not everybody was heard: ready if all is ours anyway (taken by force, or the daemon went on).
  for (const GroupState& state : volume.groups())
    if (state.owner != options.node || volume.gate(state.id) != Gate::kOpen)
      return because(fmt::format("{} belongs to {}, and not every peer has been heard",
                                 shown(state.id), name_of(state.owner)));
  return true;
}

NodeStatus Node::Impl::status(const std::vector<GroupId>& wanted_groups) {
  NodeStatus out;
  out.node = options.node;
  out.node_name = options.node_name;
  out.settings = options.settings;
  out.ready = ready(&out.ready_reason);
  Lsn written = volume.journal().written_lsn();
  std::int64_t now_ns = now();
  std::int64_t wall_ns = clock.wall_ns();

  for (const auto& peer : peers) {
    PeerStatus entry;
    entry.peer = peer->info;
    entry.link = peer->link_state;
    entry.link_reason = peer->link_reason;
    entry.link_since_wall_ns = peer->link_since_wall_ns;
    entry.last_contact_wall_ns = peer->persisted.last_contact_wall_ns;
    entry.was_in_sync = peer->persisted.was_in_sync;
    entry.sync = peer->sync;
    if (peer->connection != nullptr) entry.remote = peer->connection->link->remote();
    Lsn durable = peer->persisted.confirmed;
    if (peer->stream) {
      const Sender& sender = peer->stream->sender;
      durable = sender.durable();
      entry.lag_ns = sender.lag_ns(now_ns);
      entry.bytes_sent = sender.bytes_sent();
      entry.bytes_received = peer->stream->receiver.bytes_received();
      entry.send_bytes_per_second = peer->send_rate;
      entry.receive_bytes_per_second = peer->receive_rate;
      entry.copy_bytes_done = peer->stream->copies.bytes_done();
      entry.copy_bytes_total = peer->stream->copies.bytes_total();
    } else if (entry.last_contact_wall_ns != 0) {
      entry.lag_ns = std::max<std::int64_t>(0, wall_ns - entry.last_contact_wall_ns);
    }
    entry.lag_bytes = written - std::min(written, durable);
    if (entry.lag_bytes == 0) entry.lag_ns = 0;
    out.peers.push_back(std::move(entry));
  }

  std::vector<GroupState> states;
  if (wanted_groups.empty()) {
    states = volume.groups();
  } else {
    for (GroupId group : wanted_groups)
      if (auto state = volume.group(group)) states.push_back(std::move(*state));
  }
  for (const GroupState& state : states) {
    ImageStatus image;
    image.group = state.id;
    image.path = state.id == kNameSpace ? std::string() : volume.path_of(state.id);
    image.role = role_of(state, volume.gate(state.id), options.node);
    image.owner = state.owner;
    if (raw(state.owner) != 0) image.owner_name = name_of(state.owner);
    if (!state.history.empty()) image.position = {state.history.back().epoch, state.seq};
    std::uint64_t least_lag = UINT64_MAX;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      Peer& peer = *peers[i];
      ImagePeerStatus entry;
      entry.node = peer.info.id;
      entry.state = to_string(peer.sync);
      if (peer.stream) {
        if (auto durable = peer.stream->sender.durable_position(state.id)) entry.position = *durable;
        receiving(state.id);  // a course that has come to its end is forgotten
        if (GroupCourse* found = course(peer, state.id)) {
          entry.rule = found->comparison.rule;
          switch (found->course) {
            case Course::kNothing:
            case Course::kSend: break;
            default: entry.state = to_string(found->course);
          }
        }
        // Nothing of it went over this connection, and nothing is on its way: it is as here.
        if (raw(entry.position.epoch) == 0 && peer.sync == PeerSync::kInSync &&
            peer.stream->sender.durable() >= written)
          entry.position = image.position;
      }
      // What came from the peer itself never lags there.
      bool theirs = state.owner == peer.info.id;
      entry.lag_records =
          theirs ? 0 : state.seq - std::min(state.seq, entry.position.seq);
      if (entry.lag_records != 0) {
        entry.lag_bytes = out.peers[i].lag_bytes;
        entry.lag_ns = out.peers[i].lag_ns;
      }
      least_lag = std::min(least_lag, entry.lag_records);
      image.peers.push_back(std::move(entry));
    }
    image.lost_records = peers.empty() ? state.seq : least_lag;
    if (state.owner == options.node) out.lost_records += image.lost_records;
    out.images.push_back(std::move(image));
  }
  std::sort(out.images.begin(), out.images.end(),
            [](const ImageStatus& a, const ImageStatus& b) {
              if ((a.group == kNameSpace) != (b.group == kNameSpace)) return a.group == kNameSpace;
              return a.path < b.path;
            });
  if (!out.peers.empty()) {
    auto best = std::min_element(out.peers.begin(), out.peers.end(),
                                 [](const PeerStatus& a, const PeerStatus& b) {
                                   return a.lag_bytes < b.lag_bytes;
                                 });
    out.lost_bytes = out.lost_records == 0 ? 0 : best->lag_bytes;
    out.lost_ns = out.lost_records == 0 ? 0 : best->lag_ns;
  }

  for (const auto& [key, text] : problems) out.problems.push_back(text);
  for (const auto& peer : peers) {
    if (peer->link_state == LinkState::kRefused)
      out.problems.push_back(fmt::format("{}: refused: {}", peer->info.name, peer->link_reason));
    else if (peer->link_state != LinkState::kConnected)
      out.problems.push_back(fmt::format("{}: not connected{}", peer->info.name,
                                         peer->link_reason.empty() ? "" : ": " + peer->link_reason));
  }
  if (!out.ready) out.problems.push_back("ownership is not settled: " + out.ready_reason);
  return out;
}

}  // namespace vmfs
