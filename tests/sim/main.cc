// The simulator: runs scenarios from seeds for a time, and says which seeds fail and how to replay
// them.
//
//   sim [--seconds N] [--seed S] [--count N] [--jobs N] [--scenario NAME] [--mistake NAME|all]
//   [--verbose]
//
// With --jobs, N seeds of a scenario run at once, each in a process of its own; the time is the clock's.
// With --scenario and --mistake, the mistake is looked for by that scenario.
// Without --scenario and --mistake: all scenarios, for most of the time; and then each known
// mistake is switched on until a seed fails because of it, which must happen.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "fs/base/log.h"
#include "tests/sim/lib/scenario.h"
#include "tests/sim/lib/seed_runner.h"

namespace vmfs::sim {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kJobsMax = 1024;  // more processors than a machine has

struct Arguments {
  double seconds = 30;
  std::uint64_t seed = 1;
  std::uint64_t count = 0;  // 0: as many as the time allows
  std::string scenario, mistake, program;
  unsigned jobs = 1;
};

std::string replay(const Arguments& arguments, const Scenario& scenario, std::uint64_t seed,
                   const std::string& mistake) {
  return fmt::format("{} --scenario {} --seed {} --count 1 --verbose{}", arguments.program,
                     scenario.name, seed, mistake.empty() ? "" : " --mistake " + mistake);
}

const Scenario* find_scenario(const std::string& name) {
  for (const Scenario& scenario : scenarios())
    if (name == scenario.name) return &scenario;
  return nullptr;
}

void print_speed(const Outcome& outcome) {
  fmt::print("{} seeds, {:.0f} a second", outcome.seeds,
             static_cast<double>(outcome.seeds) / std::max(outcome.seconds, 1e-3));
}

// True: as it should be.
bool run_scenario(SeedRunner& runner, const Scenario& scenario, const Arguments& arguments,
                  double seconds) {
  constexpr std::size_t kFailuresMax = 10;
  Outcome outcome = runner.run(scenario, arguments.seed, arguments.count, seconds, kFailuresMax);
  fmt::print("{:<24}", scenario.name);
  print_speed(outcome);
  fmt::print(", {} failed ({})\n", outcome.failures.size(), scenario.about);
  for (const Failure& failure : outcome.failures)
    fmt::print("  seed {}: {}\n    replay: {}\n", failure.seed, failure.what,
               replay(arguments, scenario, failure.seed, ""));
  std::fflush(stdout);
  return outcome.failures.empty();
}

bool run_mistake(SeedRunner& runner, const KnownMistake& mistake, const Arguments& arguments,
                 double seconds) {
  const Scenario* scenario =
      find_scenario(arguments.scenario.empty() ? mistake.scenario : arguments.scenario);
  if (!scenario) {
    fmt::print("mistake {}: no scenario {}\n", mistake.name, mistake.scenario);
    return false;
  }
  *mistake.on = true;
  Outcome outcome = runner.run(*scenario, arguments.seed, arguments.count, seconds, 1);
  *mistake.on = false;
  fmt::print("mistake {:<34}", mistake.name);
  print_speed(outcome);
  if (outcome.failures.empty()) {
    fmt::print(": NOT FOUND by {} ({})\n", scenario->name, mistake.about);
    return false;
  }
  const Failure& failure = outcome.failures.front();
  fmt::print(": found by {}, seed {}: {}\n", scenario->name, failure.seed, failure.what);
  if (verbose)
    fmt::print("    replay: {}\n", replay(arguments, *scenario, failure.seed, mistake.name));
  std::fflush(stdout);
  return true;
}

int usage(const char* program, const std::string& wrong) {
  fmt::print(stderr,
             "sim: {}\nusage: {} [--seconds N] [--seed S] [--count N] [--jobs N] "
             "[--scenario NAME] [--mistake NAME|all] [--verbose]\nscenarios:\n",
             wrong, program);
  for (const Scenario& scenario : scenarios())
    fmt::print(stderr, "  {:<24}{}\n", scenario.name, scenario.about);
  fmt::print(stderr, "mistakes:\n");
  for (const KnownMistake& mistake : known_mistakes())
    fmt::print(stderr, "  {:<34}{}\n", mistake.name, mistake.about);
  return 2;
}

int run(int count, char** values) {
  Arguments arguments;
  arguments.program = values[0];
  for (int i = 1; i < count; ++i) {
    const std::string option = values[i];
    if (option == "--verbose") {
      verbose = true;
      continue;
    }
    if (i + 1 == count) return usage(values[0], option + ": unknown, or its value is missing");
    const std::string value = values[++i];
    char* end = nullptr;
    const bool number = option == "--seconds" || option == "--seed" || option == "--count" ||
                        option == "--jobs";
    const double parsed = number ? std::strtod(value.c_str(), &end) : 0;
    if (number && (end == value.c_str() || *end != '\0' || parsed < 0))
      return usage(values[0], fmt::format("{} {}: not a number", option, value));
    if (option == "--seconds")
      arguments.seconds = parsed;
    else if (option == "--seed")
      arguments.seed = std::strtoull(value.c_str(), nullptr, 10);
    else if (option == "--count")
      arguments.count = std::strtoull(value.c_str(), nullptr, 10);
    else if (option == "--jobs")
      arguments.jobs = static_cast<unsigned>(std::clamp(parsed, 1.0, kJobsMax));
    else if (option == "--scenario")
      arguments.scenario = value;
    else if (option == "--mistake")
      arguments.mistake = value;
    else
      return usage(values[0], option + ": unknown option");
  }
  if (!arguments.scenario.empty() && !find_scenario(arguments.scenario))
    return usage(values[0], arguments.scenario + ": no such scenario");
  // The scenarios provoke errors all the time: the log of them is for replaying.
  set_log_maximum(verbose ? Priority::kDebug : static_cast<Priority>(-1));

  SeedRunner runner(arguments.jobs);
  std::vector<const Scenario*> chosen;
  std::vector<const KnownMistake*> mistakes;
  for (const Scenario& scenario : scenarios())
    if (arguments.mistake.empty() &&
        (arguments.scenario.empty() || arguments.scenario == scenario.name))
      chosen.push_back(&scenario);
  const bool all_mistakes =
      arguments.mistake == "all" || (arguments.mistake.empty() && arguments.scenario.empty());
  for (const KnownMistake& mistake : known_mistakes())
    if (all_mistakes || arguments.mistake == mistake.name) mistakes.push_back(&mistake);
  if (chosen.empty() && mistakes.empty())
    return usage(values[0], arguments.mistake + ": no such mistake");

  const double mistakes_share = chosen.empty() ? 1.0 : mistakes.empty() ? 0.0 : 0.3;
  double weights = 0;
  for (const Scenario* scenario : chosen) weights += scenario->weight;
  int passed = 0, failed = 0;
  for (const Scenario* scenario : chosen) {
    const double seconds = arguments.seconds * (1 - mistakes_share) * scenario->weight / weights;
    ++(run_scenario(runner, *scenario, arguments, seconds) ? passed : failed);
  }
  // What one does not need is left for the others; none gets less than its part.
  const auto part = arguments.seconds * mistakes_share / static_cast<double>(mistakes.size());
  double left = arguments.seconds * mistakes_share;
  for (const KnownMistake* mistake : mistakes) {
    const auto start = Clock::now();
    ++(run_mistake(runner, *mistake, arguments, std::max(left, part)) ? passed : failed);
    left -= std::chrono::duration<double>(Clock::now() - start).count();
  }
  fmt::print("{} passed, {} failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace vmfs::sim

int main(int count, char** values) { return vmfs::sim::run(count, values); }
