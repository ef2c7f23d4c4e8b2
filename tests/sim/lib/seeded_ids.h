// While it lives, all random ids of this process come from a seed.
#pragma once

#include "fs/base/ids.h"
#include "tests/sim/lib/sim_random.h"

namespace vmfs::sim {

class SeededIds {
 public:
  explicit SeededIds(std::uint64_t seed) {
    source_ = Random(seed ^ 0x5eed);
    set_random_source_for_simulation([] { return source_.next(); });
  }
  ~SeededIds() { set_random_source_for_simulation(nullptr); }
  SeededIds(const SeededIds&) = delete;

 private:
  inline static Random source_{0};
};

}  // namespace vmfs::sim
