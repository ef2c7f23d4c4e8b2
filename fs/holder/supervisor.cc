#include "fs/holder/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "fs/base/log.h"
#include "fs/fuse/kernel.h"
#include "fs/holder/inherited.h"
#include "fs/holder/protection.h"
#include "fs/holder/status.h"

namespace vmfs {
namespace {

constexpr std::int64_t kStartAgain_ns = 500'000'000;  // after not even a process could be made
// The child that unmounts says so with its exit status.
constexpr int kUnmounted = 0, kDetached = 1, kUnmountFailed = 2;

// Which file it is; zeros if there is none.
std::pair<std::uint64_t, std::uint64_t> program_id(const std::string& path) {
  struct stat named {};
  if (::stat(path.c_str(), &named) != 0) return {};
  return {named.st_dev, named.st_ino};
}

// How many processes the kernel has killed for want of memory since the machine's start.
std::uint64_t memory_kills() {
  std::ifstream file("/proc/vmstat");
  std::string name;
  std::uint64_t value = 0;
  while (file >> name >> value)
    if (name == "oom_kill") return value;
  return 0;
}

}  // namespace

void tell_systemd(const std::string& text) {
  const char* path = ::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::strlen(path);
  if (length >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return;
  if (::sendto(socket, text.data(), text.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address),
               static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length)) < 0)
    log_warning("cannot tell systemd: {}", strerror(errno));
  ::close(socket);
}

Supervisor::Supervisor(const HolderOptions& options, Clock& clock, std::function<void()> on_ready)
    : options_(options), clock_(clock), on_ready_(std::move(on_ready)) {}

Supervisor::~Supervisor() {
  for (int clone : mounted_.clones) ::close(clone);
  for (int descriptor : {mounted_.descriptor, signals_, control_})
    if (descriptor >= 0) ::close(descriptor);
}

Result<> Supervisor::prepare() {
  if (options_.threads == 0 || options_.threads > kClonesMax) {
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("the number of FUSE threads is from 1 to {}, not {}", kClonesMax,
                            options_.threads));
  }
  protect_holder();
  sigset_t watched;
  sigemptyset(&watched);
  for (int signal : {SIGCHLD, SIGTERM, SIGINT, SIGHUP}) sigaddset(&watched, signal);
  ::sigprocmask(SIG_BLOCK, &watched, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  // nohup(1) has the one ignored and a script may the other, and what is ignored is not heard of.
  for (int signal : {SIGHUP, SIGCHLD}) ::signal(signal, SIG_DFL);
  const int signals = ::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0)
    return fail(ErrorKind::kIo, errno, fmt::format("signalfd: {}", strerror(errno)));
  VMFS_ASSIGN(signals_, move_up(signals));

  VMFS_ASSIGN(mounted_, mount_connection(options_));
  VMFS_ASSIGN(memory_, ConnectionMemory::create(new_connection_id()));
  ConnectionHeader& header = memory_->header();
  header.device_major = mounted_.major;
  header.device_minor = mounted_.minor;
  header.clone_count = static_cast<std::uint32_t>(mounted_.clones.size());
  mounted_.mountpoint.copy(header.mountpoint, sizeof header.mountpoint - 1);
  status_.holder_pid = ::getpid();
  status_.holder_started = process_start(::getpid());
  status_.mountpoint = mounted_.mountpoint;
  status_.volume_name = options_.volume_name;
  return {};
}

void Supervisor::set_state(HolderStatus::State state) {
  status_.state = state;
  status_.daemon_pid = daemon_;
  status_.since_wall_ns = clock_.wall_ns();
  if (options_.status_path.empty()) return;
  if (auto written = write_holder_status(options_.status_path, status_); !written)
    log_warning("{}", written.error().message);
}

Result<> Supervisor::start_daemon() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return fail(ErrorKind::kIo, errno, fmt::format("socketpair: {}", strerror(errno)));
  VMFS_ASSIGN(control_, move_up(ends[0]));
  VMFS_ASSIGN(const int theirs, move_up(ends[1]));
  memory_->header().starts.fetch_add(1);
  memory_kills_ = memory_kills();
  ++status_.starts;
  ready_ = false;
  said_.clear();
  start_at_ns_.reset();
  if (!own_program_) started_program_ = program_id(options_.executable);
  daemon_ = ::fork();
  if (daemon_ == 0) become_daemon(theirs);
  const int number = errno;
  ::close(theirs);
  if (daemon_ < 0) {
    daemon_ = 0;
    ::close(std::exchange(control_, -1));
    return fail(ErrorKind::kIo, number, fmt::format("cannot start the daemon: {}", strerror(number)));
  }
  set_state(ever_ready_ ? HolderStatus::State::kRestarting : HolderStatus::State::kStarting);
  return {};
}

