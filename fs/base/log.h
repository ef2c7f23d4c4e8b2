// The daemon's log: one line an event, in journald's form ("<3>text": the priority in front) when
// standard error is not a terminal, with the name of the priority otherwise.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace vmfs {

enum class Priority { kError = 3, kWarning = 4, kNotice = 5, kInfo = 6, kDebug = 7 };

// Thread-safe; one write(2) a line. Lines above the maximum are dropped.
void log_line(Priority priority, std::string_view text);
void set_log_maximum(Priority most_verbose);

template <class... Args>
void log_error(fmt::format_string<Args...> f, Args&&... a) {
  log_line(Priority::kError, fmt::format(f, std::forward<Args>(a)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> f, Args&&... a) {
  log_line(Priority::kWarning, fmt::format(f, std::forward<Args>(a)...));
}
template <class... Args>
void log_notice(fmt::format_string<Args...> f, Args&&... a) {
  log_line(Priority::kNotice, fmt::format(f, std::forward<Args>(a)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> f, Args&&... a) {
  log_line(Priority::kInfo, fmt::format(f, std::forward<Args>(a)...));
}
template <class... Args>
void log_debug(fmt::format_string<Args...> f, Args&&... a) {
  log_line(Priority::kDebug, fmt::format(f, std::forward<Args>(a)...));
}

}  // namespace vmfs
