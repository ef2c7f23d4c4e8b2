// The port on which other nodes call this one. An address that cannot be had yet (at boot the network may come
// up later than the volume) is no reason not to serve guests: it is tried again until it can be had.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "fs/base/result.h"
#include "fs/seam/clock.h"
#include "net/link/asio_shell.h"
#include "net/node/node.h"

namespace vmfs {

// Of the node's thread, or before AsioShell::start() and after stop().
class Listening {
 public:
  // `store` is for messages. All live longer.
  Listening(AsioShell& shell, Node& node, Clock& clock, std::string store);

  // Opens the port on this address, and leaves the one before. An error leaves all as it was.
  Result<> open(const std::string& address);
  // The same, now or later, however often it must be tried: call tick() when the shell wakes.
  void keep(const std::string& address);
  void tick();

  bool listens_on(const std::string& address) const { return listener_ && address_ == address; }
  std::string problem() const;  // why nobody can call, and what to do; empty: none

 private:
  AsioShell& shell_;
  Node& node_;
  Clock& clock_;
  const std::string store_;
  std::unique_ptr<Listener> listener_;
  std::string address_;         // asked for
  std::string failure_;         // of the last attempt
  std::int64_t again_ns_ = 0;   // monotonic; 0: nothing is to be tried
  std::int64_t delay_ns_ = 0;
};

}  // namespace vmfs
