#include "cli/control.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fs/base/log.h"
#include "fs/seam/clock.h"

namespace vmfs {

namespace {

// An address that also fits when the store's path is longer than a socket's address may be: through
// the directory's descriptor.
sockaddr_un address_in(int directory) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}/control", directory);
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

tl::unexpected<Error> failed(const std::string& object, std::string_view doing) {
  int number = errno;
  return fail(ErrorKind::kIo, number, fmt::format("{}: {}: {}", object, doing, std::strerror(number)));
}

// All of it; false if the other end has gone.
bool send_text(int fd, std::string_view text) {
  for (std::size_t sent = 0; sent < text.size();) {
    ssize_t put = ::send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    sent += static_cast<std::size_t>(put);
  }
  return true;
}

bool send_line(int fd, const nlohmann::json& value) { return send_text(fd, control_line(value)); }

// Many paths make one that is.
Error too_long() { return {ErrorKind::kInvalid, E2BIG, "the request is too long: name fewer paths at once"}; }

}  // namespace

std::string control_directory(const std::string& store) { return store + "/run"; }

// --- Server --------------------------------------------------------------------------------------

struct ControlServer::Connection {
  int fd = -1;
  std::thread thread;
  std::atomic<bool> ended{false};
};

Result<std::unique_ptr<ControlServer>> ControlServer::start(const std::string& store, Handler handler) {
  std::unique_ptr<ControlServer> server(new ControlServer);
  server->handler_ = std::move(handler);
  std::string directory = control_directory(store);
  server->path_ = directory + "/control";
  int directory_fd = ::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory_fd < 0) return failed(directory, "open");
  // Left by a daemon before: the store's lock says that it has gone.
  ::unlink(server->path_.c_str());
  server->listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  server->stop_event_ = ::eventfd(0, EFD_CLOEXEC);
  if (server->listener_ < 0 || server->stop_event_ < 0) {
    ::close(directory_fd);
    return failed(server->path_, "socket");
  }
  // The socket has its mode from the start; nobody else may connect even for a moment.
  ::fchmod(server->listener_, 0600);
  sockaddr_un address = address_in(directory_fd);
  int bound = ::bind(server->listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
  int number = errno;
  ::close(directory_fd);
  errno = number;
  if (bound != 0) return failed(server->path_, "bind");
  if (::chmod(server->path_.c_str(), 0600) != 0) return failed(server->path_, "chmod");
  if (::listen(server->listener_, 16) != 0) return failed(server->path_, "listen");
  server->acceptor_ = std::thread([raw = server.get()] { raw->accept_loop(); });
  return server;
}

ControlServer::~ControlServer() {
  if (acceptor_.joinable()) {
    std::uint64_t one = 1;
    [[maybe_unused]] ssize_t put = ::write(stop_event_, &one, sizeof one);
    acceptor_.join();
  }
  for (auto& connection : connections_) {
    connection->thread.join();
    ::close(connection->fd);
  }
  if (listener_ >= 0) {
    ::unlink(path_.c_str());
    ::close(listener_);
  }
  if (stop_event_ >= 0) ::close(stop_event_);
}

void ControlServer::accept_loop() {
  for (;;) {
    pollfd waits[] = {{listener_, POLLIN, 0}, {stop_event_, POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) return;
    if (waits[1].revents != 0) return;
    std::erase_if(connections_, [](auto& connection) {
      if (!connection->ended) return false;
      connection->thread.join();
      ::close(connection->fd);
      return true;
    });
    int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) {
      // Without descriptors to spare it is tried again a little later, and not all the time.
      if (errno == EMFILE || errno == ENFILE) (void)::poll(waits + 1, 1, 100);
      continue;
    }
    // A client that does not read its answer must not hold up the daemon's end.
    timeval patience{5, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connections_.size() >= kControlConnectionsMax) {
      send_line(fd, error_to_json({ErrorKind::kBusy, EBUSY, "too many commands talk to the daemon"}));
      ::close(fd);
      continue;
    }
    auto connection = std::make_unique<Connection>();
    connection->fd = fd;
    Connection* raw = connection.get();
    connections_.push_back(std::move(connection));
    raw->thread = std::thread([this, raw] {
      serve(*raw);
      raw->ended = true;
    });
  }
}

