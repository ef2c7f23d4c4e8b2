// Whose journal lies in a directory, and into what segments it is cut, as its files say themselves. Reads
// only, also while a daemon is at work there.
#pragma once

#include <cstdint>
#include <optional>

#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "fs/seam/disk.h"

namespace vmfs {

struct JournalIdentity {
  VolumeId volume{};
  NodeId node{};
  std::uint64_t segment_size = 0;  // bytes
};

// By the first segment whose header is whole: all of one journal agree. Nothing: there is none.
Result<std::optional<JournalIdentity>> identify_journal(Disk& disk);

}  // namespace vmfs
