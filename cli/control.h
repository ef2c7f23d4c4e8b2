// How the commands talk to the daemon: STORE/run/control, a Unix socket of mode 0600. A request is one
// line of JSON, the answer another (control_line.h); a connection may carry many, one after the other. The
// commands themselves are in daemon_commands.cc.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "cli/control_line.h"
#include "fs/base/result.h"

namespace vmfs {

inline constexpr std::size_t kControlLineMax = 64u << 20;     // an answer: status of very many images
inline constexpr std::size_t kControlRequestMax = 1u << 20;   // a request: many paths
inline constexpr std::size_t kControlConnectionsMax = 64;

std::string control_directory(const std::string& store);  // STORE/run

class ControlServer {
 public:
  // Answers a request: any thread, once, maybe before the handler returns.
  using Reply = std::function<void(nlohmann::json)>;
  // Begins what the request asks for. Returns what to call if the client goes away first (or nothing).
  using Handler = std::function<std::function<void()>(const nlohmann::json& request, Reply reply)>;

  static Result<std::unique_ptr<ControlServer>> start(const std::string& store, Handler handler);
  // Ends all connections; requests under way are cancelled. The handler is not called after this.
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

 private:
  ControlServer() = default;
  struct Connection;
  void accept_loop();
  void serve(Connection& connection);

  Handler handler_;
  std::string path_;
  int listener_ = -1;
  int stop_event_ = -1;  // readable once the server stops
  std::thread acceptor_;
  std::list<std::unique_ptr<Connection>> connections_;  // of the acceptor's thread
};

class ControlClient {
 public:
  // kNotFound: no daemon serves this store now.
  static Result<std::unique_ptr<ControlClient>> connect(const std::string& store);
  ~ControlClient();
  ControlClient(const ControlClient&) = delete;
  ControlClient& operator=(const ControlClient&) = delete;

  // Sends a request and waits for its answer, which has "ok": true; an error is that of the command, or
  // kIo with ETIMEDOUT when the daemon did not answer in time (negative: wait for ever).
  Result<nlohmann::json> request(const nlohmann::json& request, std::int64_t timeout_ns);

 private:
  explicit ControlClient(int fd) : fd_(fd) {}
  int fd_;
  std::string received_;
};

}  // namespace vmfs
