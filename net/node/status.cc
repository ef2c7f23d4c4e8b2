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

// What the peer has of the group, as far as known here.
Held Node::Impl::held_by(const Peer& peer, const GroupState& state) {
  Position all{state.history.empty() ? EpochId{} : state.history.back().epoch, state.seq};
  // What it owns, or released to this node, came from there.
  bool theirs = state.owner == peer.info.id || (raw(state.owner) == 0 && state.taker == options.node);
  if (theirs && (peer.stream || peer.held_when_lost)) return {Held::Kind::kUpTo, all};
  if (peer.stream) {
    auto durable = peer.stream->sender.durable_position(state.id);
    if (durable && raw(durable->epoch) != 0) return {Held::Kind::kUpTo, *durable};
    // An image that was just made: its creation is in the name space's records, and it has none yet.
    if (state.seq == 0 && peer.stream->sender.positions().knows(state.id)) return {Held::Kind::kUpTo, all};
    return {Held::Kind::kNothing, {}};
  }
  if (!peer.held_when_lost) return {};
  auto found = peer.held_when_lost->find(state.id);
  if (found == peer.held_when_lost->end()) return {Held::Kind::kNothing, {}};
  return {Held::Kind::kUpTo, found->second};
}

PeerStatus Node::Impl::peer_status(Peer& peer) {
  PeerStatus out;
  out.peer = peer.info;
  out.link = peer.link_state;
  out.link_reason = peer.link_reason;
  out.link_since_wall_ns = peer.link_since_wall_ns;
  out.last_contact_wall_ns = peer.persisted.last_contact_wall_ns;
  out.was_in_sync = peer.persisted.was_in_sync;
  out.sync = peer.sync;
  if (peer.connection != nullptr) out.remote = peer.connection->link->remote();
  Lsn written = volume.journal().written_lsn();
  // Below the journal's beginning there is nothing that anybody could lack.
  out.received = out.durable = out.applied =
      std::max(peer.persisted.confirmed, volume.journal().oldest_lsn());
  if (peer.stream) {
    const Sender& sender = peer.stream->sender;
    out.copies_here = peer.sync == PeerSync::kFullCopy && !peer.stream->copies.busy();
    out.received = sender.received();
    out.durable = sender.durable();
    out.applied = sender.applied();
    out.bytes_sent = sender.bytes_sent();
    out.bytes_received = peer.stream->receiver.bytes_received();
    out.send_bytes_per_second = peer.send_rate;
    out.receive_bytes_per_second = peer.receive_rate;
    out.copy_bytes_done = peer.stream->copies.bytes_done();
    out.copy_bytes_total = peer.stream->copies.bytes_total();
  }
  std::uint64_t copied_bytes = 0;
  for (const GroupState& state : volume.groups()) {
    Held held = held_by(peer, state);
    if (held.kind == Held::Kind::kUnknown) {
      out.lag_records.reset();
      break;
    }
    *out.lag_records += state.seq - std::min(state.seq, held.position.seq);
    if (held.kind == Held::Kind::kNothing && state.seq != 0) {
      ++out.copies_due;
      if (auto image = volume.attributes(state.id)) copied_bytes += image->stat.size;
    }
  }
  if (out.lag_records == 0) return out;
  out.lag_bytes = written - std::min(written, out.durable) + copied_bytes;
  out.lag_ns = written_times.age_ns(out.durable, now());
  // What is on its way was written before it was sent. What was written before this start is of the time since
  // the last contact.
  if (peer.stream) out.lag_ns = std::max(out.lag_ns, peer.stream->sender.lag_ns(now()));
  if (out.durable < started_lsn && out.last_contact_wall_ns != 0)
    out.lag_ns = std::max(out.lag_ns, clock.wall_ns() - out.last_contact_wall_ns);
  return out;
}

ImageStatus Node::Impl::image_status(const GroupState& state) {
  ImageStatus out;
  out.group = state.id;
  out.path = state.id == kNameSpace ? std::string() : volume.path_of(state.id);
  out.role = role_of(state, volume.gate(state.id), options.node);
  out.owner = state.owner;
  if (raw(state.owner) != 0) out.owner_name = name_of(state.owner);
  if (!state.history.empty()) out.position = {state.history.back().epoch, state.seq};
  if (state.id != kNameSpace)
    if (auto image = volume.attributes(state.id)) out.size = image->stat.size;
  out.lost_records = state.seq;
  out.lost_whole = true;
  for (auto& each : peers) {
    Peer& peer = *each;
    ImagePeerStatus entry;
    entry.node = peer.info.id;
    entry.state = to_string(peer.sync);
    if (peer.stream) {
      receiving(state.id);  // a course that has come to its end is forgotten
      if (GroupCourse* found = course(peer, state.id)) {
        entry.rule = found->comparison.rule;
        if (found->course != Course::kNothing && found->course != Course::kSend)
          entry.state = to_string(found->course);
      }
    }
    Held held = held_by(peer, state);
    entry.position = held.position;
    if (held.kind == Held::Kind::kUnknown) {
      entry.lag_records.reset();
      out.lost_records.reset();
      out.lost_whole = false;
    } else {
      entry.lag_records = state.seq - std::min(state.seq, held.position.seq);
      entry.copy_due = held.kind == Held::Kind::kNothing && state.seq != 0;
      if (out.lost_records) out.lost_records = std::min(*out.lost_records, *entry.lag_records);
      out.lost_whole = out.lost_whole && entry.copy_due;
    }
    out.peers.push_back(std::move(entry));
  }
  if (state.owner != options.node) {
    // Whoever owns it has it.
    out.lost_records = 0;
    out.lost_whole = false;
  }
  return out;
}

