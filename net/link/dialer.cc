#include "net/link/dialer.h"

#include <asio/post.hpp>
#include <cerrno>

#include "net/link/address.h"
#include "net/link/connection.h"

namespace vmfs {

Dialer::Dialer(std::shared_ptr<AsioShell::State> shell, LinkEvents& events, Done done)
    : shell_(std::move(shell)),
      events_(events),
      done_(std::move(done)),
      resolver_(*shell_->io),
      socket_(*shell_->io),
      deadline_(*shell_->io) {}

void Dialer::begin(const std::string& address) {
  auto self = shared_from_this();
  address_ = address;
  last_error_ = Error{ErrorKind::kNotFound, EHOSTUNREACH, address_ + ": has no address"};
  auto parsed = parse_address(address);
  if (!parsed) return finish(pass(parsed.error()));
  deadline_.expires_after(std::chrono::nanoseconds(kHandshakeDeadlineNs));
  deadline_.async_wait([self](const asio::error_code& error) {
    if (error) return;
    self->finish(fail(ErrorKind::kIo, ETIMEDOUT,
                      fmt::format("{}: no connection within {} s", self->address_,
                                  kHandshakeDeadlineNs / 1'000'000'000)));
  });
  resolver_.async_resolve(
      parsed->host, std::to_string(parsed->port), asio::ip::resolver_query_base::numeric_service,
      [self](const asio::error_code& error, asio::ip::tcp::resolver::results_type results) {
        if (!self->done_) return;
        if (error)
          return self->finish(fail(ErrorKind::kNotFound, EHOSTUNREACH,
                                   fmt::format("{}: cannot resolve the name: {}", self->address_,
                                               error.message())));
        for (const auto& result : results) self->endpoints_.push_back(result.endpoint());
        self->connect_next();
      });
}

void Dialer::connect_next() {
  if (next_ == endpoints_.size()) return finish(pass(last_error_));
  auto self = shared_from_this();
  const auto endpoint = endpoints_[next_++];
  const LinkCredentials& credentials = shell_->options.credentials;
  // Checked before a single byte leaves.
  if (credentials.encryption != Encryption::kTls &&
      !clear_allowed(credentials, endpoint.address())) {
    last_error_ = refusal(HelloVerdict::kClearNotAllowed, to_text(endpoint), credentials);
    return connect_next();
  }
  asio::error_code ignored;
  socket_.close(ignored);
  socket_.async_connect(endpoint, [self, endpoint](const asio::error_code& error) {
    if (!self->done_) return;
    if (error) {
      self->last_error_ =
          Error{ErrorKind::kIo, error.value(),
                fmt::format("{}: cannot connect: {}", to_text(endpoint), error.message())};
      return self->connect_next();
    }
    self->deadline_.cancel();
    Done done = std::move(self->done_);
    self->done_ = nullptr;
    std::make_shared<TcpConnection>(self->shell_, std::move(self->socket_), LinkRole::kDialer,
                                 self->events_, std::move(done))
        ->begin();
  });
}

void Dialer::finish(Result<std::unique_ptr<Link>> result) {
  if (!done_) return;
  deadline_.cancel();
  resolver_.cancel();
  asio::error_code ignored;
  socket_.close(ignored);
  // Never from within dial().
  asio::post(*shell_->io, [done = std::move(done_), error = std::move(result.error())] {
    done(pass(error));
  });
  done_ = nullptr;
}

}  // namespace vmfs
