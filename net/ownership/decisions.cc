#include "net/ownership/decisions.h"

namespace vmfs {

Judgement judge(const GroupPosition& local, const GroupPosition& remote) {
  Judgement result;
  result.comparison =
      compare_histories({local.history, local.seq}, {remote.history, remote.seq});
  auto course = [&](Course what) {
    result.course = what;
    return result;
  };
  // A part of a copy is no state of the group, whatever its position says.
  if (local.inconsistent && remote.inconsistent) {
    result.comparison.rule = "both-inconsistent";
    return course(Course::kNeitherWhole);
  }
  if (local.inconsistent) {
    result.comparison.rule = "inconsistent-here";
    return course(remote.history.empty() ? Course::kNeitherWhole : Course::kCopyFromPeer);
  }
  if (remote.inconsistent) {
    result.comparison.rule = "inconsistent-there";
    return course(local.history.empty() ? Course::kNeitherWhole : Course::kCopyToPeer);
  }
  switch (result.comparison.verdict) {
    case Verdict::kEqual: return course(Course::kNothing);
    case Verdict::kLocalAhead:
      return course(remote.history.empty() ? Course::kCopyToPeer : Course::kSend);
    case Verdict::kRemoteAhead:
      return course(local.history.empty() ? Course::kCopyFromPeer : Course::kReceive);
    case Verdict::kLocalFollows: {
      // A person's choice is not held up by a handle: it fails until reopened.
      bool chosen = std::string(result.comparison.rule) == "resolved-there";
      return course(local.open_writer && !chosen ? Course::kWaitFollow : Course::kFollow);
    }
    case Verdict::kRemoteFollows: return course(Course::kPeerFollows);
    case Verdict::kSplitBrain:
    case Verdict::kUnrelated: return course(Course::kSplit);
  }
  return result;
}

const char* to_string(Course course) {
  switch (course) {
    case Course::kNothing: return "nothing";
    case Course::kSend: return "send";
    case Course::kReceive: return "receive";
    case Course::kFollow: return "follow";
    case Course::kWaitFollow: return "follow-when-closed";
    case Course::kPeerFollows: return "peer-follows";
    case Course::kCopyToPeer: return "copy-to-peer";
    case Course::kCopyFromPeer: return "copy-from-peer";
    case Course::kSplit: return "split";
    case Course::kNeitherWhole: return "neither-whole";
  }
  return "?";
}

WantAnswer answer_want(const WantFacts& facts) {
  if (!facts.owned_here) return WantAnswer::kNotOwner;
  if (!facts.streaming) return WantAnswer::kUnsettled;
  // Frozen is owned and idle: the taker that asks is the peer that is back.
  if (facts.gate != Gate::kOpen && facts.gate != Gate::kFrozen)
    return facts.overdue ? WantAnswer::kUnsettled : WantAnswer::kWait;
  if (facts.active && !facts.force) return WantAnswer::kActive;
  if (facts.lag_ns >= kTakerLagMax) return facts.overdue ? WantAnswer::kBehind : WantAnswer::kWait;
  return WantAnswer::kRelease;
}

PromoteAnswer answer_promote(const PromoteFacts& facts) {
  // Frozen is owned: only its writes are held until a peer is back.
  if (facts.owned_here && (facts.gate == Gate::kOpen || facts.gate == Gate::kFrozen)) return PromoteAnswer::kDone;
  if (!facts.known) return PromoteAnswer::kRefuseUnknown;
  if (facts.inconsistent) return PromoteAnswer::kRefuseInconsistent;
  // Of one side of a split the owner may go on, if a person says so: that is what it did before it stopped.
  if (facts.split) return facts.owned_here && facts.force ? PromoteAnswer::kTakeForced : PromoteAnswer::kRefuseSplit;
  if (facts.parted) return PromoteAnswer::kRefuseParted;
  if (facts.adopting) return PromoteAnswer::kWait;
  if ((facts.taker_here && facts.all_heard) || facts.taker_connected) return PromoteAnswer::kWait;
  if (facts.owned_here) {
    // Suspended: with every peer heard it settles by itself.
    if (facts.all_heard) return PromoteAnswer::kWait;
    return facts.force ? PromoteAnswer::kTakeForced : PromoteAnswer::kRefuseDisconnected;
  }
  if (facts.owner_connected) return PromoteAnswer::kAsk;
  return facts.force ? PromoteAnswer::kTakeForced : PromoteAnswer::kRefuseDisconnected;
}

bool may_settle(const SettleFacts& facts) {
  return facts.all_heard && !facts.adopting && !facts.following && !facts.inconsistent;
}

}  // namespace vmfs
