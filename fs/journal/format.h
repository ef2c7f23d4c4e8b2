// The journal's format on disk. docs/JOURNAL.md explains it; nobody else knows an offset.
//
// A journal is a directory of segments of one size, a power of two of at least 1 MiB:
//
//   journal/<16 hex digits of its number>.seg
//
// An LSN is a byte position in the endless sequence of segments: number * segment_size + offset.
// A segment holds one SegmentHeader in its first 4 KiB, then records, each aligned to 8 bytes:
//
//   record := RecordHeader, payload, zeros up to 8
//
// A record never crosses a segment. Once a sync has begun, the next record starts at a new 4 KiB
// block, the gap filled by a kPad record (or, if no header fits... a gap below one header cannot
// occur: pads are then extended by a block), so that no flushed sector is ever written again. A
// sealed segment ends with one kSeal record whose payload is the table of the segment's records.
//
// Little-endian throughout. Version 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "fs/base/ids.h"

namespace vmfs {

inline constexpr std::uint32_t kSegmentMagic = 0x53464d56;  // "VMFS"
inline constexpr std::uint32_t kRecordMagic = 0x524d4656;   // "VFMR"
inline constexpr std::uint32_t kJournalVersion = 1;
inline constexpr std::uint32_t kBlock = 4096;
// FUSE's largest write (256 pages); longer changes are split. Also the limit checked before a payload
// is allocated.
inline constexpr std::uint32_t kPayloadMax = 1u << 20;

// The first block of a segment; the rest of the block is zero.
struct SegmentHeader {
  std::uint32_t magic = kSegmentMagic;
  std::uint32_t version = kJournalVersion;
  std::byte volume[16] = {};
  std::uint64_t node = 0;
  std::uint64_t number = 0;       // this segment's place in the journal
  std::uint64_t size = 0;         // bytes, header included; the same for all segments
  std::uint64_t incarnation = 0;  // random for each use of the file; seeds its records' checksums
  std::uint64_t hash = 0;         // of this struct with hash = 0
};
static_assert(sizeof(SegmentHeader) == 64);
static_assert(std::has_unique_object_representations_v<SegmentHeader>);

enum class RecordType : std::uint8_t {
  kNone = 0,
  // The journal's own: group 0, seq 0; never leave the node.
  kPad = 1,   // nothing, up to the next record
  kSeal = 2,  // payload: SealEntry for each record of the segment; nothing follows in it
  // Data of an image (group = its object).
  kWrite = 16,     // payload at [offset, offset + extent)
  kZero = 17,      // [offset, offset + extent) reads as zeros; flag kKeepAllocated: blocks stay
  kTruncate = 18,  // size becomes `offset`; `extent` is the size before
  kAllocate = 19,  // reserve blocks for the range; flag kKeepSize
  kSetAttributes = 20,  // payload: AttributeChange (fs/journal/changes.h)
  // Name space (group = kNameSpace); payload: the struct of that name in fs/journal/changes.h.
  kCreate = 32,
  kLink = 33,  // reserved
  kUnlink = 34,
  kRename = 35,
  kDeleteObject = 36,
  // Moments.
  kFlush = 48,  // payload: PeerConfirmations
  kOpen = 49,   // an open that may write
  kClose = 50,
  // Ownership.
  kEpoch = 64,     // a new epoch begins; payload: EpochChange
  kReleased = 65,  // payload: Release; nothing follows by this owner
  kTaken = 66,     // as kEpoch, by the taker
  // A copy of a group's content, for a node that cannot be brought up to date from a journal. They
  // carry the position of the group that the source had when it read, and do not advance it.
  kBaseBegin = 80,
  kBaseData = 81,  // payload at [offset, offset + extent)
  kBaseEnd = 82,
  // Reserved.
  kSnapshot = 96,
  kMark = 97,
};

enum RecordFlags : std::uint16_t {
  kKeepAllocated = 1,
  kKeepSize = 2,
  kBatchEnd = 4,  // the last record of a batch: what came so far is a state that may be shown
  kGenerationStart = 8,  // kPad: first record after a recovery
};

// What goes before each payload, on disk and (with the local fields zero) on the wire.
struct RecordHeader {
  std::uint32_t magic = kRecordMagic;
  RecordType type = RecordType::kNone;
  std::uint8_t reserved0 = 0;
  std::uint16_t flags = 0;
  // Local to this journal.
  Lsn lsn = 0;                   // where this record starts
  Lsn durable = 0;               // known durable when this was reserved
  std::uint32_t generation = 0;  // counts the journal's recoveries; never falls along the log
  // The change itself.
  std::uint32_t payload_size = 0;
  std::uint64_t group = 0;
  std::uint64_t epoch = 0;
  std::uint64_t seq = 0;
  std::int64_t wall_ns = 0;
  std::uint64_t offset = 0;
  std::uint64_t extent = 0;
  std::uint64_t connection = 0;  // with unique: the FUSE request that this answers, or 0
  std::uint64_t unique = 0;
  std::uint64_t payload_hash = 0;  // hash64(payload)
  std::uint64_t reserved1 = 0;
  // hash64 of this struct with header_hash = 0, seeded with the segment's incarnation.
  std::uint64_t header_hash = 0;
};
static_assert(sizeof(RecordHeader) == 120);
static_assert(offsetof(RecordHeader, group) == 32);
static_assert(offsetof(RecordHeader, header_hash) == 112);
static_assert(std::is_trivially_copyable_v<RecordHeader>);
static_assert(std::has_unique_object_representations_v<RecordHeader>);

// One line of a sealed segment's table: enough to rebuild the not-yet-applied index and the groups'
// positions without reading payloads.
struct SealEntry {
  std::uint32_t offset_in_segment = 0;
  std::uint32_t payload_size = 0;
  std::uint64_t group = 0;
  std::uint64_t epoch = 0;
  std::uint64_t seq = 0;
  std::uint64_t offset = 0;
  std::uint64_t extent = 0;
  std::int64_t wall_ns = 0;
  std::uint64_t unique = 0;
  RecordType type = RecordType::kNone;
  std::uint8_t reserved = 0;
  std::uint16_t flags = 0;
  std::uint32_t reserved2 = 0;
};
static_assert(sizeof(SealEntry) == 72);
static_assert(std::has_unique_object_representations_v<SealEntry>);

inline constexpr std::uint64_t record_size(std::uint32_t payload_size) {
  return (sizeof(RecordHeader) + payload_size + 7) & ~std::uint64_t{7};
}

}  // namespace vmfs
