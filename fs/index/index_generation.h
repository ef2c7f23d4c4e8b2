// Private to fs/index: one generation of an image's not-yet-applied index.
//
// Two levels, disjoint: chunks that have extents, in pages of 64, found by binary search; and
// ranges of whole chunks that read as zeros, in a map. An insert into a chunk of a zero range first
// takes the chunk out of the range and gives it an extent of zeros.
//
// Locks are the caller's, one per index: "shared" calls may run beside each other (each chunk has
// its own small lock), "exclusive" ones run alone.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "fs/index/chunk_extents.h"
#include "fs/index/unapplied_index.h"

namespace vmfs {

// A few hundred nanoseconds are spent under it, hence no futex; the yield is for the case that the
// holder was preempted.
class ChunkLock {
 public:
  void lock() noexcept;
  void unlock() noexcept { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

// What all generations of an image count together. A chunk's changes are counted under its lock:
// were an entry's removal counted before its insertion, the count could pass through zero while
// another entry is there, and a reader would take the image for wholly applied.
struct IndexCounters {
  std::atomic<std::uint64_t>& entries;
  std::atomic<std::uint64_t>& memory_bytes;
  std::atomic<std::int64_t> data_bytes{0};
};

class IndexGeneration {
 public:
  explicit IndexGeneration(IndexCounters& counters) : counters_(counters) {}

  // A part of one chunk.
  struct Part {
    std::uint64_t chunk = 0;
    ChunkEntry entry;
  };

  // --- Shared ----------------------------------------------------------------------------------

  // False: the chunk has no page yet or lies in a zero range; call insert_exclusive.
  bool insert_shared(const Part& part);
  void remove_shared(const Part& part);
  // The first chunk >= `chunk` that has anything; kNoChunk if none.
  static constexpr std::uint64_t kNoChunk = ~std::uint64_t{0};
  std::uint64_t next_occupied(std::uint64_t chunk) const;
  // Walks [offset, end) in order: extent(offset, end, lsn, payload, keep_allocated) for what is
  // here, gap(offset, end) for the rest. Both return false to stop.
  template <class OnExtent, class OnGap>
  bool walk(std::uint64_t offset, std::uint64_t end, OnExtent&& extent, OnGap&& gap) const;

  // --- Exclusive -------------------------------------------------------------------------------

  void insert_exclusive(const Part& part);
  // [first, end) in chunks.
  void insert_zero_chunks(std::uint64_t first, std::uint64_t end, Lsn lsn, bool keep);
  // In bytes; of exactly that LSN.
  void remove_zeros(std::uint64_t offset, std::uint64_t end, Lsn lsn);
  void cut(std::uint64_t size);
  void drop_empty_pages();

  std::size_t pages() const { return pages_.size(); }
  bool empty() const { return entries_.load(std::memory_order_acquire) == 0; }

 private:
  static constexpr std::uint64_t kPageChunks = 64;
  struct Slot {
    mutable ChunkLock lock;
    ChunkExtents extents;  // guarded by lock, or by exclusiveness
  };
  struct Page {
    std::atomic<std::uint64_t> occupied{0};  // a bit for each slot with extents
    Slot slots[kPageChunks];
  };
  struct ZeroRange {
    std::uint64_t end = 0;  // chunks
    Lsn lsn = 0;
    bool keep = false;
  };
  using ZeroRanges = std::map<std::uint64_t, ZeroRange>;

  Page* find_page(std::uint64_t chunk) const;
  Page& make_page(std::uint64_t chunk);
  std::size_t page_at_or_after(std::uint64_t page) const;
  ZeroRanges::const_iterator zero_range_of(std::uint64_t chunk) const;
  // Takes [first, end) out of all zero ranges older than or as old as `lsn` (exactly as old, if
  // `only_same`).
  IndexChange trim_zero_ranges(std::uint64_t first, std::uint64_t end, Lsn lsn, bool only_same);
  static void set_occupied(Page& page, std::uint64_t slot) {
    const std::uint64_t bit = std::uint64_t{1} << slot;
    if (page.slots[slot].extents.empty())
      page.occupied.fetch_and(~bit, std::memory_order_relaxed);
    else if (!(page.occupied.load(std::memory_order_relaxed) & bit))
      page.occupied.fetch_or(bit, std::memory_order_relaxed);
  }

  // If the chunk is in a zero range: from now on it is a chunk with one extent of zeros.
  IndexChange take_out_of_zero_range(std::uint64_t chunk);
  void count(const IndexChange& change);

  IndexCounters& counters_;
  std::atomic<std::int64_t> entries_{0};
  std::vector<std::pair<std::uint64_t, std::unique_ptr<Page>>> pages_;  // sorted by page number
  ZeroRanges zero_ranges_;
};

template <class OnExtent, class OnGap>
bool IndexGeneration::walk(std::uint64_t offset, std::uint64_t end, OnExtent&& extent,
                           OnGap&& gap) const {
  while (offset < end) {
    const std::uint64_t chunk = next_occupied(offset / kChunk);
    if (chunk == kNoChunk || chunk >= (end + kChunk - 1) / kChunk) return gap(offset, end);
    const std::uint64_t chunk_start = chunk * kChunk;
    if (chunk_start > offset) {
      if (!gap(offset, chunk_start)) return false;
      offset = chunk_start;
    }
    if (auto range = zero_range_of(chunk); range != zero_ranges_.end()) {
      const std::uint64_t stop = std::min(end, range->second.end * kChunk);
      if (!extent(offset, stop, range->second.lsn, Lsn{0}, range->second.keep)) return false;
      offset = stop;
      continue;
    }
    const std::uint64_t stop = std::min(end, chunk_start + kChunk);
    Slot& slot = find_page(chunk)->slots[chunk % kPageChunks];
    std::lock_guard guard(slot.lock);
    const std::vector<ChunkEntry>& entries = slot.extents.entries();
    std::size_t i =
        slot.extents.first_ending_after(static_cast<std::uint32_t>(offset - chunk_start));
    for (; i < entries.size() && chunk_start + entries[i].start < stop; ++i) {
      const ChunkEntry& entry = entries[i];
      const std::uint64_t start = std::max(offset, chunk_start + entry.start);
      const std::uint64_t entry_end = std::min(stop, chunk_start + entry.end);
      if (start > offset && !gap(offset, start)) return false;
      const Lsn payload =
          entry.payload == 0 ? 0 : entry.payload + (start - chunk_start - entry.start);
      if (!extent(start, entry_end, entry.lsn, payload, entry.keep_allocated != 0)) return false;
      offset = entry_end;
    }
    if (offset < stop && !gap(offset, stop)) return false;
    offset = stop;
  }
  return true;
}

}  // namespace vmfs
