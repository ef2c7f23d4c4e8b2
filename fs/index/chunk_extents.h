// Private to fs/index: the unapplied extents of one 1 MiB chunk, sorted, disjoint, in one compact
// vector: at most a few hundred, so that a binary search and a short memmove beat any tree.
#pragma once

#include <cstdint>
#include <vector>

#include "fs/journal/format.h"

namespace vmfs {

// Offsets within the chunk.
struct ChunkEntry {
  std::uint32_t start = 0;
  std::uint32_t end : 31 = 0;
  std::uint32_t keep_allocated : 1 = 0;
  Lsn lsn = 0;
  Lsn payload = 0;  // 0: zeros

  // The part of it in [from, to).
  ChunkEntry part(std::uint32_t from, std::uint32_t to) const {
    ChunkEntry out = *this;
    out.start = from;
    out.end = to & 0x7fffffffu;
    if (payload != 0) out.payload = payload + (from - start);
    return out;
  }
};
static_assert(sizeof(ChunkEntry) == 24);

// What an operation changed, for the counters of the layers above.
struct IndexChange {
  std::int64_t entries = 0;
  std::int64_t bytes = 0;  // that the store is to take up: data, and zeros that keep their blocks
  IndexChange& operator+=(const IndexChange& other) {
    entries += other.entries;
    bytes += other.bytes;
    return *this;
  }
};

// Not thread-safe.
class ChunkExtents {
 public:
  // The higher LSN wins; the same LSN replaces.
  IndexChange insert(const ChunkEntry& added);
  // Forgets what of [start, end) has exactly this LSN.
  IndexChange remove(std::uint32_t start, std::uint32_t end, Lsn lsn);
  // Forgets everything from `start` on.
  IndexChange cut(std::uint32_t start);

  const std::vector<ChunkEntry>& entries() const { return entries_; }
  bool empty() const { return entries_.empty(); }
  // Index of the first entry that ends after `start`.
  std::size_t first_ending_after(std::uint32_t start) const;
  Lsn newest() const;

 private:
  // Puts `replacement` in the place of entries [first, last).
  IndexChange splice(std::size_t first, std::size_t last,
                     const std::vector<ChunkEntry>& replacement);
  void give_back_memory();

  std::vector<ChunkEntry> entries_;
};

}  // namespace vmfs
