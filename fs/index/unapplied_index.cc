#include "fs/index/unapplied_index.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>

#include "fs/base/check.h"
#include "fs/index/index_generation.h"

namespace vmfs {
namespace {

// Zeros of at least that many whole chunks become one range.
constexpr std::uint64_t kZeroRangeChunksMin = 4;
// Pages that stay when nothing is left in them, so that a busy image does not make them again and
// again.
constexpr std::size_t kIdlePages = 64;
// What an extent of zeros counts in collect(): a list of a million discards is also a lot of work.
constexpr std::uint64_t kZeroCost = 4096;

// Cuts [offset, end) at chunk borders.
template <class F>
void for_each_part(std::uint64_t offset, std::uint64_t end, const UnappliedExtent& extent, F&& f) {
  while (offset < end) {
    const std::uint64_t start = offset / kChunk * kChunk;
    const std::uint64_t stop = std::min(end, start + kChunk);
    IndexGeneration::Part part;
    part.chunk = offset / kChunk;
    part.entry.start = static_cast<std::uint32_t>(offset - start);
    part.entry.end = static_cast<std::uint32_t>(stop - start) & 0x7fffffffu;
    part.entry.lsn = extent.lsn;
    part.entry.payload = extent.payload == 0 ? 0 : extent.payload + (offset - extent.offset);
    part.entry.keep_allocated = extent.keep_allocated;
    f(part);
    offset = stop;
  }
}

void append(std::vector<Piece>& out, const Piece& piece) {
  if (!out.empty()) {
    Piece& last = out.back();
    const bool continues =
        piece.source != Piece::Source::kJournal || piece.payload == last.payload + last.length;
    if (last.source == piece.source && continues) {
      last.length += piece.length;
      return;
    }
  }
  out.push_back(piece);
}

}  // namespace

struct UnappliedIndex::State {
  State(std::atomic<std::uint64_t>& entries, std::atomic<std::uint64_t>& memory)
      : counters{entries, memory} {
    generations.push_back(std::make_unique<IndexGeneration>(counters));
  }

  IndexCounters counters;
  mutable std::shared_mutex lock;  // see index_generation.h
  // Oldest first; never empty.
  std::vector<std::unique_ptr<IndexGeneration>> generations;

