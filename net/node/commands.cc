// What a person, or a cluster manager, asks of the node.
#include <algorithm>
#include <ctime>

#include "fs/base/log.h"
#include "net/node/impl.h"

namespace vmfs {
namespace {

// A promote that has to wait for a peer's tail or for the token gives up after this; longer than one
// ask, so that the ask's own reason is what the person reads.
constexpr std::int64_t kCommandWait = 15'000'000'000;

std::string time_text(std::int64_t wall_ns, std::int64_t now_ns) {
  if (wall_ns == 0) return "never";
  std::time_t seconds = wall_ns / 1'000'000'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return fmt::format("{} ({} s ago)", text, std::max<std::int64_t>(0, now_ns - wall_ns) / 1'000'000'000);
}

void unique(std::vector<GroupId>& groups) {
  std::sort(groups.begin(), groups.end());
  groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
}

}  // namespace

// As a person would type it.
std::string Node::Impl::shown(GroupId group) {
  std::string path = group == kNameSpace ? std::string() : volume.path_of(group);
  if (options.mountpoint.empty()) return path.empty() ? "the name space" : path;
  return path.empty() ? options.mountpoint : options.mountpoint + "/" + path;
}

PromoteFacts Node::Impl::promote_facts(GroupId group, bool force) {
  PromoteFacts facts;
  auto state = volume.group(group);
  facts.known = state && !state->history.empty();
  facts.force = force;
  if (!state) return facts;
  facts.owned_here = state->owner == options.node;
  facts.gate = volume.gate(group);
  facts.inconsistent = state->inconsistent;
  facts.split = state->split;
  facts.taker_here = raw(state->owner) == 0 && state->taker == options.node;
  if (Peer* taker = raw(state->owner) == 0 ? peer_by_id(state->taker) : nullptr; taker != nullptr && taker->stream)
    facts.taker_connected = !taker->stream->sender.positions().stopped(group);
  if (Peer* owner = peer_by_id(state->owner); owner != nullptr && owner->stream)
    facts.owner_connected = !owner->stream->sender.positions().stopped(group);
  facts.all_heard = all_heard();
  facts.adopting = receiving(group);
  facts.parted = parted(group);
  return facts;
}

Error Node::Impl::disconnected_error(GroupId group) {
  auto state = volume.group(group);
  std::string text = fmt::format("{}: ", shown(group));
  if (state && state->owner != options.node)
    text += raw(state->owner) == 0
                ? fmt::format("was released to {}, which has not taken it", name_of(state->taker))
            : peer_by_id(state->owner) == nullptr
                ? std::string("belongs to a node that was removed from the volume")
                : fmt::format("belongs to {}, which is not connected", name_of(state->owner));
  else
    text += "was owned by this node before it stopped, and not every peer has been heard since";
  bool all_in_sync = true;
  for (const auto& peer : peers) {
    if (peer->stream) continue;
    all_in_sync &= peer->persisted.was_in_sync;
    text += fmt::format("\n  {}: last contact {}, {} then", peer->info.name,
                        time_text(peer->persisted.last_contact_wall_ns, clock.wall_ns()),
                        peer->persisted.was_in_sync ? "in sync" : "not in sync");
  }
  text += options.settings.mode == ReplicationMode::kSync && all_in_sync
              ? "\n  may be lost: what it acknowledged alone after that contact; nothing that was flushed "
                "before"
              : "\n  may be lost: whatever it wrote last, flushed or not, that did not arrive here";
  text += "\n  it may still be alive, and may have gone on alone: then both sides change, and one of them "
          "must be given up later";
  text += fmt::format("\ntake it all the same, once the other node is surely down:\n  vmfs promote {} --force",
                      options.mountpoint.empty() && group == kNameSpace ? "MOUNTPOINT" : shown(group));
  return {ErrorKind::kRefused, EROFS, std::move(text)};
}

void Node::Impl::promote(std::vector<GroupId> groups, bool force, Done done) {
  auto promotion = std::make_unique<Promotion>();
  promotion->whole = groups.empty();
  if (groups.empty())
    for (const GroupState& state : volume.groups()) groups.push_back(state.id);
  promotion->groups = {groups.begin(), groups.end()};
  promotion->force = force;
  promotion->deadline_ns = now() + kCommandWait;
  promotion->done = std::move(done);
  for (GroupId group : promotion->groups) promote_errors.erase(group);
  promotions.push_back(std::move(promotion));
  wake_at(now() + kCommandWait);
  check_commands();
}

