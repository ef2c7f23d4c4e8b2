#include "fs/holder/holder.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "fs/base/bytes.h"
#include "fs/base/log.h"
#include "fs/holder/inherited.h"
#include "fs/holder/supervisor.h"

namespace vmfs {
namespace {

// What the holder tells who started it: nothing but "ready", or an error.
void report(int pipe, const Result<>& result) {
  Bytes message;
  Writer writer(message);
  writer.put(static_cast<std::uint8_t>(result ? 1 : 0));
  if (!result) {
    writer.put(static_cast<std::int32_t>(result.error().kind))
        .put(static_cast<std::int32_t>(result.error().number))
        .text(result.error().message.substr(0, kMessageMax));
  }
  std::size_t done = 0;
  while (done < message.size()) {
    const ssize_t put = ::write(pipe, message.data() + done, message.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return;  // whoever started it has gone
    done += static_cast<std::size_t>(put);
  }
}

Result<> hear_report(int pipe) {
  Bytes message;
  std::byte piece[4096];
  for (;;) {
    const ssize_t got = ::read(pipe, piece, sizeof piece);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    message.insert(message.end(), piece, piece + got);
  }
  Reader reader(message);
  if (reader.get<std::uint8_t>() == 1 && reader.at_end()) return {};
  const auto kind = static_cast<ErrorKind>(reader.get<std::int32_t>());
  const int number = reader.get<std::int32_t>();
  const std::string text = reader.text(kMessageMax);
  if (!reader.ok()) {
    return fail(ErrorKind::kRefused, EIO,
                "the holder process ended before the volume was ready; look at its log");
  }
  return fail(kind, number, text);
}

// What a daemon process does with what it inherits from a terminal.
void leave_terminal(const HolderOptions& options) {
  ::setsid();
  if (::chdir("/") != 0) log_debug("chdir: {}", strerror(errno));
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (nothing >= 0) {
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(nothing, STDOUT_FILENO);
    ::close(nothing);
  }
  if (options.log_path.empty()) return;
  const int log = ::open(options.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (log < 0) {
    log_warning("cannot open the log {}: {}", options.log_path, strerror(errno));
    return;
  }
  ::dup2(log, STDERR_FILENO);
  ::close(log);
  set_log_file(options.log_path, 0, /*follows=*/true);
}

// Each image that is open, by however many users, takes a descriptor of the daemon's.
void allow_many_files() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &files) != 0)
    log_info("the limit of open files stays as it is: {}", strerror(errno));
}

}  // namespace

Result<> run_holder(const HolderOptions& original) {
  HolderOptions options = original;
  // Said before anything is forked: the directory of the caller is still the current one.
  VMFS_ASSIGN(options.mountpoint, check_mountpoint(original.mountpoint));
  allow_many_files();
  if (options.foreground) {
    Supervisor supervisor(options, system_clock(), options.served);
    return supervisor.run();
  }
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0)
    return fail(ErrorKind::kIo, errno, fmt::format("pipe: {}", strerror(errno)));
  const int child = ::fork();
  if (child < 0) {
    const int number = errno;
    ::close(pipe[0]);
    ::close(pipe[1]);
    return fail(ErrorKind::kIo, number, fmt::format("cannot fork: {}", strerror(number)));
  }
  if (child == 0) {
    // Twice, so that the holder is nobody's child and never a zombie of a long-lived caller.
    if (::fork() != 0) ::_exit(0);
    ::close(pipe[0]);
    leave_terminal(options);
    int result_pipe = -1;
    if (auto moved = move_up(pipe[1])) result_pipe = *moved;
    // What the caller has open is none of ours: a lock file, say, would stay locked as long as the mount.
    const auto kept = static_cast<unsigned>(std::max(result_pipe, STDERR_FILENO));
    if (kept > STDERR_FILENO + 1) ::close_range(STDERR_FILENO + 1, kept - 1, 0);
    ::close_range(kept + 1, ~0u, 0);
    bool reported = false;
    const auto tell = [&](const Result<>& result) {
      if (std::exchange(reported, true)) return;
      report(result_pipe, result);
      ::close(result_pipe);
    };
    Result<> result;
    {
      Supervisor supervisor(options, system_clock(), [&] { tell({}); });
      result = supervisor.run();
    }
    tell(result);
    ::_exit(result ? 0 : 1);
  }
  ::close(pipe[1]);
  ::waitpid(child, nullptr, 0);
  auto result = hear_report(pipe[0]);
  ::close(pipe[0]);
  return result;
}

}  // namespace vmfs
