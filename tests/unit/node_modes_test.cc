// A change of mode while flushes are under way: what was acknowledged under one mode and what under the other can be told
// apart afterwards, so that nothing that was acknowledged alone is given up without a person.
#include "tests/unit/two_nodes.h"

namespace vmfs::sim {
namespace {

struct Modes : TwoNodes {
  explicit Modes(std::uint64_t seed, ReplicationMode mode, std::uint64_t journal_size = 12u << 20)
      : TwoNodes(seed, mode, journal_size) {
    REQUIRE(ok(a().make("web.img")) == "");
    REQUIRE(ok(a().write("web.img", 0, "common")) == "");
    REQUIRE(ok(a().flush("web.img")) == "");
    settle();
    web = a().group("web.img");
  }
  void set_mode(ReplicationMode mode) {
    VolumeSettings settings = a().settings;
    settings.mode = mode;
    REQUIRE(ok(a().command([&](Node::Done done) { a().node->set_settings(settings, std::move(done)); })) == "");
  }
  bool a_thinks_it_is_connected() { return a().status().peers.at(0).link == LinkState::kConnected; }
  // a dies before it could notice that b does not hear it; b is promoted, goes on, and a comes back.
  void a_is_replaced_and_comes_back() {
    REQUIRE(a_thinks_it_is_connected());
    cluster.network.cut("a", "b");
    a().power_loss();
    REQUIRE(ok(b().promote("", true)) == "");
    REQUIRE(ok(b().write("web.img", 100, "from b")) == "");
    cluster.network.mend("a", "b");
    a().start({"b"});
    REQUIRE(cluster.until([&] { return in_sync(); }));
    cluster.run(2 * kSecond);
  }
  bool is_split() { return a().volume->group(web)->split && b().volume->group(web)->split; }
  GroupId web{};
};

TEST_SUITE("node modes") {
  TEST_CASE("sync to async while a flush waits for the peer: it is acknowledged alone, and told apart") {
    Modes t(311, ReplicationMode::kSync);
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().write("web.img", 0, "alone ")) == "");
    auto image = t.a().volume->open_image(t.web, true);
    REQUIRE(image);
    std::optional<Result<>> flushed;
    t.a().volume->flush(**image, t.a().caller, [&](Result<> result) { flushed = std::move(result); });
    t.cluster.run(100 * kMillisecond);
    REQUIRE_FALSE(flushed);
    t.set_mode(ReplicationMode::kAsync);
    REQUIRE(t.cluster.until([&] { return flushed.has_value(); }, kSecond));
    REQUIRE(ok(*flushed) == "");
    t.a().volume->close_image(*image);
    image = {};
    t.a_is_replaced_and_comes_back();
    // It was acknowledged when a flush still promised b's disk: a person says what becomes of it.
    CHECK(t.is_split());
    CHECK(t.a().read("web.img", 0, 6) == "alone ");
  }

  TEST_CASE("async to sync while the peer lags far behind: what is flushed without it is told apart") {
    Modes t(312, ReplicationMode::kAsync, 512u << 20);
    t.cluster.network.set_path("a", "b", {.bytes_per_second = 256u << 10});
    // More than a peer may lack that flushes wait for.
    const std::string block(250'000, 'x');
    for (std::uint64_t offset = 4096; offset < (40u << 20); offset += block.size())
      REQUIRE(ok(t.a().write("web.img", offset, block)) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    REQUIRE(t.a().status().peers.at(0).lag.bytes > (33u << 20));
    const std::uint64_t before = t.a().volume->group(t.web)->history.size();
    t.set_mode(ReplicationMode::kSync);
    REQUIRE(ok(t.a().write("web.img", 0, "alone ")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    CHECK(t.a().volume->group(t.web)->history.size() == before + 1);
    t.cluster.network.set_path("a", "b", {});
    t.a_is_replaced_and_comes_back();
    CHECK(t.is_split());
    CHECK(t.a().read("web.img", 0, 6) == "alone ");
  }

  TEST_CASE("a change of mode while both are in sync costs one epoch, and nothing else") {
    Modes t(313, ReplicationMode::kAsync);
    for (const ReplicationMode mode : {ReplicationMode::kSync, ReplicationMode::kSemisync, ReplicationMode::kAsync}) {
      const std::size_t before = t.a().volume->group(t.web)->history.size();
      t.set_mode(mode);
      t.settle();
      REQUIRE(ok(t.a().write("web.img", 0, "common")) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
      REQUIRE(ok(t.a().write("web.img", 0, "common")) == "");
      CHECK(t.a().volume->group(t.web)->history.size() == before + 1);
      CHECK(t.a().volume->group(t.web)->history.back().cause == EpochCause::kPeerLost);
    }
    t.check_equal();
    CHECK(t.a().volume->group(t.web)->history.back().epoch == t.b().volume->group(t.web)->history.back().epoch);
  }
}

}  // namespace
}  // namespace vmfs::sim
