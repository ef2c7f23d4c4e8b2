// The join token: what a second node must know to join a volume, in one printable line that a person
// copies from one shell to the other. It holds the volume's secret: who has it may connect.
//
//   "vmfs1-" base32( version u8, size u16, volume 16, secret 32, name u8+text, address u8+text,
//                    checksum u32 )
//
// base32 is RFC 4648's alphabet in lower case without padding: no character is lost to a terminal's
// line wrapping or to a mail program, and upper case reads the same. `size` counts all bytes, so a
// truncated copy is told from a mistyped one.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "fs/base/ids.h"
#include "fs/base/result.h"

namespace vmfs {

inline constexpr std::size_t kSecretSize = 32;
// The volume's shared secret; all keys of a link are derived from it.
using Secret = std::array<std::byte, kSecretSize>;
// From the kernel's random generator.
Secret new_secret();

struct JoinToken {
  VolumeId volume{};
  std::string volume_name;  // at most 255 bytes
  std::string address;      // host:port of a node that has the volume; at most 255 bytes
  Secret secret{};
};

inline constexpr std::string_view kTokenPrefix = "vmfs1-";

// One line, without a newline. kInvalid if a text is too long.
Result<std::string> encode_token(const JoinToken& token);
// White space around and within the text is passed over. kInvalid says whether the text is no token,
// was truncated, or was mistyped; kRefused: made by a newer version of this program.
Result<JoinToken> decode_token(std::string_view text);

}  // namespace vmfs
