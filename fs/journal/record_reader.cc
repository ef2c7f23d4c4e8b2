#include "fs/journal/record_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fs/base/hash.h"
#include "fs/journal/journal_impl.h"

namespace vmfs {
namespace {

constexpr std::size_t kChunk = 2u << 20;
// While payloads are passed over: many small records, and little of a large one.
constexpr std::size_t kHeadersChunk = 64u << 10;

}  // namespace

struct RecordReader::State {
  // Records are found by walking from the segment's first: any LSN may be asked for.
  State(const Journal::Impl& the_journal, Lsn from)
      : journal(the_journal),
        start(from),
        next(the_journal.geometry.first_record(the_journal.geometry.number(from))),
        window([this](std::span<std::byte> out, std::uint64_t offset) { return read(out, offset); },
               the_journal.geometry.segment_size, kChunk) {}

  // Nothing at or above `readable` is read: it may change, and the window keeps what it has.
  Result<std::size_t> read(std::span<std::byte> out, std::uint64_t offset) {
    Lsn from = journal.geometry.start(number) + offset;
    Lsn end = std::min(readable, journal.geometry.start(number + 1));
    if (from >= end) return std::size_t{0};
    if (out.size() > end - from) out = out.first(static_cast<std::size_t>(end - from));
    VMFS_ASSIGN(bool alive, journal.read(from, out, "journal.stream"));
    if (!alive) return recycled();
    return out.size();
  }

  tl::unexpected<Error> recycled() const {
    return fail(ErrorKind::kNotFound, ENOENT,
                fmt::format("LSN {} is not in the journal any more, which begins at {}", next,
                            journal.oldest.load(std::memory_order_acquire)));
  }

  bool turn_to(std::uint64_t wanted);
  Result<bool> pass_generation_start();
  Result<std::optional<RecordView>> next_record(Lsn limit, const Wanted& payload_wanted);
  Result<bool> goes_on_in_next_segment();
  tl::unexpected<Error> damaged(Validity validity) const;

  const Journal::Impl& journal;
  const Lsn start;
  Lsn next;
  std::uint64_t number = 0;       // of the segment that the window is on
  std::uint64_t incarnation = 0;  // of its file when the window was turned to it
  Lsn readable = 0;
  std::uint32_t generation = 0;   // of the last record
  Lsn looked_for = 0;             // the block at which a generation's start was looked for
  Lsn jump_from = 0, jump_to = 0;
  FileWindow window;
};

// Healing replaces a segment's file: what was read from the old one is read again, because its
// checksums are another's. True if the window was turned.
bool RecordReader::State::turn_to(std::uint64_t wanted) {
  std::uint64_t present = journal.segments.incarnation(wanted);
  if (wanted == number && present == incarnation) return false;
  number = wanted;
  incarnation = present;
  window.forget();
  return true;
}

// After a recovery, the log goes on in the next block or in the next segment. True if it does here.
Result<bool> RecordReader::State::pass_generation_start() {
  SegmentIdentity identity{journal.geometry, number, incarnation};
  Lsn block = align_to_block(next);
  if (block != next && block != looked_for && block < readable) {
    looked_for = block;
    VMFS_ASSIGN(auto start, generation_start_after(window, identity, next, generation));
    if (start) {
      jump_from = start->offset;
      jump_to = block;
    }
  }
  if (jump_to == 0 || next != jump_from) return false;
  next = std::exchange(jump_to, 0);
  return true;
}

tl::unexpected<Error> RecordReader::State::damaged(Validity validity) const {
  return fail(ErrorKind::kCorrupt, EIO,
              fmt::format("journal segment {} is damaged at offset {} (LSN {}): {}",
                          journal.disk.display(segment_name(number)), journal.geometry.offset(next),
                          next, to_string(validity)));
}

Result<std::optional<RecordView>> RecordReader::State::next_record(Lsn limit, const Wanted& payload_wanted) {
  const Geometry& geometry = journal.geometry;
  readable = std::min(limit, journal.written.load(std::memory_order_acquire));
  for (bool again = false;;) {
    // After a seal.
    if (geometry.offset(next) < kBlock) next = geometry.first_record(geometry.number(next));
    if (next < journal.oldest.load(std::memory_order_acquire)) return recycled();
    if (next + sizeof(RecordHeader) > readable) return std::nullopt;
    turn_to(geometry.number(next));
    VMFS_ASSIGN(bool passed, pass_generation_start());
    if (passed) continue;
    SegmentIdentity identity{geometry, number, incarnation};
    VMFS_ASSIGN(SeenRecord seen, look_at(window, identity, next, false));
    const RecordHeader& header = seen.header;
    const bool pad = header.type == RecordType::kPad;
    const Lsn end = next + (pad ? header.extent : record_size(header.payload_size));
    ByteView payload;
    if (seen.validity == Validity::kValid) {
      if (end > readable) return std::nullopt;
      if (generation != 0 && header.generation < generation) seen.validity = Validity::kStale;
      if (!pad && next >= start) {
        const bool with_payload = !payload_wanted || payload_wanted(header);
        window.set_chunk(with_payload ? kChunk : kHeadersChunk);
        if (with_payload && header.payload_size > 0) {
          VMFS_ASSIGN(payload, window.view(geometry.offset(next) + sizeof(RecordHeader), header.payload_size));
          if (payload.size() < header.payload_size || hash64(payload) != header.payload_hash)
            seen.validity = Validity::kBadPayload;
        }
      }
    }
    if (seen.validity != Validity::kValid) {
      // The file may have been replaced between asking for its incarnation and reading it.
      if (!again) {
        again = true;
        window.forget();
        incarnation = 0;
        continue;
      }
      VMFS_ASSIGN(bool elsewhere, goes_on_in_next_segment());
      if (!elsewhere) return damaged(seen.validity);
      again = false;
      continue;
    }
    again = false;
    generation = header.generation;
    const bool wanted = !pad && header.type != RecordType::kSeal && next >= start;
    next = end;
    if (wanted) return RecordView{header, payload};
  }
}

// A generation that had no room behind the log's end begins the next segment, and says where.
Result<bool> RecordReader::State::goes_on_in_next_segment() {
  const Geometry& geometry = journal.geometry;
  const Lsn first = geometry.first_record(number + 1);
  if (first + sizeof(RecordHeader) > readable) return false;
  const Lsn ended = next;
  turn_to(number + 1);
  VMFS_ASSIGN(SeenRecord seen, look_at(window, {geometry, number, incarnation}, first, false));
  if (seen.validity == Validity::kValid && seen.header.type == RecordType::kPad &&
      (seen.header.flags & kGenerationStart) != 0 && seen.header.offset == ended) {
    next = first;
    return true;
  }
  turn_to(number - 1);
  return false;
}

RecordReader::RecordReader(const Journal& journal, Lsn start)
    : state_(std::make_unique<State>(*journal.impl_, start == 0 ? journal.oldest_lsn() : start)) {}
RecordReader::~RecordReader() = default;

Result<std::optional<RecordView>> RecordReader::next(Lsn limit, const Wanted& payload_wanted) {
  return state_->next_record(limit, payload_wanted);
}

Lsn RecordReader::position() const { return std::max(state_->next, state_->start); }

}  // namespace vmfs
