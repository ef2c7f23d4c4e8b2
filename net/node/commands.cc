// What a person, or a cluster manager, asks of the node.
#include <algorithm>

#include "fs/base/log.h"
#include "fs/base/printable.h"
#include "net/node/impl.h"

namespace vmfs {
namespace {

// So long a peer may take to say that it gives its side of a split up.
constexpr std::int64_t kResolveWait = 15'000'000'000;

void unique(std::vector<GroupId>& groups) {
  std::sort(groups.begin(), groups.end());
  groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
}

}  // namespace

// As a person would type it, on one line: an image's name must not break the messages that it stands in.
std::string Node::Impl::shown(GroupId group) {
  std::string path = group == kNameSpace ? std::string() : printable_name(volume.path_of(group));
  if (options.mountpoint.empty()) return path.empty() ? "the name space" : path;
  return path.empty() ? options.mountpoint : options.mountpoint + "/" + path;
}

void Node::Impl::check_commands() {
  // Finished ones are called at the end: they may give new commands.
  std::vector<std::pair<Done, Result<std::string>>> finished;
  check_promotions(finished);
  for (auto& resolution : resolutions) {
    std::erase_if(resolution->groups, [this](GroupId group) {
      auto state = volume.group(group);
      return !state || !state->split || parted(group);
    });
    if (resolution->groups.empty())
      finished.emplace_back(std::move(resolution->done),
                            std::string("settled; copies go on in the background, see vmfs status"));
    else if (now() >= resolution->deadline_ns)
      finished.emplace_back(std::move(resolution->done),
                            fail(ErrorKind::kBusy, ETIMEDOUT,
                                 fmt::format("{}: the peer did not answer within 15 seconds",
                                             shown(*resolution->groups.begin()))));
  }
  std::erase_if(resolutions, [](const auto& resolution) { return !resolution->done; });

  if (hand_over && hand_over->through != 0) {
    Peer* peer = peer_by_id(hand_over->peer);
    const bool arrived = peer != nullptr && peer->stream && peer->stream->sender.durable() >= hand_over->through;
    if (arrived && !hand_over->failure.empty())
      finished.emplace_back(std::move(hand_over->done), fail(ErrorKind::kIo, EIO, std::move(hand_over->failure)));
    else if (arrived)
      finished.emplace_back(std::move(hand_over->done),
                            fmt::format("{} groups handed over to {}", hand_over->groups,
                                        peer->info.name));
    else if (peer == nullptr || !peer->stream || now() >= hand_over->deadline_ns)
      finished.emplace_back(std::move(hand_over->done),
                            fail(ErrorKind::kBusy, ETIMEDOUT,
                                 "the peer did not confirm the hand-over in time; it takes what was "
                                 "released when it hears of it"));
    if (!hand_over->done) hand_over.reset();
  }

  std::vector<std::uint64_t> over;
  for (auto& [number, wait] : waits) {
    if (auto result = evaluate(wait)) {
      finished.emplace_back(std::move(wait.done), std::move(*result));
      over.push_back(number);
    }
  }
  for (std::uint64_t number : over) waits.erase(number);

  for (auto& [done, result] : finished) done(std::move(result));
}

std::vector<GroupId> Node::Impl::these_or_all(std::vector<GroupId> groups) {
  if (groups.empty())
    for (const GroupState& state : volume.groups()) groups.push_back(state.id);
  return groups;
}

std::optional<Result<std::string>> Node::Impl::evaluate(const WaitFor& wait) {
  bool holds = true;
  switch (wait.condition) {
    case Condition::kConnected:
      for (const auto& peer : peers) holds &= peer->link_state == LinkState::kConnected;
      break;
    case Condition::kInSync:
      for (const auto& peer : peers) holds &= peer->sync == PeerSync::kInSync;
      // Nor may this node lack anything: a peer may be copying to it, or be about to.
      for (GroupId group : holds ? these_or_all(wait.groups) : std::vector<GroupId>()) {
        auto state = volume.group(group);
        holds &= state && !unsettled.contains(group) &&
                 (peers.empty() || (!state->history.empty() && !state->inconsistent && !state->split &&
                                    !receiving(group) && !parted(group)));
      }
      break;
    case Condition::kReady: holds = ready(wait.groups, nullptr); break;
    case Condition::kPrimary:
      for (GroupId group : these_or_all(wait.groups)) {
        auto state = volume.group(group);
        holds &= state && state->owner == options.node && volume.gate(group) == Gate::kOpen;
      }
      break;
  }
  if (!holds) return std::nullopt;
  return Result<std::string>(std::string());
}

bool Node::Impl::goes_to(Peer& peer, GroupId group) {
  Sender& sender = peer.stream->sender;
  if (sender.positions().stopped(group)) return false;
  // One that was made a moment ago is on its way, if only by the record that made it; of one that the stream has passed
  // by the peer has nothing.
  if (sender.positions().knows(group)) return true;
  auto state = volume.group(group);
  const bool changed = !state || state->seq != 0;
  return sender.position() < volume.last_record(changed ? group : kNameSpace);
}

Peer* Node::Impl::best_peer() {
  Peer* best = nullptr;
  for (auto& peer : peers) {
    if (peer->sync != PeerSync::kInSync) continue;
    if (best == nullptr || peer->stream->sender.durable() > best->stream->sender.durable())
      best = peer.get();
  }
  return best;
}

void Node::Impl::demote(std::vector<GroupId> groups, bool force, Done done) {
  bool all = groups.empty();
  if (all)
    for (const GroupState& state : volume.groups())
      if (state.owner == options.node) groups.push_back(state.id);
  unique(groups);
  Peer* taker = best_peer();
  if (taker == nullptr)
    return done(fail(ErrorKind::kRefused, EBUSY,
                     "no peer is in sync that could take over; see vmfs status, or wait: vmfs wait "
                     "MOUNTPOINT in-sync"));
  std::vector<GroupId> giving;
  for (GroupId group : groups) {
    auto state = volume.group(group);
    if (!state || state->owner != options.node) continue;  // not ours: nothing to give
    if (state->split || !goes_to(*taker, group)) {
      if (all) continue;
      return done(fail(ErrorKind::kRefused, EBUSY,
                       fmt::format("{}: {} does not have it as it is here{}; see vmfs status", shown(group),
                                   taker->info.name, state->split ? " (split brain)" : "")));
    }
    if (volume.gate(group) != Gate::kOpen)
      return done(fail(ErrorKind::kRefused, EBUSY,
                       fmt::format("{}: its ownership is not settled; see vmfs status", shown(group))));
    if (!force && active(group))
      return done(fail(ErrorKind::kRefused, EBUSY,
                       fmt::format("{}: is in use here (a guest writes to it or holds it locked); stop "
                                   "the guest first, or: vmfs demote {} --force",
                                   shown(group), shown(group))));
    giving.push_back(group);
  }
  if (giving.empty()) return done(std::string("nothing to give: no group of these is owned here"));
  // Each is durable when it is released.
  auto progress = std::make_shared<Demotion>();
  progress->left = giving.size();
  progress->done = std::move(done);
  demotions.push_back(progress);
  std::string name = taker->info.name;
  for (GroupId group : giving)
    release(group, taker->info.id, [this, progress, name, count = giving.size()](Result<> result) {
      if (!result) progress->failure = result.error().message;
      if (--progress->left != 0) return;
      std::erase(demotions, progress);
      if (progress->failure.empty())
        progress->done(fmt::format("{} groups handed over to {}", count, name));
      else
        progress->done(fail(ErrorKind::kIo, EIO, progress->failure));
    });
}

void Node::Impl::hand_over_all(std::int64_t deadline_ns, Done done) {
  if (hand_over)
    return done(fail(ErrorKind::kBusy, EBUSY, "a hand-over is under way already"));
  // Without peers there is nobody to give anything to.
  if (peers.empty()) return done(std::string());
  Peer* taker = best_peer();
  std::vector<GroupId> groups;
  for (const GroupState& state : volume.groups())
    if (state.owner == options.node && volume.gate(state.id) == Gate::kOpen && !state.split &&
        !releasing.contains(state.id) &&
        (taker == nullptr || goes_to(*taker, state.id)))
      groups.push_back(state.id);
  if (groups.empty()) return done(std::string("nothing to hand over"));
  if (taker == nullptr)
    return done(fail(ErrorKind::kRefused, EBUSY,
                     "no peer is in sync: this node stays the owner, and settles with its peers when it "
                     "is mounted again"));
  hand_over = std::make_unique<HandOver>();
  hand_over->peer = taker->info.id;
  hand_over->deadline_ns = deadline_ns;
  hand_over->groups = groups.size();
  hand_over->done = std::move(done);
  wake_at(deadline_ns);
  auto last = std::make_shared<Lsn>(0);
  releasing.insert(groups.begin(), groups.end());
  blocking(
      Shell::Lane::kSync,
      [this, groups, taker = taker->info.id, last]() -> Result<> {
        Result<> outcome;
        for (GroupId group : groups) {
          auto lsn = volume.release(group, taker);
          // The others go all the same. One that was deleted meanwhile has nobody who could miss it.
          if (lsn)
            *last = std::max(*last, *lsn);
          else if (lsn.error().kind != ErrorKind::kNotFound)
            outcome = pass(lsn.error());
        }
        return outcome;
      },
      [this, groups, last](Result<> result) {
        for (GroupId group : groups) {
          releasing.erase(group);
          unmatched.insert(group);
        }
        match_frozen();
        if (!hand_over) return;
        if (*last == 0) {
          Done nothing_given = std::move(hand_over->done);
          hand_over.reset();
          return nothing_given(result ? Result<std::string>("nothing to hand over") : pass(result.error()));
        }
        if (!result) hand_over->failure = "not all groups could be handed over: " + result.error().message;
        hand_over->through = *last;
        // The confirmation is to come quickly: somebody waits, as for a flush.
        for (auto& peer : peers)
          if (peer->stream)
            (void)peer->stream->sender.pump(volume.journal().durable_lsn(), true, compression());
        pump_all();
        poke();
      });
}

void Node::Impl::resolve(std::vector<GroupId> groups, bool keep_local, Done done) {
  const std::vector<GroupId> named = groups;
  if (named.empty())
    for (const GroupState& state : volume.groups()) groups.push_back(state.id);
  unique(groups);
  // Of a directory only some images may be: the others are well.
  std::erase_if(groups, [this](GroupId group) {
    auto state = volume.group(group);
    return !state || !state->split;
  });
  if (groups.empty() && named.empty()) return done(std::string("nothing is in split brain"));
  if (groups.empty())
    return done(fail(ErrorKind::kInvalid, EINVAL,
                     fmt::format("{}{}: is not in split brain", shown(named.front()),
                                 named.size() > 1 ? fmt::format(" and {} more", named.size() - 1) : "")));
  auto resolution = std::make_unique<Resolution>();
  resolution->deadline_ns = now() + kResolveWait;
  std::vector<Peer*> others;  // nothing is begun before all can be
  for (GroupId group : groups) {
    Peer* other = nullptr;
    for (auto& peer : peers) {
      GroupCourse* found = peer->stream ? course(*peer, group) : nullptr;
      if (found != nullptr && found->course == Course::kSplit) other = peer.get();
    }
    if (other == nullptr)
      return done(fail(ErrorKind::kRefused, ENOTCONN,
                       fmt::format("{}: the other side is not connected: both must be, so that the one "
                                   "that is given up can be kept and copied",
                                   shown(group))));
    resolution->groups.insert(group);
    others.push_back(other);
  }
  if (!keep_local)
    for (std::size_t i = 0; i < groups.size(); ++i) send(*others[i], Resolve{groups[i], others[i]->info.id});
  else
    for (GroupId group : groups)
      win(group, [this, group](Result<> result) {
        if (!result) problem(fmt::format("split-{}", group), result.error().message);
        poke();
      });
  resolution->done = std::move(done);
  resolutions.push_back(std::move(resolution));
  wake_at(now() + kResolveWait);
  poke();
}

void Node::Impl::remove_peer(NodeId id, Done done) {
  Peer* peer = peer_by_id(id);
  if (peer == nullptr)
    return done(fail(ErrorKind::kNotFound, ENOENT,
                     fmt::format("there is no peer {}; see vmfs peer list", id)));
  std::string name = peer->info.name;
  options.removed.push_back(id);
  for (auto& other : peers)
    if (other.get() != peer) send(*other, PeerRemoved{id});
  if (peer->connection != nullptr) {
    Connection& connection = *peer->connection;
    std::string why = fmt::format("removed from the volume by {0}; to take part again, join with an empty store (vmfs "
                                  "token on {0}, then vmfs join)",
                                  options.node_name);
    connection.link->send(encode_message(HelloRefused{RefusalReason::kRemoved, std::move(why)}));
    close(connection, "removed from the volume", true);
  }
  for (auto& connection : connections)
    if (connection->peer == peer) {
      connection->peer = nullptr;
      if (!connection->over) close(*connection, "removed from the volume", true);
    }
  std::erase_if(peers, [peer](const auto& other) { return other.get() == peer; });
  volume.remove_peer(id);
  end_splits_of_nobody();
  look_at_parts();
  tell_parts();
  log_notice("{}: removed from the volume", name);
  if (callbacks.peer_removed) callbacks.peer_removed(id);
  freeze_or_thaw();
  update_counting();
  check_flushes();
  poke();
  done(fmt::format("{} is no peer any more", name));
}

void Node::Impl::set_settings(VolumeSettings settings, Done done) {
  // Later than what it replaces, whatever the clock says: the later change wins everywhere.
  settings.changed_wall_ns = std::max(clock.wall_ns(), options.settings.changed_wall_ns + 1);
  take_settings(settings);
  done(std::string());
}

void Node::Impl::take_settings(const VolumeSettings& settings) {
  bool mode_changed = settings.mode != options.settings.mode;
  options.settings = settings;
  mode = settings.mode;
  if (callbacks.settings_changed) callbacks.settings_changed(settings);
  for (auto& peer : peers) send(*peer, settings);
  if (mode_changed) {
    log_notice("mode is {} now", to_string(settings.mode));
    // Flushes that did not wait for a peer may not be there yet: it has to come into sync anew.
    for (auto& peer : peers) {
      if (!peer->stream) continue;
      if (peer->sync == PeerSync::kInSync) peer->sync = PeerSync::kCatchingUp;
      if (peer->counts) {
        // Until it counts again, what is acknowledged is acknowledged without it.
        volume.begin_epochs(EpochCause::kPeerLost);
        alone_from = volume.journal().written_lsn();
      }
      peer->counts = false;
      peer->join_lsn.reset();
      peer->joined = false;
      update_sync(*peer);
    }
  }
  freeze_or_thaw();
  update_counting();
  pump_all();
  check_flushes();
  volume.resume_writes();
  poke();
}

}  // namespace vmfs