  void look(std::size_t generation, std::uint64_t offset, std::uint64_t end,
            std::vector<Piece>& out) const;
};

UnappliedIndex::UnappliedIndex(std::atomic<std::uint64_t>& memory_bytes)
    : state_(std::make_unique<State>(entries_, memory_bytes)) {}

UnappliedIndex::~UnappliedIndex() { clear(); }

void UnappliedIndex::insert(const UnappliedExtent& extent) {
  if (extent.length == 0) return;
  State& s = *state_;
  const std::uint64_t end = extent.offset + extent.length;
  CHECK_COMPARE(end, >, extent.offset);
  const std::uint64_t first = (extent.offset + kChunk - 1) / kChunk, last = end / kChunk;
  if (extent.payload == 0 && last >= first + kZeroRangeChunksMin) {
    std::unique_lock exclusive(s.lock);
    IndexGeneration& newest = *s.generations.back();
    auto insert_part = [&](const IndexGeneration::Part& part) { newest.insert_exclusive(part); };
    for_each_part(extent.offset, first * kChunk, extent, insert_part);
    newest.insert_zero_chunks(first, last, extent.lsn, extent.keep_allocated);
    for_each_part(last * kChunk, end, extent, insert_part);
    return;
  }
  std::shared_lock shared(s.lock);
  for_each_part(extent.offset, end, extent, [&](const IndexGeneration::Part& part) {
    if (s.generations.back()->insert_shared(part)) return;
    shared.unlock();
    {
      std::unique_lock exclusive(s.lock);
      s.generations.back()->insert_exclusive(part);
    }
    shared.lock();
  });
}

void UnappliedIndex::cut(std::uint64_t size) {
  if (empty()) return;
  std::unique_lock exclusive(state_->lock);
  for (auto& generation : state_->generations) {
    generation->cut(size);
    generation->drop_empty_pages();
  }
}

void UnappliedIndex::clear() {
  State& s = *state_;
  std::unique_lock exclusive(s.lock);
  for (auto& generation : s.generations) {
    generation->cut(0);
    generation->drop_empty_pages();
  }
  s.generations.erase(s.generations.begin(), s.generations.end() - 1);
}

void UnappliedIndex::State::look(std::size_t generation, std::uint64_t offset, std::uint64_t end,
                                 std::vector<Piece>& out) const {
  generations[generation]->walk(
      offset, end,
      [&](std::uint64_t from, std::uint64_t to, Lsn, Lsn payload, bool) {
        append(out, {from, to - from, payload,
                     payload == 0 ? Piece::Source::kZero : Piece::Source::kJournal});
        return true;
      },
      [&](std::uint64_t from, std::uint64_t to) {
        if (generation == 0)
          append(out, {from, to - from, 0, Piece::Source::kStore});
        else
          look(generation - 1, from, to, out);
        return true;
      });
}

void UnappliedIndex::lookup(std::uint64_t offset, std::uint64_t length,
                            std::vector<Piece>& out) const {
  out.clear();
  if (length == 0) return;
  if (empty()) {
    out.push_back({offset, length, 0, Piece::Source::kStore});
    return;
  }
  std::shared_lock shared(state_->lock);
  state_->look(state_->generations.size() - 1, offset, offset + length, out);
}

std::uint64_t UnappliedIndex::next_unapplied(std::uint64_t offset, std::uint64_t end) const {
  if (offset >= end || empty()) return end;
  std::shared_lock shared(state_->lock);
  std::uint64_t found = end;
  for (const auto& generation : state_->generations)
    generation->walk(
        offset, found,
        [&](std::uint64_t from, std::uint64_t, Lsn, Lsn, bool) {
          found = from;
          return false;
        },
        [](std::uint64_t, std::uint64_t) { return true; });
  return found;
}

std::uint64_t UnappliedIndex::bytes() const {
  return static_cast<std::uint64_t>(state_->counters.data_bytes.load(std::memory_order_relaxed));
}

std::uint64_t UnappliedIndex::collect(std::uint64_t offset, std::uint64_t bytes_max,
                                      std::vector<UnappliedExtent>& out) const {
  out.clear();
  if (empty()) return 0;
  std::shared_lock shared(state_->lock);
  std::uint64_t cost = 0, next = 0;
  constexpr std::uint64_t kEnd = ~std::uint64_t{0} - kChunk;  // the walk rounds up to a chunk
  state_->generations.front()->walk(
      offset, kEnd,
      [&](std::uint64_t from, std::uint64_t to, Lsn lsn, Lsn payload, bool keep) {
        if (cost >= bytes_max && !out.empty()) {
          next = from;
          return false;
        }
        cost += payload == 0 ? kZeroCost : to - from;
        if (!out.empty()) {  // what a chunk border or a partial overwrite had cut
          UnappliedExtent& last = out.back();
          const bool same_kind =
              last.lsn == lsn && last.keep_allocated == keep && last.offset + last.length == from;
          if (same_kind &&
              (payload == 0 ? last.payload == 0
                            : last.payload != 0 && last.payload + last.length == payload)) {
            last.length += to - from;
            return true;
          }
        }
        out.push_back({from, to - from, lsn, payload, keep});
        return true;
      },
      [](std::uint64_t, std::uint64_t) { return true; });
  return next;
}

void UnappliedIndex::remove(const std::vector<UnappliedExtent>& applied) {
  State& s = *state_;
  bool drained = false;
  {
    std::shared_lock shared(s.lock);
    for (const UnappliedExtent& extent : applied) {
      const std::uint64_t end = extent.offset + extent.length;
      // The applier alone removes generations, so the oldest is the one it collected from.
      IndexGeneration& oldest = *s.generations.front();
      if (extent.payload == 0) {
        shared.unlock();
        {
          std::unique_lock exclusive(s.lock);
          oldest.remove_zeros(extent.offset, end, extent.lsn);
        }
        shared.lock();
        continue;
      }
      for_each_part(extent.offset, end, extent,
                    [&](const IndexGeneration::Part& part) { oldest.remove_shared(part); });
    }
    IndexGeneration& oldest = *s.generations.front();
    drained = oldest.empty() && (s.generations.size() > 1 || oldest.pages() > kIdlePages);
  }
  if (!drained) return;
  std::unique_lock exclusive(s.lock);
  for (;;) {
    IndexGeneration& oldest = *s.generations.front();
    if (!oldest.empty()) return;
    oldest.drop_empty_pages();
    if (s.generations.size() == 1) return;
    s.generations.erase(s.generations.begin());
  }
}

void UnappliedIndex::give_back_memory() {
  std::unique_lock exclusive(state_->lock);
  for (auto& generation : state_->generations) generation->drop_empty_pages();
}

void UnappliedIndex::start_generation() {
  std::unique_lock exclusive(state_->lock);
  // An empty one needs no successor: nothing in it is older.
  if (state_->generations.back()->empty()) return;
  state_->generations.push_back(std::make_unique<IndexGeneration>(state_->counters));
}

std::uint32_t UnappliedIndex::generations() const {
  std::shared_lock shared(state_->lock);
  return static_cast<std::uint32_t>(state_->generations.size());
}

}  // namespace vmfs
