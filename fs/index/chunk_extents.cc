#include "fs/index/chunk_extents.h"

#include <algorithm>

namespace vmfs {
namespace {

// What it will take up in the store, as far as it may not have that already.
std::int64_t stored_bytes(const ChunkEntry& entry) {
  return entry.payload == 0 && !entry.keep_allocated ? 0 : std::int64_t{entry.end} - entry.start;
}

// Reused by all calls of a thread, so that the hot path allocates nothing.
std::vector<ChunkEntry>& scratch() {
  thread_local std::vector<ChunkEntry> entries;
  entries.clear();
  return entries;
}

}  // namespace

std::size_t ChunkExtents::first_ending_after(std::uint32_t start) const {
  return static_cast<std::size_t>(
      std::partition_point(entries_.begin(), entries_.end(),
                           [&](const ChunkEntry& entry) { return entry.end <= start; }) -
      entries_.begin());
}

Lsn ChunkExtents::newest() const {
  Lsn newest = 0;
  for (const ChunkEntry& entry : entries_) newest = std::max(newest, entry.lsn);
  return newest;
}

IndexChange ChunkExtents::insert(const ChunkEntry& added) {
  const std::size_t first = first_ending_after(added.start);
  std::size_t last = first;
  while (last < entries_.size() && entries_[last].start < added.end) ++last;

  if (first == last) {  // nothing there: the common case of random writes
    entries_.insert(entries_.begin() + static_cast<std::ptrdiff_t>(first), added);
    return {1, stored_bytes(added)};
  }
  if (last - first == 1 && entries_[first].start == added.start &&
      entries_[first].end == added.end) {  // a block written again
    ChunkEntry& old = entries_[first];
    if (old.lsn > added.lsn) return {};
    IndexChange change{0, stored_bytes(added) - stored_bytes(old)};
    old = added;
    return change;
  }

  std::vector<ChunkEntry>& replacement = scratch();
  std::uint32_t cursor = added.start;  // what of `added` is still to be placed begins here
  for (std::size_t i = first; i < last; ++i) {
    const ChunkEntry& old = entries_[i];
    if (old.lsn > added.lsn) {
      if (old.start > cursor) replacement.push_back(added.part(cursor, old.start));
      replacement.push_back(old);
      cursor = std::max(cursor, std::uint32_t{old.end});
    } else if (old.start < added.start) {
      replacement.push_back(old.part(old.start, added.start));
    }
  }
  if (cursor < added.end) replacement.push_back(added.part(cursor, added.end));
  if (const ChunkEntry& old = entries_[last - 1]; old.lsn <= added.lsn && old.end > added.end)
    replacement.push_back(old.part(added.end, old.end));
  return splice(first, last, replacement);
}

IndexChange ChunkExtents::remove(std::uint32_t start, std::uint32_t end, Lsn lsn) {
  const std::size_t first = first_ending_after(start);
  std::size_t last = first;
  std::vector<ChunkEntry>& replacement = scratch();
  bool found = false;
  for (; last < entries_.size() && entries_[last].start < end; ++last) {
    const ChunkEntry& old = entries_[last];
    if (old.lsn != lsn) {
      replacement.push_back(old);
      continue;
    }
    found = true;
    if (old.start < start) replacement.push_back(old.part(old.start, start));
    if (old.end > end) replacement.push_back(old.part(end, old.end));
  }
  if (!found) return {};
  IndexChange change = splice(first, last, replacement);
  give_back_memory();
  return change;
}

IndexChange ChunkExtents::cut(std::uint32_t start) {
  const std::size_t first = first_ending_after(start);
  if (first == entries_.size()) return {};
  std::vector<ChunkEntry>& replacement = scratch();
  if (entries_[first].start < start)
    replacement.push_back(entries_[first].part(entries_[first].start, start));
  IndexChange change = splice(first, entries_.size(), replacement);
  give_back_memory();
  return change;
}

IndexChange ChunkExtents::splice(std::size_t first, std::size_t last,
                                 const std::vector<ChunkEntry>& replacement) {
  IndexChange change;
  for (std::size_t i = first; i < last; ++i) change.bytes -= stored_bytes(entries_[i]);
  for (const ChunkEntry& entry : replacement) change.bytes += stored_bytes(entry);
  const std::size_t old_count = last - first, new_count = replacement.size();
  change.entries = static_cast<std::int64_t>(new_count) - static_cast<std::int64_t>(old_count);
  const auto at = entries_.begin() + static_cast<std::ptrdiff_t>(first);
  const std::size_t common = std::min(old_count, new_count);
  std::copy_n(replacement.begin(), common, at);
  const auto next = at + static_cast<std::ptrdiff_t>(common);
  if (new_count < old_count)
    entries_.erase(next, next + static_cast<std::ptrdiff_t>(old_count - new_count));
  else
    entries_.insert(next, replacement.begin() + static_cast<std::ptrdiff_t>(common),
                    replacement.end());
  return change;
}

void ChunkExtents::give_back_memory() {
  if (entries_.empty())
    std::vector<ChunkEntry>().swap(entries_);
  else if (entries_.capacity() >= 32 && entries_.size() * 4 < entries_.capacity())
    entries_.shrink_to_fit();
}

}  // namespace vmfs
