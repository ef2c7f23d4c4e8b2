// What a node that changes nothing itself does with what it receives: it passes it over, or passes it on.
#include <doctest/doctest.h>

#include "tests/unit/two_nodes.h"

using namespace vmfs;
using namespace vmfs::sim;

TEST_SUITE("node relay") {
  TEST_CASE("what a secondary receives counts as confirmed by its author, and its journal stays free") {
    TwoNodes t(571);
    REQUIRE(ok(t.a().make("web.img")) == "");
    t.settle();
    constexpr std::uint64_t kTotal = 40u << 20, kSize = 32u << 10;
    const std::string text(kSize, 'w');
    std::int64_t longest = 0;
    Lsn confirmed = t.b().status().peers.at(0).durable;
    for (std::uint64_t at = 0; at < kTotal; at += kSize) {
      const std::int64_t begun = t.cluster.scheduler.now();
      REQUIRE(ok(t.a().write("web.img", at % (4u << 20), text)) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
      longest = std::max(longest, t.cluster.scheduler.now() - begun);
      REQUIRE(t.a().sync_of() == PeerSync::kInSync);
      if ((at + kSize) % (4u << 20) != 0) continue;
      const PeerStatus author = t.b().status().peers.at(0);
      CHECK(author.durable > confirmed + (3u << 20));
      CHECK(t.b().status().written - author.durable < (1u << 20));
      confirmed = author.durable;
    }
    CHECK(longest < 500 * kMillisecond);
    t.check_equal();
  }
}
