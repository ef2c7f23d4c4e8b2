// A segment's first and last bytes: its header and its table. A header is valid if and only if it is whole and what
// is expected; a table that was written is read back, one that was damaged anywhere is none, and what is read of
// any other bytes is what a right checksum stands for. `inspect` prints a file with any header.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "fs/journal/inspect.h"
#include "fs/journal/segment.h"
#include "fs/journal/segment_scan.h"
#include "tests/fuzz/memory_file.h"

namespace {

using namespace vmfs;
using fuzz::MemoryFile;

constexpr std::uint64_t kSize = 1u << 16;
constexpr std::uint64_t kNumber = 3;
constexpr std::uint64_t kIncarnation = 77;

bool same(const std::vector<SealEntry>& entries, ByteView bytes) {
  return entries.size() * sizeof(SealEntry) == bytes.size() &&
         (bytes.empty() || std::memcmp(entries.data(), bytes.data(), bytes.size()) == 0);
}

// A segment that ends with a table of these entries; `trailer` and `header` are put right where they are zero.
Bytes sealed(ByteView entries, SealTrailer trailer, RecordHeader header) {
  const std::uint64_t count = entries.size() / sizeof(SealEntry);
  const std::uint64_t at = kSize - seal_size(count);
  if (trailer.seal_offset == 0) trailer.seal_offset = at;
  if (trailer.entries == 0) trailer.entries = static_cast<std::uint32_t>(count);
  Bytes payload(entries.begin(), entries.end());
  payload.resize(payload.size() + sizeof trailer);
  std::memcpy(payload.data() + entries.size(), &trailer, sizeof trailer);
  if (header.type == RecordType::kNone) header.type = RecordType::kSeal;
  if (header.lsn == 0) header.lsn = kNumber * kSize + at;
  if (header.payload_size == 0) header.payload_size = static_cast<std::uint32_t>(payload.size());
  header.payload_hash = hash64(payload);
  header.header_hash = hash_of(header, kIncarnation);
  Bytes segment(kSize);
  std::memcpy(segment.data() + at, &header, sizeof header);
  std::memcpy(segment.data() + at + sizeof header, payload.data(), payload.size());
  return segment;
}

std::optional<SealTable> read(const Bytes& segment) {
  MemoryFile file(segment);
  auto table = read_seal(file, {{kSize}, kNumber, kIncarnation}, "fuzz");
  CHECK_INVARIANT(table.has_value(), "{}", table.error().message);
  return *table;
}

void tables(Reader& in) {
  const auto place = in.get<std::uint16_t>();
  const auto flip = in.get<std::uint8_t>();
  SealTrailer trailer;
  trailer.seal_offset = in.get<std::uint64_t>();
  trailer.entries = in.get<std::uint32_t>();
  RecordHeader header;
  header.type = in.get<RecordType>();
  header.lsn = in.get<std::uint64_t>();
  header.payload_size = in.get<std::uint32_t>();
  const ByteView entries = in.bytes(in.remaining() / sizeof(SealEntry) * sizeof(SealEntry));
  Bytes right = sealed(entries, {}, {});
  auto table = read(right);
  CHECK_INVARIANT(table && same(table->entries, entries), "a table of {} bytes is not read back", entries.size());
  // One damaged byte: every one of them is covered.
  const std::size_t length = seal_size(entries.size() / sizeof(SealEntry));
  const std::size_t at = kSize - length + place % length;
  if (flip != 0) {
    right[at] ^= std::byte{flip};
    CHECK_INVARIANT(!read(right), "a table with byte {} damaged was taken", at);
  }
  // Whole by its checksums, whatever it says of itself.
  if (auto odd = read(sealed(entries, trailer, header))) CHECK_INVARIANT(same(odd->entries, entries));
}

void headers(ByteView bytes) {
  if (bytes.size() < sizeof(SegmentHeader)) return;
  SegmentHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.magic = kSegmentMagic;
  header.version = kJournalVersion;
  header.hash = hash_of(header);
  HeaderExpectation expected{{}, NodeId{header.node}, header.size, header.number};
  std::memcpy(expected.volume.data(), header.volume, sizeof header.volume);
  CHECK_INVARIANT(check_segment_header(header, expected) == HeaderValidity::kValid);
  HeaderExpectation other = expected;
  other.number += 1;
  CHECK_INVARIANT(check_segment_header(header, other) == HeaderValidity::kOtherNumber);
  SegmentHeader damaged = header;
  damaged.incarnation ^= 1u << (raw(expected.node) % 32);
  CHECK_INVARIANT(check_segment_header(damaged, expected) == HeaderValidity::kDamaged);
  // The file begins with it.
  Bytes file(bytes.begin(), bytes.end());
  std::memcpy(file.data(), &header, sizeof header);
  file.resize(std::max<std::size_t>(file.size(), 2 * kBlock));
  MemoryFile inspected(std::move(file));
  std::size_t lines = 0;
  CHECK_INVARIANT(inspect_segment(inspected, {.records = true, .payloads = true}, [&](auto) { ++lines; }).has_value());
  CHECK_COMPARE(lines, >, 0u);
}

void names(ByteView bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (auto number = parse_segment_name(text)) CHECK_INVARIANT(segment_name(*number) == text, "{}", text);
  if (is_spare_name(text)) CHECK_INVARIANT(!parse_segment_name(text), "{}", text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView bytes{reinterpret_cast<const std::byte*>(data), size};
  Reader in(bytes);
  tables(in);
  headers(bytes);
  names(bytes);
  return 0;
}
