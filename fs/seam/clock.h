// The clock seam: real time in production, virtual time in the simulator.
#pragma once

#include <cstdint>

namespace vmfs {

class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since an arbitrary start; never goes back. For waits and rates.
  virtual std::int64_t monotonic_ns() = 0;
  // Nanoseconds since 1970 UTC; may jump. For what a person reads and for file times.
  virtual std::int64_t wall_ns() = 0;
};

Clock& system_clock();

}  // namespace vmfs
