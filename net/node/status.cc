// What a person sees.
#include "net/node/status.h"

#include <algorithm>
#include <tuple>

#include "fs/base/sizes.h"
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

bool Node::Impl::ready(const std::vector<GroupId>& groups, std::string* why) {
  auto because = [&](std::string text) {
    if (why != nullptr) *why = std::move(text);
    return false;
  };
  std::vector<GroupId> open = groups;
  if (open.empty())
    open.assign(unsettled.begin(), unsettled.end());
  else
    std::erase_if(open, [this](GroupId group) { return !unsettled.contains(group); });
  if (!open.empty()) {
    for (const auto& peer : peers)
      if (!peer->heard) return because(fmt::format("{} has not been heard since the start", peer->info.name));
    return because(fmt::format("still being settled: {}{}", shown(open.front()),
                               open.size() > 1 ? fmt::format(" and {} more", open.size() - 1) : std::string()));
  }
  std::string missing;
  if (!all_heard() && !may_go_on_alone()) missing = "not every peer has been heard";
  for (const auto& peer : peers)
    if (peer->heard && brings(*peer)) missing = fmt::format("not all that {} has is here yet", peer->info.name);
  if (missing.empty()) return true;
  // Ready if all is ours anyway (taken by force, or the daemon went on).
  for (GroupId group : these_or_all(groups)) {
    auto state = volume.group(group);
    if (state && (state->owner != options.node || volume.gate(group) != Gate::kOpen))
      return because(fmt::format("{} belongs to {}, and {}", shown(group), name_of(state->owner), missing));
  }
  return true;
}

// A guest that starts from what an image was a while ago would write upon that: its first write takes the token, and what
// it has read by then is in its memory. So what the peer had is here first, but for copies: they may take hours, and
// what they replace cannot be used meanwhile; nor for what a person has to settle first.
bool Node::Impl::brings(const Peer& peer) {
  if (peer.brought || !peer.stream) return false;
  bool whole = true;
  for (const auto& [group, found] : peer.courses) {
    if (found.course == Course::kReceive && volume.group(group)) return true;
    // The peer says that it is not all here as long as such a course goes on.
    const bool streamed = found.course == Course::kNothing || found.course == Course::kSend ||
                          found.course == Course::kReceive || found.course == Course::kSplit;
    if (!streamed) whole = false;
  }
  return whole && !peer.told.copying;
}

// What the peer has of the group, as far as known here.
Held Node::Impl::held_by(const Peer& peer, const GroupState& state) {
  const Position all = state.position();
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

// Of the peer itself; what it lacks comes group by group, in add_lag().
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
  // Below the journal's beginning there is nothing that anybody could lack.
  out.received = out.durable = out.applied =
      std::max(peer.persisted.confirmed, volume.journal().oldest_lsn());
  out.journal_reused = lacks_reused(peer);
  out.copies_whole = peer.copies_whole;
  out.copies_partial = peer.copies_partial;
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
  return out;
}

// What it lacks has gone from the journal: past the share that is kept for who is away.
bool Node::Impl::lacks_reused(const Peer& peer) {
  if (peer.stream) return false;
  // Not known since the start, so it is said of the journal as a whole.
  if (!peer.held_when_lost)
    return peer.persisted.confirmed != 0 && peer.persisted.confirmed < volume.journal().oldest_lsn();
  const std::vector<GroupState> groups = volume.groups();
  return std::any_of(groups.begin(), groups.end(), [&](const GroupState& state) {
    auto held = peer.held_when_lost->find(state.id);
    return held != peer.held_when_lost->end() && held->second.seq < state.recycled.seq;
  });
}

// The most that the peer can lack of any group: all of the journal since what it has confirmed. (A stream that has
// passed over a group that has stopped says nothing about that one.)
Lag Node::Impl::most_lag(Peer& peer, bool stopped) {
  const Lsn written = volume.journal().written_lsn();
  Lsn from = std::max(peer.persisted.confirmed, volume.journal().oldest_lsn());
  if (peer.stream && !stopped) from = peer.stream->sender.durable();
  Lag out;
  out.records.reset();
  out.bytes = written - std::min(written, from);
  out.ns = written_times.age_ns(from, now());
  // What is on its way was written before it was sent. What was written before this start is of the time since
  // the last contact.
  if (peer.stream) out.ns = std::max(out.ns, peer.stream->sender.lag_ns(now()));
  if (from < started_lsn && peer.persisted.last_contact_wall_ns != 0)
    out.ns = std::max(out.ns, clock.wall_ns() - peer.persisted.last_contact_wall_ns);
  return out;
}