// Of a peer that is away: what is known, and what to do about it.
std::string Node::Impl::lost_text(const PeerStatus& status) {
  std::string text;
  if (status.last_contact_wall_ns == 0) {
    text = "it was never met";
  } else {
    std::int64_t ago = std::max<std::int64_t>(0, clock.wall_ns() - status.last_contact_wall_ns);
    text = fmt::format("last heard {} s ago, {} then", ago / 1'000'000'000,
                       status.was_in_sync ? "in sync" : "not in sync");
    if (!status.lag_records)
      text += fmt::format("; it may lack up to {} bytes of the journal since", status.lag_bytes);
    else if (*status.lag_records != 0)
      text += fmt::format("; it lacks {} records since", *status.lag_records);
  }
  return fmt::format("{}\nif it is gone for good, so that nothing waits for it or is kept for it:  vmfs peer remove "
                     "{} {}",
                     text, options.mountpoint.empty() ? "MOUNTPOINT" : options.mountpoint,
                     status.peer.name.empty() ? status.peer.address : status.peer.name);
}

NodeStatus Node::Impl::status(const std::vector<GroupId>& wanted_groups) {
  NodeStatus out;
  out.node = options.node;
  out.node_name = options.node_name;
  out.settings = options.settings;
  out.ready = ready(&out.ready_reason);
  out.written = volume.journal().written_lsn();
  written_times.note(out.written, now());
  for (const auto& peer : peers) out.peers.push_back(peer_status(*peer));

  // What would be lost is said of all that this node owns, whatever is listed.
  std::set<GroupId> listed(wanted_groups.begin(), wanted_groups.end());
  for (const GroupState& state : volume.groups()) {
    ImageStatus image = image_status(state);
    for (std::size_t i = 0; i < image.peers.size(); ++i) {
      if (image.peers[i].lag_records == 0) continue;
      image.peers[i].lag_bytes = out.peers[i].lag_bytes;
      image.peers[i].lag_ns = out.peers[i].lag_ns;
    }
    if (!image.lost_records)
      out.lost_records.reset();
    else if (out.lost_records)
      *out.lost_records += *image.lost_records;
    if (image.lost_whole && state.id != kNameSpace) ++out.lost_images;
    if (listed.empty() || listed.contains(state.id)) out.images.push_back(std::move(image));
  }
  std::sort(out.images.begin(), out.images.end(),
            [](const ImageStatus& a, const ImageStatus& b) {
              if ((a.group == kNameSpace) != (b.group == kNameSpace)) return a.group == kNameSpace;
              return a.path < b.path;
            });
  if (!out.peers.empty() && out.lost_records != 0) {
    auto best = std::min_element(out.peers.begin(), out.peers.end(),
                                 [](const PeerStatus& a, const PeerStatus& b) {
                                   return a.lag_bytes < b.lag_bytes;
                                 });
    out.lost_bytes = best->lag_bytes;
    out.lost_ns = best->lag_ns;
  }

  for (const auto& [key, text] : problems) out.problems.push_back(text);
  for (const PeerStatus& peer : out.peers) {
    std::string name = peer.peer.name.empty() ? peer.peer.address : peer.peer.name;
    if (peer.link == LinkState::kRefused)
      out.problems.push_back(fmt::format("{}: refused: {}", name, peer.link_reason));
    else if (peer.link != LinkState::kConnected)
      out.problems.push_back(fmt::format("{}: not connected{}; {}", name,
                                         peer.link_reason.empty() ? "" : ": " + peer.link_reason,
                                         lost_text(peer)));
    else if (peer.sync == PeerSync::kFullCopy)
      out.problems.push_back(
          peer.copies_here
              ? fmt::format("{} copies the volume to this node: what is inconsistent here cannot be promoted "
                            "before the copy's end\nwait for it:  vmfs wait {} in-sync",
                            name, shown(kNameSpace))
              : fmt::format("{} is being copied to: before the copy's end it cannot take over\nwait for it:  "
                            "vmfs wait {} in-sync",
                            name, shown(kNameSpace)));
  }
  if (!out.ready) out.problems.push_back("ownership is not settled: " + out.ready_reason);
  return out;
}

}  // namespace vmfs
