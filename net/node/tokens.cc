// Asking for, giving and taking the right to change a group.
#include <algorithm>

#include "fs/base/log.h"
#include "net/node/impl.h"

namespace vmfs {
namespace {

// A refusal may reach the volume before the request that it answers has parked itself: that one is
// sent round again after this.
constexpr std::int64_t kReopenAgain = 50'000'000;

}  // namespace

void Node::Impl::group_changed(GroupId group, RecordType because) {
  post([this, group, because] {
    if (!stopped) on_group_changed(group, because);
  });
}

void Node::Impl::on_group_changed(GroupId group, RecordType because) {
  auto state = volume.group(group);
  if (state && state->inconsistent)
    parts.insert(group);
  else
    parts.erase(group);
  if (!state) {
    unsettled.erase(group);
    closed_to_follow.erase(group);
    kept.erase(group);
    revived.erase(group);
    return;
  }
  if (because == RecordType::kBaseEnd) {
    kept.erase(group);
    closed_to_follow.erase(group);
    for (const char* key : {"split", "whole", "follow"}) problem(fmt::format("{}-{}", key, group), "");
    log_notice("{}: the copy is complete here", shown(group));
    // It was this node's, and gone here. What this journal has of it beyond the copy is of a branch that was given up,
    // and must not be taken for what comes now: so it begins anew.
    if (state->owner == options.node && volume.gate(group) == Gate::kSuspended) {
      revived.insert(group);
      unsettled.insert(group);
    }
    volume.reopen(group);
  }
  // What this node has taken from somebody who never gave it to a peer, that peer gets now.
  if (because == RecordType::kTaken && state->owner == options.node)
    for (auto& peer : peers) audit_again(*peer, group);
  // Images that a copy of the names has brought, and of which there is nothing here.
  if (because == RecordType::kBaseEnd && group == kNameSpace) tell_parts();
  // A named taker always takes, whether or not whoever asked is still there.
  if (raw(state->owner) == 0 && state->taker == options.node) unsettled.insert(group);
  if (auto it = asking.find(group); it != asking.end()) {
    if (state->owner != it->second.asked && raw(state->owner) != 0)
      send_want(group, it->second, *state);
  }
  poke();
}

bool Node::Impl::all_heard() const {
  return std::all_of(peers.begin(), peers.end(), [](const auto& peer) { return peer->heard; });
}

// What start-alone says: nobody waits any longer for who has not been heard since the start. What that peer owns stays
// its own, and what it was heard to have more of waits for it (must_hear).
bool Node::Impl::may_go_on_alone() const {
  return !all_heard() && options.start_alone_after_ns > 0 && now() - started_ns >= options.start_alone_after_ns;
}

bool Node::Impl::is_split(const GroupState& state) {
  return state.split || std::any_of(peers.begin(), peers.end(), [&](const auto& peer) {
    const GroupCourse* found = peer->stream ? course(*peer, state.id) : nullptr;
    return found != nullptr && found->course == Course::kSplit;
  });
}

// Ownership that was suspended at the start resumes; tokens that were released to this node are taken.
void Node::Impl::settle() {
  if (unsettled.empty()) {
    if (!settled_once && started) {
      settled_once = true;
      log_notice("ownership is settled");
    }
    return;
  }
  bool heard = all_heard();
  const bool alone = may_go_on_alone();
  std::vector<GroupId> groups(unsettled.begin(), unsettled.end());
  for (GroupId group : groups) {
    auto state = volume.group(group);
    if (!state) {
      unsettled.erase(group);
      continue;
    }
    if (is_split(*state)) continue;  // which side of it goes on is for a person to say: see mark_split()
    bool mine = state->owner == options.node;
    bool named = raw(state->owner) == 0 && state->taker == options.node;
    SettleFacts facts;
    facts.all_heard = heard || ((alone || settled_once) && !must_hear.contains(group));
    facts.adopting = receiving(group) || may_be_removed(group);
    facts.following = parted(group) || closed_to_follow.contains(group);
    facts.inconsistent = state->inconsistent;
    if (!may_settle(facts)) continue;
    if (!mine) revived.erase(group);
    if (named || (revived.contains(group) && volume.gate(group) == Gate::kSuspended)) {
      take(group, EpochCause::kTaken, [](Result<>) {});
    } else if (!mine) {
      unsettled.erase(group);
      volume.reopen(group);
    } else if (alone && !settled_once) {
      take(group, EpochCause::kForced, [](Result<>) {});
    } else {
      const Gate gate = volume.gate(group), to = idle_gate();
      // What was received and cannot be shown yet keeps it closed; that is said by the volume, and tried again.
      if (gate != to && !volume.change_gate(group, gate, to)) continue;
      unsettled.erase(group);
      token_arrived(group);
    }
  }
  std::erase_if(must_hear, [this](GroupId group) { return !unsettled.contains(group); });
  if (unsettled.empty()) poke();
}

void Node::Impl::gate_met(GroupId group, Gate met) {
  if (stopped) {
    volume.refuse(group, {ErrorKind::kReadOnly, EROFS, {}});
    return;
  }
  // It may have changed since.
  const Gate gate = volume.gate(group);
  // Released by now: whoever met that finds out again whether they may still write. It is not asked for in their name.
  if (met == Gate::kReleasing && gate == Gate::kSecondary) {
    volume.reopen(group);
    reopen_again_ns.try_emplace(group, now() + kReopenAgain);
    return;
  }
  switch (gate) {
    case Gate::kOpen:
      volume.reopen(group);
      reopen_again_ns.try_emplace(group, now() + kReopenAgain);
      return;
    case Gate::kFrozen:
    case Gate::kReleasing: return;  // reopened when that is over
    case Gate::kSuspended:
    case Gate::kSecondary: return ask(group, false, true);
    case Gate::kInconsistent:
    case Gate::kSplit: return give_up_asking(group, {ErrorKind::kReadOnly, EROFS, {}});
  }
}

void Node::Impl::ask(GroupId group, bool force, bool writers) {
  auto [it, inserted] = asking.try_emplace(group);
  Asking& mine = it->second;
  mine.writers |= writers;
  bool stronger = force && !mine.force;
  mine.force |= force;
  if (!inserted && !stronger) return;
  if (inserted) mine.deadline_ns = now() + kTokenWait;
  wake_at(mine.deadline_ns);
  auto state = volume.group(group);
  if (!state) return give_up_asking(group, {ErrorKind::kNotFound, ENOENT, {}});
  send_want(group, mine, *state);
}

void Node::Impl::send_want(GroupId group, Asking& mine, const GroupState& state) {
  // Ours but suspended, or released and about to be taken by somebody: that settles by itself.
  if (state.owner == options.node || raw(state.owner) == 0) {
    // An image whose creation the store had refused for a while, say, and made when this node was not settled.
    if (state.owner == options.node && volume.gate(group) == Gate::kSuspended) unsettled.insert(group);
    return poke();
  }
  Peer* owner = peer_by_id(state.owner);
  if (owner == nullptr || !owner->stream || owner->stream->sender.positions().stopped(group)) {
    give_up_asking(group, {ErrorKind::kReadOnly, EROFS,
                           fmt::format("{}: its owner {} is not connected", shown(group),
                                       name_of(state.owner))});
    return;
  }
  mine.asked = owner->info.id;
  send(*owner, Want{group, mine.force});
}

void Node::Impl::give_up_asking(GroupId group, Error error) {
  asking.erase(group);
  if (!error.message.empty()) {
    promote_errors[group] = error.message;
    log_info("{}", error.message);
  }
  volume.refuse(group, std::move(error));
  reopen_again_ns[group] = now() + kReopenAgain;
  wake_at(now() + kReopenAgain);
  poke();
}

void Node::Impl::token_arrived(GroupId group) {
  asking.erase(group);
  volume.reopen(group);
  reopen_again_ns[group] = now() + kReopenAgain;
  wake_at(now() + kReopenAgain);
  poke();
}

void Node::Impl::check_asking() {
  std::int64_t now_ns = now();
  std::vector<GroupId> overdue;
  for (const auto& [group, mine] : asking)
    if (now_ns >= mine.deadline_ns) overdue.push_back(group);
  for (GroupId group : overdue)
    give_up_asking(group, {ErrorKind::kReadOnly, EROFS,
                           fmt::format("{}: the right to change it did not arrive within 10 seconds",
                                       shown(group))});
}

bool Node::Impl::active(GroupId group) {
  if (group == kNameSpace) return false;
  bool locked = callbacks.holds_lock && callbacks.holds_lock(group);
  return volume.activity(group).active(locked);
}

std::int64_t Node::Impl::taker_lag(Peer& peer) {
  std::int64_t lag = peer.stream->sender.lag_ns(now());
  // What has not even been sent: bytes, as time at the rate that the link was seen to carry.
  Lsn written = ship_limit(), sent = peer.stream->sender.position();
  if (written > sent) {
    constexpr std::uint64_t kSlowest = 1u << 20;
    lag += static_cast<std::int64_t>((written - sent) * 1'000 /
                                     std::max<std::uint64_t>(peer.send_rate, kSlowest)) *
           1'000'000;
  }
  return lag;
}

void Node::Impl::on_want(Peer& peer, const Want& want) {
  if (!peer.stream) return;
  Wanted& entry = wanted[want.group];
  if (entry.peer == peer.info.id) {
    entry.force |= want.force;
  } else {
    entry = {peer.info.id, now(), want.force};
  }
  answer_wants();
}

void Node::Impl::answer_wants() {
  if (wanted.empty()) return;
  // In the order of ids, the name space last: everybody takes several tokens in that order.
  std::vector<GroupId> groups;
  for (const auto& [group, want] : wanted) groups.push_back(group);
  std::sort(groups.begin(), groups.end(), [](GroupId a, GroupId b) {
    if ((a == kNameSpace) != (b == kNameSpace)) return b == kNameSpace;
    return raw(a) < raw(b);
  });
  for (GroupId group : groups) {
    Wanted want = wanted[group];
    Peer* peer = peer_by_id(want.peer);
    if (peer == nullptr || !peer->stream) {
      wanted.erase(group);
      continue;
    }
    if (releasing.contains(group)) continue;
    auto state = volume.group(group);
    // It is the asker's already, or on its way there: a refusal could overtake the record that says so.
    if (state && (state->owner == want.peer || (raw(state->owner) == 0 && state->taker == want.peer))) {
      wanted.erase(group);
      continue;
    }
    WantFacts facts;
    facts.owned_here = state && state->owner == options.node;
    facts.gate = volume.gate(group);
    GroupCourse* found = course(*peer, group);
    facts.streaming = !peer->stream->sender.positions().stopped(group) &&
                      peer->stream->sender.positions().knows(group) &&
                      (found == nullptr || found->course == Course::kReceive);
    facts.active = active(group);
    facts.force = want.force;
    facts.lag_ns = taker_lag(*peer);
    facts.overdue = now() - want.since_ns >= kTokenWait;
    auto refuse = [&](WantRefusal reason, std::string text) {
      log_notice("{}", text);
      send(*peer, WantRefused{group, reason, std::move(text)});
      wanted.erase(group);
    };
    switch (answer_want(facts)) {
      case WantAnswer::kWait: wake_at(now() + 20'000'000); break;
      case WantAnswer::kActive:
        refuse(WantRefusal::kActive, fmt::format("{}: {} may not take it: it is in use on {}; stop the guest there "
                                                 "first (vmfs promote --force takes it all the same, and that guest "
                                                 "gets errors)",
                                                 shown(group), peer->info.name, options.node_name));
        break;
      case WantAnswer::kNotOwner:
        refuse(WantRefusal::kNotOwner,
               fmt::format("{}: {} is not its owner", shown(group), options.node_name));
        break;
      case WantAnswer::kBehind:
        refuse(WantRefusal::kBehind,
               fmt::format("{}: {} lags more than a second behind", shown(group), peer->info.name));
        break;
      case WantAnswer::kUnsettled:
        refuse(WantRefusal::kUnsettled,
               fmt::format("{}: its ownership is not settled on {}, or it does not replicate",
                           shown(group), options.node_name));
        break;
      case WantAnswer::kRelease:
        wanted.erase(group);
        log_info("{}: handed over to {}", shown(group), peer->info.name);
        release(group, want.peer, [](Result<>) {});
        break;
    }
  }
}

void Node::Impl::release(GroupId group, NodeId taker, std::function<void(Result<>)> done) {
  releasing.insert(group);
  blocking(
      Shell::Lane::kSync,
      [this, group, taker]() -> Result<> {
        VMFS_TRY(volume.release(group, taker));
        return {};
      },
      [this, group, done = std::move(done)](Result<> result) {
        releasing.erase(group);
        if (!result) log_error("{}: cannot be released: {}", shown(group), result.error().message);
        if (result && callbacks.expire_write_handles) callbacks.expire_write_handles(group);
        if (result && callbacks.invalidate_caches) callbacks.invalidate_caches(group, [] {});
        if (!result) {
          unmatched.insert(group);
          match_frozen();
        }
        volume.reopen(group);
        pump_all();
        done(std::move(result));
        poke();
      });
}

bool Node::Impl::may_still_take(const GroupState& state, EpochCause cause) {
  if (cause == EpochCause::kTaken)
    return (raw(state.owner) == 0 && state.taker == options.node) ||
           (state.owner == options.node && revived.contains(state.id) && volume.gate(state.id) == Gate::kSuspended);
  return answer_promote(promote_facts(state.id, true)) == PromoteAnswer::kTakeForced;
}

void Node::Impl::take(GroupId group, EpochCause cause, std::function<void(Result<>)> done) {
  if (!taking.insert(group).second) {
    done(fail(ErrorKind::kBusy, EBUSY, fmt::format("{}: is being taken already", shown(group))));
    return;
  }
  auto not_any_more = [this, group, done] {
    taking.erase(group);
    done(fail(ErrorKind::kWouldWait, EAGAIN, fmt::format("{}: a peer is back", shown(group))));
    poke();
  };
  auto proceed = [this, group, cause, done = std::move(done), not_any_more] {
    // The kernel took its time: whoever was away may be back, with a tail, or with the token itself. Its records
    // may come while the group is taken, too. The owner of one side of a split goes on meanwhile.
    std::optional<Position> decided_at;
    if (cause != EpochCause::kResolved) {
      auto state = volume.group(group);
      if (!state || !may_still_take(*state, cause)) return not_any_more();
      decided_at = state->position();
    }
    blocking(
        Shell::Lane::kSync,
        [this, group, cause, gate = idle_gate(), decided_at]() -> Result<> {
          VMFS_TRY(volume.take(group, cause, gate, decided_at));
          return {};
        },
        [this, group, cause, done, decided_at, not_any_more](Result<> result) {
          if (!result && decided_at && result.error().kind == ErrorKind::kRefused) return not_any_more();
          taking.erase(group);
          if (result) {
            unsettled.erase(group);
            revived.erase(group);
            problem(fmt::format("take-{}", group), "");
            unmatched.insert(group);
            match_frozen();
            log_info("{}: owned by this node now{}", shown(group),
                     cause == EpochCause::kForced ? " (by force)" : "");
            token_arrived(group);
          } else {
            problem(fmt::format("take-{}", group),
                    fmt::format("{}: cannot be taken: {}", shown(group), result.error().message));
          }
          pump_all();
          done(std::move(result));
        });
  };
  // What the kernel cached while another node changed it goes before this node may change it.
  if (!callbacks.invalidate_caches) return proceed();
  callbacks.invalidate_caches(group, [this, alive = alive, &shell = shell, proceed] {
    shell.post([this, alive, proceed] {
      if (*alive && !stopped) proceed();
    });
  });
}

}  // namespace vmfs