// What the peer lacks of one group.
Lag Node::Impl::lag_of(Peer& peer, const GroupState& state, const Held& held, std::uint64_t size) {
  const bool stopped = peer.stream && peer.stream->sender.positions().stopped(state.id);
  Lag out = most_lag(peer, stopped);
  if (held.kind == Held::Kind::kUnknown) return out;
  // Of what it has nothing it gets all records, unless it is copied.
  const std::uint64_t from = held.kind == Held::Kind::kNothing ? 0 : held.position.seq;
  if (from >= state.seq) return {};
  const bool copied = held.kind == Held::Kind::kNothing && peer.stream && peer.stream->copies.has(state.id);
  auto since = copied ? std::nullopt : volume.changed_since(state.id, from);
  if (!since) {
    out.records = state.seq - from;
    if (held.kind == Held::Kind::kNothing && state.id != kNameSpace) out.bytes = size;
    return out;
  }
  if (since->records == 0) return {};
  out.records = since->records;
  // Two bounds, neither of which is too low.
  std::int64_t age = std::max<std::int64_t>(clock.wall_ns() - since->oldest_wall_ns, 0);
  if (stopped)
    out.bytes = since->bytes, out.ns = age;
  else
    out.bytes = std::min(out.bytes, since->bytes), out.ns = std::min(out.ns, age);
  return out;
}

ImageStatus Node::Impl::image_status(const GroupState& state) {
  ImageStatus out;
  out.group = state.id;
  out.path = state.id == kNameSpace ? std::string() : volume.path_of(state.id);
  out.role = role_of(state, volume.gate(state.id), options.node);
  out.owner = state.owner;
  if (raw(state.owner) != 0) out.owner_name = name_of(state.owner);
  out.position = state.position();
  if (state.id != kNameSpace)
    if (auto image = volume.attributes(state.id)) out.size = image->stat.size;
  for (auto& each : peers) {
    Peer& peer = *each;
    ImagePeerStatus entry;
    entry.node = peer.info.id;
    entry.state = to_string(peer.sync);
    if (peer.stream) {
      if (GroupCourse* found = course(peer, state.id)) {
        entry.rule = found->comparison.rule;
        if (found->course != Course::kNothing && found->course != Course::kSend)
          entry.state = to_string(found->course);
      }
    }
    Held held = held_by(peer, state);
    entry.position = held.position;
    entry.lag = lag_of(peer, state, held, out.size);
    entry.copy_due = held.kind == Held::Kind::kNothing && state.seq != 0;
    out.peers.push_back(std::move(entry));
  }
  // Whoever owns it has it, unless that is a node that was removed.
  if (state.owner != options.node && (raw(state.owner) == 0 || peer_by_id(state.owner) != nullptr)) return out;
  auto better = [](const ImagePeerStatus& a, const ImagePeerStatus& b) {
    return std::tie(a.copy_due, a.lag.bytes, a.lag.ns) < std::tie(b.copy_due, b.lag.bytes, b.lag.ns);
  };
  auto best = std::min_element(out.peers.begin(), out.peers.end(), better);
  out.lost = best != out.peers.end() ? best->lag : Lag{state.seq, out.size, 0};
  out.lost_whole = best == out.peers.end() || best->copy_due;
  return out;
}

void Node::Impl::add_lag(PeerStatus& status, const ImagePeerStatus& entry) {
  if (entry.lag.records == 0) return;
  if (!entry.lag.records) {
    // Known of none or of all groups: what the journal holds since is told once.
    status.lag.records.reset();
    status.lag.bytes = std::max(status.lag.bytes, entry.lag.bytes);
  } else if (status.lag.records) {
    *status.lag.records += *entry.lag.records;
    status.lag.bytes += entry.lag.bytes;
  }
  status.lag.ns = std::max(status.lag.ns, entry.lag.ns);
  if (entry.copy_due) ++status.copies_due;
}

