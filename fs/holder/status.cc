// The holder's status file.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include <fmt/format.h>

#include "fs/base/digits.h"
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

std::string with_its_lines(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    // Anything else is as a holder of an older version wrote it, which escaped in the reason alone.
    const bool escape = next == '\\' || next == 'n';
    if (escape) ++i;
    out += escape && next == 'n' ? '\n' : text[i];
  }
  return out;
}

bool state_of(std::string_view word, HolderStatus::State& out) {
  for (auto state : {HolderStatus::State::kStarting, HolderStatus::State::kRunning, HolderStatus::State::kRestarting,
                     HolderStatus::State::kStartFailed, HolderStatus::State::kGaveUp}) {
    if (word != to_string(state)) continue;
    out = state;
    return true;
  }
  return false;
}

}  // namespace

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

std::uint64_t start_in_stat(std::string_view text) {
  // The second word is the program's name in parentheses and may contain anything, also the end of a line.
  const std::size_t after_name = text.rfind(')');
  if (after_name == text.npos) return 0;
  text.remove_prefix(after_name + 1);
  constexpr int kStartIsWord = 20;  // counted from the third word of the line
  std::string_view word;
  for (int i = 0; i < kStartIsWord; ++i) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    word = text.substr(0, text.find_first_of(" \n"));
    text.remove_prefix(word.size());
    // The first is the state. One that has ended is nobody, however late it is waited for.
    if (i == 0 && (word == "Z" || word == "X")) return 0;
  }
  std::uint64_t ticks = 0;
  return parse_digits(word, ticks) ? ticks : 0;
}

std::uint64_t process_start(int process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return start_in_stat(text);
}

std::string holder_status_text(const HolderStatus& status) {
  return fmt::format(
      "state {}\nholder {}\nholder-started {}\ndaemon {}\nstarts {}\ncrashes {}\nsince {}\n"
      "mountpoint {}\nvolume {}\nreason {}\n",
      to_string(status.state), status.holder_pid, status.holder_started, status.daemon_pid, status.starts,
      status.crashes, status.since_wall_ns, on_one_line(status.mountpoint), on_one_line(status.volume_name),
      on_one_line(status.reason));
}

Result<> write_holder_status(const std::string& path, const HolderStatus& status) {
  std::string text = holder_status_text(status);
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

Result<HolderStatus> parse_holder_status(std::string_view text, const std::string& path) {
  const auto damaged = [&](std::string_view line) {
    return fail(ErrorKind::kCorrupt, EINVAL,
                fmt::format("{} is not a holder's status file{}{}{}\nwhat is mounted:  findmnt -t fuse.vmfs\n"
                            "the next mount of the store writes it anew",
                            path, line.empty() ? "" : ": its line \"", line, line.empty() ? "" : "\" cannot be"));
  };
  HolderStatus status;
  bool has_state = false;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t blank = line.find(' ');
    if (blank == line.npos) continue;
    const std::string_view key = line.substr(0, blank), value = line.substr(blank + 1);
    bool good = true;
    if (key == "state") {
      has_state = good = state_of(value, status.state);
    } else if (key == "holder") {
      good = parse_digits(value, status.holder_pid) && status.holder_pid > 0;
    } else if (key == "holder-started") {
      good = parse_digits(value, status.holder_started);
    } else if (key == "daemon") {
      good = parse_digits(value, status.daemon_pid) && status.daemon_pid >= 0;
    } else if (key == "starts") {
      good = parse_digits(value, status.starts);
    } else if (key == "crashes") {
      good = parse_digits(value, status.crashes);
    } else if (key == "since") {
      good = parse_digits(value, status.since_wall_ns);
    } else if (key == "mountpoint") {
      status.mountpoint = with_its_lines(value);
    } else if (key == "volume") {
      status.volume_name = with_its_lines(value);
    } else if (key == "reason") {
      status.reason = with_its_lines(value);
    }
    if (!good) return damaged(line);
  }
  if (!has_state || status.holder_pid <= 0) return damaged("");
  return status;
}

Result<HolderStatus> read_holder_status(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    return fail(errno == ENOENT ? ErrorKind::kNotFound : ErrorKind::kIo, errno,
                fmt::format("cannot read {}: {}", path, strerror(errno)));
  }
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return parse_holder_status(text, path);
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

bool daemon_alive(const HolderStatus& status) {
  const std::uint64_t started = status.daemon_pid > 0 ? process_start(status.daemon_pid) : 0;
  if (started == 0 || started < status.holder_started) return false;
  // The pid may be another program's by now.
  std::ifstream file(fmt::format("/proc/{}/comm", status.daemon_pid));
  std::string name;
  return std::getline(file, name) && name.starts_with("vmfs");
}

}  // namespace vmfs
