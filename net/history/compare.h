// Compares what two nodes know of one group and says who has to do what. One pure function with named
// rules: the name is logged, shown by `status`, and is the title of the row in the test.
#pragma once

#include <cstdint>
#include <vector>

#include "fs/base/ids.h"
#include "fs/journal/changes.h"

namespace vmfs {

enum class Verdict : std::uint8_t {
  kEqual,          // the same records
  kLocalAhead,     // the remote's records are the beginning of ours: it gets ours
  kRemoteAhead,    // ours are the beginning of the remote's: we get them
  kLocalFollows,   // parted; our extra records are set aside, and we take the remote's content
  kRemoteFollows,  // the mirror image
  kSplitBrain,     // parted, and no rule settles it without a person
  kUnrelated,      // no common epoch at all: histories that never had to do with each other
};

// A group's chain of epochs (GroupState::history: oldest first, maybe trimmed at the front) and the seq
// of its last record, which lies in the last epoch. An empty chain: nothing is known.
struct GroupHistory {
  std::vector<EpochEntry> epochs;
  std::uint64_t seq = 0;
};

struct Comparison {
  Verdict verdict = Verdict::kEqual;
  const char* rule = "";  // a constant
  Position common;        // the last record that both have; {0, 0}: none
  std::uint64_t local_extra = 0, remote_extra = 0;  // records beyond it (seq runs on across epochs)
};

// compare(a, b) is the mirror image of compare(b, a).
Comparison compare_histories(const GroupHistory& local, const GroupHistory& remote);

}  // namespace vmfs
