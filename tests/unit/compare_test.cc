#include <doctest/doctest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "net/history/compare.h"

namespace vmfs {
namespace {

TEST_SUITE_BEGIN("compare");

EpochEntry epoch(std::uint64_t id, std::uint64_t node, std::uint64_t parent, std::uint64_t parent_seq,
                 EpochCause cause) {
  EpochEntry entry;
  entry.epoch = EpochId{id};
  entry.node = NodeId{node};
  entry.parent = {EpochId{parent}, parent_seq};
  entry.cause = cause;
  return entry;
}

Verdict mirror(Verdict verdict) {
  switch (verdict) {
    case Verdict::kLocalAhead: return Verdict::kRemoteAhead;
    case Verdict::kRemoteAhead: return Verdict::kLocalAhead;
    case Verdict::kLocalFollows: return Verdict::kRemoteFollows;
    case Verdict::kRemoteFollows: return Verdict::kLocalFollows;
    default: return verdict;
  }
}

TEST_CASE("the rules, by name") {
  const EpochEntry born = epoch(10, 1, 0, 0, EpochCause::kCreated);
  const EpochEntry forced = epoch(20, 2, 10, 50, EpochCause::kForced);
  const EpochEntry alone = epoch(30, 1, 10, 60, EpochCause::kPeerLost);
  const EpochEntry resolved = epoch(40, 1, 30, 80, EpochCause::kResolved);
  struct Row {
    const char* rule;
    GroupHistory local, remote;
    Verdict verdict;
    Position common;
    std::uint64_t local_extra, remote_extra;
  };
  const std::vector<Row> rows = {
      {"nothing-anywhere", {}, {}, Verdict::kEqual, {}, 0, 0},
      {"nothing-here", {}, {{born}, 5}, Verdict::kRemoteAhead, {}, 0, 5},
      {"nothing-there", {{born}, 5}, {}, Verdict::kLocalAhead, {}, 5, 0},
      {"equal", {{born}, 7}, {{born}, 7}, Verdict::kEqual, {EpochId{10}, 7}, 0, 0},
      {"behind-here", {{born}, 7}, {{born}, 9}, Verdict::kRemoteAhead, {EpochId{10}, 7}, 0, 2},
      {"behind-here", {{born}, 50}, {{born, forced}, 60}, Verdict::kRemoteAhead, {EpochId{10}, 50}, 0, 10},
      {"behind-here", {{born}, 40}, {{born, forced}, 60}, Verdict::kRemoteAhead, {EpochId{10}, 40}, 0, 20},
      {"behind-there", {{born, alone}, 70}, {{born}, 60}, Verdict::kLocalAhead, {EpochId{10}, 60}, 10, 0},
      {"behind-there", {{alone}, 70}, {{born}, 60}, Verdict::kLocalAhead, {EpochId{10}, 60}, 10, 0},
      {"died-unaware-here", {{born}, 55}, {{born, forced}, 51}, Verdict::kLocalFollows, {EpochId{10}, 50}, 5, 1},
      {"died-unaware-there", {{born, forced}, 51}, {{born}, 55}, Verdict::kRemoteFollows, {EpochId{10}, 50}, 1, 5},
      {"both-changed", {{born, alone}, 70}, {{born, forced}, 60}, Verdict::kSplitBrain, {EpochId{10}, 50}, 20, 10},
      {"both-changed", {{born}, 70}, {{born, epoch(20, 2, 10, 50, EpochCause::kTaken)}, 60}, Verdict::kSplitBrain, {EpochId{10}, 50}, 20, 10},
      {"died-unaware-here",
       {{born, epoch(30, 1, 10, 54, EpochCause::kUncleanStop)}, 55},
       {{born, forced}, 51},
       Verdict::kLocalFollows,
       {EpochId{10}, 50},
       5,
       1},
      {"neither-changed-lower-there",
       {{born, epoch(30, 1, 10, 50, EpochCause::kPeerLost)}, 51},
       {{born, epoch(20, 2, 10, 50, EpochCause::kPeerLost)}, 51},
       Verdict::kRemoteFollows,
       {EpochId{10}, 50},
       1,
       1},
      {"neither-changed-lower-here",
       {{born, epoch(20, 2, 10, 50, EpochCause::kPeerLost)}, 51},
       {{born, epoch(30, 1, 10, 50, EpochCause::kPeerLost)}, 51},
       Verdict::kLocalFollows,
       {EpochId{10}, 50},
       1,
       1},
      {"no-changes-here",
       {{born, epoch(30, 1, 10, 50, EpochCause::kPeerLost)}, 51},
       {{born, epoch(20, 2, 10, 50, EpochCause::kPeerLost)}, 60},
       Verdict::kLocalFollows,
       {EpochId{10}, 50},
       1,
       10},
      {"no-changes-there",
       {{born, epoch(20, 2, 10, 50, EpochCause::kPeerLost)}, 60},
       {{born, epoch(30, 1, 10, 50, EpochCause::kPeerLost)}, 51},
       Verdict::kRemoteFollows,
       {EpochId{10}, 50},
       10,
       1},
      {"died-unaware-there",
       {{born, forced}, 51},
       {{born, epoch(30, 1, 10, 50, EpochCause::kPeerLost)}, 51},
       Verdict::kRemoteFollows,
       {EpochId{10}, 50},
       1,
       1},
      {"died-unaware-here",
       {{born, epoch(30, 1, 10, 50, EpochCause::kPeerLost)}, 51},
       {{born, forced}, 51},
       Verdict::kLocalFollows,
       {EpochId{10}, 50},
       1,
       1},
      {"resolved-here", {{born, alone, resolved}, 90}, {{born, forced}, 99}, Verdict::kRemoteFollows, {EpochId{10}, 50}, 40, 49},
      {"resolved-there", {{born, forced}, 99}, {{born, alone, resolved}, 90}, Verdict::kLocalFollows, {EpochId{10}, 50}, 49, 40},
      {"both-changed", {{born, alone, resolved}, 90}, {{born, forced, epoch(50, 2, 20, 70, EpochCause::kResolved)}, 99}, Verdict::kSplitBrain, {EpochId{10}, 50}, 40, 49},
      {"unrelated", {{born}, 5}, {{epoch(99, 2, 0, 0, EpochCause::kCreated)}, 5}, Verdict::kUnrelated, {}, 5, 5},
  };
  for (const Row& row : rows) {
    CAPTURE(row.rule);
    Comparison found = compare_histories(row.local, row.remote);
    CHECK(std::string(found.rule) == row.rule);
    CHECK(found.verdict == row.verdict);
    CHECK(found.common == row.common);
    CHECK(found.local_extra == row.local_extra);
    CHECK(found.remote_extra == row.remote_extra);
  }
}

// A model: a node is the list of records that it holds; a history is derived from it.
struct ModelRecord {
  std::uint64_t epoch;
  std::uint64_t seq;
  bool operator==(const ModelRecord&) const = default;
};

struct ModelNode {
  std::vector<ModelRecord> records;
  std::vector<EpochEntry> epochs;

