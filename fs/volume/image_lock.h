// The lock of one image: shared by writes, exclusive for what changes the image as a whole.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace vmfs {

// Meets the requirements of std::shared_lock and std::unique_lock. Unlike std::shared_mutex, a
// waiting exclusive holder keeps new shared ones out: the applier and a release take it for a moment
// while many threads write without a pause, and must not wait for ever.
class ImageLock {
 public:
  void lock() {
    exclusive_.lock();
    std::uint32_t state = state_.fetch_or(kExclusive, std::memory_order_acquire) | kExclusive;
    while (state != kExclusive) {
      state_.wait(state, std::memory_order_relaxed);
      state = state_.load(std::memory_order_acquire);
    }
  }
  void unlock() {
    state_.fetch_and(~kExclusive, std::memory_order_release);
    state_.notify_all();
    exclusive_.unlock();
  }
  void lock_shared() {
    std::uint32_t state = state_.load(std::memory_order_relaxed);
    for (;;) {
      if (state & kExclusive) {
        state_.wait(state, std::memory_order_relaxed);
        state = state_.load(std::memory_order_relaxed);
      } else if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire,
                                              std::memory_order_relaxed)) {
        return;
      }
    }
  }
  void unlock_shared() {
    // Only a waiting exclusive holder can be asleep here: the others wait for its end.
    if (state_.fetch_sub(1, std::memory_order_release) - 1 == kExclusive) state_.notify_all();
  }
  // Somebody holds it now.
  bool held() const { return state_.load(std::memory_order_relaxed) != 0; }

 private:
  static constexpr std::uint32_t kExclusive = 1u << 31;
  std::atomic<std::uint32_t> state_{0};  // the exclusive bit (held or wanted), and shared holders
  std::mutex exclusive_;
};

// For a few instructions: never held across a system call.
class SpinLock {
 public:
  void lock() {
    while (flag_.test_and_set(std::memory_order_acquire))
      while (flag_.test(std::memory_order_relaxed)) {
      }
  }
  void unlock() { flag_.clear(std::memory_order_release); }

 private:
  std::atomic_flag flag_ = ATOMIC_FLAG_INIT;
};

}  // namespace vmfs
