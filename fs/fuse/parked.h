// Requests that got kWouldWait: their message is kept as it came from the kernel, and handled again
// when the volume says so.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fs/base/bytes.h"
#include "fs/fuse/request.h"

namespace vmfs {

// A range of an image, for invalidation; length 0: to the end.
struct PageRange {
  std::uint64_t offset = 0, length = 0;

  static PageRange between(std::uint64_t begin, std::uint64_t end) { return {begin, end == kNoEnd ? 0 : end - begin}; }
  static constexpr std::uint64_t kNoEnd = ~std::uint64_t{0};
  std::uint64_t end() const { return length == 0 ? kNoEnd : offset + length; }
  // Whether both touch one page.
  bool meets(const PageRange& other) const;
};

struct ParkedRequest {
  Bytes message;
  RequestContext context;
  enum class State : std::uint8_t { kWaiting, kRunning, kAnswered };  // the last: or detached
  std::atomic<State> state{State::kWaiting};
  std::atomic<bool> interrupted{false};

  // What it holds locked in the kernel while it waits.
  std::uint64_t directories[4] = {};      // node ids: whose entries it changes, then what it moves or removes
  std::uint64_t image = 0;                // node id; its pages from `offset` on
  std::uint64_t offset = 0, length = 0;
  PageRange pages() const;  // whole ones
  bool locks_directory(std::uint64_t directory) const;
};

// What a message locks: fills in the last part above. `direct`: through a handle without page cache. `directory_at`: the
// node id of the directory that has this name in that one; 0: there is none.
void describe_locks(ParkedRequest& request, bool direct,
                    const std::function<std::uint64_t(std::uint64_t parent, std::string_view name)>& directory_at);

class ParkedTable {
 public:
  void add(std::shared_ptr<ParkedRequest> request);
  void remove(const ParkedRequest& request);
  std::shared_ptr<ParkedRequest> find(std::uint64_t unique) const;
  std::size_t size() const { return size_.load(std::memory_order_relaxed); }

  bool locks_directory(std::uint64_t directory) const;
  // The pages of the range that are locked: whole pages, in ascending order, apart from each other.
  std::vector<PageRange> locked_pages(std::uint64_t image, PageRange within) const;
  // Those whose client was sent a signal.
  std::vector<std::shared_ptr<ParkedRequest>> interrupted() const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::shared_ptr<ParkedRequest>> requests_;
  std::atomic<std::size_t> size_{0};
};

}  // namespace vmfs