void Supervisor::start_daemon_again() {
  auto started = start_daemon();
  if (started) return;
  // For want of processes or memory, which may be there in a moment: the clients wait.
  log_error("volume {} on {}: {}; it is tried again", options_.volume_name, mounted_.mountpoint,
            started.error().message);
  status_.reason = started.error().message;
  start_at_ns_ = clock_.monotonic_ns() + kStartAgain_ns;
  set_state(HolderStatus::State::kRestarting);
}

void Supervisor::become_daemon(int control) {
  // Ignored from the first instruction on: ^C in a terminal reaches the whole process group, and it is
  // the holder's to unmount.
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) ::signal(signal, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  bool good = ::dup2(control, kInheritedControl) >= 0 &&
              ::dup2(memory_->descriptor(), kInheritedMemory) >= 0 &&
              ::dup2(mounted_.descriptor, kInheritedFuse) >= 0;
  for (std::size_t i = 0; i < mounted_.clones.size(); ++i)
    good = good && ::dup2(mounted_.clones[i], kInheritedClones + static_cast<int>(i)) >= 0;
  if (good) {
    std::vector<char*> arguments{const_cast<char*>(options_.executable.c_str())};
    for (const std::string& argument : options_.daemon_arguments)
      arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    if (!options_.executable.empty() && !own_program_)
      ::execv(options_.executable.c_str(), arguments.data());
    // In the middle of an upgrade there may be no such file: then the program that the holder runs.
    arguments[0] = const_cast<char*>("vmfs");
    ::execv("/proc/self/exe", arguments.data());
  }
  log_error("cannot execute {}: {}", options_.executable, strerror(errno));
  ::_exit(127);
}

void Supervisor::hear_daemon() {
  char message[kMessageMax];
  const ssize_t got = ::recv(control_, message, sizeof message, MSG_DONTWAIT);
  if (got <= 0) {
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      ::close(control_);  // its end; SIGCHLD tells how
      control_ = -1;
    }
    return;
  }
  if (message[0] == kSaysError) said_.assign(message + 1, static_cast<std::size_t>(got) - 1);
  if (message[0] != kSaysReady) return;
  ready_ = true;
  retries_.succeeded();
  start_failure_.clear();
  if (!own_program_) good_program_ = started_program_;
  set_state(HolderStatus::State::kRunning);
  if (std::exchange(ever_ready_, true)) {
    log_notice("volume {} on {}: daemon {} serves (start {})", options_.volume_name,
               mounted_.mountpoint, daemon_, status_.starts);
  } else {
    log_notice("volume {} is mounted on {} (daemon {})", options_.volume_name, mounted_.mountpoint,
               daemon_);
    on_ready_();
    tell_systemd(fmt::format("READY=1\nMAINPID={}", ::getpid()));
  }
}

bool Supervisor::kernel_resends() {
  const ByteView request = memory_->init_request();
  return !options_.pretend_no_resend &&
         (init_flags(request.data(), request.size()) & kInitHasResend) != 0;
}

