#include "fs/base/printable.h"

#include <fmt/format.h>

namespace vmfs {

namespace {

std::string without_controls(std::string_view text, std::string_view allowed) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const unsigned next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {  // U+0080 to U+009F: one of them is ESC [
      out += fmt::format("\\x{:02x}", next);
      ++i;
    } else if ((byte < 0x20 || byte == 0x7f) && allowed.find(text[i]) == allowed.npos) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text) { return without_controls(text, "\n"); }
std::string printable_name(std::string_view text) { return without_controls(text, ""); }

}  // namespace vmfs
