// The journal's format on disk. docs/JOURNAL.md explains it; nobody else knows an offset.
//
// A journal is a directory of segments of one size, a power of two of at least 1 MiB:
//
//   journal/<16 hex digits of its number>.seg      a segment of the log, or made ready to become one
//   journal/spare-<16 hex digits>                  written full once, waiting to be made ready
//   journal/sync-failed                            a sync failed: the tail is not to be trusted
//   journal/cut-<date>T<time>/                     what `vmfs recover --until` has cut off
//
// An LSN is a byte position in the endless sequence of segments: number * segment_size + offset.
// A segment holds one SegmentHeader in its first 4 KiB, then records, each aligned to 8 bytes:
//
//   record  := RecordHeader, payload, zeros up to 8
//   sealed  := record*, kPad, kSeal        the kSeal record ends exactly where the segment ends
//
// A record never crosses a segment. A kPad record stands for `extent` bytes, itself included; what
// those bytes hold after its header means nothing. Before a sync begins, a kPad record fills the
// 4 KiB block in which the log ends (and one block more, if its header does not fit in that one), so
// that no flushed sector is ever written again.
//
// A sealed segment ends with one kSeal record, whose payload is the table of the segment's records
// (all but kPad) and a SealTrailer, by which the record is found from the segment's end.
//
// Each recovery begins a new generation: a kPad record with the flag kGenerationStart in the first
// whole block after the log's end, or, if the segment has no room for it, as the first record of the
// next segment. Its `offset` says where the log ended; between there and it, nothing is valid. A
// record whose generation is lower than that of the one before it is not part of the log.
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
inline constexpr std::uint32_t kSealMagic = 0x4c534d56;  // "VMSL"
inline constexpr std::uint32_t kBlock = 4096;
inline constexpr std::uint64_t kSegmentSizeMin = 1u << 20;
// The table's offsets have 32 bits.
inline constexpr std::uint64_t kSegmentSizeMax = 1u << 30;
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
  kPad = 1,   // `extent` bytes without meaning; with kGenerationStart, `offset`: the log's end before
  kSeal = 2,  // payload: SealEntry for each record of the segment, SealTrailer; nothing follows
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
  kOpen = 49,   // an image is changed through a handle for the first time since nobody had it open for that
  kClose = 50,  // the last such handle is closed; missing after a crash, or if ownership had moved
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
  kBatchEnd = 4,  // reserved: the last record of a batch that was merged; what came so far is a state that may be shown
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

// The last bytes of a sealed segment (and of the kSeal record's payload).
struct SealTrailer {
  std::uint64_t seal_offset = 0;  // of the kSeal record in its segment
  std::uint32_t entries = 0;
  std::uint32_t magic = kSealMagic;
};
static_assert(sizeof(SealTrailer) == 16);
static_assert(std::has_unique_object_representations_v<SealTrailer>);

inline constexpr std::uint64_t record_size(std::uint32_t payload_size) {
  return (sizeof(RecordHeader) + std::uint64_t{payload_size} + 7) & ~std::uint64_t{7};
}

// Bytes of a segment's end that a kSeal record with so many lines takes.
inline constexpr std::uint64_t seal_size(std::uint64_t entries) {
  return sizeof(RecordHeader) + entries * sizeof(SealEntry) + sizeof(SealTrailer);
}

// The largest payload that a journal of such segments takes: also a nearly full table must leave
// room for a few of them.
inline constexpr std::uint32_t payload_max(std::uint64_t segment_size) {
  return segment_size / 4 < kPayloadMax ? static_cast<std::uint32_t>(segment_size / 4) : kPayloadMax;
}

// Where an LSN lies, for segments of one size.
struct Geometry {
  std::uint64_t segment_size = 0;
  std::uint64_t number(Lsn lsn) const { return lsn / segment_size; }
  std::uint64_t offset(Lsn lsn) const { return lsn % segment_size; }
  Lsn start(std::uint64_t number) const { return number * segment_size; }
  Lsn first_record(std::uint64_t number) const { return start(number) + kBlock; }
};

inline constexpr Lsn align_to_block(Lsn lsn) { return (lsn + kBlock - 1) & ~Lsn{kBlock - 1}; }

}  // namespace vmfs
