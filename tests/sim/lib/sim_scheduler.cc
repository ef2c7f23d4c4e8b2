#include "tests/sim/lib/sim_scheduler.h"

namespace vmfs::sim {

bool Scheduler::run_one() {
  if (events_.empty()) return false;
  auto event = events_.extract(events_.begin());
  clock_.advance_to(std::max(event.key().first, clock_.monotonic_ns()));
  ++run_;
  event.mapped()();
  return true;
}

void Scheduler::run_until(std::int64_t time_ns) {
  while (!events_.empty() && events_.begin()->first.first <= time_ns) run_one();
  if (clock_.monotonic_ns() < time_ns) clock_.advance_to(time_ns);
}

bool Scheduler::run_until(const std::function<bool()>& done, std::int64_t limit_ns) {
  while (!done()) {
    if (events_.empty() || events_.begin()->first.first > limit_ns) {
      if (clock_.monotonic_ns() < limit_ns) clock_.advance_to(limit_ns);
      return done();
    }
    run_one();
  }
  return true;
}

}  // namespace vmfs::sim
