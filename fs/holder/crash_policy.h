// Whether, and when, a daemon that ended without being asked is started again. Decisions without I/O.
#pragma once

#include <cstdint>
#include <deque>

namespace vmfs {

struct DaemonEnd {
  bool was_ready = false;      // it had reported ready
  bool killed = false;         // by SIGKILL
  bool out_of_memory = false;  // and the kernel has killed somebody for want of memory meanwhile
};

class CrashPolicy {
 public:
  static constexpr unsigned kCrashesMax = 5;                      // then give up, if they came
  static constexpr std::int64_t kWindow_ns = 60'000'000'000;      // within this time
  static constexpr std::int64_t kFirstDelay_ns = 100'000'000;     // before the third start, doubling
  static constexpr std::int64_t kLongestDelay_ns = 2'000'000'000;
  // Nobody kills by hand so often: something on this machine does, and guests get nothing done meanwhile.
  static constexpr unsigned kKillsMax = 100;

  struct Decision {
    bool give_up = false;
    std::int64_t delay_ns = 0;
    unsigned ends = 0;  // of this kind, within the window
  };
  // One that was killed by somebody once it worked says nothing about the program or the store: it is
  // started again at once, and only an unreasonable number counts. All others are crashes; one that is
  // killed for want of memory would be again.
  Decision ended(const DaemonEnd& end, std::int64_t now_ns) {
    const bool by_hand = end.killed && end.was_ready && !end.out_of_memory;
    std::deque<std::int64_t>& ends = by_hand ? kills_ : crashes_;
    while (!ends.empty() && ends.front() <= now_ns - kWindow_ns) ends.pop_front();
    ends.push_back(now_ns);
    const auto count = static_cast<unsigned>(ends.size());
    if (by_hand) return {count >= kKillsMax, 0, count};
    if (count >= kCrashesMax) return {true, 0, count};
    if (count < 2) return {false, 0, count};
    std::int64_t delay = kFirstDelay_ns << (count - 2);
    return {false, delay < kLongestDelay_ns ? delay : kLongestDelay_ns, count};
  }

 private:
  std::deque<std::int64_t> crashes_, kills_;  // when
};

// A daemon that says why it cannot start (a mistake in the configuration, a disk that fails) has not crashed:
// a person mends it, and until then the clients wait. It is tried for ever, ever more rarely.
class StartRetries {
 public:
  static constexpr std::int64_t kFirstDelay_ns = 200'000'000;  // doubling
  static constexpr std::int64_t kLongestDelay_ns = 10'000'000'000;

  std::int64_t next_delay_ns() {
    const std::int64_t delay = delay_ns_;
    delay_ns_ = delay_ns_ * 2 < kLongestDelay_ns ? delay_ns_ * 2 : kLongestDelay_ns;
    return delay;
  }
  void succeeded() { delay_ns_ = kFirstDelay_ns; }

 private:
  std::int64_t delay_ns_ = kFirstDelay_ns;
};

}  // namespace vmfs
