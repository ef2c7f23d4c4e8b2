#include "net/wire/frame.h"

#include <cerrno>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/hash.h"

namespace vmfs {

namespace {
std::uint64_t hash_of(FrameHeader header) {
  header.header_hash = 0;
  return hash64(std::as_bytes(std::span(&header, 1)));
}
}  // namespace

FrameHeader make_frame_header(ByteView body, bool hash_body) {
  CHECK_COMPARE(body.size(), <=, kFrameMax);
  FrameHeader header;
  header.length = static_cast<std::uint32_t>(body.size());
  if (hash_body) {
    header.flags = kFrameBodyHashed;
    header.body_hash = hash64(body);
  }
  header.header_hash = hash_of(header);
  return header;
}

std::string why_invalid(const FrameHeader& header) {
  if (header.magic != kFrameMagic)
    return fmt::format("a frame begins with {:#010x}, not with {:#010x}", header.magic, kFrameMagic);
  if (header.header_hash != hash_of(header)) return "a frame's header fails its checksum";
  if (header.version != kFrameVersion)
    return fmt::format("a frame has version {}; this program knows version {}", header.version,
                       kFrameVersion);
  if ((header.flags & ~kFrameBodyHashed) != 0)
    return fmt::format("a frame has the unknown flags {:#x}", header.flags);
  if (header.reserved != 0) return "a frame's reserved field is not zero";
  if ((header.flags & kFrameBodyHashed) == 0 && header.body_hash != 0)
    return "a frame has a body checksum and no flag for it";
  if (header.length > kFrameMax)
    return fmt::format("a frame of {} bytes is longer than the limit of {}", header.length,
                       kFrameMax);
  return {};
}

FrameDecoder::FrameDecoder(bool require_hash) : require_hash_(require_hash) {}

std::span<std::byte> FrameDecoder::space() {
  if (begin_ == end_) begin_ = end_ = 0;
  // What must fit behind begin_: the frame that has begun, and room for one large read.
  const std::size_t need = std::max(wanted_, end_ - begin_) + kReadMin;
  if (capacity_ < need || capacity_ == 0) {
    const std::size_t capacity = std::max(need, kCapacityMin);
    auto buffer = std::make_unique_for_overwrite<std::byte[]>(capacity);
    if (end_ != begin_) std::memcpy(buffer.get(), buffer_.get() + begin_, end_ - begin_);
    buffer_ = std::move(buffer);
    capacity_ = capacity;
    end_ -= begin_;
    begin_ = 0;
  } else if (begin_ + need > capacity_) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return {buffer_.get() + end_, capacity_ - end_};
}

void FrameDecoder::filled(std::size_t size) {
  CHECK_COMPARE(size, <=, capacity_ - end_);
  end_ += size;
}

Result<std::optional<ByteView>> FrameDecoder::next() {
  if (broken_) return fail(ErrorKind::kProtocol, EPROTO, "the stream was broken before");
  if (end_ - begin_ < sizeof(FrameHeader)) return std::optional<ByteView>{};
  FrameHeader header;
  std::memcpy(&header, buffer_.get() + begin_, sizeof header);
  if (wanted_ == 0) {
    std::string reason = why_invalid(header);
    if (reason.empty() && require_hash_ && (header.flags & kFrameBodyHashed) == 0)
      reason = "a frame's body has no checksum, which a link without TLS demands";
    if (!reason.empty()) {
      broken_ = true;
      return fail(ErrorKind::kProtocol, EPROTO, std::move(reason));
    }
    wanted_ = sizeof header + header.length;
  }
  if (end_ - begin_ < wanted_) return std::optional<ByteView>{};
  ByteView body(buffer_.get() + begin_ + sizeof header, header.length);
  if ((header.flags & kFrameBodyHashed) != 0 && hash64(body) != header.body_hash) {
    broken_ = true;
    return fail(ErrorKind::kProtocol, EPROTO,
                fmt::format("the body of a frame of {} bytes fails its checksum", header.length));
  }
  begin_ += wanted_;
  wanted_ = 0;
  return std::optional<ByteView>{body};
}

}  // namespace vmfs
