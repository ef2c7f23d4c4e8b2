// Numbers in texts that a program wrote, or that have no unit.
#pragma once

#include <charconv>
#include <string_view>

namespace vmfs {

// Whether all of the text is a number of this type, which `out` is then. Nothing else may stand there: no blank, no
// "+" or "0x", no "-" for a type without a sign. Otherwise `out` may have changed.
template <class Number>
bool parse_digits(std::string_view text, Number& out, int base = 10) {
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, out, base);
  return error == std::errc{} && end == last;
}

}  // namespace vmfs
