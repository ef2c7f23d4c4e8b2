// Texts for people. A name in a volume may hold anything, also what commands a terminal.
#pragma once

#include <string>
#include <string_view>

namespace vmfs {

// Control characters as \x1b, but the ends of lines.
std::string printable(std::string_view text);
// Those too: for what must stay on one line.
std::string printable_name(std::string_view text);

}  // namespace vmfs
