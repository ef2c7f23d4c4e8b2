// Stores that refuse for a while, of the owner or of its peer: who waits, and who goes on.
#include <doctest/doctest.h>

#include "tests/unit/two_nodes.h"

namespace vmfs::sim {
namespace {

struct Full : TwoNodes {
  explicit Full(std::uint64_t seed, OnPeerLoss on_peer_loss = OnPeerLoss::kContinue) : TwoNodes(seed) {
    REQUIRE(ok(a().make("web.img")) == "");
    REQUIRE(ok(a().write("web.img", 0, "common")) == "");
    REQUIRE(ok(a().flush("web.img")) == "");
    settle();
    set(on_peer_loss);
    settle();
    web = a().group("web.img");
  }
  void set(OnPeerLoss on_peer_loss) {
    VolumeSettings settings = a().settings;
    settings.on_peer_loss = on_peer_loss;
    a().settings = settings;
    REQUIRE(ok(a().command([&](Node::Done done) { a().node->set_settings(settings, std::move(done)); })) == "");
  }
  // What is named from here on does not fit on that node.
  static void no_names(Member& node) { node.store->fail_calls("store.make", {}, 1, ENOSPC, true); }
  GroupId web{};
};

TEST_SUITE("node full") {
  TEST_CASE("a peer that cannot show what it has got is full, gets no more than is under way, and catches up") {
    Full t(501);
    t.no_names(t.b());
    REQUIRE(ok(t.a().make("new.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "first")) == "");
    // The flush waits until the peer is counted lost, and no longer.
    const std::int64_t begun = t.cluster.scheduler.now();
    REQUIRE(ok(t.a().flush("web.img")) == "");
    CHECK(t.cluster.scheduler.now() - begun < 5 * kSecond);
    REQUIRE(t.cluster.until([&] { return t.a().sync_of() == PeerSync::kFull; }));
    CHECK(t.a().status().peers.at(0).link == LinkState::kConnected);
    const std::uint64_t before = t.a().status().peers.at(0).bytes_sent;
    for (int i = 0; i < 120; ++i) {
      REQUIRE(ok(t.a().write("web.img", 0, std::string(200'000, static_cast<char>('a' + i % 26)))) == "");
      t.cluster.run(100 * kMillisecond);
    }
    CHECK(t.a().sync_of() == PeerSync::kFull);
    CHECK(t.a().status().peers.at(0).bytes_sent - before <= (17u << 20));
    t.b().store->heal();
    t.check_equal();
    CHECK(t.b().volume->lookup(kRootObject, "new.img"));
  }

  TEST_CASE("a peer that comes back and cannot show what it had got keeps nobody frozen") {
    Full t(502, OnPeerLoss::kFreeze);
    t.no_names(t.b());
    REQUIRE(ok(t.a().make("new.img")) == "");
    REQUIRE(t.cluster.until([&] { return t.a().volume->gate(t.web) == Gate::kFrozen; }));
    t.cluster.network.cut("a", "b");
    t.cluster.run(10 * kSecond);
    t.cluster.network.mend("a", "b");
    t.cluster.run(10 * kSecond);
    CHECK(t.a().volume->gate(t.web) == Gate::kFrozen);
    // As the problem in its status says.
    t.set(OnPeerLoss::kContinue);
    REQUIRE(t.cluster.until([&] { return t.a().volume->gate(t.web) == Gate::kOpen; }));
    REQUIRE(ok(t.a().write("web.img", 0, "alone")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.b().store->heal();
    t.check_equal();
    CHECK(t.b().read("web.img", 0, 5) == "alone");
  }

  TEST_CASE("an image whose creation the store refused is made when names are held, and is its owner's all the same") {
    Full t(503, OnPeerLoss::kFreeze);
    t.no_names(t.a());
    auto refused = t.a().make("late.img");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().number == EIO);
    t.cluster.network.cut("a", "b");
    REQUIRE(t.cluster.until([&] { return t.a().volume->gate(kNameSpace) == Gate::kFrozen; }));
    t.a().store->heal();
    REQUIRE(t.cluster.until([&] { return t.a().volume->lookup(kRootObject, "late.img").has_value(); }));
    t.cluster.network.mend("a", "b");
    REQUIRE(t.cluster.until([&] { return t.a().volume->gate(kNameSpace) == Gate::kOpen; }));
    REQUIRE(ok(t.a().write("late.img", 0, "here it is")) == "");
    t.check_equal();
    CHECK(t.b().read("late.img", 0, 10) == "here it is");
  }

  TEST_CASE("a name that the store refused is made before what another node did to it later") {
    Full t(504);
    t.no_names(t.a());
    REQUIRE_FALSE(t.a().make("late.img"));
    REQUIRE(t.cluster.until([&] { return t.b().volume->lookup(kRootObject, "late.img").has_value(); }));
    t.cluster.network.cut("a", "b");
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.b().change([&] { return t.b().volume->unlink({}, kRootObject, "late.img"); })) == "");
    t.cluster.network.mend("a", "b");
    t.cluster.run(5 * kSecond);
    t.a().store->heal();
    t.check_equal();
    CHECK_FALSE(t.a().volume->lookup(kRootObject, "late.img"));
    CHECK_FALSE(t.b().volume->lookup(kRootObject, "late.img"));
  }

  TEST_CASE("a peer whose disk does not answer keeps nobody waiting") {
    Full t(505);
    t.b().shell->set_disk_latency(3600 * kSecond);
    REQUIRE(ok(t.a().write("web.img", 0, "goes on")) == "");
    const std::int64_t begun = t.cluster.scheduler.now();
    REQUIRE(ok(t.a().flush("web.img")) == "");
    CHECK(t.cluster.scheduler.now() - begun < 15 * kSecond);
    CHECK(t.a().sync_of() != PeerSync::kInSync);
    // The next ones do not wait at all.
    REQUIRE(ok(t.a().write("web.img", 0, "and on")) == "");
    const std::int64_t again = t.cluster.scheduler.now();
    REQUIRE(ok(t.a().flush("web.img")) == "");
    CHECK(t.cluster.scheduler.now() - again < 2 * kSecond);
    t.b().kill();
    t.b().start({"a"});
    t.check_equal();
    CHECK(t.b().read("web.img", 0, 6) == "and on");
  }

  TEST_CASE("a clean unmount hands over what it can, though one group has to stay") {
    Full t(506);
    t.no_names(t.a());
    REQUIRE_FALSE(t.a().make("late.img"));
    auto outcome = t.a().command([&](Node::Done done) {
      t.a().node->hand_over_all(t.cluster.scheduler.now() + 5 * kSecond, std::move(done));
    });
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().message.find("not all groups") != std::string::npos);
    REQUIRE(t.cluster.until([&] { return t.b().volume->group(t.web)->owner == t.b().id; }));
    CHECK(t.a().volume->group(kNameSpace)->owner == t.a().id);
  }
}

}  // namespace
}  // namespace vmfs::sim
