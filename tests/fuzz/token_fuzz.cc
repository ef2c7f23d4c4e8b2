// Any text either is no token, or is one whose content encodes to a text that decodes to the same; so is a token of
// any content that can be encoded. Any 72 bytes either are no LinkHello or one that is judged: accepted only if it is
// of this volume and speaks as this node does.
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "fs/base/check.h"
#include "net/link/handshake.h"
#include "net/link/token.h"

namespace {

using namespace vmfs;

void reads_back(const JoinToken& token) {
  auto text = encode_token(token);
  if (!text) {
    CHECK_INVARIANT(!text.error().message.empty());
    return;
  }
  auto again = decode_token(*text);
  CHECK_INVARIANT(again.has_value(), "{}", again.error().message);
  CHECK_INVARIANT(again->volume == token.volume && again->volume_name == token.volume_name &&
                      again->secret == token.secret && again->address == token.address,
                  "a token changed when encoded again");
}

void hello(ByteView bytes) {
  (void)parse_hello(bytes, LinkRole::kDialer);
  // With a right checksum, or it would go no further.
  LinkHello sealed;
  std::memcpy(&sealed, bytes.data(), sizeof sealed);
  sealed.magic = kLinkHelloMagic;
  seal_hello(sealed);
  auto parsed = parse_hello(std::as_bytes(std::span(&sealed, 1)), LinkRole::kDialer);
  CHECK_COMPARE(parsed.has_value(), ==, sealed.role == LinkRole::kDialer);
  if (!parsed) return;
  LinkCredentials credentials;
  std::memcpy(credentials.volume.data(), sealed.volume, sizeof sealed.volume);
  for (Encryption encryption : {Encryption::kTls, Encryption::kOffOnLoopback}) {
    credentials.encryption = encryption;
    const bool agree = (parsed->tls != 0) == (encryption == Encryption::kTls);
    CHECK_COMPARE(judge_hello(*parsed, credentials) == HelloVerdict::kAccepted, ==,
                  agree && parsed->version == kLinkVersion);
  }
  credentials.volume[0] ^= std::byte{1};
  CHECK_INVARIANT(judge_hello(*parsed, credentials) != HelloVerdict::kAccepted);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (auto token = decode_token(text)) reads_back(*token);
  // A text by chance has no right checksum.
  JoinToken token;
  token.volume_name = text.substr(0, size / 2);
  token.address = text.substr(size / 2);
  std::memcpy(token.secret.data(), data, std::min(size, token.secret.size()));
  reads_back(token);
  token.address = "b:7411";
  reads_back(token);
  if (size >= sizeof(LinkHello)) hello({reinterpret_cast<const std::byte*>(data), sizeof(LinkHello)});
  return 0;
}
