// Any text either is no token, or is one whose content encodes to a text that decodes to the same; any
// 72 bytes either are no LinkHello or one that is judged.
#include <cstdint>
#include <string_view>

#include "fs/base/check.h"
#include "net/link/handshake.h"
#include "net/link/token.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (auto token = vmfs::decode_token(text)) {
    auto again = vmfs::decode_token(*vmfs::encode_token(*token));
    CHECK_INVARIANT(again && again->secret == token->secret && again->address == token->address,
                    "a token changed when encoded again");
  }
  if (size >= sizeof(vmfs::LinkHello)) {
    const vmfs::ByteView bytes(reinterpret_cast<const std::byte*>(data), sizeof(vmfs::LinkHello));
    if (auto hello = vmfs::parse_hello(bytes, vmfs::LinkRole::kDialer))
      vmfs::judge_hello(*hello, vmfs::LinkCredentials{});
  }
  return 0;
}
