// Runs a scenario from many seeds, in child processes: an abort or a hang of one is a failure like any other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/lib/scenario.h"

namespace vmfs::sim {

struct Failure {
  std::uint64_t seed;
  std::string what;
};

struct Outcome {
  std::uint64_t seeds = 0;  // that ended, failed ones included
  double seconds = 0;
  std::vector<Failure> failures;  // by seed
};

class SeedRunner {
 public:
  // So many children at once, at least one; each has every so-manieth seed.
  explicit SeedRunner(unsigned jobs);
  ~SeedRunner();
  SeedRunner(const SeedRunner&) = delete;
  SeedRunner& operator=(const SeedRunner&) = delete;

  // Seeds from `first` on: `count` of them or, if that is 0, as many as there is time for. Goes on behind a failure,
  // until there are `failures_max`; then what still runs is ended.
  Outcome run(const Scenario& scenario, std::uint64_t first, std::uint64_t count, double seconds,
              std::size_t failures_max);

 private:
  struct Shared;
  struct Job;
  struct Plan;
  void start(Job& job, const Scenario& scenario, const Plan& plan);

  const unsigned jobs_;
  Shared* const shared_;  // one for each child; what is in it outlives the child
};

}  // namespace vmfs::sim
