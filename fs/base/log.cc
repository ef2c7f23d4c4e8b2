#include "fs/base/log.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <string>

#include "fs/base/check.h"

namespace vmfs {

namespace {
std::atomic<int> maximum{static_cast<int>(Priority::kInfo)};
}

void set_log_maximum(Priority most_verbose) { maximum = static_cast<int>(most_verbose); }

void log_line(Priority priority, std::string_view text) {
  if (static_cast<int>(priority) > maximum.load(std::memory_order_relaxed)) return;
  static const bool terminal = ::isatty(STDERR_FILENO) == 1;
  static constexpr std::array names{"", "", "", "error", "warning", "notice", "info", "debug"};
  std::string line = terminal ? fmt::format("{}: {}\n", names[static_cast<int>(priority)], text)
                              : fmt::format("<{}>{}\n", static_cast<int>(priority), text);
  // A log that cannot be written has nowhere to say so.
  [[maybe_unused]] ssize_t ignored = ::write(STDERR_FILENO, line.data(), line.size());
}

void check_failed(const char* file, int line, const char* expression, const std::string& detail) {
  log_error("{}:{}: check failed: {} ({})", file, line, expression, detail);
  ::abort();
}

}  // namespace vmfs