void Node::Impl::check_commands() {
  // Finished ones are called at the end: they may give new commands.
  std::vector<std::pair<Done, Result<std::string>>> finished;
  for (auto& promotion : promotions) {
    std::optional<Error> error;
    std::vector<GroupId> pending(promotion->groups.begin(), promotion->groups.end());
    for (GroupId group : pending) {
      if (auto failed = promote_errors.find(group); failed != promote_errors.end()) {
        error = Error{ErrorKind::kBusy, EBUSY, failed->second};
        promote_errors.erase(failed);
        break;
      }
      switch (answer_promote(promote_facts(group, promotion->force))) {
        case PromoteAnswer::kDone: promotion->groups.erase(group); break;
        case PromoteAnswer::kAsk: ask(group, promotion->force, false); break;
        case PromoteAnswer::kWait: break;
        case PromoteAnswer::kTakeForced:
          if (taking.contains(group)) break;
          for (const auto& peer : peers)
            if (!peer->stream)
              log_warning("{}: taken by force without having heard {} (last contact {})", shown(group),
                          peer->info.name,
                          time_text(peer->persisted.last_contact_wall_ns, clock.wall_ns()));
          take(group, EpochCause::kForced, [this, group](Result<> result) {
            if (!result && result.error().kind != ErrorKind::kWouldWait) promote_errors[group] = result.error().message;
            poke();
          });
          break;
        case PromoteAnswer::kRefuseDisconnected: error = disconnected_error(group); break;
        case PromoteAnswer::kRefuseInconsistent:
          error = Error{ErrorKind::kRefused, EROFS,
                        fmt::format("{}: a copy is under way or was cut off: what is here is no state of "
                                    "it; connect the peer that has it whole, and see vmfs status",
                                    shown(group))};
          break;
        case PromoteAnswer::kRefuseSplit:
          error = Error{ErrorKind::kRefused, EROFS,
                        fmt::format("{}: is in split brain; choose a side: vmfs resolve {} --keep local|peer{}",
                                    shown(group), shown(group),
                                    volume.group(group)->owner == options.node
                                        ? fmt::format("\ngo on with this side, and choose later:  vmfs promote {} --force",
                                                      shown(group))
                                        : std::string())};
          break;
        case PromoteAnswer::kRefuseParted:
          error = Error{ErrorKind::kBusy, EBUSY,
                        fmt::format("{}: follows the newer state of a connected peer; try again when "
                                    "vmfs status shows it in sync",
                                    shown(group))};
          break;
        case PromoteAnswer::kRefuseUnknown:
          error = Error{ErrorKind::kRefused, EROFS,
                        fmt::format("{}: this node has nothing of it yet", shown(group))};
          break;
      }
      if (error) break;
    }
    // Only now, with the name space's last record here, are all images known.
    if (!error && promotion->groups.empty() && promotion->whole) {
      for (const GroupState& state : volume.groups())
        if (answer_promote(promote_facts(state.id, promotion->force)) != PromoteAnswer::kDone)
          promotion->groups.insert(state.id);
      if (!promotion->groups.empty()) poke();
    }
    if (!error && !promotion->groups.empty() && now() >= promotion->deadline_ns)
      error = Error{ErrorKind::kBusy, EBUSY,
                    fmt::format("{}: could not be taken within 15 seconds; see vmfs status",
                                shown(*promotion->groups.begin()))};
    if (error)
      finished.emplace_back(std::move(promotion->done), pass(std::move(*error)));
    else if (promotion->groups.empty())
      finished.emplace_back(std::move(promotion->done),
                            !frozen.load() ? std::string()
                                           : fmt::format("owned by this node; its writes are held until a peer is "
                                                         "back (on-peer-loss = freeze)\n"
                                                         "go on without:  vmfs set {} on-peer-loss=continue",
                                                         shown(kNameSpace)));
  }
  std::erase_if(promotions, [](const auto& promotion) { return !promotion->done; });
  if (promotions.empty()) promote_errors.clear();

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

std::optional<Result<std::string>> Node::Impl::evaluate(const WaitFor& wait) {
  bool holds = true;
  switch (wait.condition) {
    case Condition::kConnected:
      for (const auto& peer : peers) holds &= peer->link_state == LinkState::kConnected;
      break;
    case Condition::kInSync:
      for (const auto& peer : peers) holds &= peer->sync == PeerSync::kInSync;
      // Nor may this node lack anything: a peer may be copying to it, or be about to.
      holds &= unsettled.empty();
      if (holds && !peers.empty())
        for (const GroupState& state : volume.groups())
          holds &= !state.history.empty() && !state.inconsistent && !receiving(state.id) &&
                   !parted(state.id);
      break;
    case Condition::kReady: holds = ready(nullptr); break;
    case Condition::kPrimary: {
      std::vector<GroupId> groups = wait.groups;
      if (groups.empty())
        for (const GroupState& state : volume.groups()) groups.push_back(state.id);
      for (GroupId group : groups) {
        auto state = volume.group(group);
        holds &= state && state->owner == options.node && volume.gate(group) == Gate::kOpen;
      }
      break;
    }
  }
  if (!holds) return std::nullopt;
  return Result<std::string>(std::string());
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
    if (state->split || taker->stream->sender.positions().stopped(group)) {
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
        (taker == nullptr || !taker->stream->sender.positions().stopped(state.id)))
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
  bool all = groups.empty();
  if (all)
    for (const GroupState& state : volume.groups())
      if (state.split) groups.push_back(state.id);
  unique(groups);
  if (groups.empty()) return done(std::string("nothing is in split brain"));
  auto resolution = std::make_unique<Resolution>();
  resolution->deadline_ns = now() + kCommandWait;
  for (GroupId group : groups) {
    auto state = volume.group(group);
    if (!state || !state->split)
      return done(fail(ErrorKind::kInvalid, EINVAL, fmt::format("{}: is not in split brain", shown(group))));
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
    if (!keep_local) send(*other, Resolve{group, other->info.id});
  }
  if (keep_local)
    for (GroupId group : groups)
      win(group, [this, group](Result<> result) {
        if (!result) problem(fmt::format("split-{}", group), result.error().message);
        poke();
      });
  resolution->done = std::move(done);
  resolutions.push_back(std::move(resolution));
  wake_at(now() + kCommandWait);
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
  log_notice("{}: removed from the volume", name);
  if (callbacks.peer_removed) callbacks.peer_removed(id);
  update_counting();
  freeze_or_thaw();
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
  update_counting();
  freeze_or_thaw();
  pump_all();
  check_flushes();
  volume.resume_writes();
  poke();
}

}  // namespace vmfs
