#include "fs/fuse/notifier.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "fs/base/log.h"

namespace vmfs {
namespace {

struct Answer {
  std::uint64_t number = 0;
  std::int32_t error = 0;
  std::int32_t reserved = 0;
};

// --- The process ----------------------------------------------------------------------------------------

class Server {
 public:
  Server(int socket, int connection) : socket_(socket), connection_(connection) {}

  // One thread of many: there is always one that listens, however many are in the kernel.
  void serve() {
    std::array<std::byte, sizeof(std::uint64_t) + Notifier::kMessageMax> message;
    for (;;) {
      const ssize_t got = ::recv(socket_, message.data(), message.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      // The daemon has gone. What is in the kernel ends when it can.
      if (got <= static_cast<ssize_t>(sizeof(std::uint64_t))) ::_exit(0);
      if (listening_.fetch_sub(1) == 1) add_listener();
      Answer answer;
      std::memcpy(&answer.number, message.data(), sizeof answer.number);
      if (::write(connection_, message.data() + sizeof answer.number,
                  static_cast<std::size_t>(got) - sizeof answer.number) < 0)
        answer.error = errno;
      listening_.fetch_add(1);
      (void)!::send(socket_, &answer, sizeof answer, MSG_NOSIGNAL);
    }
  }

 private:
  void add_listener() {
    if (threads_.fetch_add(1) >= Notifier::kThreadsMax) return;
    listening_.fetch_add(1);
    std::thread([this] { serve(); }).detach();
  }

  const int socket_, connection_;
  std::atomic<int> listening_{1}, threads_{1};
};

[[noreturn]] void run_process(int socket, int connection) {
  ::prctl(PR_SET_NAME, "vmfs-notifier");
  // Only these two and standard error: nothing of the daemon's may outlive it here.
  if (::dup2(socket, 0) < 0 || ::dup2(connection, 1) < 0) ::_exit(1);
  ::close_range(3, ~0u, 0);
  Server server(0, 1);
  server.serve();
  ::_exit(0);
}

}  // namespace

// --- The daemon's side ----------------------------------------------------------------------------------

Result<std::unique_ptr<Notifier>> Notifier::start(int connection) {
  std::array<int, 2> sockets{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets.data()) != 0)
    return fail(ErrorKind::kIo, errno, fmt::format("socketpair: {}", strerror(errno)));
  const pid_t process = ::fork();
  if (process == 0) run_process(sockets[1], connection);
  const int number = errno;
  ::close(sockets[1]);
  if (process < 0) {
    ::close(sockets[0]);
    return fail(ErrorKind::kIo, number, fmt::format("fork: {}", strerror(number)));
  }
  return std::unique_ptr<Notifier>(new Notifier(sockets[0]));
}

Notifier::Notifier(int socket) : socket_(socket) {}

Notifier::~Notifier() {
  stop();
  ::shutdown(socket_, SHUT_RDWR);
  if (listener_.joinable()) listener_.join();
  ::close(socket_);
}

void Notifier::stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

ssize_t Notifier::write(std::span<const iovec> pieces) {
  std::array<std::byte, sizeof(std::uint64_t) + kMessageMax> message;
  std::size_t size = sizeof(std::uint64_t);
  for (const iovec& piece : pieces) {
    if (piece.iov_len > message.size() - size) {
      errno = EMSGSIZE;
      return -1;
    }
    std::memcpy(message.data() + size, piece.iov_base, piece.iov_len);
    size += piece.iov_len;
  }
  std::unique_lock lock(mutex_);
  if (!listener_.joinable() && !stopped_) listener_ = std::thread([this] { hear(); });
  const std::uint64_t number = ++last_;
  std::memcpy(message.data(), &number, sizeof number);
  Waiting& mine = waiting_[number];
  lock.unlock();
  const bool sent = ::send(socket_, message.data(), size, MSG_NOSIGNAL) >= 0;
  const int failure = errno;
  lock.lock();
  if (!sent) was_lost();
  if (sent) changed_.wait(lock, [&] { return mine.answered || stopped_; });
  const int error = !sent ? failure : mine.answered ? mine.error : ESHUTDOWN;
  waiting_.erase(number);
  if (error == 0) return static_cast<ssize_t>(size - sizeof number);
  errno = error;
  return -1;
}

// Nobody ends it but this object, or somebody's kill. mutex_ is held.
void Notifier::was_lost() {
  if (stopped_) return;
  log_error("the process that clears the kernel's caches was killed: the daemon does it itself; to have another one:  "
            "vmfs restart MOUNTPOINT");
  lost_ = stopped_ = true;
  changed_.notify_all();
}

bool Notifier::lost() const {
  std::lock_guard lock(mutex_);
  return lost_;
}

void Notifier::hear() {
  Answer answer;
  for (;;) {
    const ssize_t got = ::recv(socket_, &answer, sizeof answer, 0);
    if (got < 0 && errno == EINTR) continue;
    std::lock_guard lock(mutex_);
    if (got != sizeof answer) {
      was_lost();
      return;
    }
    if (auto found = waiting_.find(answer.number); found != waiting_.end()) {
      found->second.answered = true;
      found->second.error = answer.error;
      changed_.notify_all();
    }
  }
}

}  // namespace vmfs
