// The holder's status file.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "fs/holder/holder.h"
#include "fs/holder/status.h"

namespace vmfs {

namespace {
constexpr std::size_t kWholeBlock = 4096;

// A text of several lines on one, and back.
std::string on_one_line(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '\\' || c == '\n') out += '\\';
    out += c == '\n' ? 'n' : c;
  }
  return out;
}

std::string with_its_lines(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '\\' && i + 1 < text.size();
    if (escape) ++i;
    out += escape && text[i] == 'n' ? '\n' : text[i];
  }
  return out;
}
}

const char* to_string(HolderStatus::State state) {
  switch (state) {
    case HolderStatus::State::kStarting:
      return "starting";
    case HolderStatus::State::kRunning:
      return "running";
    case HolderStatus::State::kRestarting:
      return "restarting";
    case HolderStatus::State::kStartFailed:
      return "start-failed";
    case HolderStatus::State::kGaveUp:
      return "gave-up";
  }
  return "unknown";
}

std::uint64_t process_start(int process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string line;
  std::getline(file, line);
  // The second word is the program's name in parentheses and may contain anything.
  const std::size_t after_name = line.rfind(')');
  if (after_name == std::string::npos) return 0;
  std::istringstream words(line.substr(after_name + 1));
  std::string word;
  constexpr int kStartIsWord = 20;  // counted from the third word of the line
  for (int i = 0; i < kStartIsWord; ++i) {
    if (!(words >> word)) return 0;
    // The first is the state. One that has ended is nobody, however late it is waited for.
    if (i == 0 && (word == "Z" || word == "X")) return 0;
  }
  return std::strtoull(word.c_str(), nullptr, 10);
}

Result<> write_holder_status(const std::string& path, const HolderStatus& status) {
  std::string text = fmt::format(
      "state {}\nholder {}\nholder-started {}\ndaemon {}\nstarts {}\ncrashes {}\nsince {}\n"
      "mountpoint {}\nvolume {}\nreason {}\n",
      to_string(status.state), status.holder_pid, status.holder_started, status.daemon_pid,
      status.starts, status.crashes, status.since_wall_ns, status.mountpoint, status.volume_name,
      on_one_line(status.reason));
  if (text.size() < kWholeBlock) text.resize(kWholeBlock, '\n');
  const std::string beside = path + ".new";
  const int descriptor = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  bool good = descriptor >= 0 &&
              ::write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (descriptor >= 0) ::close(descriptor);
  good = good && ::rename(beside.c_str(), path.c_str()) == 0;
  if (!good && errno == ENOSPC) {
    // On a full disk what is there has its block already: every version of it is as long.
    ::unlink(beside.c_str());
    const int there = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    good = there >= 0 &&
           ::pwrite(there, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) &&
           ::ftruncate(there, static_cast<off_t>(text.size())) == 0;
    if (there >= 0) ::close(there);
  }
  if (!good) {
    const int number = errno;
    return fail(ErrorKind::kIo, number, fmt::format("cannot write {}: {}", path, strerror(number)));
  }
  return {};
}

Result<HolderStatus> read_holder_status(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    return fail(errno == ENOENT ? ErrorKind::kNotFound : ErrorKind::kIo, errno,
                fmt::format("cannot read {}: {}", path, strerror(errno)));
  }
  HolderStatus status;
  std::string line;
  bool has_state = false;
  while (std::getline(file, line)) {
    const std::size_t blank = line.find(' ');
    if (blank == std::string::npos) continue;
    const std::string key = line.substr(0, blank), value = line.substr(blank + 1);
    const auto number = [&] { return std::strtoull(value.c_str(), nullptr, 10); };
    if (key == "state") {
      for (auto state : {HolderStatus::State::kStarting, HolderStatus::State::kRunning,
                         HolderStatus::State::kRestarting, HolderStatus::State::kStartFailed,
                         HolderStatus::State::kGaveUp}) {
        if (value == to_string(state)) {
          status.state = state;
          has_state = true;
        }
      }
    }
    if (key == "holder") status.holder_pid = static_cast<int>(number());
    if (key == "holder-started") status.holder_started = number();
    if (key == "daemon") status.daemon_pid = static_cast<int>(number());
    if (key == "starts") status.starts = number();
    if (key == "crashes") status.crashes = number();
    if (key == "since") status.since_wall_ns = static_cast<std::int64_t>(number());
    if (key == "mountpoint") status.mountpoint = value;
    if (key == "volume") status.volume_name = value;
    if (key == "reason") status.reason = with_its_lines(value);
  }
  if (!has_state || status.holder_pid <= 0) {
    return fail(ErrorKind::kCorrupt, EINVAL,
                fmt::format("{} is not a holder's status file", path));
  }
  return status;
}

Result<> ask_to_start(const HolderStatus& status) {
  if (!holder_alive(status) || ::kill(status.holder_pid, SIGHUP) != 0)
    return fail(ErrorKind::kNotFound, ESRCH, fmt::format("the holder (process {}) has died", status.holder_pid));
  return {};
}

bool holder_alive(const HolderStatus& status) {
  if (status.holder_pid <= 0 || (::kill(status.holder_pid, 0) != 0 && errno == ESRCH)) return false;
  return process_start(status.holder_pid) == status.holder_started;
}

}  // namespace vmfs
