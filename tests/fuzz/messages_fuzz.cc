// Any bytes either are no message (then the decoder says so) or mean something that, encoded and
// decoded again, means the same. Checksums would keep a fuzzer out of what records are made of: of bytes
// that say that they are records, a second frame is made in which they are put right, with the counts and
// sizes, unless the input says otherwise; plain or compressed, as it wants.
#include <zstd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "net/wire/messages.h"
#include "net/wire/records.h"

namespace {

using namespace vmfs;

// Layout as in net/wire/records.h.
constexpr std::size_t kFlagsAt = 1, kReservedAt = 2, kCountAt = 4, kHashAt = 16, kRawSizeAt = 24, kHeadSize = 28;
constexpr std::size_t kContentMax = 1u << 16;

// What stays as it came. Chosen by the bytes that are reserved: they would be refused otherwise.
enum Keep : std::uint16_t { kCount = 1, kHeadersHash = 2, kRawSize = 4, kPayloadSizes = 8, kPayloadHashes = 16 };

template <class T>
T get(const Bytes& bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <class T>
void set(Bytes& bytes, std::size_t at, const T& value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// The records of a frame: what is behind its head, unpacked if that is a zstd frame.
Bytes content_of(ByteView frame) {
  const ByteView behind = frame.subspan(kHeadSize);
  if (const auto size = ZSTD_getFrameContentSize(behind.data(), behind.size()); size <= kContentMax) {
    Bytes unpacked(size);
    if (!ZSTD_isError(ZSTD_decompress(unpacked.data(), size, behind.data(), behind.size()))) return unpacked;
  }
  return {behind.begin(), behind.end()};
}

std::size_t next_record(const Bytes& content, std::size_t from) {
  const auto* magic = reinterpret_cast<const std::byte*>(&kRecordMagic);
  return static_cast<std::size_t>(
      std::search(content.begin() + static_cast<std::ptrdiff_t>(from), content.end(), magic, magic + 4) -
      content.begin());
}

// As the wire wants it, but for its sizes and hashes.
bool may_travel(const RecordHeader& header) {
  RecordHeader wire = header;
  wire.magic = kRecordMagic;
  wire.lsn = wire.durable = wire.generation = 0;
  wire.header_hash = wire.reserved0 = wire.reserved1 = 0;
  return std::memcmp(&wire, &header, sizeof wire) == 0 && header.type >= RecordType::kWrite && header.group != 0;
}

struct PutRight {
  Bytes frame;
  bool whole = true;  // nothing is left to object to
};

PutRight put_right(ByteView from) {
  PutRight made;
  made.frame.assign(from.begin(), from.begin() + kHeadSize);
  Bytes content = content_of(from);
  const auto flags = get<std::uint8_t>(made.frame, kFlagsAt);
  const auto keep = get<std::uint16_t>(made.frame, kReservedAt);
  std::uint32_t count = 0;
  std::uint64_t hash = 0;
  std::size_t at = 0;
  for (; content.size() - at >= sizeof(RecordHeader); ++count) {
    auto header = get<RecordHeader>(content, at);
    const std::size_t payload = at + sizeof header;
    if ((keep & kPayloadSizes) == 0)
      header.payload_size = static_cast<std::uint32_t>(next_record(content, payload) - payload);
    if (header.payload_size > content.size() - payload) break;
    if ((keep & kPayloadHashes) == 0)
      header.payload_hash = hash64(ByteView(content).subspan(payload, header.payload_size));
    made.whole = made.whole && may_travel(header);
    set(content, at, header);
    hash = hash64(ByteView(content).subspan(at, sizeof header), hash);
    at = payload + header.payload_size;
  }
  made.whole = made.whole && at == content.size() && keep == 0 && (flags & ~(kCompressed | kSyncNow)) == 0;
  set(made.frame, kReservedAt, std::uint16_t{0});
  if ((keep & kCount) == 0) set(made.frame, kCountAt, count);
  if ((keep & kHeadersHash) == 0) set(made.frame, kHashAt, hash);
  if ((keep & kRawSize) == 0) set(made.frame, kRawSizeAt, static_cast<std::uint32_t>(content.size()));
  if ((flags & kCompressed) != 0) {
    Bytes packed(ZSTD_compressBound(content.size()));
    const std::size_t size = ZSTD_compress(packed.data(), packed.size(), content.data(), content.size(), 1);
    CHECK_INVARIANT(!ZSTD_isError(size));
    packed.resize(size);
    content = std::move(packed);
  }
  made.frame.insert(made.frame.end(), content.begin(), content.end());
  return made;
}

bool same(const ReceivedRecord& a, const ReceivedRecord& b) {
  return std::memcmp(&a.header, &b.header, sizeof a.header) == 0 && std::ranges::equal(a.payload, b.payload);
}

// Whether they are records; if so they are what they say, and come back as they went.
bool records(ByteView body) {
  auto frame = decode_records(body);
  if (!frame) return false;
  for (int level : {0, 1}) {
    RecordsEncoder encoder;
    for (const ReceivedRecord& record : frame->records) {
      CHECK_COMPARE(record.payload.size(), ==, record.header.payload_size);
      CHECK_COMPARE(hash64(record.payload), ==, record.header.payload_hash);
      encoder.add(record.header, record.payload);
    }
    const Bytes again = encoder.finish(frame->number, frame->sync_now, level);
    if (level == 0 && (body[kFlagsAt] & std::byte{kCompressed}) == std::byte{0})
      CHECK_INVARIANT(std::ranges::equal(again, body), "plain records changed when encoded again");
    auto second = decode_records(again);
    CHECK_INVARIANT(second.has_value(), "{}", second.error().message);
    CHECK_INVARIANT(second->number == frame->number && second->sync_now == frame->sync_now);
    CHECK_INVARIANT(std::ranges::equal(second->records, frame->records, same));
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ByteView body{reinterpret_cast<const std::byte*>(data), size};
  if (message_type(body) == MessageType::kRecords) {
    (void)records(body);
    if (size < kHeadSize || size > kContentMax) return 0;
    const PutRight made = put_right(body);
    const bool taken = records(made.frame);
    CHECK_INVARIANT(taken || !made.whole, "records that were put right are refused");
    return 0;
  }
  auto message = decode_message(body);
  if (!message) return 0;
  Bytes first = encode_message(*message);
  auto second = decode_message(first);
  CHECK_INVARIANT(second.has_value());
  CHECK_INVARIANT(encode_message(*second) == first);
  return 0;
}
