// Any stream of bytes, however it is cut into reads, yields frames or an error, and the same ones.
#include <cstdint>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "net/wire/frame.h"

namespace {

struct Outcome {
  std::uint64_t frames = 0, hash = 0;
  bool broken = false;
};

Outcome run(vmfs::ByteView bytes, std::size_t step, bool require_hash) {
  vmfs::FrameDecoder decoder(require_hash);
  Outcome outcome;
  while (!bytes.empty()) {
    auto space = decoder.space();
    CHECK_COMPARE(space.size(), >=, vmfs::FrameDecoder::kReadMin);
    const std::size_t size = std::min({step, bytes.size(), space.size()});
    std::memcpy(space.data(), bytes.data(), size);
    decoder.filled(size);
    bytes = bytes.subspan(size);
    for (;;) {
      auto frame = decoder.next();
      if (!frame) {
        outcome.broken = true;
        return outcome;
      }
      if (!*frame) break;
      ++outcome.frames;
      outcome.hash = vmfs::hash64(**frame, outcome.hash);
    }
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  vmfs::Bytes stream(bytes + 2, bytes + size);
  const bool mend = (data[0] & 1) != 0, require_hash = (data[0] & 2) != 0;
  // Half of the inputs get right header checksums, or nothing beyond them would ever be reached.
  if (mend) {
    for (std::size_t at = 0; at + sizeof(vmfs::FrameHeader) <= stream.size();) {
      vmfs::FrameHeader header;
      std::memcpy(&header, stream.data() + at, sizeof header);
      header.magic = vmfs::kFrameMagic;
      header.version = vmfs::kFrameVersion;
      header.header_hash = 0;
      header.header_hash = vmfs::hash64(std::as_bytes(std::span(&header, 1)));
      std::memcpy(stream.data() + at, &header, sizeof header);
      at += sizeof header + header.length % 256;
    }
  }
  const Outcome whole = run(stream, SIZE_MAX, require_hash);
  const Outcome cut = run(stream, data[1] % 64 + 1, require_hash);
  CHECK_COMPARE(whole.frames, ==, cut.frames);
  CHECK_COMPARE(whole.hash, ==, cut.hash);
  CHECK_COMPARE(whole.broken, ==, cut.broken);
  return 0;
}
