// How large a journal is unless somebody says, and into what segments it is cut.
#pragma once

#include <cstdint>

#include "fs/base/result.h"
#include "fs/seam/disk.h"

namespace vmfs {

inline constexpr std::uint64_t kJournalSizeDefaultLeast = 256u << 20;
inline constexpr std::uint64_t kJournalSizeDefaultMost = 16ull << 30;
// What a person may ask for at least: eight segments of the smallest size.
inline constexpr std::uint64_t kJournalSizeFloor = 32u << 20;

// A sixteenth of the store's file system, between 256 MiB and 16 GiB, but never more than a quarter of
// what is free where the journal will be. kNoSpace if that leaves less than kJournalSizeFloor.
Result<std::uint64_t> default_journal_size(const DiskSpace& store, const DiskSpace& journal);

// A power of two such that the journal has sixteen segments where it can: 4 to 64 MiB. (A segment below
// 4 MiB cannot take the largest write in one record.)
std::uint64_t segment_size_for(std::uint64_t journal_size);

}  // namespace vmfs
