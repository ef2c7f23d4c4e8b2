// What happens next, in virtual time: a queue of events. Two at the same time run in the order in
// which they were asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "tests/sim/lib/sim_clock.h"

namespace vmfs::sim {

class Scheduler {
 public:
  explicit Scheduler(SimClock& clock) : clock_(clock) {}

  void at(std::int64_t time_ns, std::function<void()> f) {
    events_.emplace(std::pair(std::max(time_ns, clock_.monotonic_ns()), next_++), std::move(f));
  }
  void after(std::int64_t ns, std::function<void()> f) {
    at(clock_.monotonic_ns() + ns, std::move(f));
  }
  // Moves time to the next event and runs it. False: there is none.
  bool run_one();
  // Runs everything up to that time, and moves the clock there.
  void run_until(std::int64_t time_ns);
  // Runs until `done` says so, asked after each event. False: the time was over before.
  bool run_until(const std::function<bool()>& done, std::int64_t limit_ns);
  std::int64_t now() { return clock_.monotonic_ns(); }
  std::uint64_t events_run() const { return run_; }

 private:
  SimClock& clock_;
  std::map<std::pair<std::int64_t, std::uint64_t>, std::function<void()>> events_;
  std::uint64_t next_ = 0, run_ = 0;
};

}  // namespace vmfs::sim
