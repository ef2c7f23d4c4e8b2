#include "fs/index/index_generation.h"

#include <sched.h>

#include <algorithm>
#include <mutex>

#include "fs/base/check.h"

namespace vmfs {

namespace {
// An entry of 24 bytes in a vector that may be half empty; a zero range in a map costs about as
// much.
constexpr std::int64_t kEntryMemory = 48;
}  // namespace

void IndexGeneration::count(const IndexChange& change) {
  if (change.bytes != 0) counters_.data_bytes.fetch_add(change.bytes, std::memory_order_relaxed);
  if (change.entries == 0) return;
  entries_.fetch_add(change.entries, std::memory_order_acq_rel);
  counters_.memory_bytes.fetch_add(static_cast<std::uint64_t>(change.entries * kEntryMemory),
                                   std::memory_order_relaxed);
  counters_.entries.fetch_add(static_cast<std::uint64_t>(change.entries),
                              std::memory_order_acq_rel);
}

void ChunkLock::lock() noexcept {
  for (int spins = 0; held_.exchange(true, std::memory_order_acquire); ++spins) {
    while (held_.load(std::memory_order_relaxed)) {
      if (++spins > 100) {
        ::sched_yield();
        spins = 0;
      }
    }
  }
}

std::size_t IndexGeneration::page_at_or_after(std::uint64_t page) const {
  return static_cast<std::size_t>(
      std::partition_point(pages_.begin(), pages_.end(),
                           [&](const auto& entry) { return entry.first < page; }) -
      pages_.begin());
}

IndexGeneration::Page* IndexGeneration::find_page(std::uint64_t chunk) const {
  const std::uint64_t number = chunk / kPageChunks;
  const std::size_t at = page_at_or_after(number);
  if (at == pages_.size() || pages_[at].first != number) return nullptr;
  return pages_[at].second.get();
}

IndexGeneration::Page& IndexGeneration::make_page(std::uint64_t chunk) {
  const std::uint64_t number = chunk / kPageChunks;
  const std::size_t at = page_at_or_after(number);
  if (at == pages_.size() || pages_[at].first != number) {
    pages_.emplace(pages_.begin() + static_cast<std::ptrdiff_t>(at), number,
                   std::make_unique<Page>());
    counters_.memory_bytes.fetch_add(sizeof(Page), std::memory_order_relaxed);
  }
  return *pages_[at].second;
}

IndexGeneration::ZeroRanges::const_iterator IndexGeneration::zero_range_of(
    std::uint64_t chunk) const {
  if (zero_ranges_.empty()) return zero_ranges_.end();
  auto after = zero_ranges_.upper_bound(chunk);
  if (after == zero_ranges_.begin()) return zero_ranges_.end();
  auto range = std::prev(after);
  return range->second.end > chunk ? range : zero_ranges_.end();
}

bool IndexGeneration::insert_shared(const Part& part) {
  Page* page = find_page(part.chunk);
  if (!page) return false;
  const std::uint64_t number = part.chunk % kPageChunks;
  Slot& slot = page->slots[number];
  std::lock_guard guard(slot.lock);
  if (slot.extents.empty() && zero_range_of(part.chunk) != zero_ranges_.end()) return false;
  count(slot.extents.insert(part.entry));
  set_occupied(*page, number);
  return true;
}

void IndexGeneration::remove_shared(const Part& part) {
  Page* page = find_page(part.chunk);
  if (!page) return;
  const std::uint64_t number = part.chunk % kPageChunks;
  Slot& slot = page->slots[number];
  std::lock_guard guard(slot.lock);
  count(slot.extents.remove(part.entry.start, part.entry.end, part.entry.lsn));
  set_occupied(*page, number);
}

std::uint64_t IndexGeneration::next_occupied(std::uint64_t chunk) const {
  std::uint64_t found = kNoChunk;
  if (!zero_ranges_.empty()) {
    if (zero_range_of(chunk) != zero_ranges_.end()) return chunk;
    if (auto after = zero_ranges_.upper_bound(chunk); after != zero_ranges_.end())
      found = after->first;
  }
  for (std::size_t at = page_at_or_after(chunk / kPageChunks); at < pages_.size(); ++at) {
    const std::uint64_t start = pages_[at].first * kPageChunks;
    if (start >= found) break;
    std::uint64_t occupied = pages_[at].second->occupied.load(std::memory_order_relaxed);
    if (start < chunk) occupied &= ~std::uint64_t{0} << (chunk - start);
    if (occupied != 0)
      return std::min(found, start + static_cast<std::uint64_t>(std::countr_zero(occupied)));
  }
  return found;
}

IndexChange IndexGeneration::take_out_of_zero_range(std::uint64_t chunk) {
  IndexChange change;
  auto range = zero_range_of(chunk);
  if (range == zero_ranges_.end()) return change;
  ChunkEntry whole;
  whole.end = kChunk;
  whole.lsn = range->second.lsn;
  whole.keep_allocated = range->second.keep;
  change += trim_zero_ranges(chunk, chunk + 1, whole.lsn, true);
  Page& page = make_page(chunk);
  change += page.slots[chunk % kPageChunks].extents.insert(whole);
  set_occupied(page, chunk % kPageChunks);
  return change;
}

void IndexGeneration::insert_exclusive(const Part& part) {
  if (auto range = zero_range_of(part.chunk);
      range != zero_ranges_.end() && range->second.lsn > part.entry.lsn)
    return;
  IndexChange change = take_out_of_zero_range(part.chunk);
  Page& page = make_page(part.chunk);
  change += page.slots[part.chunk % kPageChunks].extents.insert(part.entry);
  set_occupied(page, part.chunk % kPageChunks);
  count(change);
}

void IndexGeneration::insert_zero_chunks(std::uint64_t first, std::uint64_t end, Lsn lsn,
                                         bool keep) {
  IndexChange change;
  change += trim_zero_ranges(first, end, lsn, false);

  // Chunks that have something newer stay chunks and get the zeros as an extent below that.
  std::vector<std::uint64_t> newer;
  for (std::size_t at = page_at_or_after(first / kPageChunks); at < pages_.size(); ++at) {
    Page& page = *pages_[at].second;
    const std::uint64_t start = pages_[at].first * kPageChunks;
    if (start >= end) break;
    for (std::uint64_t bits = page.occupied.load(std::memory_order_relaxed); bits != 0;
         bits &= bits - 1) {
      const auto number = static_cast<std::uint64_t>(std::countr_zero(bits));
      const std::uint64_t chunk = start + number;
      if (chunk < first || chunk >= end) continue;
      ChunkExtents& extents = page.slots[number].extents;
      if (extents.newest() <= lsn) {
        change += extents.cut(0);
        set_occupied(page, number);
        continue;
      }
      ChunkEntry whole;
      whole.end = kChunk;
      whole.lsn = lsn;
      whole.keep_allocated = keep;
      change += extents.insert(whole);
      newer.push_back(chunk);
    }
  }

  // The rest, around those chunks and around newer zero ranges, becomes zero ranges.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> taken;
  for (std::uint64_t chunk : newer) taken.emplace_back(chunk, chunk + 1);
  if (auto before = zero_range_of(first); before != zero_ranges_.end())
    taken.emplace_back(before->first, before->second.end);
  for (auto range = zero_ranges_.upper_bound(first);
       range != zero_ranges_.end() && range->first < end; ++range)
    taken.emplace_back(range->first, range->second.end);
  std::sort(taken.begin(), taken.end());
  auto add = [&](std::uint64_t from, std::uint64_t to) {
    if (from >= to) return;
    zero_ranges_.emplace(from, ZeroRange{to, lsn, keep});
    change += {1, keep ? static_cast<std::int64_t>((to - from) * kChunk) : 0};
  };
  std::uint64_t cursor = first;
  for (const auto& [from, to] : taken) {
    add(cursor, std::min(from, end));
    cursor = std::max(cursor, to);
  }
  add(cursor, end);
  count(change);
}

IndexChange IndexGeneration::trim_zero_ranges(std::uint64_t first, std::uint64_t end, Lsn lsn, bool only_same) {
  IndexChange change{-static_cast<std::int64_t>(zero_ranges_.size()), 0};
  auto range = zero_ranges_.upper_bound(first);
  if (range != zero_ranges_.begin()) --range;
  while (range != zero_ranges_.end() && range->first < end) {
    const std::uint64_t start = range->first;
    const ZeroRange old = range->second;
    const bool affected = old.end > first && (only_same ? old.lsn == lsn : old.lsn <= lsn);
    if (!affected) {
      ++range;
      continue;
    }
    range = zero_ranges_.erase(range);
    if (old.keep) change.bytes -= static_cast<std::int64_t>((std::min(old.end, end) - std::max(start, first)) * kChunk);
    if (start < first) zero_ranges_.emplace(start, ZeroRange{first, old.lsn, old.keep});
    if (old.end > end) range = zero_ranges_.emplace(end, old).first;
  }
  change.entries += static_cast<std::int64_t>(zero_ranges_.size());
  return change;
}

void IndexGeneration::remove_zeros(std::uint64_t offset, std::uint64_t end, Lsn lsn) {
  IndexChange change;
  // A range never begins or ends within a chunk.
  for (std::uint64_t edge : {offset, end})
    if (auto range = zero_range_of(edge / kChunk);
        edge % kChunk != 0 && range != zero_ranges_.end() && range->second.lsn == lsn)
      change += take_out_of_zero_range(edge / kChunk);
  const std::uint64_t first = (offset + kChunk - 1) / kChunk, last = end / kChunk;
  if (first < last) change += trim_zero_ranges(first, last, lsn, true);
  for (std::size_t at = page_at_or_after(offset / kChunk / kPageChunks); at < pages_.size(); ++at) {
    Page& page = *pages_[at].second;
    const std::uint64_t page_start = pages_[at].first * kPageChunks;
    if (page_start * kChunk >= end) break;
    for (std::uint64_t bits = page.occupied.load(std::memory_order_relaxed); bits != 0;
         bits &= bits - 1) {
      const auto number = static_cast<std::uint64_t>(std::countr_zero(bits));
      const std::uint64_t start = (page_start + number) * kChunk;
      const std::uint64_t from = std::max(start, offset), to = std::min(start + kChunk, end);
      if (from >= to) continue;
      change += page.slots[number].extents.remove(static_cast<std::uint32_t>(from - start),
                                                  static_cast<std::uint32_t>(to - start), lsn);
      set_occupied(page, number);
    }
  }
  count(change);
}

void IndexGeneration::cut(std::uint64_t size) {
  IndexChange change;
  const std::uint64_t whole = (size + kChunk - 1) / kChunk;  // the first chunk to go as a whole
  if (size % kChunk != 0) change += take_out_of_zero_range(size / kChunk);
  change += trim_zero_ranges(whole, kNoChunk, ~Lsn{0}, false);
  for (std::size_t at = page_at_or_after(size / kChunk / kPageChunks); at < pages_.size(); ++at) {
    Page& page = *pages_[at].second;
    const std::uint64_t page_start = pages_[at].first * kPageChunks;
    for (std::uint64_t bits = page.occupied.load(std::memory_order_relaxed); bits != 0;
         bits &= bits - 1) {
      const auto number = static_cast<std::uint64_t>(std::countr_zero(bits));
      const std::uint64_t start = (page_start + number) * kChunk;
      if (start + kChunk <= size) continue;
      change += page.slots[number].extents.cut(
          static_cast<std::uint32_t>(size > start ? size - start : 0));
      set_occupied(page, number);
    }
  }
  count(change);
}

void IndexGeneration::drop_empty_pages() {
  const std::size_t dropped = std::erase_if(pages_, [](const auto& entry) {
    return entry.second->occupied.load(std::memory_order_relaxed) == 0;
  });
  counters_.memory_bytes.fetch_sub(dropped * sizeof(Page), std::memory_order_relaxed);
}

}  // namespace vmfs
