#include "fs/base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <mutex>
#include <string>

#include "fs/base/check.h"
#include "fs/base/printable.h"

namespace vmfs {

namespace {
std::atomic<int> maximum{static_cast<int>(Priority::kInfo)};

struct LogFile {
  std::mutex mutex;
  std::string path;  // empty: none
  std::uint64_t bytes_max = 0;
  bool follows = false;
};
LogFile& log_file() {
  static LogFile file;
  return file;
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Before a line is written. Whatever fails, the line goes where the last one went.
void turn_over() {
  LogFile& file = log_file();
  std::lock_guard lock(file.mutex);
  struct stat mine {}, there {};
  if (file.path.empty() || ::fstat(STDERR_FILENO, &mine) != 0) return;
  const bool is_there = ::stat(file.path.c_str(), &there) == 0 && same_file(mine, there);
  if (is_there) {
    if (file.follows || static_cast<std::uint64_t>(mine.st_size) < file.bytes_max) return;
    if (::rename(file.path.c_str(), (file.path + ".old").c_str()) != 0) return;
  }
  const int next = ::open(file.path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (next < 0) return;
  ::dup2(next, STDERR_FILENO);
  ::close(next);
}
}  // namespace

void set_log_file(const std::string& path, std::uint64_t bytes_max, bool follows) {
  LogFile& file = log_file();
  std::lock_guard lock(file.mutex);
  file.path.clear();
  struct stat mine {}, there {};
  if (path.empty() || ::fstat(STDERR_FILENO, &mine) != 0) return;
  for (const std::string& name : {path, path + ".old"})
    if (::stat(name.c_str(), &there) == 0 && same_file(mine, there)) file.path = path;
  file.bytes_max = bytes_max;
  file.follows = follows;
}

void set_log_maximum(Priority most_verbose) { maximum = static_cast<int>(most_verbose); }

void log_line(Priority priority, std::string_view text) {
  if (static_cast<int>(priority) > maximum.load(std::memory_order_relaxed)) return;
  static const bool terminal = ::isatty(STDERR_FILENO) == 1;
  static constexpr std::array names{"", "", "", "error", "warning", "notice", "info", "debug"};
  const std::string front = terminal ? fmt::format("{}: ", names[static_cast<int>(priority)])
                                     : fmt::format("<{}>", static_cast<int>(priority));
  // journald takes every line for an entry of its own. An event's further lines are set in, so that no name with a
  // line break in it, which anybody may give to an image, looks like an event.
  std::string lines = front;
  for (char c : printable(text)) {
    lines += c;
    if (c == '\n') lines += front + "  ";
  }
  lines += '\n';
  turn_over();
  // A log that cannot be written has nowhere to say so.
  [[maybe_unused]] ssize_t ignored = ::write(STDERR_FILENO, lines.data(), lines.size());
}

void check_failed(const char* file, int line, const char* expression, const std::string& detail) {
  log_error("{}:{}: check failed: {} ({})", file, line, expression, detail);
  ::abort();
}

}  // namespace vmfs
