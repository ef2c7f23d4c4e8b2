#include <cerrno>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/log.h"
#include "net/link/connection.h"

namespace vmfs {

namespace {

// More than any handshake between two of us takes; a stranger gets no further.
constexpr std::size_t kTlsHandshakeMax = 16u << 10;

// What the user of a link holds. The connection lives on while it drains.
class TcpLink final : public Link {
 public:
  explicit TcpLink(std::shared_ptr<TcpConnection> connection) : connection_(std::move(connection)) {}
  ~TcpLink() override { connection_->close(); }
  void send(Bytes frame) override { connection_->send(std::move(frame)); }
  std::size_t unsent_bytes() const override { return connection_->unsent_bytes(); }
  void close() override { connection_->close(); }
  std::string remote() const override { return connection_->remote(); }

 private:
  const std::shared_ptr<TcpConnection> connection_;
};

}  // namespace

template <class Message>
void TcpConnection::send_message(const Message& message) {
  static_assert(sizeof message <= sizeof(Outgoing::head));
  Outgoing out;
  std::memcpy(out.head.data(), &message, sizeof message);
  out.head_size = sizeof message;
  queued_bytes_ += out.size();
  queue_.push_back(std::move(out));
  flush();
}

void TcpConnection::begin() {
  auto self = shared_from_this();
  const LinkCredentials& credentials = shell_->options.credentials;
  mine_ = make_hello(role_, credentials);
  deadline_->expires_after(std::chrono::nanoseconds(kHandshakeDeadlineNs));
  deadline_->async_wait([self](const asio::error_code& error) {
    if (!error)
      self->give_up(Error{ErrorKind::kProtocol, ETIMEDOUT,
                          fmt::format("{}: no answer within {} s during the handshake",
                                      self->remote_, kHandshakeDeadlineNs / 1'000'000'000)});
  });
  asio::error_code error;
  const auto remote = socket_->remote_endpoint(error);
  const bool clear = credentials.encryption != Encryption::kTls;
  if (error || (clear && !clear_allowed(credentials, remote.address()))) {
    fail_with(error ? Error{ErrorKind::kIo, ENOTCONN, remote_ + ": " + error.message()}
                    : refusal(HelloVerdict::kClearNotAllowed, remote_, credentials));
    return;
  }
  if (role_ == LinkRole::kDialer) send_message(mine_);
  arm_read();
}

void TcpConnection::give_up(Error why) {
  if (!authenticated()) fail_with(std::move(why));
}

void TcpConnection::read_handshake() {
  if (phase_ == Phase::kHello && gather(sizeof(LinkHello))) on_hello();
  if (phase_ == Phase::kTls) continue_tls();
  if (phase_ == Phase::kProof && gather(sizeof(Proof))) on_proof();
  if (phase_ == Phase::kOpen)
    read_frames();
  else if (phase_ < Phase::kOpen)
    arm_read();
}

bool TcpConnection::gather(std::size_t size) {
  while (message_size_ < size) {
    std::span<std::byte> space(message_.data() + message_size_, size - message_size_);
    if (!tls_) {
      auto got = receive(space);
      if (!got) return false;
      message_size_ += *got;
      continue;
    }
    auto plain = tls_->read(space);
    if (!plain) {
      fail_with(Error{plain.error().kind, plain.error().number,
                      remote_ + ": " + plain.error().message});
      return false;
    }
    message_size_ += *plain;
    if (*plain == 0) {
      auto got = receive(cipher_small_);
      if (!got) return false;
      tls_->feed(ByteView(cipher_small_).first(*got));
    }
  }
  message_size_ = 0;
  return true;
}

void TcpConnection::on_hello() {
  auto hello = parse_hello(message_, role_ == LinkRole::kDialer ? LinkRole::kListener
                                                                : LinkRole::kDialer);
  if (!hello) {
    fail_with(Error{hello.error().kind, hello.error().number,
                    remote_ + ": " + hello.error().message});
    return;
  }
  theirs_ = *hello;
  const LinkCredentials& credentials = shell_->options.credentials;
  if (role_ == LinkRole::kListener) {
    const HelloVerdict verdict = judge_hello(theirs_, credentials);
    mine_.verdict = verdict;
    seal_hello(mine_);
    send_message(mine_);
    if (phase_ != Phase::kHello) return;
    if (verdict != HelloVerdict::kAccepted) {
      fail_with(refusal(verdict, remote_, credentials));
      return;
    }
  } else {
    HelloVerdict verdict = theirs_.verdict;
    // A listener that accepts must also be what this side demands.
    if (verdict == HelloVerdict::kAccepted) verdict = judge_hello(theirs_, credentials);
    if (verdict != HelloVerdict::kAccepted) {
      fail_with(refusal(verdict, remote_, credentials));
      return;
    }
  }
  if (shell_->tls)
    start_tls();
  else
    start_proof();
}

void TcpConnection::start_tls() {
  phase_ = Phase::kTls;
  tls_ = std::make_unique<TlsPipe>(shell_->tls, role_);
}

void TcpConnection::continue_tls() {
  for (;;) {
    auto progress = tls_->handshake();
    flush();  // on an error too: the alert tells the other side
    if (phase_ != Phase::kTls) return;
    if (!progress) {
      Error why = progress.error().kind == ErrorKind::kRefused
                      ? refusal(HelloVerdict::kWrongSecret, remote_, shell_->options.credentials)
                      : Error{progress.error().kind, progress.error().number,
                              remote_ + ": " + progress.error().message};
      fail_with(std::move(why));
      return;
    }
    if (*progress == TlsPipe::Progress::kDone) break;
    auto got = receive(cipher_small_);
    if (!got) return;
    if ((handshake_bytes_ += *got) > kTlsHandshakeMax) {
      fail_with(Error{ErrorKind::kProtocol, EPROTO, remote_ + ": the TLS handshake is too long"});
      return;
    }
    tls_->feed(ByteView(cipher_small_).first(*got));
  }
  exporter_ = tls_->exporter();
  start_proof();
}

void TcpConnection::start_proof() {
  phase_ = Phase::kProof;
  if (role_ == LinkRole::kDialer) {
    const ByteView exporter = tls_ ? ByteView(exporter_) : ByteView();
    send_message(make_proof(role_, mine_, theirs_, exporter, shell_->options.credentials.secret));
  }
}

void TcpConnection::on_proof() {
  Proof proof;
  std::memcpy(&proof, message_.data(), sizeof proof);
  const LinkCredentials& credentials = shell_->options.credentials;
  const bool dialer = role_ == LinkRole::kDialer;
  const LinkHello& dialed = dialer ? mine_ : theirs_;
  const LinkHello& listening = dialer ? theirs_ : mine_;
  const ByteView exporter = tls_ ? ByteView(exporter_) : ByteView();
  const bool right =
      proof.verdict == HelloVerdict::kAccepted &&
      proof_is_right(proof, dialer ? LinkRole::kListener : LinkRole::kDialer, dialed, listening,
                     exporter, credentials.secret);
  if (!dialer) {
    // A dialer that does not know the secret learns nothing that it could use: no code of ours.
    Proof answer;
    answer.verdict = HelloVerdict::kWrongSecret;
    if (right) answer = make_proof(role_, dialed, listening, exporter, credentials.secret);
    send_message(answer);
    if (phase_ != Phase::kProof) return;
  }
  if (!right) {
    fail_with(refusal(HelloVerdict::kWrongSecret, remote_, credentials));
    return;
  }
  open();
}

void TcpConnection::open() {
  phase_ = Phase::kOpen;
  deadline_->cancel();
  decoder_.emplace(/*require_hash=*/!tls_);
  auto link = std::make_unique<TcpLink>(shared_from_this());
  handle_ = link.get();
  Done done = std::move(done_);
  done_ = nullptr;
  done(std::move(link));
}

}  // namespace vmfs