// Of a peer that is away: what is known, and what to do about it.
std::string Node::Impl::lost_text(const PeerStatus& status, std::size_t owned_there) {
  const std::string name = status.peer.name.empty() ? status.peer.address : status.peer.name;
  std::string text = fmt::format("{}: {}{}", name, status.link == LinkState::kRefused ? "refused" : "not connected",
                                 status.link_reason.empty() ? "" : ": " + status.link_reason);
  if (status.last_contact_wall_ns == 0) {
    text += "; it was never met";
  } else {
    std::int64_t ago = std::max<std::int64_t>(0, clock.wall_ns() - status.last_contact_wall_ns);
    text += fmt::format("; last heard {} s ago, {} then", ago / 1'000'000'000,
                        status.was_in_sync ? "in sync" : "not in sync");
    if (!status.lag.records)
      text += fmt::format("; it may lack up to {} of the journal since", human_size(status.lag.bytes));
    else if (*status.lag.records != 0)
      text += fmt::format("; it lacks {} record{} since, {}", *status.lag.records,
                          *status.lag.records == 1 ? "" : "s", human_size(status.lag.bytes));
    if (status.journal_reused)
      text += "; the journal does not hold all of that any more: images that were changed since are copied whole when it is "
              "back, and cannot be used there until that ends";
  }
  // They find each other again by themselves: refused ones rarely do, before somebody has mended the cause.
  if (status.link != LinkState::kRefused)
    text += fmt::format("\nlook whether that machine and the network are up, and the volume mounted; {}:  vmfs status "
                        "(there)",
                        status.peer.address.empty() ? "it calls this node" : "it is called at " + status.peer.address);
  if (owned_there != 0)
    text += fmt::format("\nto go on here with what it owns ({} image{}), only if it is certainly off:  vmfs promote "
                        "--force {}",
                        owned_there, owned_there == 1 ? "" : "s", shown(kNameSpace));
  return text + fmt::format("\nif it is gone for good, so that nothing waits for it or is kept for it:  vmfs peer "
                            "remove {} {}",
                            shown(kNameSpace), name);
}

// Connected, and yet not in sync: it counts as lost for every promise.
std::string Node::Impl::behind_text(const PeerStatus& status) {
  const std::string name = status.peer.name.empty() ? status.peer.address : status.peer.name;
  const char* what = nullptr;
  switch (status.sync) {
    case PeerSync::kInSync:
    case PeerSync::kFull: return {};  // the latter is told where it is noticed
    case PeerSync::kLost:
      what = "{} is connected, and it is being found out what each side has: until then it counts as lost";
      break;
    case PeerSync::kCatchingUp:
      what = "{} is connected and not in sync yet, they catch up: until then it counts as lost";
      break;
    case PeerSync::kFullCopy:
      what = status.copies_here ? "{} copies the volume to this node: what is inconsistent here cannot be promoted "
                                  "before the copy's end"
                                : "{} is being copied to: before the copy's end it cannot take over";
      break;
  }
  return fmt::format("{}\nwait for it:  vmfs wait {} in-sync", fmt::format(fmt::runtime(what), name),
                     shown(kNameSpace));
}

