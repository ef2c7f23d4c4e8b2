#include "net/link/token.h"

#include <sys/random.h>

#include <cerrno>

#include "fs/base/bytes.h"
#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "net/link/address.h"

namespace vmfs {

namespace {

constexpr std::string_view kAlphabet = "abcdefghijklmnopqrstuvwxyz234567";
constexpr std::uint8_t kTokenVersion = 1;
// Longest token that can be valid, in characters: bounds what decode_token() looks at.
constexpr std::size_t kTokenTextMax = 1200;

std::string to_base32(ByteView bytes) {
  std::string text;
  text.reserve((bytes.size() * 8 + 4) / 5);
  unsigned buffer = 0, bits = 0;
  for (std::byte byte : bytes) {
    buffer = (buffer << 8) | std::to_integer<unsigned>(byte);
    for (bits += 8; bits >= 5; bits -= 5) text += kAlphabet[(buffer >> (bits - 5)) & 31];
    buffer &= (1u << bits) - 1;
  }
  if (bits > 0) text += kAlphabet[(buffer << (5 - bits)) & 31];
  return text;
}

tl::unexpected<Error> wrong(std::string message) {
  return fail(ErrorKind::kInvalid, EINVAL,
              "the token " + std::move(message) +
                  ": print it again with `vmfs token STORE` on the other node and copy the whole line");
}

std::uint32_t checksum(ByteView bytes) { return static_cast<std::uint32_t>(hash64(bytes)); }

void put_short_text(Writer& out, std::string_view text) {
  out.put(static_cast<std::uint8_t>(text.size())).bytes(as_bytes(text));
}

std::string get_short_text(Reader& in) {
  ByteView view = in.bytes(in.get<std::uint8_t>());
  return {reinterpret_cast<const char*>(view.data()), view.size()};
}

bool printable(std::string_view text) {
  for (char c : text)
    if (static_cast<unsigned char>(c) < 32 || c == 127) return false;
  return true;
}

}  // namespace

Secret new_secret() {
  Secret secret;
  // 32 bytes are never interrupted or short once the generator is seeded (getrandom(2)).
  const ssize_t got = ::getrandom(secret.data(), secret.size(), 0);
  CHECK_COMPARE(got, ==, static_cast<ssize_t>(secret.size()));
  return secret;
}

Result<std::string> encode_token(const JoinToken& token) {
  if (token.volume_name.size() > 255 || !printable(token.volume_name))
    return fail(ErrorKind::kInvalid, EINVAL,
                "the volume's name has more than 255 bytes or control characters in it");
  VMFS_TRY(parse_address(token.address));
  Bytes bytes;
  Writer out(bytes);
  out.put(kTokenVersion).put(std::uint16_t{0}).bytes(token.volume).bytes(token.secret);
  put_short_text(out, token.volume_name);
  put_short_text(out, token.address);
  const auto size = static_cast<std::uint16_t>(bytes.size() + 4);
  std::memcpy(bytes.data() + 1, &size, sizeof size);
  out.put(checksum(bytes));
  return std::string(kTokenPrefix) + to_base32(bytes);
}

Result<JoinToken> decode_token(std::string_view text) {
  std::string lower;
  for (char c : text) {
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') continue;
    lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (lower.size() > kTokenTextMax) return wrong("is too long to be one");
  }
  if (lower.empty()) return wrong("is empty");
  if (!lower.starts_with(kTokenPrefix)) {
    if (lower.starts_with("vmfs") && lower.find('-') != std::string::npos)
      return fail(ErrorKind::kRefused, EPROTONOSUPPORT,
                  fmt::format("the token begins with \"{}\" and this program knows only \"{}\": install "
                              "the same version of vmfs on both nodes",
                              lower.substr(0, lower.find('-') + 1), kTokenPrefix));
    return wrong(fmt::format("does not begin with \"{}\"", kTokenPrefix));
  }
  Bytes bytes;
  unsigned buffer = 0, bits = 0;
  for (std::size_t at = kTokenPrefix.size(); at < lower.size(); ++at) {
    const std::size_t value = kAlphabet.find(lower[at]);
    if (value == std::string_view::npos)
      return wrong(fmt::format("has the character '{}' at place {}, which no token has", lower[at],
                               at + 1));
    buffer = (buffer << 5) | static_cast<unsigned>(value);
    if (bits += 5; bits >= 8) {
      bits -= 8;
      bytes.push_back(static_cast<std::byte>(buffer >> bits));
    }
    buffer &= (1u << bits) - 1;
  }
  Reader in(bytes);
  const auto version = in.get<std::uint8_t>();
  const auto size = in.get<std::uint16_t>();
  if (!in.ok()) return wrong("is truncated");
  if (bytes.size() < size)
    return wrong(fmt::format("is truncated ({} of {} bytes)", bytes.size(), size));
  if (bytes.size() > size)
    return wrong(fmt::format("is mistyped or has something appended ({} bytes instead of {})",
                             bytes.size(), size));
  JoinToken token;
  if (ByteView view = in.bytes(token.volume.size()); in.ok())
    std::memcpy(token.volume.data(), view.data(), view.size());
  if (ByteView view = in.bytes(token.secret.size()); in.ok())
    std::memcpy(token.secret.data(), view.data(), view.size());
  token.volume_name = get_short_text(in);
  token.address = get_short_text(in);
  const std::size_t covered = bytes.size() - in.remaining();
  const auto sum = in.get<std::uint32_t>();
  if (!in.at_end() || sum != checksum(ByteView(bytes).first(covered)))
    return wrong("is mistyped (its checksum does not match)");
  if (version != kTokenVersion)
    return fail(ErrorKind::kRefused, EPROTONOSUPPORT,
                fmt::format("the token has version {} and this program knows only version {}: install "
                            "the same version of vmfs on both nodes",
                            version, kTokenVersion));
  if (!printable(token.volume_name)) return wrong("names a volume with control characters");
  VMFS_TRY(parse_address(token.address));
  return token;
}

}  // namespace vmfs