Result<bool> Supervisor::daemon_ended(int wait_status) {
  while (control_ >= 0) {  // what it still said
    pollfd waiting{control_, POLLIN, 0};
    if (::poll(&waiting, 1, 0) <= 0) break;
    hear_daemon();
  }
  if (control_ >= 0) ::close(std::exchange(control_, -1));
  const int process = std::exchange(daemon_, 0);
  const bool exited = WIFEXITED(wait_status);
  if (exited && WEXITSTATUS(wait_status) == kDaemonUnmounted) return true;
  if (exited && WEXITSTATUS(wait_status) == kDaemonNotClosed && ready_)
    return pass(give_up(fmt::format("its volume could not be closed: {}", said_)));
  if (exited && WEXITSTATUS(wait_status) == kDaemonRestart && ready_) {
    log_notice("volume {}: the daemon has drained and is started again", options_.volume_name);
    own_program_ = false;  // there may be a better one by now
    start_daemon_again();
    return false;
  }
  std::string how = exited ? fmt::format("daemon {} ended with status {}", process,
                                         WEXITSTATUS(wait_status))
                           : fmt::format("daemon {} was ended by signal {} ({})", process,
                                         WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
  if (!said_.empty()) how = ever_ready_ ? how + ": " + said_ : said_;
  if (!ever_ready_) return fail(ErrorKind::kRefused, EIO, how);
  const bool killed = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL;
  if (!ready_ && !killed && !own_program_ && started_program_ != good_program_) {
    // An upgrade that cannot go on with this mount must not end it.
    own_program_ = true;
    if (start_failure_.empty()) {
      log_error("volume {} on {}: {}. {} cannot go on serving this mount: the program that it was mounted with "
                "does; the new one serves after: vmfs umount {} && vmfs mount {} {}",
                options_.volume_name, mounted_.mountpoint, how, options_.executable, mounted_.mountpoint,
                options_.source, mounted_.mountpoint);
    }
    status_.reason = how;
    start_daemon_again();
    return false;
  }
  if (!ready_ && exited && WEXITSTATUS(wait_status) == kDaemonStartFailed && !said_.empty())
    return start_failed(said_);
  return crashed(how, killed);
}

bool Supervisor::connection_ended() const {
  pollfd waiting{mounted_.descriptor, 0, 0};
  return ::poll(&waiting, 1, 0) > 0 && (waiting.revents & POLLERR) != 0;
}

// It has read no request, so on every kernel nothing is lost by waiting: the clients' requests stay where
// they are until a daemon comes that serves them.
Result<bool> Supervisor::start_failed(const std::string& why) {
  // The cause may be neither program's. If it was the new one's, the holder's own serves by now.
  own_program_ = false;
  if (connection_ended()) {
    // Nobody waits for an answer any more, and nobody would look at a holder that tries for ever.
    status_.reason = why;
    return pass(give_up(fmt::format("it was unmounted while the daemon could not start: {}", why)));
  }
  const std::int64_t delay = retries_.next_delay_ns();
  if (std::exchange(start_failure_, why) != why)
    log_error("volume {} on {}: the daemon cannot start: {}\nits clients wait; it is tried again, ever more "
              "rarely, and at once with:  vmfs restart {}",
              options_.volume_name, mounted_.mountpoint, why, mounted_.mountpoint);
  status_.reason = why;
  start_at_ns_ = clock_.monotonic_ns() + delay;
  set_state(HolderStatus::State::kStartFailed);
  return false;
}

void Supervisor::try_now() {
  if (daemon_ != 0 || !start_at_ns_) return;
  start_at_ns_ = clock_.monotonic_ns();
}

Result<bool> Supervisor::crashed(const std::string& how, bool killed) {
  ++status_.crashes;
  status_.reason = how;
  log_error("volume {} on {}: {}", options_.volume_name, mounted_.mountpoint, how);
  if (!kernel_resends()) {
    return pass(give_up(how + "; this kernel does not send unanswered requests again (Linux 6.9 and "
                              "later do), so its clients got an error"));
  }
  const bool out_of_memory = killed && memory_kills() > memory_kills_;
  if (out_of_memory)
    status_.reason += "; the kernel has killed for want of memory (see dmesg): give the machine more, or lower "
                      "`memory` in vmfs.toml";
  const CrashPolicy::Decision decision =
      policy_.ended({ready_, killed, out_of_memory}, clock_.monotonic_ns());
  if (decision.give_up) {
    return pass(give_up(fmt::format("{} ends within {} s, the last: {}", decision.ends,
                                    CrashPolicy::kWindow_ns / 1'000'000'000, status_.reason)));
  }
  if (decision.delay_ns > 0) {
    start_at_ns_ = clock_.monotonic_ns() + decision.delay_ns;
    set_state(HolderStatus::State::kRestarting);
    return false;
  }
  start_daemon_again();
  return false;
}

Error Supervisor::give_up(const std::string& reason) {
  status_.reason = reason;
  log_error("volume {} on {}: giving up: {}. What was acknowledged is in the journal; mount again "
            "with: vmfs mount {} {}",
            options_.volume_name, mounted_.mountpoint, reason, options_.source, mounted_.mountpoint);
  abort_connection(mounted_);
  detach_mount(mounted_);
  set_state(HolderStatus::State::kGaveUp);
  return {ErrorKind::kIo, EIO, "gave up: " + reason};
}

void Supervisor::begin_unmount() {
  if (std::exchange(unmounting_, true)) return;
  log_notice("volume {}: unmounting {}", options_.volume_name, mounted_.mountpoint);
  tell_systemd("STOPPING=1");
  // In a process of its own: it waits until the daemon has written what is cached, and should that
  // daemon die meanwhile, somebody must start the next one.
  unmounter_ = ::fork();
  if (unmounter_ != 0) {
    if (unmounter_ < 0) unmounting_ = false;
    return;
  }
  // What the daemon may not outlive is not kept from ending by this process, which may wait for long.
  ::close_range(3, ~0u, 0);
  if (!is_mounted(mounted_)) ::_exit(kUnmounted);
  const char* place = mounted_.mountpoint.c_str();
  if (::umount2(place, UMOUNT_NOFOLLOW) == 0 || errno == EINVAL) ::_exit(kUnmounted);
  ::_exit(::umount2(place, UMOUNT_NOFOLLOW | MNT_DETACH) == 0 ? kDetached : kUnmountFailed);
}

void Supervisor::unmount_ended(int wait_status) {
  unmounter_ = 0;
  unmounting_ = false;
  const int result = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : kUnmountFailed;
  if (result == kDetached) {
    log_warning("{} was busy: it is detached, and its daemon ends when the last user has gone",
                mounted_.mountpoint);
  }
  if (result == kUnmountFailed) log_error("cannot unmount {}", mounted_.mountpoint);
}

Result<> Supervisor::run() {
  if (auto prepared = prepare(); !prepared) {
    abort_connection(mounted_);
    detach_mount(mounted_);
    return prepared;
  }
  // Of a mount that ended badly before, or of nobody: where there was none, an attempt in vain leaves none.
  const bool was_lost = read_holder_status(options_.status_path).has_value();
  const auto leave = [&](Error error) -> Result<> {
    // Nothing may be left mounted that nobody serves.
    if (daemon_ != 0) {
      ::kill(daemon_, SIGKILL);
      ::waitpid(daemon_, nullptr, 0);
      daemon_ = 0;
    }
    if (ever_ready_ && status_.state != HolderStatus::State::kGaveUp) error = give_up(error.message);
    abort_connection(mounted_);
    detach_mount(mounted_);
    if (!ever_ready_ && was_lost) {
      status_.reason = error.message;
      set_state(HolderStatus::State::kGaveUp);
    } else if (!ever_ready_ && !options_.status_path.empty()) {
      ::unlink(options_.status_path.c_str());
    }
    return pass(std::move(error));
  };
  if (auto started = start_daemon(); !started) return leave(started.error());
  for (;;) {
    int timeout = -1;
    if (start_at_ns_) {
      const std::int64_t left = *start_at_ns_ - clock_.monotonic_ns();
      timeout = left <= 0 ? 0 : static_cast<int>(left / 1'000'000 + 1);
    }
    // The connection's end is the daemon's to notice; only when there is none it is looked for here.
    const bool alone = daemon_ == 0 && start_at_ns_.has_value();
    pollfd waiting[3] = {{signals_, POLLIN, 0},
                         {control_, POLLIN, 0},                       // -1: passed over
                         {alone ? mounted_.descriptor : -1, 0, 0}};
    if (::poll(waiting, 3, timeout) < 0 && errno != EINTR)
      return leave({ErrorKind::kIo, errno, fmt::format("poll: {}", strerror(errno))});
    if (control_ >= 0 && waiting[1].revents != 0) hear_daemon();
    // One more try: if the reason has gone, that daemon closes the store as after any unmount.
    if ((waiting[2].revents & POLLERR) != 0) try_now();
    signalfd_siginfo signal{};
    while (::read(signals_, &signal, sizeof signal) == sizeof signal) {
      if (signal.ssi_signo == SIGHUP) try_now();
      if (signal.ssi_signo == SIGTERM || signal.ssi_signo == SIGINT) begin_unmount();
    }
    int wait_status = 0;
    for (int child; (child = ::waitpid(-1, &wait_status, WNOHANG)) > 0;) {
      if (child == unmounter_) unmount_ended(wait_status);
      if (child != daemon_) continue;
      auto done = daemon_ended(wait_status);
      if (!done) return leave(done.error());
      if (*done) {
        log_notice("volume {} is unmounted from {}", options_.volume_name, mounted_.mountpoint);
        if (!options_.status_path.empty()) ::unlink(options_.status_path.c_str());
        abort_connection(mounted_);
        detach_mount(mounted_);
        return {};
      }
    }
    if (start_at_ns_ && clock_.monotonic_ns() >= *start_at_ns_)
      start_daemon_again();
  }
}

}  // namespace vmfs
