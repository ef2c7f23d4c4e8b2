#include "net/link/connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <asio/post.hpp>
#include <cerrno>
#include <cstring>

#include "fs/base/check.h"

namespace vmfs {

namespace {

// Pieces of one gather write; two a frame.
constexpr std::size_t kPiecesMax = 128;
// Encrypted bytes made ahead of what the system takes; also one read's worth of encrypted bytes.
constexpr std::size_t kCipherAhead = 256u << 10;
constexpr std::size_t kTlsRecordMax = 16u << 10;
// One connection's reads in a turn, so that timers and other links get theirs.
constexpr int kReadsPerTurn = 8;
// How long what was queued before close() may take to leave.
constexpr auto kDrainTime = std::chrono::seconds(2);
// Unacknowledged for so long, the connection is gone. Heartbeats notice earlier what they can; this
// bounds it where the session waits for something else.
constexpr unsigned kUserTimeoutMs = 20'000;

void set_option(int socket, int level, int name, int value) {
  // All of them tune; none is needed for a correct link, so a refusal is no error.
  (void)::setsockopt(socket, level, name, &value, sizeof value);
}

}  // namespace

TcpConnection::TcpConnection(std::shared_ptr<AsioShell::State> shell, asio::ip::tcp::socket socket,
                       LinkRole role, LinkEvents& events, Done done)
    : shell_(std::move(shell)), role_(role), events_(&events), done_(std::move(done)) {
  socket_.emplace(std::move(socket));
  deadline_.emplace(*shell_->io);
  asio::error_code error;
  const auto endpoint = socket_->remote_endpoint(error);
  remote_ = error ? std::string("unknown address") : to_text(endpoint);
  socket_->non_blocking(true, error);
  const int descriptor = socket_->native_handle();
  set_option(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, 5);
  set_option(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set_option(descriptor, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
  shell_->connections.insert(this);
}

TcpConnection::~TcpConnection() { shell_->connections.erase(this); }

void TcpConnection::detach() {
  phase_ = Phase::kClosed;
  events_ = nullptr;
  done_ = nullptr;
  deadline_.reset();
  socket_.reset();
}

// --- Sending ------------------------------------------------------------------------------------

void TcpConnection::send(Bytes frame) {
  if (phase_ != Phase::kOpen) return;
  Outgoing out;
  const FrameHeader header = make_frame_header(frame, /*hash_body=*/!tls_);
  std::memcpy(out.head.data(), &header, sizeof header);
  out.head_size = sizeof header;
  out.body = std::move(frame);
  queued_bytes_ += out.size();
  queue_.push_back(std::move(out));
  if (!write_armed_ && !turn_scheduled_) {
    // The first frame of a turn leaves at once; those that the same handler sends after it leave
    // together when it has ended.
    flush();
    if (phase_ != Phase::kOpen) return;
    turn_scheduled_ = true;
    asio::post(*shell_->io, [self = shared_from_this()] {
      self->turn_scheduled_ = false;
      if (!self->write_armed_ && !self->queue_.empty()) {
        self->flush();
        self->after_flush();
      }
    });
  }
  if (unsent_bytes() > 0) writable_owed_ = true;
}

std::size_t TcpConnection::unsent_bytes() const {
  return queued_bytes_ + (tls_ ? tls_->output().size() : 0);
}

void TcpConnection::flush() {
  if (!socket_) return;
  if (!(tls_ && phase_ != Phase::kHello ? flush_cipher() : flush_clear())) return;
}

bool TcpConnection::flush_clear() {
  while (!queue_.empty()) {
    std::array<iovec, kPiecesMax> pieces;
    std::size_t count = 0, total = 0, skip = front_done_;
    for (auto out = queue_.begin(); out != queue_.end() && count + 2 <= kPiecesMax; ++out) {
      auto add = [&](std::byte* data, std::size_t size) {
        const std::size_t passed = std::min(skip, size);
        skip -= passed;
        if (size == passed) return;
        pieces[count++] = {data + passed, size - passed};
        total += size - passed;
      };
      add(out->head.data(), out->head_size);
      add(out->body.data(), out->body.size());
    }
    auto sent = transmit(std::span(pieces).first(count));
    if (!sent) return false;
    advance(*sent);
    if (*sent < total) {
      arm_write();
      return false;
    }
  }
  return true;
}

bool TcpConnection::flush_cipher() {
  for (;;) {
    encrypt_some();
    const ByteView output = tls_->output();
    if (output.empty()) return true;
    const iovec piece{const_cast<std::byte*>(output.data()), output.size()};
    auto sent = transmit(std::span(&piece, 1));
    if (!sent) return false;
    tls_->drop_output(*sent);
    if (*sent < piece.iov_len) {
      arm_write();
      return false;
    }
  }
}

void TcpConnection::encrypt_some() {
  // Handshake messages follow the handshake; before its end there is nothing to encrypt with.
  if (phase_ == Phase::kTls) return;
  if (!scratch_) scratch_ = std::make_unique_for_overwrite<std::byte[]>(kTlsRecordMax);
  while (!queue_.empty() && tls_->output().size() < kCipherAhead) {
    Outgoing& front = queue_.front();
    Result<> written;
    if (front_done_ >= front.head_size && front.size() - front_done_ >= kTlsRecordMax) {
      ByteView body = ByteView(front.body).subspan(front_done_ - front.head_size);
      body = body.first(std::min(body.size() / kTlsRecordMax * kTlsRecordMax, kCipherAhead));
      written = tls_->write(body);
      advance(body.size());
    } else {
      // Headers and small frames, and the beginnings and ends of large ones, share records.
      std::size_t used = 0;
      while (!queue_.empty() && used < kTlsRecordMax) {
        Outgoing& out = queue_.front();
        const bool in_head = front_done_ < out.head_size;
        const std::byte* from = in_head ? out.head.data() + front_done_
                                        : out.body.data() + (front_done_ - out.head_size);
        const std::size_t left = in_head ? out.head_size - front_done_ : out.size() - front_done_;
        const std::size_t part = std::min(left, kTlsRecordMax - used);
        if (part > 0) std::memcpy(scratch_.get() + used, from, part);
        used += part;
        advance(part);
      }
      written = tls_->write(ByteView(scratch_.get(), used));
    }
    if (!written) {
      fail_with(Error{written.error().kind, written.error().number,
                      remote_ + ": " + written.error().message});
      return;
    }
  }
}

std::optional<std::size_t> TcpConnection::transmit(std::span<const iovec> pieces) {
  if (!socket_) return std::nullopt;
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = pieces.size();
  for (;;) {
    const ssize_t sent =
        ::sendmsg(socket_->native_handle(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return static_cast<std::size_t>(sent);
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      arm_write();
      return std::nullopt;
    }
    const int number = errno;
    fail_with(Error{ErrorKind::kIo, number,
                    fmt::format("{}: cannot send: {}", remote_, std::strerror(number))});
    return std::nullopt;
  }
}

void TcpConnection::advance(std::size_t size) {
  queued_bytes_ -= size;
  front_done_ += size;
  while (!queue_.empty() && front_done_ >= queue_.front().size()) {
    front_done_ -= queue_.front().size();
    queue_.pop_front();
  }
}

void TcpConnection::arm_write() {
  if (write_armed_ || !socket_) return;
  write_armed_ = true;
  socket_->async_wait(asio::ip::tcp::socket::wait_write,
                      [self = shared_from_this()](const asio::error_code& error) {
                        self->write_armed_ = false;
                        if (!error) self->on_writable();
                      });
}

void TcpConnection::on_writable() {
  if (!socket_) return;
  flush();
  after_flush();
}

void TcpConnection::after_flush() {
  if (unsent_bytes() > 0) return;
  if (phase_ == Phase::kDraining) {
    finish_draining();
  } else if (phase_ == Phase::kOpen && writable_owed_) {
    writable_owed_ = false;
    events_->writable(*handle_);
  }
}

// --- Receiving ----------------------------------------------------------------------------------

void TcpConnection::arm_read() {
  if (read_armed_ || !socket_ || phase_ == Phase::kClosed) return;
  read_armed_ = true;
  socket_->async_wait(asio::ip::tcp::socket::wait_read,
                      [self = shared_from_this()](const asio::error_code& error) {
                        self->read_armed_ = false;
                        if (!error) self->on_readable();
                      });
}

void TcpConnection::on_readable() {
  if (!socket_) return;
  if (phase_ < Phase::kOpen) {
    read_handshake();
  } else if (phase_ == Phase::kOpen) {
    read_frames();
  } else if (phase_ == Phase::kDraining) {
    while (receive(cipher_small_)) {
    }
    arm_read();
  }
}

std::optional<std::size_t> TcpConnection::receive(std::span<std::byte> space) {
  if (!socket_) return std::nullopt;
  for (;;) {
    const ssize_t got =
        ::recv(socket_->native_handle(), space.data(), space.size(), MSG_DONTWAIT);
    if (got > 0) return static_cast<std::size_t>(got);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::nullopt;
    if (got < 0) {
      const int number = errno;
      fail_with(Error{ErrorKind::kIo, number,
                      fmt::format("{}: cannot receive: {}", remote_, std::strerror(number))});
    } else if (phase_ < Phase::kOpen) {
      fail_with(Error{ErrorKind::kProtocol, ECONNRESET,
                      remote_ + ": the other end closed the connection during the handshake"});
    } else {
      const std::size_t cut = decoder_ ? decoder_->pending() : 0;
      fail_with(Error{ErrorKind::kIo, ECONNRESET,
                      cut == 0 ? remote_ + ": the other end closed the connection"
                               : fmt::format("{}: the connection was cut in the middle of a frame "
                                             "({} bytes of it arrived)",
                                             remote_, cut)});
    }
    return std::nullopt;
  }
}

void TcpConnection::read_frames() {
  for (int reads = 0; reads < kReadsPerTurn; ++reads) {
    if (tls_) {
      // Decrypt what has arrived, then read more.
      for (;;) {
        auto space = decoder_->space();
        auto plain = tls_->read(space);
        if (!plain) {
          const bool ended = plain.error().kind == ErrorKind::kNotFound;
          fail_with(Error{ended ? ErrorKind::kIo : plain.error().kind, plain.error().number,
                          remote_ + ": " + plain.error().message});
          return;
        }
        if (*plain == 0) break;
        decoder_->filled(*plain);
        if (!deliver()) return;
      }
      if (!cipher_) cipher_ = std::make_unique_for_overwrite<std::byte[]>(kCipherAhead);
      CHECK_COMPARE(tls_->unread(), ==, 0u);
      auto got = receive({cipher_.get(), kCipherAhead});
      if (!got) return arm_read();
      tls_->feed(ByteView(cipher_.get(), *got));
    } else {
      auto space = decoder_->space();
      auto got = receive(space);
      if (!got) return arm_read();
      decoder_->filled(*got);
      if (!deliver()) return;
      // A short read has emptied the socket.
      if (*got < space.size()) return arm_read();
    }
  }
  read_armed_ = true;
  asio::post(*shell_->io, [self = shared_from_this()] {
    self->read_armed_ = false;
    self->on_readable();
  });
}

bool TcpConnection::deliver() {
  for (;;) {
    auto body = decoder_->next();
    if (!body) {
      fail_with(Error{body.error().kind, body.error().number,
                      remote_ + ": " + body.error().message});
      return false;
    }
    if (!*body) {
      events_->progress(*handle_);
      return true;
    }
    events_->frame(*handle_, **body);
    if (phase_ != Phase::kOpen) return false;
  }
}

// --- The end ------------------------------------------------------------------------------------

void TcpConnection::shut_socket() {
  if (deadline_) deadline_->cancel();
  if (socket_) {
    asio::error_code ignored;
    socket_->close(ignored);
    socket_.reset();
  }
}

void TcpConnection::fail_with(Error why) {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  shut_socket();
  queue_.clear();
  queued_bytes_ = front_done_ = 0;
  asio::post(*shell_->io, [self = shared_from_this(), why = std::move(why)] {
    if (self->done_) {
      Done done = std::move(self->done_);
      self->done_ = nullptr;
      done(pass(why));
    } else if (self->events_ != nullptr && self->handle_ != nullptr) {
      LinkEvents* events = self->events_;
      self->events_ = nullptr;
      events->closed(*self->handle_, why);
    }
  });
}

void TcpConnection::close() {
  events_ = nullptr;
  if (phase_ != Phase::kOpen) return;
  phase_ = Phase::kDraining;
  auto self = shared_from_this();
  deadline_->expires_after(kDrainTime);
  deadline_->async_wait([self](const asio::error_code& error) {
    if (!error) self->fail_with(Error{ErrorKind::kIo, ETIMEDOUT, {}});
  });
  if (!write_armed_) flush();
  if (phase_ == Phase::kDraining && unsent_bytes() == 0) finish_draining();
  arm_read();
}

void TcpConnection::finish_draining() {
  if (sending_ended_ || !socket_) return;
  sending_ended_ = true;
  if (tls_) {
    tls_->shut_down();
    flush();
    if (!socket_) return;
  }
  // The rest of what the other side sends is read and dropped until it ends too: closing with unread
  // bytes would reset the connection and take our last frames with it.
  asio::error_code ignored;
  socket_->shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

}  // namespace vmfs
