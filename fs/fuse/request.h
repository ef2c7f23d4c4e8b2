// The request that a thread works on, and where its answer goes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "fs/base/bytes.h"
#include "fs/base/ids.h"
#include "fs/fuse/connection_memory.h"

namespace vmfs {

struct ParkedRequest;

// Set for the thread while libfuse handles a message on it. An answer must be written to the same
// clone of /dev/fuse that the request was read from, and libfuse knows one descriptor only: the custom
// write function takes the descriptor from here.
struct RequestContext {
  int descriptor = -1;
  std::uint32_t slot = 0;    // where the shared memory names this request until it is answered
  std::uint64_t unique = 0;  // without the resend bit
  bool resent = false;
  std::span<std::byte> scratch;  // for building an answer; as large as the largest read
  std::span<const std::byte> message;  // as the kernel sent it, for what the library does not pass on
  std::shared_ptr<ParkedRequest> retried;  // if it was parked and is handled again

  // Set by the handler:
  bool detached = false;  // the answer comes later, from whoever took the slot over
  GroupId parked_on{};  // to be handled again when that may be changed; 0: not

  Bytes* captured_reply = nullptr;  // if set, the answer goes there and not to the kernel

  bool parked() const { return raw(parked_on) != 0; }
};

// Null on threads that serve no request now.
RequestContext*& current_request();

class RequestScope {
 public:
  explicit RequestScope(RequestContext& context) : before_(current_request()) {
    current_request() = &context;
  }
  ~RequestScope() { current_request() = before_; }
  RequestScope(const RequestScope&) = delete;
  RequestScope& operator=(const RequestScope&) = delete;

 private:
  RequestContext* before_;
};

// The slots of the shared memory. A worker has one of its own for the request it works on, and gets
// another when a request keeps it (because it is answered later).
class SlotTable {
 public:
  // What is in the memory now was left by an earlier daemon: it stays until claimed, so that a later
  // daemon finds it if this one dies as well.
  explicit SlotTable(ConnectionMemory& memory);

  // None left: ~0 (there are more slots than the kernel has threads that could wait, nearly).
  static constexpr std::uint32_t kNone = ~0u;
  std::uint32_t acquire();
  void release(std::uint32_t slot);  // marks it as answered, too
  // The slot in which an earlier daemon noted this request; it is the caller's now.
  std::uint32_t claim_left(std::uint64_t unique);

  // A request without a slot is served as well; only a daemon after this one would not know of it.
  void note(std::uint32_t slot, std::uint64_t unique) {
    if (slot != kNone) memory_.slots()[slot].store(unique, std::memory_order_release);
  }
  void answered(std::uint32_t slot) {
    if (slot != kNone) memory_.slots()[slot].store(0, std::memory_order_release);
  }

 private:
  ConnectionMemory& memory_;
  std::mutex mutex_;
  std::vector<std::uint32_t> free_;
  std::unordered_map<std::uint64_t, std::uint32_t> left_;
};

}  // namespace vmfs
