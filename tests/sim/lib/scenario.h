// What the simulator runs: scenarios. Each is a function of a seed; it reports what is wrong by
// throwing SimFailure (the simulator's own; nothing of the product is between the throw and the
// catch).
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

namespace vmfs::sim {

struct SimFailure {
  std::string what;
};

template <class... Args>
[[noreturn]] void fail_scenario(fmt::format_string<Args...> f, Args&&... args) {
  throw SimFailure{fmt::format(f, std::forward<Args>(args)...)};
}

#define SIM_CHECK(condition, ...)                                                       \
  do {                                                                                  \
    if (!(condition)) [[unlikely]]                                                      \
      ::vmfs::sim::fail_scenario("{} [{}]", ::fmt::format("" __VA_ARGS__), #condition); \
  } while (0)

struct Scenario {
  const char* name;
  const char* about;
  void (*run)(std::uint64_t seed);
  // How much of the time it gets, relative to the others.
  unsigned weight;
};

const std::vector<Scenario>& scenarios();

// A known mistake (fs/base/mistakes.h) and the scenario that must find it.
struct KnownMistake {
  const char* name;
  const char* about;
  bool* on;
  const char* scenario;
};

const std::vector<KnownMistake>& known_mistakes();

// Says more while it runs, for replaying one seed.
inline bool verbose = false;
template <class... Args>
void say(fmt::format_string<Args...> f, Args&&... args) {
  if (verbose) fmt::print(stderr, "  {}\n", fmt::format(f, std::forward<Args>(args)...));
}

}  // namespace vmfs::sim
