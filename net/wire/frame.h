// How a byte stream between two nodes is cut into frames: a fixed header, then the body.
//
//   frame := FrameHeader, body (`length` bytes)
//
// The header is checked before anything is allocated for the body: magic, version, reserved fields,
// limit, and a checksum of its own, so that no damaged or foreign byte is taken for a length. Over a
// link without encryption the body carries a checksum too; inside TLS the cipher vouches for it.
//
// Little-endian. Version 1. The decoder is pure: bytes in, frames out, no sockets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>

#include "fs/base/bytes.h"
#include "fs/base/result.h"
#include "net/seam/link.h"

namespace vmfs {

inline constexpr std::uint32_t kFrameMagic = 0x464e4656;  // "VFNF"
inline constexpr std::uint16_t kFrameVersion = 1;

enum FrameFlags : std::uint16_t {
  kFrameBodyHashed = 1,  // body_hash is hash64 of the body; else it is 0
};

struct FrameHeader {
  std::uint32_t magic = kFrameMagic;
  std::uint16_t version = kFrameVersion;
  std::uint16_t flags = 0;
  std::uint32_t length = 0;  // of the body; at most kFrameMax
  std::uint32_t reserved = 0;
  std::uint64_t body_hash = 0;
  std::uint64_t header_hash = 0;  // hash64 of this struct with header_hash = 0
};
static_assert(sizeof(FrameHeader) == 32);
static_assert(offsetof(FrameHeader, length) == 8);
static_assert(offsetof(FrameHeader, body_hash) == 16);
static_assert(offsetof(FrameHeader, header_hash) == 24);
static_assert(std::has_unique_object_representations_v<FrameHeader>);

// The header for this body, which must not be longer than kFrameMax.
FrameHeader make_frame_header(ByteView body, bool hash_body);

// Empty if the header is one that this version may receive; else the reason, for a person.
std::string why_invalid(const FrameHeader& header);

// Cuts a stream into frames. Usage: read into space(), tell filled(), take frames with next() until it
// has none. Bodies are handed out where they were received, without a copy.
class FrameDecoder {
 public:
  // require_hash: a frame whose body carries no checksum is an error.
  explicit FrameDecoder(bool require_hash);

  // Where to read the next bytes; at least kReadMin of them. Invalidates views from next(). Memory
  // grows only for a frame whose header has been checked.
  std::span<std::byte> space();
  // `size` bytes have been put at the start of the last space().
  void filled(std::size_t size);
  // The next whole frame's body; nothing: more bytes are needed. kProtocol: this is no valid stream,
  // and stays so.
  Result<std::optional<ByteView>> next();
  // Bytes of a frame that is not complete: not zero at the stream's end means that it was cut.
  std::size_t pending() const { return end_ - begin_; }

  static constexpr std::size_t kReadMin = 64u << 10;
  // Room to read many small frames at once.
  static constexpr std::size_t kCapacityMin = 256u << 10;

 private:
  bool require_hash_;
  bool broken_ = false;
  std::size_t wanted_ = 0;  // whole size of the frame at begin_, once its header was checked
  std::size_t begin_ = 0, end_ = 0;
  std::size_t capacity_ = 0;
  std::unique_ptr<std::byte[]> buffer_;
};

}  // namespace vmfs
