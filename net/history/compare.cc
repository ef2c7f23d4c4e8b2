#include "net/history/compare.h"

#include <algorithm>
#include <optional>

namespace vmfs {
namespace {

// The seq of the last record that a chain has in its epoch number `index`.
std::uint64_t end_of_epoch(const GroupHistory& history, std::size_t index) {
  return index + 1 < history.epochs.size() ? history.epochs[index + 1].parent.seq : history.seq;
}

// A chain as it is, led by the epoch that its first entry names as parent: a trimmed chain still meets
// one that ends there.
GroupHistory with_first_parent(const GroupHistory& history) {
  GroupHistory out = history;
  if (!out.epochs.empty() && raw(out.epochs.front().parent.epoch) != 0) {
    EpochEntry before;
    before.epoch = out.epochs.front().parent.epoch;
    out.epochs.insert(out.epochs.begin(), before);
  }
  return out;
}

struct Meeting {
  std::size_t local = 0, remote = 0;  // where the last common epoch stands in each chain
};

std::optional<Meeting> last_common_epoch(const GroupHistory& local, const GroupHistory& remote) {
  for (std::size_t i = local.epochs.size(); i-- > 0;)
    for (std::size_t j = remote.epochs.size(); j-- > 0;)
      if (local.epochs[i].epoch == remote.epochs[j].epoch) return Meeting{i, j};
  return std::nullopt;
}

// What one side has beyond the common record.
struct Branch {
  std::uint64_t records = 0;
  std::uint64_t tail = 0;  // of them, in the common epoch
  std::size_t epochs = 0;  // begun after the common record
  bool forced = false;     // the first of them was taken without the previous owner
  bool resolved = false;   // one of them says that a person chose this side
  // Nothing but the records that begin epochs: nobody changed anything.
  bool without_changes() const { return records == epochs; }
  // All its changes lie in the parent epoch: what it began since (after its stop, or when it found itself
  // alone) was never used. A person's decision for the other side stands above that.
  bool unaware() const { return !forced && !resolved && records == tail + epochs; }
};

Branch branch_after(const GroupHistory& history, std::size_t common_index, std::uint64_t common_seq) {
  Branch branch;
  branch.records = history.seq - std::min(history.seq, common_seq);
  branch.tail = end_of_epoch(history, common_index) - common_seq;
  for (std::size_t i = common_index + 1; i < history.epochs.size(); ++i) {
    ++branch.epochs;
    if (i == common_index + 1) branch.forced = history.epochs[i].cause == EpochCause::kForced;
    branch.resolved |= history.epochs[i].cause == EpochCause::kResolved;
  }
  return branch;
}

struct Ruling {
  Verdict verdict;
  const char* rule;
};

// Both have records that the other lacks. The first rule that fits holds.
Ruling judge_parted(const Branch& here, const Branch& there, bool local_id_is_lower) {
  if (there.resolved && !here.resolved) return {Verdict::kLocalFollows, "resolved-there"};
  if (here.resolved && !there.resolved) return {Verdict::kRemoteFollows, "resolved-here"};
  // The ordinary return of a failed primary: it died in the parent epoch, before it could notice that
  // it was alone, and the other was promoted by force.
  if (here.unaware() && there.forced) return {Verdict::kLocalFollows, "died-unaware-here"};
  if (there.unaware() && here.forced) return {Verdict::kRemoteFollows, "died-unaware-there"};
  // Epochs that were begun and never used lose nothing by following.
  if (here.without_changes() && there.without_changes())
    return local_id_is_lower ? Ruling{Verdict::kLocalFollows, "neither-changed-lower-here"}
                             : Ruling{Verdict::kRemoteFollows, "neither-changed-lower-there"};
  if (here.without_changes()) return {Verdict::kLocalFollows, "no-changes-here"};
  if (there.without_changes()) return {Verdict::kRemoteFollows, "no-changes-there"};
  return {Verdict::kSplitBrain, "both-changed"};
}

}  // namespace

Comparison compare_histories(const GroupHistory& local_in, const GroupHistory& remote_in) {
  Comparison result;
  auto rule = [&](Verdict verdict, const char* name) {
    result.verdict = verdict;
    result.rule = name;
    return result;
  };
  if (local_in.epochs.empty() || remote_in.epochs.empty()) {
    result.local_extra = local_in.epochs.empty() ? 0 : local_in.seq;
    result.remote_extra = remote_in.epochs.empty() ? 0 : remote_in.seq;
    if (local_in.epochs.empty() && remote_in.epochs.empty())
      return rule(Verdict::kEqual, "nothing-anywhere");
    return local_in.epochs.empty() ? rule(Verdict::kRemoteAhead, "nothing-here")
                                   : rule(Verdict::kLocalAhead, "nothing-there");
  }
  GroupHistory local = with_first_parent(local_in);
  GroupHistory remote = with_first_parent(remote_in);
  auto meeting = last_common_epoch(local, remote);
  if (!meeting) {
    result.local_extra = local.seq;
    result.remote_extra = remote.seq;
    return rule(Verdict::kUnrelated, "unrelated");
  }
  result.common.epoch = local.epochs[meeting->local].epoch;
  result.common.seq =
      std::min(end_of_epoch(local, meeting->local), end_of_epoch(remote, meeting->remote));
  Branch here = branch_after(local, meeting->local, result.common.seq);
  Branch there = branch_after(remote, meeting->remote, result.common.seq);
  result.local_extra = here.records;
  result.remote_extra = there.records;
  if (here.records == 0 && there.records == 0) return rule(Verdict::kEqual, "equal");
  if (here.records == 0) return rule(Verdict::kRemoteAhead, "behind-here");
  if (there.records == 0) return rule(Verdict::kLocalAhead, "behind-there");
  Ruling ruling = judge_parted(here, there, raw(local.epochs.back().epoch) < raw(remote.epochs.back().epoch));
  return rule(ruling.verdict, ruling.rule);
}

}  // namespace vmfs
