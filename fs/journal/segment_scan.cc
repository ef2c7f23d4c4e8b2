#include "fs/journal/segment_scan.h"

#include <algorithm>
#include <cstring>

#include "fs/base/hash.h"

namespace vmfs {

FileWindow::FileWindow(ReadAt read, std::uint64_t file_size, std::size_t chunk)
    : read_(std::move(read)), file_size_(file_size), chunk_(chunk) {}

FileWindow::FileWindow(File& file, std::uint64_t file_size, Label label, std::size_t chunk)
    : FileWindow(
          [&file, label](std::span<std::byte> out, std::uint64_t offset) {
            return file.read(out, offset, label);
          },
          file_size, chunk) {}

Result<ByteView> FileWindow::view(std::uint64_t offset, std::size_t size) {
  if (offset >= file_size_) return ByteView{};
  size = static_cast<std::size_t>(std::min<std::uint64_t>(size, file_size_ - offset));
  if (offset < at_ || offset + size > at_ + filled_) {
    auto want = static_cast<std::size_t>(
        std::min<std::uint64_t>(std::max(size, chunk_), file_size_ - offset));
    if (buffer_.size() < want) buffer_.resize(want);
    filled_ = 0;
    VMFS_ASSIGN(filled_, read_(std::span(buffer_).first(want), offset));
    at_ = offset;
    size = std::min(size, filled_);
  }
  return ByteView(buffer_).subspan(static_cast<std::size_t>(offset - at_), size);
}

namespace {

bool is_generation_start(const RecordHeader& header) {
  return header.type == RecordType::kPad && (header.flags & kGenerationStart) != 0;
}

}  // namespace

Result<SeenRecord> look_at(FileWindow& window, const SegmentIdentity& identity, Lsn at,
                           bool verify_payload) {
  SeenRecord seen;
  std::uint64_t offset = identity.geometry.offset(at);
  VMFS_ASSIGN(ByteView bytes, window.view(offset, sizeof(RecordHeader)));
  if (bytes.size() < sizeof(RecordHeader)) return seen;
  std::memcpy(&seen.header, bytes.data(), sizeof seen.header);
  seen.validity = check_header(seen.header, identity.incarnation, at,
                               identity.geometry.segment_size - offset);
  if (seen.validity == Validity::kValid && verify_payload && seen.header.payload_size > 0) {
    VMFS_ASSIGN(bytes, window.view(offset + sizeof(RecordHeader), seen.header.payload_size));
    if (bytes.size() < seen.header.payload_size || hash64(bytes) != seen.header.payload_hash)
      seen.validity = Validity::kBadPayload;
  }
  return seen;
}

Result<std::optional<RecordHeader>> generation_start_after(FileWindow& window,
                                                           const SegmentIdentity& identity, Lsn at,
                                                           std::uint32_t above) {
  Lsn block = align_to_block(at);
  if (block == at || identity.geometry.number(block) != identity.number) return std::nullopt;
  VMFS_ASSIGN(SeenRecord seen, look_at(window, identity, block, false));
  // It names an end in the block before it; anything else is no place that recovery chooses.
  if (seen.validity != Validity::kValid || !is_generation_start(seen.header) ||
      seen.header.generation <= above || seen.header.offset < at || seen.header.offset > block)
    return std::nullopt;
  return seen.header;
}

Result<WalkEnd> walk_segment(FileWindow& window, const SegmentIdentity& identity,
                             const WalkLimits& limits, const RecordVisitor& visit) {
  const Geometry& geometry = identity.geometry;
  const Lsn segment_end = geometry.start(identity.number + 1);
  WalkEnd walk;
  walk.end = geometry.first_record(identity.number);
  walk.generation = limits.generation;
  Lsn expected_end = limits.expected_end;
  Lsn next = walk.end;    // where the next record is looked for
  Lsn looked_for = 0;     // the block at which a generation's start was looked for
  Lsn jump_from = 0;      // a generation starts at jump_to; the log before it ended at jump_from
  Lsn jump_to = 0;
  while (next < segment_end) {
    if (next >= limits.stop_at) break;
    // Whether the log ended in this block once is asked before its records are believed: what was cut
    // off there may be whole again as far as one can see.
    if (Lsn block = align_to_block(next); block != next && block != looked_for) {
      looked_for = block;
      VMFS_ASSIGN(auto start, generation_start_after(window, identity, next, walk.generation));
      if (start) {
        jump_from = start->offset;
        jump_to = block;
      }
    }
    if (jump_to != 0 && next == jump_from) {
      expected_end = jump_from;
      next = jump_to;
      jump_to = 0;
    }
    VMFS_ASSIGN(SeenRecord seen, look_at(window, identity, next, next >= limits.verify_from));
    const RecordHeader& header = seen.header;
    if (seen.validity == Validity::kValid) {
      // A generation starts where the log ended, which is here or, by a jump, a little before.
      bool starts = is_generation_start(header) && header.generation > walk.generation &&
                    (header.offset == walk.end ||
                     (expected_end != 0 && header.offset == expected_end));
      if (walk.generation != 0 && header.generation != walk.generation && !starts)
        seen.validity = Validity::kStale;
    }
    walk.reason = seen.validity;
    if (seen.validity != Validity::kValid) break;
    std::uint64_t length = header.type == RecordType::kPad ? header.extent
                                                            : record_size(header.payload_size);
    bool seal = header.type == RecordType::kSeal;
    if (seal && next + length != segment_end) {
      walk.reason = Validity::kMisplaced;
      break;
    }
    walk.generation = header.generation;
    walk.claimed_durable = std::max(walk.claimed_durable, header.durable);
    if (visit) {
      ByteView payload;
      if (next >= limits.verify_from && header.payload_size > 0) {
        VMFS_ASSIGN(payload, window.view(geometry.offset(next) + sizeof(RecordHeader),
                                         header.payload_size));
      }
      VMFS_TRY(visit(header, payload));
    }
    next += length;
    walk.end = next;
    expected_end = 0;
    if (seal) {
      walk.sealed = true;
      break;
    }
  }
  return walk;
}

Result<> find_later_records(FileWindow& window, const SegmentIdentity& identity, Lsn from,
                            std::uint32_t generation, LaterRecords& found) {
  constexpr std::size_t kStep = 1u << 20;
  const Geometry& geometry = identity.geometry;
  std::uint64_t offset = std::max<std::uint64_t>((geometry.offset(from) + 7) & ~std::uint64_t{7},
                                                 kBlock);
  while (offset + sizeof(RecordHeader) <= geometry.segment_size) {
    VMFS_ASSIGN(ByteView bytes, window.view(offset, kStep));
    if (bytes.size() < sizeof(RecordHeader)) break;
    std::size_t at = 0;
    for (; at + sizeof(RecordHeader) <= bytes.size(); at += 8) {
      std::uint32_t magic;
      std::memcpy(&magic, bytes.data() + at, sizeof magic);
      if (magic != kRecordMagic) [[likely]] continue;
      RecordHeader header;
      std::memcpy(&header, bytes.data() + at, sizeof header);
      Lsn lsn = geometry.start(identity.number) + offset + at;
      if (check_header(header, identity.incarnation, lsn,
                       geometry.segment_size - offset - at) != Validity::kValid)
        continue;
      found.any = true;
      found.generation_max = std::max(found.generation_max, header.generation);
      if (header.generation >= generation && header.durable > found.claimed_durable) {
        found.claimed_durable = header.durable;
        found.claimed_at = lsn;
      }
    }
    offset += at;
  }
  return {};
}

Result<std::optional<SealTable>> read_seal(File& file, const SegmentIdentity& identity,
                                           Label label) {
  const Geometry& geometry = identity.geometry;
  const std::uint64_t size = geometry.segment_size;
  SealTrailer trailer;
  VMFS_ASSIGN(std::size_t got, file.read({reinterpret_cast<std::byte*>(&trailer), sizeof trailer},
                                         size - sizeof trailer, label));
  // The trailer alone proves nothing: it only says where to look.
  if (got != sizeof trailer || trailer.magic != kSealMagic || trailer.seal_offset < kBlock ||
      trailer.seal_offset % 8 != 0 || trailer.entries > size / sizeof(SealEntry) ||
      trailer.seal_offset + seal_size(trailer.entries) != size)
    return std::nullopt;
  Bytes bytes(static_cast<std::size_t>(size - trailer.seal_offset));
  VMFS_ASSIGN(got, file.read(bytes, trailer.seal_offset, label));
  SealTable table;
  std::memcpy(&table.header, bytes.data(), sizeof table.header);
  if (got != bytes.size() || table.header.type != RecordType::kSeal ||
      check_header(table.header, identity.incarnation,
                   geometry.start(identity.number) + trailer.seal_offset,
                   bytes.size()) != Validity::kValid)
    return std::nullopt;
  ByteView payload = ByteView(bytes).subspan(sizeof(RecordHeader));
  if (payload.size() != table.header.payload_size ||
      hash64(payload) != table.header.payload_hash)
    return std::nullopt;
  table.entries.resize(trailer.entries);
  // An empty table has no bytes to copy to.
  if (trailer.entries != 0)
    std::memcpy(table.entries.data(), payload.data(), trailer.entries * sizeof(SealEntry));
  return table;
}

SealEntry seal_entry(const RecordHeader& header, std::uint32_t offset_in_segment) {
  SealEntry entry;
  entry.offset_in_segment = offset_in_segment;
  entry.payload_size = header.payload_size;
  entry.group = header.group;
  entry.epoch = header.epoch;
  entry.seq = header.seq;
  entry.offset = header.offset;
  entry.extent = header.extent;
  entry.wall_ns = header.wall_ns;
  entry.unique = header.unique;
  entry.type = header.type;
  entry.flags = header.flags;
  return entry;
}

}  // namespace vmfs
