// What a node needs from the world besides disk, clock and links. Production: an Asio io_context with
// one thread, and a small pool (net/link). The simulator: a queue in virtual time.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "net/seam/link.h"

namespace vmfs {

class Shell {
 public:
  virtual ~Shell() = default;
  // Runs `f` on the node's thread, soon, in order. Callable from any thread; all else in this class
  // only from the node's thread.
  virtual void post(std::function<void()> f) = 0;
  // The node's timer: Node::tick() is called at or soon after that monotonic time. One timer; the
  // earlier of two requests counts.
  virtual void wake_at(std::int64_t monotonic_ns) = 0;
  // Runs `work`, which may wait for the disk, elsewhere; then `done` on the node's thread. Work of one
  // `lane` runs in order, one at a time.
  // Whoever flushes waits for kSync; for kCopy a stream does, whose next part is read there. What is kept aside may
  // take as long as an image is large, and nobody else waits for that.
  enum class Lane { kSync, kCopy, kKeep };
  static constexpr std::size_t kLanes = 3;
  virtual void run_blocking(Lane lane, std::function<void()> work, std::function<void()> done) = 0;
  // Opens a connection ("host:port"), authenticated with the volume's secret; then `done`, on the node's
  // thread, with the link or the reason. The events object must outlive the link.
  virtual void dial(const std::string& address, LinkEvents& events,
                    std::function<void(Result<std::unique_ptr<Link>>)> done) = 0;
};

}  // namespace vmfs
