// Two nodes that hold one volume, in sync: where most scenarios begin.
#pragma once

#include <string>

#include "tests/unit/node_cluster.h"

namespace vmfs::sim {

// Two nodes that hold one volume, in sync; `a` owns everything.
struct TwoNodes {
  explicit TwoNodes(std::uint64_t seed, ReplicationMode mode = ReplicationMode::kSync,
                    std::uint64_t journal_size = 12u << 20)
      : cluster(seed) {
    VolumeSettings settings;
    settings.mode = mode;
    Member& first = cluster.add("a", false, journal_size);
    Member& second = cluster.add("b", true, journal_size);
    first.settings = second.settings = settings;
    first.start({});
    second.start({"a"});
    REQUIRE(cluster.until([&] { return in_sync(); }));
  }
  bool in_sync() {
    return cluster.in_sync() && !a().status().peers.empty() && !b().status().peers.empty();
  }
  Member& a() { return cluster.member("a"); }
  Member& b() { return cluster.member("b"); }
  void settle() {
    REQUIRE(cluster.until([&] { return in_sync() && a().status().ready && b().status().ready; }));
    cluster.run(2 * kSecond);
  }
  void check_equal() {
    settle();
    auto here = a().stored(), there = b().stored();
    REQUIRE(here.size() == there.size());
    for (auto& [path, content] : here) {
      CAPTURE(path);
      CHECK((there[path] == content));
    }
  }
  Cluster cluster;
};

inline std::string ok(const Result<>& result) { return result ? "" : "error: " + result.error().message; }
template <class T>
std::string ok(const Result<T>& result) {
  return result ? "" : "error: " + result.error().message;
}

}  // namespace vmfs::sim
