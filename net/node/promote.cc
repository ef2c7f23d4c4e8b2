// Promoting: taking the right to change groups, because a person or a cluster manager says so.
#include <algorithm>
#include <ctime>

#include "fs/base/log.h"
#include "net/node/impl.h"

namespace vmfs {
namespace {

// A promote that has to wait for a peer's tail or for the token gives up after this; longer than one
// ask, so that the ask's own reason is what the person reads.
constexpr std::int64_t kPromoteWait = 15'000'000'000;

// So many are named when more are refused.
constexpr std::uint64_t kRefusedNamed = 5;

std::string time_text(std::int64_t wall_ns, std::int64_t now_ns) {
  if (wall_ns == 0) return "never";
  std::time_t seconds = wall_ns / 1'000'000'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return fmt::format("{} ({} s ago)", text, std::max<std::int64_t>(0, now_ns - wall_ns) / 1'000'000'000);
}

}  // namespace

PromoteFacts Node::Impl::promote_facts(GroupId group, bool force) {
  PromoteFacts facts;
  auto state = volume.group(group);
  facts.known = state && !state->history.empty();
  facts.force = force;
  if (!state) return facts;
  facts.owned_here = state->owner == options.node;
  facts.gate = volume.gate(group);
  facts.inconsistent = state->inconsistent;
  facts.split = is_split(*state);
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

// The peers of which nothing could be adopted, a line each.
std::string Node::Impl::unreached() {
  std::string text;
  for (const auto& peer : peers)
    if (!peer->stream)
      text += fmt::format("\n  {}: last contact {}, {} then", peer->info.name,
                          time_text(peer->persisted.last_contact_wall_ns, clock.wall_ns()),
                          peer->persisted.was_in_sync ? "in sync" : "not in sync");
  return text;
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
  const bool all_in_sync =
      std::all_of(peers.begin(), peers.end(), [](const auto& peer) { return peer->stream || peer->persisted.was_in_sync; });
  text += unreached();
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
  promotion->deadline_ns = now() + kPromoteWait;
  promotion->done = std::move(done);
  for (GroupId group : promotion->groups) promote_errors.erase(group);
  promotions.push_back(std::move(promotion));
  wake_at(now() + kPromoteWait);
  check_commands();
}

// One step towards owning the group. True: it is owned. An error: it cannot be, and why.
Result<bool> Node::Impl::step_to_promote(GroupId group, bool force) {
  if (auto failed = promote_errors.find(group); failed != promote_errors.end()) {
    Error error{ErrorKind::kBusy, EBUSY, failed->second};
    promote_errors.erase(failed);
    return pass(std::move(error));
  }
  switch (answer_promote(promote_facts(group, force))) {
    case PromoteAnswer::kDone: return true;
    case PromoteAnswer::kAsk: ask(group, force, false); break;
    case PromoteAnswer::kWait:
      // Its own, and closed since it came back from a peer: it is settled as after a start.
      if (auto state = volume.group(group); state && state->owner == options.node &&
                                          volume.gate(group) == Gate::kSuspended && unsettled.insert(group).second)
        poke();
      break;
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
    case PromoteAnswer::kRefuseDisconnected: return pass(disconnected_error(group));
    case PromoteAnswer::kRefuseInconsistent:
      return fail(ErrorKind::kRefused, EROFS,
                  fmt::format("{}: a copy is under way or was cut off: what is here is no state of "
                              "it; connect the peer that has it whole, and see vmfs status",
                              shown(group)));
    case PromoteAnswer::kRefuseSplit:
      return fail(ErrorKind::kRefused, EROFS,
                  fmt::format("{}: is in split brain; choose a side: vmfs resolve {} --keep local|peer{}",
                              shown(group), shown(group),
                              volume.group(group)->owner == options.node
                                  ? fmt::format("\ngo on with this side, and choose later:  vmfs promote {} --force",
                                                shown(group))
                                  : std::string()));
    case PromoteAnswer::kRefuseParted:
      return fail(ErrorKind::kBusy, EBUSY,
                  fmt::format("{}: follows the newer state of a connected peer; try again when "
                              "vmfs status shows it in sync",
                              shown(group)));
    case PromoteAnswer::kRefuseUnknown:
      return fail(ErrorKind::kRefused, EROFS,
                  fmt::format("{}: this node has nothing of it yet", shown(group)));
  }
  return false;
}

// What one group refuses keeps none of the others: a guest's disk that is whole is taken though another is not.
void Node::Impl::check_promotions(std::vector<std::pair<Done, Result<std::string>>>& finished) {
  for (auto& promotion : promotions) {
    auto give_up = [&](GroupId group, Error error) {
      promotion->groups.erase(group);
      promotion->refused.insert(group);
      if (!promotion->error)
        promotion->error = std::move(error);
      else if (++promotion->also_refused <= kRefusedNamed)
        promotion->others += (promotion->others.empty() ? "" : ", ") + shown(group);
    };
    const std::vector<GroupId> pending(promotion->groups.begin(), promotion->groups.end());
    for (GroupId group : pending) {
      auto owned = step_to_promote(group, promotion->force);
      if (!owned)
        give_up(group, std::move(owned.error()));
      else if (*owned)
        promotion->groups.erase(group);
    }
    // Only now, with the name space's last record here, are all images known.
    if (promotion->groups.empty() && promotion->whole) {
      for (const GroupState& state : volume.groups())
        if (!promotion->refused.contains(state.id) &&
            answer_promote(promote_facts(state.id, promotion->force)) != PromoteAnswer::kDone)
          promotion->groups.insert(state.id);
      if (!promotion->groups.empty()) poke();
    }
    if (now() >= promotion->deadline_ns)
      for (GroupId group : std::set<GroupId>(promotion->groups))
        give_up(group, {ErrorKind::kBusy, ETIMEDOUT,
                        fmt::format("{}: could not be taken within 15 seconds; see vmfs status", shown(group))});
    if (!promotion->groups.empty()) continue;
    if (promotion->error) {
      if (promotion->also_refused != 0)
        promotion->error->message +=
            fmt::format("\nrefused as well: {}{}", promotion->others,
                        promotion->also_refused > kRefusedNamed
                            ? fmt::format(" and {} more", promotion->also_refused - kRefusedNamed)
                            : std::string());
      finished.emplace_back(std::move(promotion->done), pass(std::move(*promotion->error)));
    } else {
      std::string text = unreached();
      if (!text.empty()) text = "owned by this node; not reached, so what only they have is not here:" + text;
      if (frozen.load())
        text += fmt::format("{}its writes are held until a peer is back (on-peer-loss = freeze)\n"
                            "go on without:  vmfs set {} on-peer-loss=continue",
                            text.empty() ? "owned by this node; " : "\n", shown(kNameSpace));
      finished.emplace_back(std::move(promotion->done), std::move(text));
    }
  }
  std::erase_if(promotions, [](const auto& promotion) { return !promotion->done; });
  if (promotions.empty()) promote_errors.clear();
}

}  // namespace vmfs
