#include "net/wire/frame.h"

#include <doctest/doctest.h>

#include <cstring>

#include "fs/base/hash.h"

using namespace vmfs;

namespace {

Bytes body_of(std::size_t size, unsigned seed) {
  Bytes body(size);
  for (std::size_t i = 0; i < size; ++i)
    body[i] = static_cast<std::byte>((i * 131 + seed * 7919) >> 3);
  return body;
}

Bytes framed(ByteView body, bool hash = true) {
  const FrameHeader header = make_frame_header(body, hash);
  Bytes bytes;
  Writer(bytes).bytes(std::as_bytes(std::span(&header, 1))).bytes(body);
  return bytes;
}

// Feeds the bytes in pieces of at most `step` and returns the frames; stops at an error.
struct Decoded {
  std::vector<Bytes> frames;
  std::string error;
  std::size_t pending = 0;
};
Decoded decode_all(ByteView bytes, std::size_t step, bool require_hash = true) {
  FrameDecoder decoder(require_hash);
  Decoded result;
  while (!bytes.empty()) {
    auto space = decoder.space();
    REQUIRE(space.size() >= FrameDecoder::kReadMin);
    const std::size_t size = std::min({step, bytes.size(), space.size()});
    std::memcpy(space.data(), bytes.data(), size);
    decoder.filled(size);
    bytes = bytes.subspan(size);
    for (;;) {
      auto frame = decoder.next();
      if (!frame) {
        result.error = frame.error().message;
        CHECK(!decoder.next());  // broken stays broken
        return result;
      }
      if (!*frame) break;
      result.frames.emplace_back((*frame)->begin(), (*frame)->end());
    }
  }
  result.pending = decoder.pending();
  return result;
}

// A header changed by `change`, its checksum made right again.
template <class Change>
std::string error_for(Change change) {
  Bytes bytes = framed(body_of(16, 1));
  FrameHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  change(header);
  header.header_hash = 0;
  header.header_hash = hash64(std::as_bytes(std::span(&header, 1)));
  std::memcpy(bytes.data(), &header, sizeof header);
  return decode_all(bytes, 1000).error;
}

}  // namespace

TEST_SUITE("frame") {
  TEST_CASE("frames of all sizes come out as they went in, however the stream is cut") {
    std::vector<Bytes> bodies;
    for (std::size_t size : {0, 1, 31, 32, 4096, 70'000, 1 << 20, 5, static_cast<int>(kFrameMax), 9})
      bodies.push_back(body_of(size, static_cast<unsigned>(bodies.size())));
    Bytes stream;
    for (const Bytes& body : bodies) Writer(stream).bytes(framed(body, body.size() % 2 == 0));
    for (std::size_t step : {999, 65'536, 300'000, 16 << 20}) {
      Decoded decoded = decode_all(stream, step, /*require_hash=*/false);
      CHECK(decoded.error == "");
      CHECK(decoded.pending == 0);
      CHECK(decoded.frames == bodies);
    }
    Bytes small = framed(body_of(40, 3));
    CHECK(decode_all(small, 1).frames == std::vector<Bytes>(1, body_of(40, 3)));
  }

  TEST_CASE("a cut stream is known by what is pending") {
    Bytes bytes = framed(body_of(100, 1));
    bytes.resize(bytes.size() - 1);
    CHECK(decode_all(bytes, 1000).pending == bytes.size());
    bytes.resize(5);
    CHECK(decode_all(bytes, 1000).pending == 5);
  }

  TEST_CASE("each wrong field of a header has its reason") {
    CHECK(error_for([](FrameHeader& h) { h.magic = 0x20544547; }).find("begins with") == 8);
    CHECK(error_for([](FrameHeader& h) { h.version = 2; }).find("version 2") != std::string::npos);
    CHECK(error_for([](FrameHeader& h) { h.flags = 0x81; }).find("flags 0x81") != std::string::npos);
    CHECK(error_for([](FrameHeader& h) { h.reserved = 1; }).find("reserved") != std::string::npos);
    CHECK(error_for([](FrameHeader& h) { h.flags = 0; }).find("no flag") != std::string::npos);
    CHECK(error_for([](FrameHeader& h) { h.flags = 0, h.body_hash = 0; }).find("no checksum") !=
          std::string::npos);
    CHECK(error_for([](FrameHeader& h) { h.body_hash ^= 1; }).find("fails its checksum") !=
          std::string::npos);
    CHECK(error_for([](FrameHeader& h) { h.length = kFrameMax + 1; }).find("longer than the limit") !=
          std::string::npos);
    CHECK(error_for([](FrameHeader& h) { h.length = 0xffffffff; }).find("longer than the limit") !=
          std::string::npos);
    CHECK(error_for([](FrameHeader&) {}) == "");
  }

  TEST_CASE("any flipped bit of a frame is noticed") {
    const Bytes good = framed(body_of(24, 5));
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
      Bytes bad = good;
      bad[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
      Decoded decoded = decode_all(bad, 1000);
      INFO("bit ", bit);
      CHECK(decoded.error != "");
      CHECK(decoded.frames.empty());
    }
  }

  TEST_CASE("a header is golden") {
    const FrameHeader header = make_frame_header(as_bytes("vmfs"), true);
    std::string hex;
    for (std::byte b : std::as_bytes(std::span(&header, 1)))
      hex += fmt::format("{:02x}", static_cast<unsigned>(b));
    CHECK(hex == "56464e460100010004000000000000003346086d2a53c56cee059c4bb7685d4a");
  }
}
