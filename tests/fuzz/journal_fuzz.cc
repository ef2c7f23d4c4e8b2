// Whatever a segment's file holds, walking it ends, stays inside it, and yields only records that are
// what they say. Checksums would keep a fuzzer out: they are put right in the places where the input
// has a record's magic number, unless the input says otherwise.
#include <cstdint>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "fs/journal/inspect.h"
#include "fs/journal/segment_scan.h"
#include "tests/fuzz/memory_file.h"

namespace {

using namespace vmfs;
using fuzz::MemoryFile;

constexpr std::uint64_t kSize = 1u << 16;
constexpr std::uint64_t kIncarnation = 77;
constexpr std::uint64_t kNumber = 3;

void put_checksums_right(Bytes& bytes) {
  for (std::size_t at = kBlock; at + sizeof(RecordHeader) <= bytes.size(); at += 8) {
    RecordHeader header;
    std::memcpy(&header, bytes.data() + at, sizeof header);
    if (header.magic != kRecordMagic || header.reserved0 != 0) continue;
    if (header.lsn < 16) header.lsn = kNumber * kSize + at;
    if (header.payload_size <= bytes.size() - at - sizeof header)
      header.payload_hash =
          hash64(ByteView(bytes).subspan(at + sizeof header, header.payload_size));
    header.header_hash = hash_of(header, kIncarnation);
    std::memcpy(bytes.data() + at, &header, sizeof header);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1 || size > kSize - kBlock) return 0;
  // The first byte chooses; among others, whether the bytes end the segment, where a seal would be.
  Bytes bytes(kSize);
  const bool at_end = (data[0] & 1) != 0;
  std::memcpy(bytes.data() + (at_end ? (kSize - (size - 1)) & ~std::uint64_t{7} : kBlock), data + 1,
              std::min<std::size_t>(size - 1, at_end ? (size - 1) & ~std::size_t{7} : size - 1));
  if ((data[0] & 2) == 0) put_checksums_right(bytes);
  SegmentIdentity identity{{kSize}, kNumber, kIncarnation};
  const Geometry& geometry = identity.geometry;
  MemoryFile file(bytes);
  FileWindow window(file, kSize, "fuzz", 4096);
  Lsn last = 0;
  WalkLimits limits;
  limits.generation = data[0] >> 6;
  auto walk = walk_segment(window, identity, limits,
                           [&](const RecordHeader& header, ByteView payload) -> Result<> {
                             CHECK_COMPARE(header.lsn, >, last);
                             CHECK_COMPARE(payload.size(), ==, header.payload_size);
                             CHECK_COMPARE(hash64(payload), ==,
                                           payload.empty() ? hash64({}) : header.payload_hash);
                             last = header.lsn;
                             return {};
                           });
  CHECK_INVARIANT(walk.has_value());
  CHECK_COMPARE(walk->end, >=, geometry.first_record(kNumber));
  CHECK_COMPARE(walk->end, <=, geometry.start(kNumber + 1));
  LaterRecords later;
  if (walk->end < geometry.start(kNumber + 1)) {
    auto found = find_later_records(window, identity, walk->end, walk->generation, later);
    CHECK_INVARIANT(found.has_value());
  }
  auto seal = read_seal(file, identity, "fuzz");
  CHECK_INVARIANT(seal.has_value());

  // The same bytes as a file of their own, header included.
  Bytes loose(reinterpret_cast<const std::byte*>(data),
              reinterpret_cast<const std::byte*>(data) + size);
  SegmentHeader header;
  if ((data[0] & 4) != 0 && loose.size() >= sizeof header) {
    header.size = kSegmentSizeMin;
    header.number = kNumber;
    header.incarnation = kIncarnation;
    header.hash = hash_of(header);
    std::memcpy(loose.data(), &header, sizeof header);
  }
  MemoryFile inspected(std::move(loose));
  const InspectOptions everything{.records = true, .payloads = true};
  CHECK_INVARIANT(inspect_segment(inspected, everything, [](std::string_view) {}).has_value());
  return 0;
}
