// Resolves a name, tries its addresses in turn, and hands the connected socket to a TcpConnection.
// Private: includes Asio.
#pragma once

#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/link/shell_state.h"

namespace vmfs {

class Dialer : public std::enable_shared_from_this<Dialer> {
 public:
  using Done = std::function<void(Result<std::unique_ptr<Link>>)>;
  Dialer(std::shared_ptr<AsioShell::State> shell, LinkEvents& events, Done done);
  void begin(const std::string& address);

 private:
  void connect_next();
  void finish(Result<std::unique_ptr<Link>> result);

  std::shared_ptr<AsioShell::State> shell_;
  LinkEvents& events_;
  Done done_;
  std::string address_;
  asio::ip::tcp::resolver resolver_;
  asio::ip::tcp::socket socket_;
  asio::steady_timer deadline_;
  std::vector<asio::ip::tcp::endpoint> endpoints_;
  std::size_t next_ = 0;
  Error last_error_;
};

}  // namespace vmfs
