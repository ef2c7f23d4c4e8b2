// Sizes as a person writes and reads them, and the journal's default size.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fs/base/result.h"
#include "fs/seam/disk.h"

namespace vmfs {

// "4096", "512K", "64M", "1.5GiB", "2T": powers of 1024, the unit's "iB" or "B" may be left out,
// upper and lower case alike. kInvalid names the text and what is allowed.
Result<std::uint64_t> parse_size(std::string_view text);

// The shortest text that parse_size() reads back to the same number: "1GiB", "1536MiB", "4097".
std::string exact_size(std::uint64_t bytes);

// For a person's eye: "1.5 GiB", "812 KiB", "0 B".
std::string readable_size(std::uint64_t bytes);

// "3 s", "4 min", "2 h 10 min", "5 d 3 h".
std::string readable_duration(std::int64_t seconds);

inline constexpr std::uint64_t kJournalSizeLeast = 256u << 20;
inline constexpr std::uint64_t kJournalSizeDefaultMost = 16ull << 30;
// What a person may ask for at least: eight segments of the smallest size used.
inline constexpr std::uint64_t kJournalSizeFloor = 16u << 20;

// A sixteenth of the store's file system, between 256 MiB and 16 GiB, but never more than a quarter of
// what is free where the journal will be. kNoSpace if that leaves less than kJournalSizeFloor.
Result<std::uint64_t> default_journal_size(const DiskSpace& store, const DiskSpace& journal);

// A power of two such that the journal has at least sixteen segments where it can: 1 to 64 MiB.
std::uint64_t segment_size_for(std::uint64_t journal_size);

}  // namespace vmfs