  GroupHistory history() const { return {epochs, records.empty() ? 0 : records.back().seq}; }
  void begin(std::uint64_t id, EpochCause cause) {
    Position parent;
    if (!records.empty()) parent = {EpochId{records.back().epoch}, records.back().seq};
    EpochEntry entry = epoch(id, 1, raw(parent.epoch), parent.seq, cause);
    epochs.push_back(entry);
    records.push_back({id, parent.seq + 1});
  }
  void write() { records.push_back({records.back().epoch, records.back().seq + 1}); }
};

TEST_CASE("symmetric, and right about what is common, against a model of records") {
  std::mt19937_64 random(20240611);
  std::map<std::string, int> seen;
  for (int round = 0; round < 20000; ++round) {
    std::uint64_t next_epoch = 1000 + random() % 1000;
    ModelNode a;
    a.begin(next_epoch++, EpochCause::kCreated);
    auto evolve = [&](ModelNode& node, int steps) {
      for (int i = 0; i < steps; ++i) {
        if (random() % 4 == 0) {
          node.begin(next_epoch + random() % 7,
                     static_cast<EpochCause>(2 + random() % 5));
          next_epoch += 8;
        } else {
          node.write();
        }
      }
    };
    evolve(a, static_cast<int>(random() % 12));
    ModelNode b = a;
    // One node may have lost its tail.
    std::size_t keep = 1 + random() % b.records.size();
    b.records.resize(keep);
    while (b.epochs.back().epoch != EpochId{b.records.back().epoch}) b.epochs.pop_back();
    if (random() % 2) evolve(a, static_cast<int>(random() % 6));
    if (random() % 2) evolve(b, static_cast<int>(random() % 6));

    std::size_t common = 0;
    while (common < a.records.size() && common < b.records.size() &&
           a.records[common] == b.records[common])
      ++common;
    REQUIRE(common > 0);

    // Trimming below the common record must not change the answer.
    GroupHistory local = a.history(), remote = b.history();
    while (random() % 2 && local.epochs.size() > 1 &&
           local.epochs[1].parent.seq <= a.records[common - 1].seq &&
           local.epochs[1].epoch != EpochId{0})
      local.epochs.erase(local.epochs.begin());

    Comparison forth = compare_histories(local, remote);
    Comparison back = compare_histories(remote, local);
    CAPTURE(round);
    CAPTURE(std::string(forth.rule));
    CHECK(back.verdict == mirror(forth.verdict));
    CHECK(back.common == forth.common);
    CHECK(back.local_extra == forth.remote_extra);
    CHECK(back.remote_extra == forth.local_extra);
    CHECK(forth.common == Position{EpochId{a.records[common - 1].epoch}, a.records[common - 1].seq});
    CHECK(forth.local_extra == a.records.size() - common);
    CHECK(forth.remote_extra == b.records.size() - common);
    bool extra_here = a.records.size() > common, extra_there = b.records.size() > common;
    CHECK((forth.verdict == Verdict::kEqual) == (!extra_here && !extra_there));
    CHECK((forth.verdict == Verdict::kLocalAhead) == (extra_here && !extra_there));
    CHECK((forth.verdict == Verdict::kRemoteAhead) == (!extra_here && extra_there));
    ++seen[forth.rule];
  }
  CHECK(seen["both-changed"] > 100);
  CHECK(seen["died-unaware-here"] > 10);
  CHECK(seen["equal"] > 100);
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
