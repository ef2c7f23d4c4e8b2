// What the kernel shows as text, in /proc: mounts, locks, a process's state. Names in it are anybody's: they come back
// as they are, and nothing else in a line is taken for what it is not. Any text can be read.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "fs/base/check.h"
#include "fs/fuse/locks.h"
#include "fs/holder/mounting.h"
#include "fs/holder/status.h"

namespace {

using namespace vmfs;

// As the kernel writes a name in a mount table. A path has no zero byte.
std::string escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\\' || c == '#')
      out += fmt::format("\\{:03o}", static_cast<unsigned>(c));
    else if (c != '\0')
      out += c;
  }
  return out;
}

void mounts(std::string_view text) {
  for (const MountEntry& entry : mounts_in(text)) CHECK_INVARIANT(!entry.type.empty());
  std::string mountpoint = "/" + std::string(text.substr(0, text.size() / 2));
  std::string source(text.substr(text.size() / 2));
  std::erase(mountpoint, '\0');
  std::erase(source, '\0');
  const std::string line = fmt::format("36 35 0:77 / {} rw,noatime shared:1 - fuse.vmfs {} rw,fd=3\n",
                                       escaped(mountpoint), escaped(source));
  const auto read = mounts_in(line + line);
  CHECK_COMPARE(read.size(), ==, 2u);
  CHECK_INVARIANT(read[1].mountpoint == mountpoint, "{}", line);
  CHECK_INVARIANT(read[1].source == source, "{}", line);
  CHECK_INVARIANT(read[1].type == "fuse.vmfs" && read[1].major == 0 && read[1].minor == 77, "{}", line);
}

void locks(std::string_view text) {
  constexpr unsigned kMajor = 0, kMinor = 0x2a;
  constexpr std::uint64_t kInode = 77;
  const bool shown = shows_write_lock(text, kMajor, kMinor, kInode);
  // A table shows what one of its lines shows, whatever stands around it.
  bool in_a_line = false;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    in_a_line = in_a_line || shows_write_lock(line, kMajor, kMinor, kInode);
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  }
  CHECK_COMPARE(shown, ==, in_a_line);
  constexpr std::string_view kLock = "1: OFDLCK ADVISORY  WRITE -1 00:2a:77 5 9\n";
  const std::string around = std::string(kLock) + std::string(text) + "\n" + std::string(kLock);
  CHECK_INVARIANT(shows_write_lock(around, kMajor, kMinor, kInode));
  CHECK_INVARIANT(!shows_write_lock(kLock, kMajor, kMinor, kInode + 1));
}

void process(std::string_view text) {
  (void)start_in_stat(text);
  const std::string line =
      fmt::format("7 ({}) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 98765 20 21\n", text.substr(0, 64));
  CHECK_COMPARE(start_in_stat(line), ==, 98765u);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  mounts(text);
  locks(text);
  process(text);
  return 0;
}
