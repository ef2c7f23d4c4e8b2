// Walking the records of one segment's file, and looking for records behind its end. Used by recovery,
// by the reader, by rewriting, by `vmfs inspect` and by the fuzzer: it trusts nothing that it reads.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "fs/journal/format.h"
#include "fs/journal/record_check.h"
#include "fs/seam/disk.h"

namespace vmfs {

// A buffer over a file that is read forwards.
class FileWindow {
 public:
  using ReadAt = std::function<Result<std::size_t>(std::span<std::byte>, std::uint64_t offset)>;
  FileWindow(ReadAt read, std::uint64_t file_size, std::size_t chunk = 1u << 20);
  FileWindow(File& file, std::uint64_t file_size, Label label, std::size_t chunk = 1u << 20);
  // Bytes at [offset, offset + size); fewer if the file ends before. Valid until the next call.
  Result<ByteView> view(std::uint64_t offset, std::size_t size);
  // What was read is forgotten.
  void forget() { filled_ = 0; }
  // How much is read at once from here on.
  void set_chunk(std::size_t chunk) { chunk_ = chunk; }

 private:
  ReadAt read_;
  std::uint64_t file_size_;
  std::size_t chunk_;
  Bytes buffer_;
  std::uint64_t at_ = 0;
  std::size_t filled_ = 0;
};

struct SegmentIdentity {
  Geometry geometry;
  std::uint64_t number = 0;
  std::uint64_t incarnation = 0;
};

// A header as it lies in a segment, with what it is worth.
struct SeenRecord {
  RecordHeader header;
  Validity validity = Validity::kNothing;
};
// Looks at the header at `at`; the payload is verified if asked.
Result<SeenRecord> look_at(FileWindow& window, const SegmentIdentity& identity, Lsn at,
                           bool verify_payload);
// A generation begins in the first whole block after the log's end: its record if there is one for
// the block in which `at` lies, of a generation above `above`.
Result<std::optional<RecordHeader>> generation_start_after(FileWindow& window,
                                                           const SegmentIdentity& identity, Lsn at,
                                                           std::uint32_t above);

struct WalkLimits {
  std::uint32_t generation = 0;  // of the record before the first; 0: unknown, any is taken
  Lsn expected_end = 0;          // where the log ended before the first record, if that begins a
                                 // generation
  Lsn verify_from = 0;           // payloads of records at or above are verified
  Lsn stop_at = ~Lsn{0};         // the log is known to end here (another generation begins elsewhere)
};

struct WalkEnd {
  Lsn end = 0;            // first byte after the last valid record
  Validity reason = Validity::kNothing;  // what is there instead of one
  bool sealed = false;    // the segment is complete: the log goes on in the next
  std::uint32_t generation = 0;  // of the last valid record
  Lsn claimed_durable = 0;       // the highest that a valid record claims
};

// The header is valid, so is the payload if it was verified. An error ends the walk.
using RecordVisitor = std::function<Result<>(const RecordHeader& header, ByteView payload)>;

// From the first record on; `visit` sees every valid record, pads and seals included.
Result<WalkEnd> walk_segment(FileWindow& window, const SegmentIdentity& identity,
                             const WalkLimits& limits, const RecordVisitor& visit);

// What stands behind an end of the log: headers that are whole (at any multiple of 8 bytes).
struct LaterRecords {
  bool any = false;
  std::uint32_t generation_max = 0;
  // The highest durable LSN that one of a generation of at least `generation` claims, and where.
  Lsn claimed_durable = 0;
  Lsn claimed_at = 0;
};
Result<> find_later_records(FileWindow& window, const SegmentIdentity& identity, Lsn from,
                            std::uint32_t generation, LaterRecords& found);

// The table of a sealed segment, verified; nothing if there is no valid one.
struct SealTable {
  RecordHeader header;
  std::vector<SealEntry> entries;
};
Result<std::optional<SealTable>> read_seal(File& file, const SegmentIdentity& identity,
                                           Label label);

SealEntry seal_entry(const RecordHeader& header, std::uint32_t offset_in_segment);

}  // namespace vmfs
