// Daemons that die while the FUSE connection, and with it the guests, go on.
#include <doctest/doctest.h>

#include "tests/unit/two_nodes.h"

using namespace vmfs;
using namespace vmfs::sim;

TEST_SUITE("node") {
  TEST_CASE("the daemon's death settles nothing: what was suspended stays so, what was open too") {
    TwoNodes t(41);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "before")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    const GroupId group = t.a().group("web.img");
    auto daemon_dies = [&] {
      t.a().kill();
      t.a().start({"b"}, true);
    };
    daemon_dies();
    CHECK(t.a().volume->gate(group) == Gate::kOpen);
    t.settle();

    // A stale primary must not boot its guests, however often its daemon dies.
    t.a().power_loss();
    t.b().kill();
    t.a().start({"b"});
    for (int death = 0; death < 3; ++death) {
      CHECK(t.a().volume->gate(group) == Gate::kSuspended);
      CHECK_FALSE(t.a().status().ready);
      t.cluster.run(death * kSecond);
      daemon_dies();
    }

    // What a person took by force goes on, and nothing else.
    REQUIRE(ok(t.a().promote("web.img", true)) == "");
    daemon_dies();
    CHECK(t.a().volume->gate(group) == Gate::kOpen);
    CHECK(t.a().volume->gate(kNameSpace) == Gate::kSuspended);
    REQUIRE(ok(t.a().write("web.img", 0, "alone!")) == "");

    // Once the peer was heard, all goes on.
    t.b().start({"a"});
    t.settle();
    t.b().kill();
    t.cluster.run(kSecond);
    daemon_dies();
    CHECK(t.a().volume->gate(group) == Gate::kOpen);
    CHECK(t.a().volume->gate(kNameSpace) == Gate::kOpen);
    CHECK(t.a().read("web.img", 0, 6) == "alone!");
    t.b().start({"a"});
    t.check_equal();
  }

  // Guests are started then, and would write upon what they have read.
  TEST_CASE("a node is ready when what the peer had is here") {
    TwoNodes t(44, ReplicationMode::kAsync);
    for (const char* name : {"web.img", "db.img"}) REQUIRE(ok(t.a().make(name)) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "before")) == "");
    t.settle();
    t.a().clean_stop();
    t.cluster.run(kSecond);
    REQUIRE(ok(t.b().make("new.img")) == "");
    for (const char* name : {"web.img", "db.img", "new.img"}) {
      for (std::uint64_t i = 1; i <= 8; ++i) REQUIRE(ok(t.b().write(name, i << 17, std::string(1 << 17, 'x'))) == "");
      REQUIRE(ok(t.b().write(name, 0, "after!")) == "");
    }
    t.a().start({"b"});
    REQUIRE(t.cluster.until([&] { return t.a().status().ready; }));
    for (const char* name : {"web.img", "db.img", "new.img"}) {
      CAPTURE(name);
      CHECK(t.a().read(name, 0, 6) == "after!");
    }
    // It stays so, whatever comes.
    t.b().kill();
    t.cluster.run(kSecond);
    CHECK(t.a().status().ready);
    t.b().start({"a"});
    t.check_equal();
  }

  TEST_CASE("a node is ready though the peer writes more than the line carries, once what it had before is here") {
    TwoNodes t(46, ReplicationMode::kAsync, 512u << 20);
    for (const char* name : {"web.img", "db.img"}) REQUIRE(ok(t.a().make(name)) == "");
    t.settle();
    t.a().clean_stop();
    t.cluster.run(kSecond);
    REQUIRE(ok(t.b().write("db.img", 0, "after!")) == "");
    // Which is not to be compressed away.
    const auto noise = [&](std::size_t bytes) {
      std::string text(bytes, 0);
      for (char& each : text) each = static_cast<char>(t.cluster.random.next());
      return text;
    };
    const auto write_much = [&] {
      for (int i = 0; i < 16; ++i) REQUIRE(ok(t.b().write("web.img", i << 18, noise(1 << 18))) == "");
    };
    for (int i = 0; i < 10; ++i) write_much();
    t.cluster.network.set_path("a", "b", {.bytes_per_second = 2u << 20});
    t.a().start({"b"});
    int seconds = 0;
    for (; seconds < 60 && !t.a().status().ready; ++seconds) {
      write_much();
      t.cluster.run(kSecond);
    }
    CAPTURE(t.a().status().ready_reason);
    CHECK(t.a().status().ready);
    CHECK(t.a().read("db.img", 0, 6) == "after!");
    CHECK(seconds > 15);  // 40 MiB at 2 MiB/s
    CHECK(t.b().status().peers.at(0).sync == PeerSync::kCatchingUp);
    t.check_equal();
  }

  TEST_CASE("a node does not wait for what it copies to the peer itself before guests start") {
    TwoNodes t(45);
    for (const char* name : {"web.img", "db.img"}) {
      REQUIRE(ok(t.a().make(name)) == "");
      REQUIRE(ok(t.a().write(name, 0, "common")) == "");
    }
    t.settle();
    REQUIRE(ok(t.b().promote("db.img", false)) == "");
    t.settle();
    t.b().kill();
    t.cluster.run(5 * kSecond);
    // More than is kept for a peer that is away, and a line that is slow.
    for (std::uint64_t i = 0; i < 80; ++i) {
      REQUIRE(ok(t.a().write("web.img", i << 17, std::string(1 << 17, 'x'))) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
      t.cluster.run(100 * kMillisecond);
    }
    t.a().clean_stop();
    t.cluster.network.set_path("a", "b", {.bytes_per_second = 500'000});
    t.a().start({"b"});
    t.b().start({"a"});
    REQUIRE(t.cluster.until([&] { return t.a().status().ready; }, 10 * kSecond));
    CHECK(t.a().status().peers.at(0).sync == PeerSync::kFullCopy);
    CHECK(t.a().volume->gate(t.a().group("web.img")) == Gate::kOpen);
    t.check_equal();
  }

  TEST_CASE("an owner that remembers less of what the peer has than the peer has does not wait for it") {
    TwoNodes t(43, ReplicationMode::kSync, 64u << 20);
    REQUIRE(ok(t.a().make("web.img")) == "");
    t.settle();
    // More than writers may be ahead of a peer, and all of it is confirmed; the last checkpoint says nothing of it.
    constexpr std::uint64_t kPiece = 256u << 10;
    for (std::uint64_t i = 0; i < 48; ++i) REQUIRE(ok(t.a().write("web.img", i * kPiece, std::string(kPiece, 'x'))) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.a().kill();
    t.a().start({"b"}, true);
    t.settle();
    CHECK(ok(t.a().write("web.img", 0, "on")) == "");
    CHECK(ok(t.a().flush("web.img")) == "");
    t.check_equal();
  }

  TEST_CASE("what an owner's journal lost comes back from the peer, and then it goes on") {
    int lost = 0;
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      TwoNodes t(seed);
      REQUIRE(ok(t.a().make("web.img")) == "");
      t.cluster.run(kSecond);
      for (int i = 0; i < 4; ++i) REQUIRE(ok(t.a().write("web.img", i * 4096, std::string(4096, 'x'))) == "");
      // Shipped, and not yet synced here.
      t.cluster.run(40 * kMillisecond);
      t.a().power_loss();
      t.a().start({"b"}, true);
      const GroupId group = t.a().group("web.img");
      lost += t.a().read("web.img", 0, 4 * 4096).size() < 4 * 4096;
      t.settle();
      CHECK(t.a().volume->gate(group) == Gate::kOpen);
      CHECK(t.a().read("web.img", 0, 4 * 4096) == std::string(4 * 4096, 'x'));
      CHECK(ok(t.a().write("web.img", 0, "on")) == "");
      t.check_equal();
    }
    CHECK(lost > 0);
  }
}
