// What the parts of net/link share. Private: includes Asio.
#pragma once

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_set>

#include "net/link/asio_shell.h"
#include "net/link/blocking_lane.h"
#include "net/link/tls.h"

namespace vmfs {

class TcpConnection;

struct AsioShell::State {
  AsioShellOptions options;
  std::shared_ptr<TlsContext> tls;  // null without TLS
  // Reset before this is destroyed: connections that outlive the shell keep this struct alive.
  std::unique_ptr<asio::io_context> io;
  std::optional<asio::steady_timer> timer;
  std::int64_t timer_at = 0;  // 0: not set
  std::function<void()> tick;
  std::unordered_set<TcpConnection*> connections;
  std::unique_ptr<BlockingLane> lanes[Shell::kLanes];
  std::thread thread;
  std::atomic<bool> stopping{false};

  void run();
  void arm_timer(std::int64_t monotonic_ns);
};

// Whether a link to or from that address may be in clear, as the credentials say.
bool clear_allowed(const LinkCredentials& credentials, const asio::ip::address& remote);
std::string to_text(const asio::ip::tcp::endpoint& endpoint);

}  // namespace vmfs
