#include "net/wire/records.h"

#include <zstd.h>

#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "net/wire/messages.h"

namespace vmfs {
namespace {

constexpr std::size_t kHeadSize = 4 + 4 + 8 + 8 + 4;

ByteView view_of(const RecordHeader& header) {
  return {reinterpret_cast<const std::byte*>(&header), sizeof header};
}

tl::unexpected<Error> bad(std::string what) {
  return fail(ErrorKind::kProtocol, EPROTO, "records message: " + std::move(what));
}

// nullptr if the header may be a record's on the wire.
const char* why_invalid(const RecordHeader& header) {
  if (header.magic != kRecordMagic) return "a header without the magic";
  if (header.lsn != 0 || header.durable != 0 || header.generation != 0 || header.header_hash != 0)
    return "a header whose local fields are not zero";
  if (header.reserved0 != 0 || header.reserved1 != 0) return "a header whose reserved fields are not zero";
  if (header.payload_size > kPayloadMax) return "a payload that is too long";
  if (header.type < RecordType::kWrite) return "a record that never leaves its node";
  if (header.group == 0) return "a record without a group";
  return nullptr;
}

}  // namespace

void RecordsEncoder::add(RecordHeader header, ByteView payload) {
  CHECK_COMPARE(header.payload_size, ==, payload.size());
  header.lsn = header.durable = 0;
  header.generation = 0;
  header.header_hash = 0;
  headers_hash_ = hash64(view_of(header), headers_hash_);
  Writer(raw_).bytes(view_of(header)).bytes(payload);
  ++count_;
}

Bytes RecordsEncoder::finish(std::uint64_t number, bool sync_now, int level) {
  Bytes frame;
  ByteView body = raw_;
  Bytes packed;
  std::uint8_t flags = sync_now ? kSyncNow : 0;
  if (level != 0 && raw_.size() >= kCompressedLeast) {
    packed.resize(ZSTD_compressBound(raw_.size()));
    std::size_t size = ZSTD_compress(packed.data(), packed.size(), raw_.data(), raw_.size(), level);
    if (!ZSTD_isError(size) && size < raw_.size() - raw_.size() / 16) {
      body = ByteView(packed).first(size);
      flags |= kCompressed;
    }
  }
  frame.reserve(kHeadSize + body.size());
  Writer out(frame);
  out.put(MessageType::kRecords).put(flags).put(std::uint16_t{0}).put(count_).put(number);
  out.put(headers_hash_).put(static_cast<std::uint32_t>(raw_.size())).bytes(body);
  raw_.clear();
  count_ = 0;
  headers_hash_ = 0;
  return frame;
}

Result<RecordsFrame> decode_records(ByteView body) {
  Reader in(body);
  auto type = in.get<MessageType>();
  auto flags = in.get<std::uint8_t>();
  auto reserved = in.get<std::uint16_t>();
  auto count = in.get<std::uint32_t>();
  RecordsFrame frame;
  frame.number = in.get<std::uint64_t>();
  auto headers_hash = in.get<std::uint64_t>();
  auto raw_size = in.get<std::uint32_t>();
  if (!in.ok()) return bad("ends within its head");
  if (type != MessageType::kRecords || reserved != 0 || (flags & ~(kCompressed | kSyncNow)) != 0)
    return bad("impossible head");
  if (raw_size > kFrameMax) return bad(fmt::format("{} bytes of records are too many", raw_size));
  if (count > raw_size / sizeof(RecordHeader)) return bad("more records than bytes");
  frame.sync_now = flags & kSyncNow;
  ByteView content = in.bytes(in.remaining());
  if (flags & kCompressed) {
    if (ZSTD_getFrameContentSize(content.data(), content.size()) != raw_size)
      return bad("the compressed size is not what it says");
    frame.storage.resize(raw_size);
    std::size_t size =
        ZSTD_decompress(frame.storage.data(), frame.storage.size(), content.data(), content.size());
    if (ZSTD_isError(size) || size != raw_size) return bad("does not decompress");
    content = frame.storage;
  } else if (content.size() != raw_size) {
    return bad("its length is not what it says");
  }
  Reader records(content);
  frame.records.reserve(count);
  std::uint64_t hash = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    ReceivedRecord record;
    ByteView header = records.bytes(sizeof(RecordHeader));
    if (!records.ok()) return bad("ends within a header");
    std::memcpy(&record.header, header.data(), sizeof(RecordHeader));
    if (const char* why = why_invalid(record.header)) return bad(why);
    hash = hash64(header, hash);
    record.payload = records.bytes(record.header.payload_size);
    if (!records.ok()) return bad("ends within a payload");
    if (hash64(record.payload) != record.header.payload_hash)
      return bad(fmt::format("payload of group {} seq {} fails its hash",
                             GroupId{record.header.group}, record.header.seq));
    frame.records.push_back(record);
  }
  if (!records.at_end()) return bad("bytes left over");
  if (hash != headers_hash) return bad("the headers fail their hash");
  return frame;
}

}  // namespace vmfs
