// The link seam: one authenticated, ordered, reliable byte pipe to one peer, cut into frames. TCP with
// TLS in production (net/link), virtual in the simulator (delay, rate, loss of the connection).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "fs/base/bytes.h"
#include "fs/base/ids.h"
#include "fs/base/result.h"

namespace vmfs {

// Longest body of a frame; checked before anything is allocated.
inline constexpr std::uint32_t kFrameMax = 4u << 20;

// Not thread-safe: everything happens on the node's thread.
class Link {
 public:
  virtual ~Link() = default;  // closes
  // Queues a frame. Never blocks; see unsent_bytes(). After the link closed: does nothing.
  virtual void send(Bytes frame) = 0;
  // Queued and not yet taken by the system: the sender stops above its limit until LinkEvents::writable.
  virtual std::size_t unsent_bytes() const = 0;
  // Ends the connection; no further events.
  virtual void close() = 0;
  // For messages: "192.0.2.1:7411".
  virtual std::string remote() const = 0;
};

// What the other end of the seam calls, on the node's thread.
class LinkEvents {
 public:
  virtual ~LinkEvents() = default;
  virtual void frame(Link& link, ByteView body) = 0;  // valid during the call
  virtual void progress(Link&) {}                    // a part of a frame: on a slow line one takes long
  virtual void writable(Link& link) = 0;              // unsent_bytes() fell to zero
  virtual void closed(Link& link, const Error& why) = 0;
};

}  // namespace vmfs
