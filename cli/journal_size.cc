#include "cli/journal_size.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "fs/base/sizes.h"

namespace vmfs {

Result<std::uint64_t> default_journal_size(const DiskSpace& store, const DiskSpace& journal) {
  std::uint64_t size =
      std::clamp(store.total / 16, kJournalSizeDefaultLeast, kJournalSizeDefaultMost);
  size = std::min(size, journal.available / 4);
  size &= ~((std::uint64_t{1} << 20) - 1);
  if (size < kJournalSizeFloor)
    return fail(ErrorKind::kNoSpace, ENOSPC,
                fmt::format("too little room for a journal: {} are free, and a journal takes at most "
                            "a quarter of that and at least {}\n"
                            "free some space, or put it on another file system with --journal DIR",
                            human_size(journal.available), human_size(kJournalSizeFloor)));
  return size;
}

std::uint64_t segment_size_for(std::uint64_t journal_size) {
  std::uint64_t segment = std::bit_floor(std::max<std::uint64_t>(journal_size / 16, 1));
  return std::clamp<std::uint64_t>(segment, 4u << 20, 64u << 20);
}

}  // namespace vmfs
