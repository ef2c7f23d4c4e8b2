#include "fs/base/sizes.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <cerrno>
#include <ctime>
#include <limits>

namespace vmfs {
namespace {

struct Unit {
  const char* name;
  std::uint64_t factor;
};

constexpr std::array<Unit, 6> kSizeUnits = {{{"", 1},
                                             {"K", 1ull << 10},
                                             {"M", 1ull << 20},
                                             {"G", 1ull << 30},
                                             {"T", 1ull << 40},
                                             {"P", 1ull << 50}}};
constexpr std::array<Unit, 7> kDurationUnits = {{{"ns", 1},
                                                 {"us", 1'000},
                                                 {"ms", 1'000'000},
                                                 {"s", 1'000'000'000},
                                                 {"m", 60'000'000'000},
                                                 {"h", 3'600'000'000'000},
                                                 {"d", 86'400'000'000'000}}};

tl::unexpected<Error> refuse(std::string_view kind, std::string_view text, std::string_view why) {
  return fail(ErrorKind::kInvalid, EINVAL, fmt::format("{} \"{}\": {}", kind, text, why));
}

// Digits with an optional fraction, kept as integers so that "1.1G" means the same everywhere.
struct Number {
  std::uint64_t whole = 0;
  std::uint64_t fraction = 0;          // numerator
  std::uint64_t fraction_divisor = 1;  // power of ten
  std::string_view unit;
};

Result<Number> parse_number(std::string_view kind, std::string_view text) {
  Number number;
  std::size_t at = 0;
  auto digit = [&] { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
  if (!digit()) return refuse(kind, text, "must begin with a digit");
  for (; digit(); ++at) {
    if (__builtin_mul_overflow(number.whole, 10u, &number.whole) ||
        __builtin_add_overflow(number.whole, static_cast<unsigned>(text[at] - '0'), &number.whole))
      return refuse(kind, text, "too large");
  }
  if (at < text.size() && text[at] == '.') {
    ++at;
    if (!digit()) return refuse(kind, text, "a digit must follow the point");
    for (; digit(); ++at) {
      if (number.fraction_divisor >= 1'000'000'000)
        return refuse(kind, text, "more than nine digits after the point");
      number.fraction = number.fraction * 10 + static_cast<unsigned>(text[at] - '0');
      number.fraction_divisor *= 10;
    }
  }
  number.unit = text.substr(at);
  while (!number.unit.empty() && number.unit.front() == ' ') number.unit.remove_prefix(1);
  return number;
}

Result<std::uint64_t> scale(std::string_view kind, std::string_view text, const Number& number,
                            std::uint64_t factor, std::uint64_t most) {
  __extension__ using Wide = unsigned __int128;
  Wide value =
      Wide{number.whole} * factor + Wide{number.fraction} * factor / number.fraction_divisor;
  if (value > most) return refuse(kind, text, "too large");
  return static_cast<std::uint64_t>(value);
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  VMFS_ASSIGN(Number number, parse_number("size", text));
  std::string_view unit = number.unit;
  if (unit.ends_with("iB") && unit.size() == 3) unit.remove_suffix(2);
  for (const Unit& known : kSizeUnits) {
    std::string_view name = known.name;
    bool same = unit.size() == name.size() &&
                (unit.empty() || std::toupper(static_cast<unsigned char>(unit[0])) == name[0]);
    if (!same) continue;
    if (unit.empty() && number.fraction_divisor != 1)
      return refuse("size", text, "a fraction of a byte");
    return scale("size", text, number, known.factor, std::numeric_limits<std::uint64_t>::max());
  }
  return refuse("size", text,
                "the unit must be K, M, G, T or P (powers of 1024), or nothing (bytes)");
}

std::string format_size(std::uint64_t bytes) {
  for (std::size_t i = kSizeUnits.size(); i-- > 0;)
    if (bytes != 0 && bytes % kSizeUnits[i].factor == 0)
      return fmt::format("{}{}", bytes / kSizeUnits[i].factor, kSizeUnits[i].name);
  return "0";
}

std::string human_size(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  for (std::size_t i = 1; i < kSizeUnits.size(); ++i) {
    double value = static_cast<double>(bytes) / static_cast<double>(kSizeUnits[i].factor);
    if (value >= 999.5 && i + 1 < kSizeUnits.size()) continue;
    int digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    return fmt::format("{:.{}f} {}iB", value, digits, kSizeUnits[i].name);
  }
  return {};
}

Result<std::int64_t> parse_duration(std::string_view text) {
  VMFS_ASSIGN(Number number, parse_number("duration", text));
  std::string_view unit = number.unit.empty() ? std::string_view("s") : number.unit;
  for (const Unit& known : kDurationUnits) {
    if (unit != known.name) continue;
    if (known.factor == 1 && number.fraction_divisor != 1)
      return refuse("duration", text, "a fraction of a nanosecond");
    VMFS_ASSIGN(std::uint64_t ns, scale("duration", text, number, known.factor,
                                        std::numeric_limits<std::int64_t>::max()));
    return static_cast<std::int64_t>(ns);
  }
  return refuse("duration", text,
                "the unit must be ns, us, ms, s, m, h or d, or nothing (seconds)");
}

std::string format_duration(std::int64_t ns) {
  auto value = static_cast<std::uint64_t>(ns < 0 ? 0 : ns);
  for (std::size_t i = kDurationUnits.size(); i-- > 0;)
    if (value != 0 && value % kDurationUnits[i].factor == 0)
      return fmt::format("{}{}", value / kDurationUnits[i].factor, kDurationUnits[i].name);
  return "0s";
}

std::string human_duration(std::int64_t ns) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  if (ns < 0) ns = 0;
  if (ns < kSecond) return fmt::format("{} ms", (ns + 500'000) / 1'000'000);
  if (ns < 10 * kSecond) return fmt::format("{:.2f} s", static_cast<double>(ns) / kSecond);
  std::int64_t seconds = ns / kSecond;
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
  if (seconds < 86400) return fmt::format("{} h {} min", seconds / 3600, seconds % 3600 / 60);
  return fmt::format("{} d {} h", seconds / 86400, seconds % 86400 / 3600);
}

std::string human_time(std::int64_t wall_ns) {
  if (wall_ns == 0) return "never";
  constexpr std::int64_t kSecond = 1'000'000'000;
  std::int64_t rest = wall_ns % kSecond;
  std::time_t seconds = wall_ns / kSecond;
  if (rest < 0) {  // before 1970
    rest += kSecond;
    --seconds;
  }
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return fmt::format("{}.{:03} UTC", text, rest / 1'000'000);
}

}  // namespace vmfs
