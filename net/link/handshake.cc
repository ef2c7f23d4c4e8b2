#include "net/link/handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <cerrno>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/hash.h"

namespace vmfs {

namespace {

std::array<std::byte, 32> hmac_sha256(ByteView key, ByteView message) {
  std::array<std::byte, 32> code{};
  unsigned size = 0;
  const unsigned char* made =
      ::HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
             reinterpret_cast<const unsigned char*>(message.data()), message.size(),
             reinterpret_cast<unsigned char*>(code.data()), &size);
  CHECK_INVARIANT(made != nullptr && size == code.size(), "HMAC-SHA256 is not available");
  return code;
}

std::uint64_t hash_of(LinkHello hello) {
  hello.hash = 0;
  return hash64(std::as_bytes(std::span(&hello, 1)));
}

template <class Struct>
ByteView view_of(const Struct& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

LinkHello make_hello(LinkRole role, const LinkCredentials& credentials) {
  LinkHello hello;
  hello.role = role;
  hello.tls = credentials.encryption == Encryption::kTls ? 1 : 0;
  std::memcpy(hello.volume, credentials.volume.data(), sizeof hello.volume);
  const ssize_t got = ::getrandom(hello.nonce, sizeof hello.nonce, 0);
  CHECK_COMPARE(got, ==, static_cast<ssize_t>(sizeof hello.nonce));
  seal_hello(hello);
  return hello;
}

void seal_hello(LinkHello& hello) { hello.hash = hash_of(hello); }

HelloVerdict judge_hello(const LinkHello& dialer, const LinkCredentials& credentials) {
  if (dialer.version != kLinkVersion) return HelloVerdict::kWrongVersion;
  if (std::memcmp(dialer.volume, credentials.volume.data(), sizeof dialer.volume) != 0)
    return HelloVerdict::kWrongVolume;
  const bool tls = credentials.encryption == Encryption::kTls;
  if (tls && dialer.tls == 0) return HelloVerdict::kWantsTls;
  if (!tls && dialer.tls != 0) return HelloVerdict::kWantsClear;
  return HelloVerdict::kAccepted;
}

Result<LinkHello> parse_hello(ByteView bytes, LinkRole expected) {
  LinkHello hello;
  CHECK_COMPARE(bytes.size(), ==, sizeof hello);
  std::memcpy(&hello, bytes.data(), sizeof hello);
  if (hello.magic != kLinkHelloMagic)
    return fail(ErrorKind::kProtocol, EPROTO, "the other end does not speak vmfs's protocol");
  if (hello.hash != hash_of(hello))
    return fail(ErrorKind::kProtocol, EPROTO, "the first message fails its checksum");
  if (hello.role != expected)
    return fail(ErrorKind::kProtocol, EPROTO, "the first message has the wrong direction");
  return hello;
}

Error refusal(HelloVerdict verdict, const std::string& remote, const LinkCredentials& credentials) {
  std::string why;
  switch (verdict) {
    case HelloVerdict::kWrongVersion:
      why = fmt::format("wrong version (this program speaks version {} of the link's protocol): "
                        "install the same version of vmfs on both nodes",
                        kLinkVersion);
      break;
    case HelloVerdict::kWrongVolume:
      why = fmt::format("wrong volume (here {}): check the peer's address, or join with its token",
                        to_string(credentials.volume));
      break;
    case HelloVerdict::kWantsTls:
    case HelloVerdict::kWantsClear:
      why = "one side has tls = off and the other has not: set the same on both nodes";
      break;
    case HelloVerdict::kClearNotAllowed:
      why = "tls = off is allowed only between loopback addresses: switch TLS on, or force it off on "
            "both nodes";
      break;
    case HelloVerdict::kWrongSecret:
      why = "wrong secret: join again with a token that `vmfs token` prints on the other node";
      break;
    case HelloVerdict::kAccepted:
    default:
      why = fmt::format("unknown reason {}", static_cast<int>(verdict));
  }
  return Error{ErrorKind::kRefused, EACCES, fmt::format("{}: refused: {}", remote, why)};
}

std::array<std::byte, 32> derive_key(const Secret& secret, std::string_view purpose) {
  return hmac_sha256(secret, as_bytes(purpose));
}

Proof make_proof(LinkRole prover, const LinkHello& dialer, const LinkHello& listener, ByteView exporter,
                 const Secret& secret) {
  Bytes message;
  Writer out(message);
  out.text(prover == LinkRole::kDialer ? "vmfs link 1 dialer" : "vmfs link 1 listener");
  out.bytes(view_of(dialer)).bytes(view_of(listener)).bytes(exporter);
  const auto code = hmac_sha256(derive_key(secret, "vmfs link 1 proof"), message);
  Proof proof;
  std::memcpy(proof.code, code.data(), code.size());
  return proof;
}

bool proof_is_right(const Proof& proof, LinkRole prover, const LinkHello& dialer, const LinkHello& listener,
                    ByteView exporter, const Secret& secret) {
  const Proof right = make_proof(prover, dialer, listener, exporter, secret);
  return ::CRYPTO_memcmp(proof.code, right.code, sizeof right.code) == 0;
}

}  // namespace vmfs
