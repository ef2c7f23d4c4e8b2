// One TCP connection, from the moment it is connected to its end: handshake, TLS, frames. Private to
// net/link: includes Asio, which here only tells when a socket is ready; bytes are moved by system
// calls of our own, so that many frames leave in one gather write and arrive in one large read.
#pragma once

#include <array>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "net/link/handshake.h"
#include "net/link/shell_state.h"
#include "net/link/tls.h"
#include "net/seam/link.h"
#include "net/wire/frame.h"

namespace vmfs {

// Everything on the node's thread.
class TcpConnection : public std::enable_shared_from_this<TcpConnection> {
 public:
  using Done = std::function<void(Result<std::unique_ptr<Link>>)>;

  // `socket` is connected. `done` is called once, with the authenticated link or the reason.
  TcpConnection(std::shared_ptr<AsioShell::State> shell, asio::ip::tcp::socket socket, LinkRole role,
             LinkEvents& events, Done done);
  ~TcpConnection();

  void begin();
  // Ends the handshake, if it is still under way, for this reason.
  void give_up(Error why);
  bool authenticated() const { return phase_ >= Phase::kOpen; }
  // The io_context is about to go: lets go of all that belongs to it, without events.
  void detach();

  // What the Link does.
  void send(Bytes frame);
  std::size_t unsent_bytes() const;
  void close();
  const std::string& remote() const { return remote_; }

 private:
  enum class Phase : std::uint8_t {
    kHello,     // the other side's LinkHello is awaited
    kTls,       // the TLS handshake goes on
    kProof,     // the other side's Proof is awaited
    kOpen,      // frames
    kDraining,  // closed here; what was queued is still being sent
    kClosed,
  };
  struct Outgoing {
    std::array<std::byte, sizeof(LinkHello)> head;  // a FrameHeader, or a whole handshake message
    std::uint32_t head_size = 0;
    Bytes body;
    std::size_t size() const { return head_size + body.size(); }
  };

  // --- Handshake (connection_handshake.cc) ------------------------------------------------------
  void read_handshake();
  bool gather(std::size_t size);  // fills message_ up to `size`; false: not yet, or failed
  void on_hello();
  void start_tls();
  void continue_tls();
  void start_proof();
  void on_proof();
  void open();
  template <class Message>
  void send_message(const Message& message);

  // --- Moving bytes -----------------------------------------------------------------------------
  void arm_read();
  void on_readable();
  void read_frames();
  bool deliver();  // false: the connection is no longer open
  // recv(2): nothing if there is nothing to read now or the connection failed.
  std::optional<std::size_t> receive(std::span<std::byte> space);
  void flush();
  bool flush_clear();   // false: the system takes no more now, or the connection failed
  bool flush_cipher();
  void encrypt_some();
  std::optional<std::size_t> transmit(std::span<const iovec> pieces);
  void advance(std::size_t size);  // so much of queue_ has been taken
  void arm_write();
  void on_writable();
  void after_flush();

  void fail_with(Error why);  // ends the connection; the event follows on a later turn
  void finish_draining();
  void shut_socket();

  std::shared_ptr<AsioShell::State> shell_;
  const LinkRole role_;
  LinkEvents* events_;
  Done done_;
  std::string remote_;
  std::optional<asio::ip::tcp::socket> socket_;
  std::optional<asio::steady_timer> deadline_;
  Phase phase_ = Phase::kHello;
  bool read_armed_ = false;
  bool write_armed_ = false;
  bool turn_scheduled_ = false;   // a flush follows when the present handler has ended
  bool writable_owed_ = false;    // the sender saw unsent_bytes() above zero
  bool sending_ended_ = false;

  // Handshake; all of a fixed size.
  LinkHello mine_, theirs_;
  std::array<std::byte, sizeof(LinkHello)> message_;
  std::size_t message_size_ = 0;
  std::array<std::byte, 4096> cipher_small_;
  std::size_t handshake_bytes_ = 0;
  std::array<std::byte, 32> exporter_{};

  // Once open.
  std::unique_ptr<TlsPipe> tls_;
  std::unique_ptr<std::byte[]> cipher_;   // what arrived, encrypted
  std::unique_ptr<std::byte[]> scratch_;  // small frames gathered into one TLS record
  std::optional<FrameDecoder> decoder_;
  std::deque<Outgoing> queue_;
  std::size_t front_done_ = 0;  // bytes of queue_.front() that were taken
  std::size_t queued_bytes_ = 0;
  Link* handle_ = nullptr;
};

}  // namespace vmfs
