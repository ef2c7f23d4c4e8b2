// Two nodes that part, and what each keeps of what it gives up.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "tests/unit/two_nodes.h"

namespace vmfs::sim {

// The contents of every copy of `name` that the node keeps, in no order.
inline std::vector<std::string> kept_copies(Member& member, const std::string& name) {
  std::vector<std::string> copies;
  auto snapshots = member.store->list("images/.snapshots", "test.list");
  if (!snapshots) return copies;
  for (const DirectoryEntry& snapshot : *snapshots) {
    auto content = read_whole_file(*member.store, "images/.snapshots/" + snapshot.name + "/" + name, "test.read");
    if (content) copies.emplace_back(reinterpret_cast<const char*>(content->data()), content->size());
  }
  return copies;
}

inline bool contains(const std::vector<std::string>& copies, const std::string& text) {
  return std::any_of(copies.begin(), copies.end(),
                     [&](const std::string& copy) { return copy.find(text) != std::string::npos; });
}

// A volume whose image both have, up to "common".
struct Parting : TwoNodes {
  explicit Parting(std::uint64_t seed) : TwoNodes(seed) {
    REQUIRE(ok(a().make("web.img")) == "");
    REQUIRE(ok(a().write("web.img", 0, "common")) == "");
    REQUIRE(ok(a().flush("web.img")) == "");
    settle();
    web = a().group("web.img");
  }
  Result<std::string> resolve(Member& member, std::vector<GroupId> groups, bool keep_local) {
    return member.command([&](Node::Done done) { member.node->resolve(groups, keep_local, std::move(done)); });
  }
  // The link is cut for as long as both need to notice.
  void cut() {
    cluster.network.cut("a", "b");
    cluster.run(10 * kSecond);
  }
  void mend() { cluster.network.mend("a", "b"); }
  // Until a has compared the histories, and says that it follows once this image is closed.
  void wait_for_its_end(const std::string& name) {
    REQUIRE(cluster.until([&] {
      const std::vector<std::string> problems = a().status().problems;
      return std::any_of(problems.begin(), problems.end(), [&](const std::string& problem) {
        return problem.starts_with(name + ": ") && problem.find("is open for writing here") != std::string::npos;
      });
    }));
  }
  GroupId web{};
};

}  // namespace vmfs::sim
