// When to dial a peer: exponential back-off with jitter, from a seeded source so that the simulator
// repeats itself. Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>

namespace vmfs {

class BackOff {
 public:
  // The first retry comes quickly, because a daemon that was restarted is back at once; later ones
  // rarely enough not to matter, and often enough that a mended line is noticed in seconds.
  static constexpr std::int64_t kFirstDelay = 100'000'000;
  static constexpr std::int64_t kLongestDelay = 5'000'000'000;
  // A refusal needs a person; still tried, because the other side may be mended.
  static constexpr std::int64_t kRefusedDelay = 15'000'000'000;

  // Both nodes dial. One of them begins this much later, so that they seldom meet with two connections
  // of which one has to go.
  static constexpr std::int64_t kDeference = 700'000'000;

  explicit BackOff(std::uint64_t seed) : random_(seed) {}

  // Lets the other side dial first.
  void defer(bool deferential) { deference_ = deferential ? kDeference : 0; }
  void begin(std::int64_t now_ns) { next_ns_ = now_ns + deference_; }

  // Whether to dial now. After true, one of the outcomes below must be reported.
  bool due(std::int64_t now_ns) const { return !busy_ && now_ns >= next_ns_; }
  std::int64_t next_ns() const { return busy_ ? INT64_MAX : next_ns_; }
  void dialing() { busy_ = true; }
  // A connection exists (whoever dialled): nothing to do until over().
  void established() { busy_ = true; }
  // It is of use: when it ends, the next one is tried at once. One that always ends before that is tried more and
  // more rarely, like one that cannot be had.
  void useful() { failures_ = 0; }
  // Dialling failed or the connection ended.
  void over(std::int64_t now_ns, bool refused) {
    busy_ = false;
    std::int64_t delay = kRefusedDelay;
    if (!refused) {
      delay = std::min(kLongestDelay, kFirstDelay << std::min(failures_, 16));
      ++failures_;
    }
    // Between half and all of it, so that two nodes do not keep meeting each other halfway.
    delay = delay / 2 + static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(delay / 2 + 1));
    next_ns_ = now_ns + delay + deference_;
  }

 private:
  std::mt19937_64 random_;
  bool busy_ = false;
  int failures_ = 0;
  std::int64_t next_ns_ = 0;
  std::int64_t deference_ = 0;
};

}  // namespace vmfs