// Images that nobody can use here, though no peer's state says why.
void Node::Impl::stranded_problems(const std::vector<GroupState>& groups, const std::vector<PeerStatus>& shown_peers,
                                   std::vector<std::string>& out) {
  std::vector<const GroupState*> inconsistent, released, orphaned;
  const bool copied = std::any_of(shown_peers.begin(), shown_peers.end(),
                                  [](const PeerStatus& peer) { return peer.sync == PeerSync::kFullCopy; });
  for (const GroupState& state : groups) {
    if (state.inconsistent && !copied) inconsistent.push_back(&state);
    if (state.split && !problems.contains(fmt::format("split-{}", state.id)))
      out.push_back(fmt::format("{0}: split brain with a node that is away; replication of it has stopped\n"
                                "choose the side that survives, when they have met again:\n"
                                "  vmfs resolve {0} --keep local\n  vmfs resolve {0} --keep peer",
                                shown(state.id)));
    Peer* owner = peer_by_id(raw(state.owner) == 0 ? state.taker : state.owner);
    if (raw(state.owner) != 0 && state.owner != options.node && owner == nullptr && !options.joining)
      orphaned.push_back(&state);
    if (raw(state.owner) == 0 && raw(state.taker) != 0 && state.taker != options.node &&
        (owner == nullptr || !owner->stream))
      released.push_back(&state);
  }
  // An image says more than the name space, which comes first.
  auto names = [this](const std::vector<const GroupState*>& some) {
    return shown(some.back()->id) +
           (some.size() > 1 ? fmt::format(" and {} more", some.size() - 1) : std::string());
  };
  if (!orphaned.empty())
    out.push_back(fmt::format("{}: owned by a node that is not in the volume any more: nobody may write it\n"
                              "make this node the owner:  vmfs promote --force {}",
                              names(orphaned), shown(orphaned.size() > 1 ? kNameSpace : orphaned.front()->id)));
  if (!inconsistent.empty())
    out.push_back(fmt::format("{}: inconsistent: the copy to this node was not finished, and nobody goes on with it\n"
                              "bring back the node that it was copied from, then:  vmfs wait {} in-sync\n"
                              "if that is gone for good:  vmfs peer remove {} NODE; then remove the image here, and "
                              "restore it from a backup",
                              names(inconsistent), shown(kNameSpace), shown(kNameSpace)));
  if (!released.empty())
    out.push_back(fmt::format("{}: handed to {}, which is away and may not have taken it: nobody may write it here\n"
                              "it is taken when they meet; to take it back, only if that node is certainly off:  "
                              "vmfs promote --force {}",
                              names(released), name_of(released.back()->taker),
                              shown(released.size() > 1 ? kNameSpace : released.front()->id)));
}

NodeStatus Node::Impl::status(const std::vector<GroupId>& wanted_groups) {
  NodeStatus out;
  out.node = options.node;
  out.node_name = options.node_name;
  out.settings = options.settings;
  out.ready = ready({}, &out.ready_reason);
  out.written = volume.journal().written_lsn();
  out.write_bytes_per_second = write_rate;
  written_times.note(out.written, now());
  for (const auto& peer : peers) out.peers.push_back(peer_status(*peer));

  // What would be lost is said of all that this node owns, whatever is listed.
  std::set<GroupId> listed(wanted_groups.begin(), wanted_groups.end());
  std::uint64_t unknown_bytes = 0;
  std::map<NodeId, std::size_t> owned_by;
  const std::vector<GroupState> groups = volume.groups();
  for (const GroupState& state : groups) {
    if (state.id != kNameSpace) ++owned_by[state.owner];
    ImageStatus image = image_status(state);
    for (std::size_t i = 0; i < image.peers.size(); ++i) add_lag(out.peers[i], image.peers[i]);
    if (image.lost.records != 0) {
      if (!image.lost.records) {
        // All that the journal holds since, once for all such groups.
        out.lost.records.reset();
        unknown_bytes = std::max(unknown_bytes, image.lost.bytes);
      } else {
        if (out.lost.records) *out.lost.records += *image.lost.records;
        out.lost.bytes += image.lost.bytes;
      }
      out.lost.ns = std::max(out.lost.ns, image.lost.ns);
    }
    if (image.lost_whole && state.id != kNameSpace) ++out.lost_images;
    if (listed.empty() || listed.contains(state.id)) out.images.push_back(std::move(image));
  }
  out.lost.bytes += unknown_bytes;
  std::sort(out.images.begin(), out.images.end(),
            [](const ImageStatus& a, const ImageStatus& b) {
              if ((a.group == kNameSpace) != (b.group == kNameSpace)) return a.group == kNameSpace;
              return a.path < b.path;
            });

  for (const auto& [key, text] : problems) out.problems.push_back(text);
  for (const PeerStatus& peer : out.peers) {
    std::string text = peer.link == LinkState::kConnected ? behind_text(peer)
                                                          : lost_text(peer, owned_by[peer.peer.id]);
    if (!text.empty()) out.problems.push_back(std::move(text));
  }
  stranded_problems(groups, out.peers, out.problems);
  if (!out.ready)
    out.problems.push_back(fmt::format("ownership is not settled: {0}\n"
                                       "guests should wait for it:  vmfs wait {1} ready\n"
                                       "to go on without who has not been heard, if that is certainly off:  "
                                       "vmfs promote --force {1}",
                                       out.ready_reason, shown(kNameSpace)));
  return out;
}

}  // namespace vmfs
