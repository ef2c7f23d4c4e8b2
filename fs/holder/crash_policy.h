// Whether a daemon that ended without being asked is started again. A decision without I/O.
#pragma once

#include <cstdint>
#include <deque>

namespace vmfs {

struct DaemonEnd {
  bool was_ready = false;      // it had reported ready
  bool killed = false;         // SIGKILL: by a person, or by a kernel that ran out of memory
};

class CrashPolicy {
 public:
  static constexpr unsigned kCrashesMax = 5;                      // then give up, if they came
  static constexpr std::int64_t kWindow_ns = 60'000'000'000;      // within this time
  static constexpr std::int64_t kFirstDelay_ns = 100'000'000;     // before the third start, doubling
  static constexpr std::int64_t kLongestDelay_ns = 2'000'000'000;

  struct Decision {
    bool give_up = false;
    std::int64_t delay_ns = 0;
  };
  // One that was killed once it worked says nothing about the program or the store, however little it was
  // asked to do meanwhile: it is started again at once and not counted. All others are.
  Decision ended(const DaemonEnd& end, std::int64_t now_ns) {
    if (end.killed && end.was_ready) return {};
    while (!crashes_.empty() && crashes_.front() <= now_ns - kWindow_ns) crashes_.pop_front();
    crashes_.push_back(now_ns);
    if (crashes_.size() >= kCrashesMax) return {true, 0};
    if (crashes_.size() < 2) return {};
    std::int64_t delay = kFirstDelay_ns << (crashes_.size() - 2);
    return {false, delay < kLongestDelay_ns ? delay : kLongestDelay_ns};
  }
  unsigned counted() const { return static_cast<unsigned>(crashes_.size()); }

 private:
  std::deque<std::int64_t> crashes_;  // when
};

}  // namespace vmfs
