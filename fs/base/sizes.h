// Amounts and times as people write them: "64M", "1.5G", "4096"; "10s", "500ms", "2h".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fs/base/result.h"

namespace vmfs {

// Bytes. A number, with a fraction if a unit follows, then nothing (bytes) or K, M, G, T, P in
// either case, optionally with "iB": powers of 1024. "KB" and the like are refused, since people
// mean different things by them. kInvalid names the text and what is wrong with it.
Result<std::uint64_t> parse_size(std::string_view text);
// Exact, and parse_size() reads it back: the largest unit that divides it ("64M", "4097").
std::string format_size(std::uint64_t bytes);
// For people, three digits: "1.50 GiB", "512 B".
std::string human_size(std::uint64_t bytes);

// Nanoseconds, not negative. A number, with a fraction if a unit follows, then ns, us, ms, s (or
// nothing), m, h, d.
Result<std::int64_t> parse_duration(std::string_view text);
// Exact, and parse_duration() reads it back: the largest unit that divides it ("90s", "2h", "0s").
std::string format_duration(std::int64_t ns);
// For people: "3 d 4 h", "2 h 5 min", "12 s", "1.25 s", "850 ms".
std::string human_duration(std::int64_t ns);

// Nanoseconds since 1970: "2026-11-22 19:46:58.123 UTC", the same on all nodes; "never" for 0.
std::string human_time(std::int64_t wall_ns);

}  // namespace vmfs
