#include <doctest/doctest.h>

#include "net/ownership/decisions.h"
#include "net/replication/base_source.h"
#include "net/replication/stream_position.h"

namespace vmfs {
namespace {

TEST_SUITE_BEGIN("ownership");

GroupPosition position(std::uint64_t seq, bool inconsistent = false) {
  GroupPosition out;
  out.group = GroupId{9};
  EpochEntry entry;
  entry.epoch = EpochId{1};
  entry.cause = EpochCause::kCreated;
  out.history.push_back(entry);
  out.seq = seq;
  out.inconsistent = inconsistent;
  return out;
}

TEST_CASE("courses after comparing") {
  CHECK(judge(position(5), position(5)).course == Course::kNothing);
  CHECK(judge(position(6), position(5)).course == Course::kSend);
  CHECK(judge(position(5), position(6)).course == Course::kReceive);
  CHECK(judge(position(5), position(9, true)).course == Course::kCopyToPeer);
  CHECK(judge(position(9, true), position(5)).course == Course::kCopyFromPeer);
  CHECK(judge(position(9, true), position(9, true)).course == Course::kNeitherWhole);
  CHECK(judge(position(9), GroupPosition{}).course == Course::kCopyToPeer);
  GroupPosition left = position(8), newer = position(6);
  EpochEntry forced;
  forced.epoch = EpochId{2};
  forced.parent = {EpochId{1}, 5};
  forced.cause = EpochCause::kForced;
  newer.history.push_back(forced);
  CHECK(judge(left, newer).course == Course::kFollow);
  CHECK(judge(newer, left).course == Course::kPeerFollows);
  left.open_writer = true;
  CHECK(judge(left, newer).course == Course::kWaitFollow);
  newer.history.back().cause = EpochCause::kResolved;
  CHECK(judge(left, newer).course == Course::kFollow);
}

TEST_CASE("answers to a peer that wants the token") {
  WantFacts facts;
  CHECK(answer_want(facts) == WantAnswer::kNotOwner);
  facts.owned_here = true;
  CHECK(answer_want(facts) == WantAnswer::kUnsettled);
  facts.streaming = true;
  CHECK(answer_want(facts) == WantAnswer::kRelease);
  facts.lag_ns = 2 * kTakerLagMax;
  CHECK(answer_want(facts) == WantAnswer::kWait);
  facts.overdue = true;
  CHECK(answer_want(facts) == WantAnswer::kBehind);
  facts = {.owned_here = true, .streaming = true, .active = true};
  CHECK(answer_want(facts) == WantAnswer::kActive);
  facts.force = true;
  CHECK(answer_want(facts) == WantAnswer::kRelease);
  facts = {.owned_here = true, .gate = Gate::kSuspended, .streaming = true};
  CHECK(answer_want(facts) == WantAnswer::kWait);
}

TEST_CASE("promote") {
  PromoteFacts facts;
  facts.owned_here = true;
  CHECK(answer_promote(facts) == PromoteAnswer::kDone);
  facts = {.gate = Gate::kSecondary};
  CHECK(answer_promote(facts) == PromoteAnswer::kRefuseDisconnected);
  facts.force = true;
  CHECK(answer_promote(facts) == PromoteAnswer::kTakeForced);
  facts.adopting = true;
  CHECK(answer_promote(facts) == PromoteAnswer::kWait);
  facts.adopting = false;
  facts.inconsistent = true;
  CHECK(answer_promote(facts) == PromoteAnswer::kRefuseInconsistent);
  facts.inconsistent = false;
  facts.parted = true;
  CHECK(answer_promote(facts) == PromoteAnswer::kRefuseParted);
  facts = {.gate = Gate::kSecondary, .owner_connected = true};
  CHECK(answer_promote(facts) == PromoteAnswer::kAsk);
  facts = {.owned_here = true, .gate = Gate::kSuspended};
  CHECK(answer_promote(facts) == PromoteAnswer::kRefuseDisconnected);
  facts.all_heard = true;
  CHECK(answer_promote(facts) == PromoteAnswer::kWait);
  facts.known = false;
  CHECK(answer_promote(facts) == PromoteAnswer::kRefuseUnknown);
}

TEST_CASE("ownership settles when everybody was heard and nothing is on its way") {
  SettleFacts facts;
  CHECK_FALSE(may_settle(facts));
  facts.all_heard = true;
  CHECK(may_settle(facts));
  facts.adopting = true;
  CHECK_FALSE(may_settle(facts));
  facts = {.all_heard = true, .following = true};
  CHECK_FALSE(may_settle(facts));
  facts = {.all_heard = true, .inconsistent = true};
  CHECK_FALSE(may_settle(facts));
}

TEST_CASE("what a peer lacks of the journal, record by record") {
  GroupState state;
  state.id = GroupId{9};
  EpochEntry first, second;
  first.epoch = EpochId{1};
  second.epoch = EpochId{2};
  second.parent = {EpochId{1}, 5};
  state.history = {first, second};
  state.seq = 8;
  StreamPosition positions([&](GroupId) { return std::optional(state); });
  auto record = [](std::uint64_t epoch, std::uint64_t seq, RecordType type = RecordType::kWrite) {
    RecordHeader header;
    header.type = type;
    header.group = 9;
    header.epoch = epoch;
    header.seq = seq;
    return header;
  };
  using Step = StreamPosition::Step;
  CHECK(positions.step(record(1, 1), {}) == Step::kSkip);  // not known to the peer
  positions.set(GroupId{9}, {EpochId{1}, 3});
  CHECK(positions.step(record(1, 3), {}) == Step::kSkip);
  CHECK(positions.step(record(1, 4), {}) == Step::kShip);
  CHECK(positions.step(record(1, 5), {}) == Step::kShip);
  CHECK(positions.step(record(1, 6), {}) == Step::kSkip);  // a branch that this node has left
  CHECK(positions.step(record(7, 6), {}) == Step::kSkip);
  EpochChange change;
  change.entry = second;
  Bytes payload = encode(change);
  CHECK(positions.step(record(2, 6, RecordType::kEpoch), payload) == Step::kShip);
  CHECK(positions.step(record(2, 8), {}) == Step::kGap);
  CHECK(positions.step(record(2, 7), {}) == Step::kShip);
  positions.stop(GroupId{9});
  CHECK(positions.step(record(2, 8), {}) == Step::kSkip);
  positions.set(GroupId{9}, {EpochId{2}, 8});
  CHECK(positions.step(record(2, 8), {}) == Step::kSkip);
  positions.came_from_peer(record(2, 9), {});
  CHECK(positions.position(GroupId{9})->seq == 9);
}

TEST_CASE("ranges of both sides become one list") {
  auto merged = merge_ranges({{100, 50}, {0, 10}}, {{140, 20}, {10, 5}, {300, 0}, {400, 1}});
  REQUIRE(merged.size() == 3);
  CHECK(merged[0].offset == 0);
  CHECK(merged[0].length == 15);
  CHECK(merged[1].offset == 100);
  CHECK(merged[1].length == 60);
  CHECK(merged[2].offset == 400);
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
