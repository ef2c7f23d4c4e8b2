#include "net/link/address.h"

#include <fmt/format.h>

#include <cerrno>

#include "fs/base/digits.h"

namespace vmfs {

namespace {
tl::unexpected<Error> wrong(std::string_view text, std::string_view why) {
  return fail(ErrorKind::kInvalid, EINVAL,
              fmt::format("\"{}\" is no address ({}): write HOST:PORT, as 192.0.2.1:{}, "
                          "[2001:db8::1]:{} or node-b:{}",
                          text, why, kDefaultPort, kDefaultPort, kDefaultPort));
}
}  // namespace

Result<HostPort> parse_address(std::string_view text) {
  std::string_view host = text, port;
  bool has_port = false;
  if (text.starts_with('[')) {
    const std::size_t close = text.find(']');
    if (close == std::string_view::npos) return wrong(text, "the bracket is not closed");
    host = text.substr(1, close - 1);
    std::string_view rest = text.substr(close + 1);
    if (!rest.empty()) {
      if (rest.front() != ':') return wrong(text, "only a port may follow the bracket");
      port = rest.substr(1);
      has_port = true;
    }
  } else if (const std::size_t colon = text.rfind(':'); colon != std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    has_port = true;
    if (host.find(':') != std::string_view::npos)
      return wrong(text, "an IPv6 address stands in brackets");
  }
  if (host.empty()) return wrong(text, "the host is missing");
  if (host.size() > 253) return wrong(text, "the host's name is longer than 253 characters");
  for (char c : host)
    if (c <= ' ' || c == '/' || c == '[' || c == ']' || c == 127)
      return wrong(text, "the host's name has a strange character");
  HostPort address{std::string(host), kDefaultPort};
  if (has_port) {
    unsigned value = 0;
    if (!parse_digits(port, value) || value > 65535)
      return wrong(text, "the port is no number from 0 to 65535");
    address.port = static_cast<std::uint16_t>(value);
  }
  return address;
}

bool is_any(const HostPort& address) { return address.host == "0.0.0.0" || address.host == "::"; }

std::string to_string(const HostPort& address) {
  if (address.host.find(':') != std::string::npos)
    return fmt::format("[{}]:{}", address.host, address.port);
  return fmt::format("{}:{}", address.host, address.port);
}

}  // namespace vmfs
