#include "fs/seam/clock.h"

#include <ctime>

namespace vmfs {

namespace {
class SystemClock final : public Clock {
  static std::int64_t read(clockid_t id) {
    timespec now{};
    ::clock_gettime(id, &now);
    return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
  }

 public:
  std::int64_t monotonic_ns() override { return read(CLOCK_MONOTONIC); }
  std::int64_t wall_ns() override { return read(CLOCK_REALTIME); }
};
}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

}  // namespace vmfs