void ControlServer::serve(Connection& connection) {
  // The answer of one request, filled by whatever thread has it; kept by both sides.
  struct Pending {
    int event = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    std::mutex mutex;
    nlohmann::json answer;
    ~Pending() { ::close(event); }
  };
  std::string received;
  for (;;) {
    std::size_t newline = received.find('\n');
    if (newline == std::string::npos) {
      if (received.size() > kControlRequestMax) {
        send_line(connection.fd, error_to_json(too_long()));
        return;
      }
      pollfd waits[] = {{connection.fd, POLLIN, 0}, {stop_event_, POLLIN, 0}};
      if (::poll(waits, 2, -1) < 0 && errno != EINTR) return;
      if (waits[1].revents != 0) break;
      char buffer[4096];
      ssize_t got = ::recv(connection.fd, buffer, sizeof buffer, MSG_DONTWAIT);
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got <= 0) return;
      received.append(buffer, static_cast<std::size_t>(got));
      continue;
    }
    auto request = parse_control_request(std::string_view(received).substr(0, newline));
    received.erase(0, newline + 1);
    if (!request) {
      send_line(connection.fd, error_to_json(request.error()));
      return;
    }
    auto pending = std::make_shared<Pending>();
    std::function<void()> cancel = handler_(*request, [pending](nlohmann::json answer) {
      std::lock_guard lock(pending->mutex);
      pending->answer = std::move(answer);
      std::uint64_t one = 1;
      [[maybe_unused]] ssize_t put = ::write(pending->event, &one, sizeof one);
    });
    for (;;) {
      pollfd waits[] = {{pending->event, POLLIN, 0}, {stop_event_, POLLIN, 0},
                        {connection.fd, POLLRDHUP, 0}};
      if (::poll(waits, 3, -1) < 0 && errno == EINTR) continue;
      if (waits[0].revents != 0) break;
      if (waits[1].revents != 0 || waits[2].revents != 0) {
        if (cancel) cancel();
        if (waits[1].revents != 0)
          send_line(connection.fd, error_to_json({ErrorKind::kBusy, ECANCELED, "the daemon ends"}));
        return;
      }
    }
    std::lock_guard lock(pending->mutex);
    if (!send_line(connection.fd, pending->answer)) return;
  }
}

// --- Client --------------------------------------------------------------------------------------

Result<std::unique_ptr<ControlClient>> ControlClient::connect(const std::string& store) {
  std::string directory = control_directory(store);
  int directory_fd = ::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = address_in(directory_fd);
  int connected = directory_fd < 0 || fd < 0
                      ? -1
                      : ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  int number = errno;
  if (directory_fd >= 0) ::close(directory_fd);
  if (connected == 0) return std::unique_ptr<ControlClient>(new ControlClient(fd));
  if (fd >= 0) ::close(fd);
  if (number == ENOENT || number == ECONNREFUSED || number == ENOTDIR)
    return fail(ErrorKind::kNotFound, ENOENT, fmt::format("{}: no daemon serves this store now", store));
  return fail(ErrorKind::kIo, number,
              fmt::format("{}/control: connect: {}{}", directory, std::strerror(number),
                          number == EACCES ? "\nonly root may use it" : ""));
}

ControlClient::~ControlClient() { ::close(fd_); }

Result<nlohmann::json> ControlClient::request(const nlohmann::json& request, std::int64_t timeout_ns) {
  auto ended = [] {
    return fail(ErrorKind::kIo, EPIPE, "the daemon ended while the command waited for its answer");
  };
  const std::string line = control_line(request);
  if (line.size() > kControlRequestMax) return pass(too_long());
  if (!send_text(fd_, line)) return ended();
  std::int64_t deadline = system_clock().monotonic_ns() + timeout_ns;
  for (;;) {
    if (std::size_t newline = received_.find('\n'); newline != std::string::npos) {
      auto answer = parse_control_answer(std::string_view(received_).substr(0, newline));
      received_.erase(0, newline + 1);
      return answer;
    }
    if (received_.size() > kControlLineMax)
      return fail(ErrorKind::kProtocol, EPROTO, "the daemon's answer is too long");
    int wait_ms = -1;
    if (timeout_ns >= 0) {
      std::int64_t left = deadline - system_clock().monotonic_ns();
      if (left <= 0)
        return fail(ErrorKind::kIo, ETIMEDOUT,
                    fmt::format("the daemon did not answer within {} s", timeout_ns / 1'000'000'000));
      wait_ms = static_cast<int>(std::min<std::int64_t>(left / 1'000'000 + 1, INT32_MAX));
    }
    pollfd wait{fd_, POLLIN, 0};
    if (::poll(&wait, 1, wait_ms) <= 0) continue;
    char buffer[65536];
    ssize_t got = ::recv(fd_, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return ended();
    received_.append(buffer, static_cast<std::size_t>(got));
  }
}

}  // namespace vmfs
