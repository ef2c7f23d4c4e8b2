#include "cli/size.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>

namespace vmfs {

namespace {

struct Unit {
  std::string_view letter;
  unsigned shift;
};
constexpr std::array kUnits{Unit{"K", 10}, Unit{"M", 20}, Unit{"G", 30}, Unit{"T", 40}, Unit{"P", 50}};

tl::unexpected<Error> bad_size(std::string_view text) {
  return fail(ErrorKind::kInvalid, EINVAL,
              fmt::format("\"{}\" is not a size: give a number of bytes, or a number and a unit of "
                          "K, M, G or T (powers of 1024), as 512M or 1.5GiB",
                          text));
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  std::string upper;
  for (char c : text)
    if (c != ' ' && c != '_') upper += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  double number = 0;
  const char* end = upper.data() + upper.size();
  // A leading sign or anything else that is not a digit is no size; from_chars would take "-1" or "INF".
  if (upper.empty() || std::isdigit(static_cast<unsigned char>(upper[0])) == 0) return bad_size(text);
  std::string_view unit;
  std::uint64_t whole = 0;
  auto [whole_end, whole_error] = std::from_chars(upper.data(), end, whole);
  if (whole_error != std::errc()) return bad_size(text);
  bool fraction = whole_end != end && *whole_end == '.';
  if (fraction) {
    auto [number_end, error] = std::from_chars(upper.data(), end, number, std::chars_format::fixed);
    if (error != std::errc()) return bad_size(text);
    unit = {number_end, static_cast<std::size_t>(end - number_end)};
  } else {
    unit = {whole_end, static_cast<std::size_t>(end - whole_end)};
  }
  unsigned shift = 0;
  if (!unit.empty() && unit != "B") {
    auto found = std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& candidate) {
      return unit.substr(0, 1) == candidate.letter;
    });
    std::string_view rest = unit.substr(1);
    if (found == kUnits.end() || (!rest.empty() && rest != "B" && rest != "IB")) return bad_size(text);
    shift = found->shift;
  }
  if (fraction) {
    double bytes = std::ldexp(number, static_cast<int>(shift));
    if (!(bytes < std::ldexp(1.0, 62))) return bad_size(text);
    return static_cast<std::uint64_t>(bytes);
  }
  if (whole != 0 && shift > static_cast<unsigned>(std::countl_zero(whole))) return bad_size(text);
  return whole << shift;
}

std::string exact_size(std::uint64_t bytes) {
  for (auto unit = kUnits.rbegin(); unit != kUnits.rend(); ++unit)
    if (bytes != 0 && bytes % (std::uint64_t{1} << unit->shift) == 0)
      return fmt::format("{}{}iB", bytes >> unit->shift, unit->letter);
  return fmt::format("{}", bytes);
}

std::string readable_size(std::uint64_t bytes) {
  for (auto unit = kUnits.rbegin(); unit != kUnits.rend(); ++unit) {
    if (bytes < std::uint64_t{1} << unit->shift) continue;
    double value = std::ldexp(static_cast<double>(bytes), -static_cast<int>(unit->shift));
    return value < 10 ? fmt::format("{:.1f} {}iB", value, unit->letter)
                      : fmt::format("{:.0f} {}iB", value, unit->letter);
  }
  return fmt::format("{} B", bytes);
}

std::string readable_duration(std::int64_t seconds) {
  if (seconds < 0) seconds = 0;
  if (seconds < 120) return fmt::format("{} s", seconds);
  if (seconds < 7200) return fmt::format("{} min", seconds / 60);
  if (seconds < 2 * 86400) return fmt::format("{} h {} min", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{} d {} h", seconds / 86400, seconds / 3600 % 24);
}

Result<std::uint64_t> default_journal_size(const DiskSpace& store, const DiskSpace& journal) {
  std::uint64_t size = std::clamp(store.total / 16, kJournalSizeLeast, kJournalSizeDefaultMost);
  size = std::min(size, journal.available / 4);
  size &= ~((std::uint64_t{1} << 20) - 1);
  if (size < kJournalSizeFloor)
    return fail(ErrorKind::kNoSpace, ENOSPC,
                fmt::format("too little room for a journal: {} are free, and a journal takes at most "
                            "a quarter of that and at least {}\n"
                            "free some space, or put it on another file system with --journal DIR",
                            readable_size(journal.available), readable_size(kJournalSizeFloor)));
  return size;
}

std::uint64_t segment_size_for(std::uint64_t journal_size) {
  std::uint64_t segment = std::bit_floor(std::max<std::uint64_t>(journal_size / 16, 1));
  return std::clamp<std::uint64_t>(segment, 1u << 20, 64u << 20);
}

}  // namespace vmfs
