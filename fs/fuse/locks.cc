#include "fs/fuse/locks.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <string>

#include <fmt/format.h>

#include "fs/base/digits.h"

namespace vmfs {
namespace {

constexpr std::uint64_t kEndOfFile = std::numeric_limits<std::uint64_t>::max();
// Bytes on which QEMU takes shared locks, one for each permission that it uses.
constexpr std::uint64_t kQemuFirst = 100, kQemuLast = 199, kQemuWrite = 101, kQemuResize = 103;

std::string_view next_word(std::string_view& line) {
  while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
  const std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(word.size());
  return word;
}

// "1: POSIX  ADVISORY  WRITE 1234 fd:01:5678 0 EOF"; "->" after the number marks one that waits.
bool line_shows(std::string_view line, unsigned major, unsigned minor, std::uint64_t inode) {
  next_word(line);  // the number
  const std::string_view kind = next_word(line);
  if (kind == "->") return false;
  next_word(line);  // ADVISORY; for leases BREAKING and the like
  const std::string_view access = next_word(line);
  next_word(line);  // the process, -1 for an open file description
  const std::string_view place = next_word(line);
  const std::string_view first_text = next_word(line), last_text = next_word(line);
  if (kind != "POSIX" && kind != "OFDLCK" && kind != "FLOCK") return false;

  const std::size_t colon = place.find(':');
  const std::size_t second = place.find(':', colon + 1);
  if (colon == std::string_view::npos || second == std::string_view::npos) return false;
  unsigned its_major = 0, its_minor = 0;
  std::uint64_t its_inode = 0;
  if (!parse_digits(place.substr(0, colon), its_major, 16) ||
      !parse_digits(place.substr(colon + 1, second - colon - 1), its_minor, 16) ||
      !parse_digits(place.substr(second + 1), its_inode, 10)) {
    return false;
  }
  if (its_major != major || its_minor != minor || its_inode != inode) return false;
  if (access == "WRITE") return true;
  if (access != "READ" || kind != "OFDLCK") return false;

  std::uint64_t first = 0, last = kEndOfFile;
  if (!parse_digits(first_text, first, 10)) return false;
  if (last_text != "EOF" && !parse_digits(last_text, last, 10)) return false;
  if (first < kQemuFirst || last > kQemuLast) return false;
  return (first <= kQemuWrite && last >= kQemuWrite) || (first <= kQemuResize && last >= kQemuResize);
}

}  // namespace

bool shows_write_lock(std::string_view text, unsigned device_major, unsigned device_minor,
                      std::uint64_t inode) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (line_shows(text.substr(0, end), device_major, device_minor, inode)) return true;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return false;
}

Result<bool> has_write_lock(unsigned device_major, unsigned device_minor, std::uint64_t inode) {
  const int descriptor = ::open("/proc/locks", O_RDONLY | O_CLOEXEC);
  std::string text;
  ssize_t got = descriptor < 0 ? -1 : 1;
  while (got > 0) {
    constexpr std::size_t kPiece = 65536;
    const std::size_t before = text.size();
    text.resize(before + kPiece);
    got = ::read(descriptor, text.data() + before, kPiece);
    text.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  }
  const int number = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (got < 0) {
    return fail(ErrorKind::kIo, number, fmt::format("cannot read /proc/locks: {}", strerror(number)));
  }
  return shows_write_lock(text, device_major, device_minor, inode);
}

}  // namespace vmfs
