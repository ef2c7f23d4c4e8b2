// Which bytes of one image are newer in the journal than in the store.
//
// Per 1 MiB chunk, sorted extents under that chunk's lock; the higher LSN wins whatever the order of
// insertion, because two writers may insert in another order than the journal has them. Cost follows
// the number of extents touched, never the image's size: a zero range of a terabyte is one entry (in
// a second level for ranges of whole chunks).
//
// Generations: a snapshot starts a new one, and then the older ones can still be read and applied
// without what came later. Lookups see the newest generation first. The applier drains the oldest.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "fs/base/ids.h"
#include "fs/journal/format.h"

namespace vmfs {

inline constexpr std::uint64_t kChunk = 1u << 20;

// A range of the image and where its bytes are.
struct UnappliedExtent {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  Lsn lsn = 0;      // of the record that wrote it: its age
  Lsn payload = 0;  // of the first byte in the journal; 0: the range reads as zeros
  bool keep_allocated = false;  // with zeros: the range is to have blocks afterwards
};

// A piece of a lookup's answer; the pieces cover the range without gap or overlap, in order.
struct Piece {
  enum class Source : std::uint8_t { kStore, kJournal, kZero };
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  Lsn payload = 0;  // kJournal: where in the journal
  Source source = Source::kStore;
};

// Thread-safe. Memory: counted in a counter shared by all images of a volume.
class UnappliedIndex {
 public:
  // bytes: where this index counts its memory (with a fixed estimate per entry); outlives it.
  explicit UnappliedIndex(std::atomic<std::uint64_t>& memory_bytes);
  ~UnappliedIndex();

  // Takes the extent over, where nothing with a higher LSN is.
  void insert(const UnappliedExtent& extent);
  // Forgets everything at and above `size` whatever its age, in all generations (the image was
  // truncated; the caller excludes concurrent inserts, and has drained generations that must stay).
  void cut(std::uint64_t size);
  // Forgets everything (the object was deleted, or its content is replaced).
  void clear();

  // Replaces `out`. Fast when nothing here is unapplied (one atomic load).
  void lookup(std::uint64_t offset, std::uint64_t length, std::vector<Piece>& out) const;
  // First offset >= `offset` that is not kStore in [offset, end); `end` if none. For SEEK_DATA/HOLE.
  std::uint64_t next_unapplied(std::uint64_t offset, std::uint64_t end) const;

  bool empty() const { return entries_.load(std::memory_order_acquire) == 0; }
  std::uint64_t entries() const { return entries_.load(std::memory_order_relaxed); }
  std::uint64_t bytes() const;  // of data, and of zeros that keep their blocks: what the store is to take up

  // --- Applier (one at a time) -----------------------------------------------------------------

  // The next extents from `offset` on, ascending, of the oldest generation, about `bytes_max` of
  // data; replaces `out`. Returns where to go on, or 0 when the end was reached.
  std::uint64_t collect(std::uint64_t offset, std::uint64_t bytes_max,
                        std::vector<UnappliedExtent>& out) const;
  // These are in the store now (readable there): forgets them, except what newer inserts replaced.
  void remove(const std::vector<UnappliedExtent>& applied);

  // Frees what is kept for later inserts.
  void give_back_memory();

  // --- Snapshots -------------------------------------------------------------------------------

  // Later inserts go to a new generation; what is here stays readable as the older one until drained.
  // The caller excludes concurrent inserts: what is inserted later is later, whatever its LSN. Does
  // nothing if the newest generation is empty.
  void start_generation();
  std::uint32_t generations() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::atomic<std::uint64_t> entries_{0};
};

}  // namespace vmfs
