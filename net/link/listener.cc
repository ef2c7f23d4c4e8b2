#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <deque>

#include "fs/base/log.h"
#include "fs/seam/clock.h"
#include "net/link/address.h"
#include "net/link/connection.h"
#include "net/link/shell_state.h"

namespace vmfs {

namespace {
// A port that strangers knock at must not fill the log.
constexpr std::int64_t kLogIntervalNs = 10'000'000'000;
constexpr auto kRetryAccept = std::chrono::milliseconds(200);
}  // namespace

struct Listener::State : std::enable_shared_from_this<Listener::State> {
  std::shared_ptr<AsioShell::State> shell;
  std::string address;
  LinkEvents* events = nullptr;
  std::function<void(std::unique_ptr<Link>)> accepted;
  std::optional<asio::ip::tcp::acceptor> acceptor;
  std::optional<asio::steady_timer> retry;
  std::deque<std::weak_ptr<TcpConnection>> unauthenticated;
  std::int64_t logged_at = 0;
  std::uint64_t not_logged = 0;

  void accept() {
    if (!acceptor) return;
    acceptor->async_accept([self = shared_from_this()](const asio::error_code& error,
                                                       asio::ip::tcp::socket socket) {
      if (!self->acceptor || error == asio::error::operation_aborted) return;
      if (!error) {
        self->admit(std::move(socket));
        return self->accept();
      }
      // Out of descriptors or memory, or the connection was gone already: later, not in a busy loop.
      self->retry->expires_after(kRetryAccept);
      self->retry->async_wait([self](const asio::error_code& cancelled) {
        if (!cancelled) self->accept();
      });
    });
  }

  void admit(asio::ip::tcp::socket socket) {
    std::erase_if(unauthenticated, [](const std::weak_ptr<TcpConnection>& weak) {
      auto connection = weak.lock();
      return !connection || connection->authenticated();
    });
    if (unauthenticated.size() >= kUnauthenticatedMax) {
      if (auto oldest = unauthenticated.front().lock())
        oldest->give_up(Error{ErrorKind::kProtocol, ECONNABORTED,
                              oldest->remote() + ": gave way to newer connections"});
      unauthenticated.pop_front();
    }
    auto connection = std::make_shared<TcpConnection>(
        shell, std::move(socket), LinkRole::kListener, *events,
        [self = shared_from_this()](Result<std::unique_ptr<Link>> link) {
          if (!self->acceptor) return;
          if (link)
            self->accepted(std::move(*link));
          else
            self->report(link.error());
        });
    unauthenticated.push_back(connection);
    connection->begin();
  }

  void report(const Error& error) {
    const std::int64_t now = system_clock().monotonic_ns();
    if (logged_at != 0 && now - logged_at < kLogIntervalNs) {
      ++not_logged;
      return;
    }
    if (not_logged > 0)
      log_warning("{} (and {} more failed connections before)", error.message, not_logged);
    else
      log_warning("{}", error.message);
    logged_at = now;
    not_logged = 0;
  }
};

Result<std::unique_ptr<Listener>> Listener::open(
    AsioShell& shell, const std::string& address, LinkEvents& events,
    std::function<void(std::unique_ptr<Link>)> accepted) {
  VMFS_ASSIGN(const HostPort parsed, parse_address(address));
  auto failed = [&](const char* doing, const asio::error_code& error) {
    return fail(ErrorKind::kIo, error.value(),
                fmt::format("cannot listen on {}: {}: {}", address, doing, error.message()));
  };
  asio::io_context& io = *shell.state_->io;
  asio::error_code error;
  asio::ip::tcp::resolver resolver(io);
  const auto results =
      resolver.resolve(parsed.host, std::to_string(parsed.port),
                       asio::ip::resolver_query_base::passive |
                           asio::ip::resolver_query_base::numeric_service,
                       error);
  if (error || results.empty()) return failed("resolving the name", error);
  const auto endpoint = results.begin()->endpoint();
  auto state = std::make_shared<State>();
  state->shell = shell.state_;
  state->events = &events;
  state->accepted = std::move(accepted);
  state->retry.emplace(io);
  state->acceptor.emplace(io);
  const char* doing = "opening a socket";
  state->acceptor->open(endpoint.protocol(), error);
  if (!error) {
    doing = "setting SO_REUSEADDR";
    state->acceptor->set_option(asio::socket_base::reuse_address(true), error);
  }
  if (!error) {
    doing = "binding";
    state->acceptor->bind(endpoint, error);
  }
  if (!error) {
    doing = "listening";
    state->acceptor->listen(asio::socket_base::max_listen_connections, error);
  }
  if (error) return failed(doing, error);
  const auto local = state->acceptor->local_endpoint(error);
  if (error) return failed("asking for the port", error);
  state->address = to_text(local);
  state->accept();
  return std::unique_ptr<Listener>(new Listener(std::move(state)));
}

Listener::Listener(std::shared_ptr<State> state) : state_(std::move(state)) {}

Listener::~Listener() {
  state_->acceptor.reset();
  state_->retry.reset();
  for (auto& weak : state_->unauthenticated)
    if (auto connection = weak.lock())
      connection->give_up(Error{ErrorKind::kIo, ECONNABORTED, {}});
}

std::string Listener::address() const { return state_->address; }

}  // namespace vmfs
