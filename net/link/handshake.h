// How two nodes that share a secret begin a connection. Pure: structs, checks and proofs; the bytes
// are moved by net/link/connection.
//
//   dialer -> listener   LinkHello         in clear: version, volume, whether TLS follows, a nonce
//   listener -> dialer   LinkHello         the same with a verdict; on a refusal it is the last word
//   (with TLS: the TLS 1.3 handshake, with an external pre-shared key made from the secret)
//   dialer -> listener   Proof             HMAC over both Hellos (and TLS's exporter) with the secret
//   listener -> dialer   Proof             the same for the other direction, with a verdict
//
// The proofs authenticate both sides where there is no TLS, and bind the clear Hellos to the connection
// where there is: nobody can talk two nodes into an older version or out of encryption. What the frames
// then say (node, protocol version, features) is the session's.
//
// Little-endian, fixed sizes: nothing is allocated for a connection that is not authenticated.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "fs/base/bytes.h"
#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "net/link/token.h"

namespace vmfs {

// Whether links are encrypted. Both nodes must say the same.
enum class Encryption : std::uint8_t {
  kTls,
  kOffOnLoopback,   // in clear, and only to and from loopback addresses
  kOffEverywhere,   // in clear to anybody who has the secret; said loudly when it is switched on
};

struct LinkCredentials {
  VolumeId volume{};
  Secret secret{};
  Encryption encryption = Encryption::kTls;
};

inline constexpr std::uint32_t kLinkHelloMagic = 0x484d4656;  // "VFMH"
inline constexpr std::uint16_t kLinkVersion = 1;

enum class HelloVerdict : std::uint8_t {
  kAccepted = 0,
  kWrongVersion = 1,
  kWrongVolume = 2,
  kWantsTls = 3,
  kWantsClear = 4,
  kClearNotAllowed = 5,
  kWrongSecret = 6,  // in a Proof only
};

enum class LinkRole : std::uint8_t { kDialer = 1, kListener = 2 };

struct LinkHello {
  std::uint32_t magic = kLinkHelloMagic;
  std::uint16_t version = kLinkVersion;
  LinkRole role = LinkRole::kDialer;
  std::uint8_t tls = 0;
  HelloVerdict verdict = HelloVerdict::kAccepted;
  std::uint8_t reserved[7] = {};
  std::byte volume[16] = {};
  std::byte nonce[32] = {};
  std::uint64_t hash = 0;  // of this struct with hash = 0
};
static_assert(sizeof(LinkHello) == 72);
static_assert(std::has_unique_object_representations_v<LinkHello>);

struct Proof {
  HelloVerdict verdict = HelloVerdict::kAccepted;
  std::uint8_t reserved[7] = {};
  std::byte code[32] = {};  // HMAC-SHA256; zero with a refusal
};
static_assert(sizeof(Proof) == 40);
static_assert(std::has_unique_object_representations_v<Proof>);

LinkHello make_hello(LinkRole role, const LinkCredentials& credentials);

// The listener's verdict on a dialer's LinkHello (magic and hash are valid: see parse_hello()).
HelloVerdict judge_hello(const LinkHello& dialer, const LinkCredentials& credentials);

// Reads the bytes of a LinkHello. kProtocol: not one.
Result<LinkHello> parse_hello(ByteView bytes, LinkRole expected);
// Renews the hash after the verdict was set.
void seal_hello(LinkHello& hello);

// The refusal for a verdict, as this side tells it; `remote` is the other end's address.
Error refusal(HelloVerdict verdict, const std::string& remote, const LinkCredentials& credentials);

// A key for one purpose, derived from the secret, so that one use tells nothing about another.
std::array<std::byte, 32> derive_key(const Secret& secret, std::string_view purpose);

// `exporter`: keying material of the TLS connection (RFC 8446, 7.5), empty without TLS.
Proof make_proof(LinkRole prover, const LinkHello& dialer, const LinkHello& listener, ByteView exporter,
                 const Secret& secret);
// In constant time.
bool proof_is_right(const Proof& proof, LinkRole prover, const LinkHello& dialer, const LinkHello& listener,
                    ByteView exporter, const Secret& secret);

}  // namespace vmfs
