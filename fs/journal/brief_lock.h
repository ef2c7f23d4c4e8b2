// A lock for a few dozen instructions: it spins about as long as such a section takes, and sleeps
// only when the holder was interrupted. (Waking a thread costs more than a hundred such sections.)
#pragma once

#include <atomic>

namespace vmfs {

inline void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

class BriefLock {
 public:
  void lock() {
    int free = kFree;
    if (state_.compare_exchange_strong(free, kHeld, std::memory_order_acquire)) [[likely]] return;
    lock_slow();
  }
  void unlock() {
    if (state_.exchange(kFree, std::memory_order_release) == kHeldAndWaited) [[unlikely]]
      state_.notify_one();
  }

 private:
  static constexpr int kFree = 0, kHeld = 1, kHeldAndWaited = 2;
  static constexpr int kSpins = 200;

  void lock_slow() {
    for (int i = 0; i < kSpins; ++i) {
      int free = kFree;
      if (state_.load(std::memory_order_relaxed) == kFree &&
          state_.compare_exchange_weak(free, kHeld, std::memory_order_acquire))
        return;
      cpu_relax();
    }
    // From here on whoever unlocks must wake somebody; taking the lock as "waited" keeps that true
    // for the others that sleep.
    while (state_.exchange(kHeldAndWaited, std::memory_order_acquire) != kFree)
      state_.wait(kHeldAndWaited, std::memory_order_relaxed);
  }

  std::atomic<int> state_{kFree};
};

}  // namespace vmfs
