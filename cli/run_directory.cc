#include "cli/run_directory.h"

#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "cli/control.h"
#include "cli/file.h"

namespace vmfs {

std::string holder_status_path(const std::string& store) { return control_directory(store) + "/holder"; }
std::string log_path(const std::string& store) { return control_directory(store) + "/daemon.log"; }

Result<> prepare_run_directory(const std::string& store) {
  return make_directory_durably(control_directory(store), 0700);
}

RunDirectoryWatch::RunDirectoryWatch(const std::string& store)
    : fd_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
  if (fd_ >= 0)
    ::inotify_add_watch(fd_, control_directory(store).c_str(),
                        IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM);
}

RunDirectoryWatch::~RunDirectoryWatch() {
  if (fd_ >= 0) ::close(fd_);
}

bool RunDirectoryWatch::wait(std::int64_t timeout_ns) {
  // Whoever waits looks again after a while in any case: not every kernel and directory can be watched.
  constexpr std::int64_t kLongest_ns = 1'000'000'000;
  const bool all = timeout_ns >= 0 && timeout_ns <= kLongest_ns;
  pollfd wait{fd_, POLLIN, 0};
  if (::poll(&wait, 1, static_cast<int>((all ? timeout_ns : kLongest_ns) / 1'000'000 + 1)) <= 0) return !all;
  alignas(inotify_event) char buffer[4096];
  while (::read(fd_, buffer, sizeof buffer) > 0) {
  }
  return true;
}

}  // namespace vmfs
