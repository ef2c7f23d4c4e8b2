// The world as a node sees it in production: one thread with an Asio io_context, three threads for
// what may block, TCP for links. No Asio header is included here.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "fs/base/result.h"
#include "net/link/handshake.h"
#include "net/seam/shell.h"

namespace vmfs {

struct AsioShellOptions {
  LinkCredentials credentials;
  // How long the node's thread looks for more work before it sleeps: waking it from sleep costs more
  // than most of what it does. It yields the CPU while it looks.
  std::int64_t spin_ns = 20'000;
};

class AsioShell final : public Shell {
 public:
  // Nothing runs before start().
  static Result<std::unique_ptr<AsioShell>> create(const AsioShellOptions& options);
  // Stops first.
  ~AsioShell() override;

  // `tick` is called on the node's thread when a time asked for with wake_at() has come. Call once.
  void start(std::function<void()> tick);
  // Ends the node's thread and the lanes after the call that they are in; callbacks that did not run
  // yet never will. Links and listeners may be destroyed after this, from the caller's thread.
  void stop();

  void post(std::function<void()> f) override;
  void wake_at(std::int64_t monotonic_ns) override;
  void run_blocking(Lane lane, std::function<void()> work, std::function<void()> done) override;
  void dial(const std::string& address, LinkEvents& events,
            std::function<void(Result<std::unique_ptr<Link>>)> done) override;

  bool on_thread() const;  // whether the caller is the node's thread

  struct State;

 private:
  friend class Listener;
  explicit AsioShell(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// Accepts connections. Each one is authenticated before anybody hears of it.
class Listener {
 public:
  // Listens on "host:port" (port 0: any free one). `accepted` is called on the node's thread with each
  // link; `events` gets the links' events and must outlive them. From the node's thread or before
  // AsioShell::start().
  static Result<std::unique_ptr<Listener>> open(AsioShell& shell, const std::string& address,
                                                LinkEvents& events,
                                                std::function<void(std::unique_ptr<Link>)> accepted);
  // On the node's thread or after AsioShell::stop(); before the shell is destroyed.
  ~Listener();

  std::string address() const;  // with the port that was chosen

  struct State;

 private:
  explicit Listener(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// Connections that have not proved the secret yet: at most so many at a time (the oldest gives way) ...
inline constexpr std::size_t kUnauthenticatedMax = 16;
// ... each for so long. Also how long dialing takes at most.
inline constexpr std::int64_t kHandshakeDeadlineNs = 10'000'000'000;

}  // namespace vmfs
