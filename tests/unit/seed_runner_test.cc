// The simulator's runner: which seeds run, and what it tells of those that fail.
#include "tests/sim/lib/seed_runner.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <new>

namespace vmfs::sim {
namespace {

constexpr std::uint64_t kSeeds = 64;

// How often each seed ran, in whichever process.
struct Runs {
  std::atomic<unsigned> of[kSeeds];
};
Runs* runs = nullptr;

class SharedRuns {
 public:
  SharedRuns() {
    void* memory = ::mmap(nullptr, sizeof(Runs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    runs = new (memory) Runs{};
  }
  ~SharedRuns() { ::munmap(runs, sizeof(Runs)); }
};

void count_it(std::uint64_t seed) { ++runs->of[seed]; }
void some_fail(std::uint64_t seed) {
  count_it(seed);
  if (seed == 12) fail_scenario("twelve");
  if (seed == 13) ::raise(SIGKILL);
  if (seed == 40) fail_scenario("forty");
}
// But for one, they end when they are ended.
void one_fails(std::uint64_t seed) {
  count_it(seed);
  if (seed == 11) fail_scenario("eleven");
  for (;;) ::pause();
}

TEST_SUITE("seed_runner") {
  TEST_CASE("every seed runs once, however many at a time") {
    for (unsigned jobs : {0u, 1u, 3u, 50u}) {
      CAPTURE(jobs);
      SharedRuns shared;
      SeedRunner runner(jobs);
      const Outcome outcome = runner.run({"count", "", count_it, 1}, 10, 35, 0, 10);
      CHECK(outcome.seeds == 35);
      CHECK(outcome.failures.empty());
      for (std::uint64_t seed = 0; seed < kSeeds; ++seed) CHECK(runs->of[seed] == (seed >= 10 && seed < 45));
    }
  }

  TEST_CASE("a seed that fails or dies is told, and the others run all the same") {
    for (unsigned jobs : {1u, 2u, 7u}) {
      CAPTURE(jobs);
      SharedRuns shared;
      SeedRunner runner(jobs);
      const Outcome outcome = runner.run({"fail", "", some_fail, 1}, 10, 35, 0, 10);
      CHECK(outcome.seeds == 35);
      REQUIRE(outcome.failures.size() == 3);
      CHECK(outcome.failures[0].seed == 12);
      CHECK(outcome.failures[0].what == "twelve");
      CHECK(outcome.failures[1].seed == 13);
      CHECK(outcome.failures[1].what.starts_with("died"));
      CHECK(outcome.failures[2].seed == 40);
      for (std::uint64_t seed = 10; seed < 45; ++seed) CHECK(runs->of[seed] == 1);
    }
  }

  TEST_CASE("with enough failures the rest is ended") {
    SharedRuns shared;
    SeedRunner runner(3);
    const Outcome outcome = runner.run({"first", "", one_fails, 1}, 10, 35, 0, 1);
    REQUIRE(outcome.failures.size() == 1);
    CHECK(outcome.failures[0].seed == 11);
    CHECK(outcome.seeds == 1);
  }

  TEST_CASE("without a count it ends with the time") {
    SharedRuns shared;
    SeedRunner runner(2);
    CHECK(runner.run({"count", "", [](std::uint64_t) {}, 1}, 0, 0, 1, 1).seeds > 2);
    CHECK(runner.run({"count", "", count_it, 1}, 0, 0, 0, 1).seeds == 0);
  }
}

}  // namespace
}  // namespace vmfs::sim
