// A state file with any body behind a right checksum: decoded or refused, never more than that; what
// was decoded encodes to the same bytes.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "fs/store/inspect.h"
#include "fs/store/state.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmfs::ByteView input{reinterpret_cast<const std::byte*>(data), size};
  (void)vmfs::decode_state(input, "input");

  // The header that belongs to that body: layout as in fs/store/state.cc.
  constexpr std::size_t kHeader = 48, kBodySize = 32, kHash = 40;
  vmfs::Bytes file = vmfs::encode_state({});
  file.resize(kHeader);
  std::uint64_t body_size = size, hash = 0;
  std::memcpy(file.data() + kBodySize, &body_size, sizeof body_size);
  std::memcpy(file.data() + kHash, &hash, sizeof hash);
  hash = vmfs::hash64(input, vmfs::hash64(file));
  std::memcpy(file.data() + kHash, &hash, sizeof hash);
  file.insert(file.end(), input.begin(), input.end());
  if (auto state = vmfs::decode_state(file, "input")) {
    vmfs::Bytes again = vmfs::encode_state(*state);
    CHECK_INVARIANT(again == file, "decoding and encoding {} bytes gave others", file.size());
    CHECK_INVARIANT(vmfs::inspect_state(file, "input").has_value(), "inspect refused it");
  }
  return 0;
}
