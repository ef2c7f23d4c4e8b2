// Addresses as a person writes them: "host:port", "192.0.2.1:7411", "[2001:db8::1]:7411".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fs/base/result.h"

namespace vmfs {

inline constexpr std::uint16_t kDefaultPort = 7411;

struct HostPort {
  std::string host;  // a name or an address, without brackets
  std::uint16_t port = kDefaultPort;
};

// A missing port is kDefaultPort. kInvalid names what is wrong with the text.
Result<HostPort> parse_address(std::string_view text);
// All addresses of a machine: one can listen on them, and nobody can call them from elsewhere.
bool is_any(const HostPort& address);
// The text that parse_address() reads.
std::string to_string(const HostPort& address);

}  // namespace vmfs
