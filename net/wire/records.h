// The message that carries records. A record's header and payload are the bytes on disk, the header's
// local fields (lsn, durable, generation, header_hash) zero:
//
//   records := u8 type, u8 flags, u16 reserved (0), u32 count, u64 number, u64 headers_hash,
//              u32 raw_size, body
//   body    := (RecordHeader, payload) * count        raw_size bytes, or with kCompressed one zstd
//                                                     frame of them
//
// headers_hash chains hash64 over the headers: with each payload's own hash nothing in a frame is
// taken unchecked, also without TLS.
#pragma once

#include <vector>

#include "fs/base/bytes.h"
#include "fs/base/result.h"
#include "fs/journal/format.h"
#include "fs/volume/volume.h"
#include "net/seam/link.h"

namespace vmfs {

enum RecordsFlags : std::uint8_t {
  kCompressed = 1,
  kSyncNow = 2,  // somebody waits for these to be durable
};

// Records gather in a frame until it holds about this much: large enough that frames and zstd work
// well, small enough that a flush does not queue long behind one.
inline constexpr std::size_t kRecordsFrameBytes = 512u << 10;
// One record more than that still fits a frame.
static_assert(kRecordsFrameBytes + kPayloadMax + 2 * sizeof(RecordHeader) + 4096 < kFrameMax);

// Gathers records into one frame.
class RecordsEncoder {
 public:
  static constexpr std::size_t kCompressedLeast = 512;  // bytes; of less there is nothing to gain

  void add(RecordHeader header, ByteView payload);
  std::size_t raw_bytes() const { return raw_.size(); }
  std::uint32_t count() const { return count_; }
  // The frame, and empties this. level: zstd, or 0 for none; compressed only if it is not small and that
  // saves at least a sixteenth. `number`: counts the frames of a connection, from 1; acknowledgements name it.
  Bytes finish(std::uint64_t number, bool sync_now, int level);

 private:
  Bytes raw_;
  std::uint32_t count_ = 0;
  std::uint64_t headers_hash_ = 0;
};

struct RecordsFrame {
  std::uint64_t number = 0;
  bool sync_now = false;
  std::vector<ReceivedRecord> records;  // payloads point into `storage` or into the frame's body
  Bytes storage;
};

// Verifies headers and payloads. kProtocol with the reason.
Result<RecordsFrame> decode_records(ByteView body);

}  // namespace vmfs
