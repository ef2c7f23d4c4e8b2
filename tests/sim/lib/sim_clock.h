// Virtual time: stands still until somebody moves it.
#pragma once

#include <atomic>
#include <cstdint>

#include "fs/base/check.h"
#include "fs/seam/clock.h"

namespace vmfs::sim {

class SimClock : public Clock {
 public:
  std::int64_t monotonic_ns() override { return now_; }
  std::int64_t wall_ns() override { return kStart + now_ + wall_offset_; }
  void advance_to(std::int64_t monotonic) {
    CHECK_COMPARE(monotonic, >=, now_.load());
    now_ = monotonic;
  }
  void advance(std::int64_t ns) { advance_to(now_ + ns); }
  // Somebody sets the date.
  void jump_wall(std::int64_t ns) { wall_offset_ += ns; }

 private:
  static constexpr std::int64_t kStart = 1'700'000'000'000'000'000;  // November 2023
  std::atomic<std::int64_t> now_{1'000'000'000};
  std::atomic<std::int64_t> wall_offset_{0};
};

}  // namespace vmfs::sim
