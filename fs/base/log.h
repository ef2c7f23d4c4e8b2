// The daemon's log, in journald's form ("<3>text": the priority in front of each line) when standard error is not
// a terminal, with the name of the priority otherwise. An event is one line; if its text has more, they are set in.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace vmfs {

enum class Priority { kError = 3, kWarning = 4, kNotice = 5, kInfo = 6, kDebug = 7 };

// Thread-safe; one write(2) an event. Events above the maximum are dropped. Control characters come as \x1b.
void log_line(Priority priority, std::string_view text);
void set_log_maximum(Priority most_verbose);

// Standard error is that file, and is kept below `bytes_max`: beyond it the file becomes PATH.old and a new
// one begins. Nothing happens if standard error is something else. With `follows` another process does
// the renaming, and this one only goes on in the new file. An empty path: no more.
void set_log_file(const std::string& path, std::uint64_t bytes_max, bool follows);

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
