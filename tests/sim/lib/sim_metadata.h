// Private to the simulated disk: a change of names, attributes or extents that no sync has
// confirmed.
#pragma once

#include <functional>
#include <vector>

#include "tests/sim/lib/sim_disk.h"

namespace vmfs::sim {

struct SimDisk::MetadataChange {
  enum class Kind { kNames, kAttributes, kContent };
  Kind kind = Kind::kNames;
  std::uint64_t order = 0;
  std::vector<InodeRef> touched;  // directories whose entries change, or the one inode
  InodeRef created;               // kNames: the inode that got its first name
  InodeRef named;                 // kNames: the inode that has that name now
  std::function<void()> apply;    // to the durable states
  // kContent: what of the file it takes away; writes into it that come later need it to have
  // happened.
  std::uint64_t from = 0, to = 0;

  bool touches(const InodeRef& inode) const {
    for (const InodeRef& one : touched)
      if (one == inode) return true;
    return false;
  }
};

struct SimDisk::FailRule {
  std::string label;
  std::optional<Operation> operation;
  std::uint64_t in = 1;
  int number = 0;
  bool always = false;
};

}  // namespace vmfs::sim
