// The scenarios that two nodes must survive, as prose.
#include <doctest/doctest.h>

#include "tests/unit/two_nodes.h"

using namespace vmfs;
using namespace vmfs::sim;

namespace {

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

bool has_problem(Member& member, const std::string& part) {
  for (const std::string& problem : member.status().problems)
    if (says(problem, part)) return true;
  return false;
}

}  // namespace

TEST_SUITE("node") {
  TEST_CASE("what is written on one node is on the other") {
    TwoNodes t(1);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "hello")) == "");
    REQUIRE(ok(t.a().write("web.img", 1 << 20, std::string(100000, 'x'))) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    // In sync mode the flush says that the peer has it durably.
    t.cluster.run(kSecond);
    CHECK(t.b().read("web.img", 0, 5) == "hello");
    t.check_equal();
    CHECK(t.a().status().images.size() == 2);
    CHECK(t.a().status().lost.records == 0);
  }

  TEST_CASE("a flush in sync mode survives the loss of either machine at once") {
    TwoNodes t(2);
    REQUIRE(ok(t.a().make("web.img")) == "");
    for (int i = 0; i < 10; ++i) {
      REQUIRE(ok(t.a().write("web.img", i * 4096, "block " + std::to_string(i))) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
    }
    t.a().power_loss();
    t.b().power_loss();
    t.b().start({"a"});
    t.cluster.run(kSecond);
    for (const ImageStatus& image : t.b().status().images) CHECK(image.role != Role::kInconsistent);
    REQUIRE(ok(t.b().promote("", true)) == "");
    for (int i = 0; i < 10; ++i)
      CHECK(t.b().read("web.img", i * 4096, 7) == "block " + std::to_string(i));
    t.a().start({"b"});
    t.check_equal();
  }

  TEST_CASE("the link is cut and mended many times while one writes") {
    for (ReplicationMode mode : {ReplicationMode::kSync, ReplicationMode::kAsync}) {
      TwoNodes t(3, mode);
      REQUIRE(ok(t.a().make("web.img")) == "");
      for (int round = 0; round < 20; ++round) {
        if (round % 3 == 2)
          t.cluster.network.reset("a", "b");
        else if (round % 3 == 0)
          t.cluster.network.cut("a", "b");
        for (int i = 0; i < 20; ++i) {
          REQUIRE(ok(t.a().write("web.img", (i * 37 + round * 11) * 4096, std::string(4096, 'a' + round))) == "");
          if (i % 5 == 0) REQUIRE(ok(t.a().flush("web.img")) == "");
          t.cluster.run(10 * kMillisecond);
        }
        if (round % 2) t.cluster.run(7 * kSecond);
        t.cluster.network.mend("a", "b");
        t.cluster.run(kSecond);
      }
      t.check_equal();
      for (const ImageStatus& image : t.a().status().images) CHECK(image.role == Role::kPrimary);
    }
  }

  TEST_CASE("the first write on the other node brings the token over; a handle in use keeps it") {
    TwoNodes t(4);
    REQUIRE(ok(t.a().make("web.img")) == "");
    auto guest = t.a().volume->open_image(t.a().group("web.img"), true);
    REQUIRE(guest);
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 0, as_bytes("from a"))) == "");
    // Not flushed: in use.
    t.cluster.run(kSecond);
    auto refused = t.b().write("web.img", 0, "from b");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().number == EBUSY);
    REQUIRE(ok(t.a().flush("web.img")) == "");
    REQUIRE(ok(t.b().write("web.img", 0, "from b")) == "");
    t.a().volume->close_image(*guest);
    // Of one that nobody has open nobody would flush it.
    REQUIRE(ok(t.a().write("web.img", 0, "a once more")) == "");
    REQUIRE(ok(t.b().write("web.img", 0, "from b")) == "");
    CHECK(t.b().read("web.img", 0, 11) == "from b more");
    REQUIRE(ok(t.b().flush("web.img")) == "");
    t.cluster.run(kSecond);
    CHECK(t.a().read("web.img", 0, 6) == "from b");
    REQUIRE(ok(t.b().make("second.img")) == "");
    REQUIRE(ok(t.b().write("second.img", 0, "names too")) == "");
    REQUIRE(ok(t.b().flush("second.img")) == "");
    t.check_equal();
  }

  TEST_CASE("disconnected without the token: read-only; promote says why not, and what may be lost") {
    TwoNodes t(5);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "from a")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.a().kill();
    t.cluster.run(10 * kSecond + 500 * kMillisecond);
    auto refused = t.b().write("web.img", 0, "from b");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().number == EROFS);
    auto promoted = t.b().promote("web.img", false);
    REQUIRE_FALSE(promoted);
    const std::string why = promoted.error().message;
    CAPTURE(why);
    CHECK(says(why, "web.img: belongs to a, which is not connected"));
    CHECK(says(why, "a: last contact 2023-11-14 22:13:2"));  // virtual time begins at :20
    CHECK(says(why, " UTC (10 s ago), in sync then"));
    CHECK(says(why, "may be lost: what it acknowledged alone after that contact; nothing that was flushed before"));
    CHECK(says(why, "it may still be alive, and may have gone on alone"));
    CHECK(says(why, "vmfs promote web.img --force"));
  }

  TEST_CASE("and what may be lost is more when nobody waited for this node, or when it was behind") {
    for (ReplicationMode mode : {ReplicationMode::kSync, ReplicationMode::kAsync}) {
      TwoNodes t(7, mode);
      REQUIRE(ok(t.a().make("web.img")) == "");
      t.settle();
      const bool behind = mode == ReplicationMode::kSync;
      if (behind) {
        t.cluster.network.cut("a", "b");
        t.cluster.run(10 * kSecond);
        for (int i = 0; i < 20; ++i) {
          REQUIRE(ok(t.a().write("web.img", i * 100000, std::string(100000, static_cast<char>('a' + i)))) == "");
          t.cluster.run(100 * kMillisecond);
        }
        t.cluster.network.set_path("a", "b", {.bytes_per_second = 300'000});
        t.cluster.network.mend("a", "b");
        REQUIRE(t.cluster.until([&] { return t.b().sync_of() == PeerSync::kCatchingUp; }));
      }
      t.a().kill();
      t.cluster.run(10 * kSecond);
      auto promoted = t.b().promote("web.img", false);
      REQUIRE_FALSE(promoted);
      const std::string why = promoted.error().message;
      CAPTURE(why);
      CHECK(says(why, behind ? "s ago), not in sync then" : "s ago), in sync then"));
      CHECK(says(why, "may be lost: whatever it wrote last, flushed or not, that did not arrive here"));
      CHECK(says(why, "it may still be alive, and may have gone on alone"));
    }
  }

  TEST_CASE("the primary dies, the other is promoted by force, the primary comes back and follows") {
    for (bool power : {false, true}) {
      TwoNodes t(6);
      REQUIRE(ok(t.a().make("web.img")) == "");
      REQUIRE(ok(t.a().write("web.img", 0, std::string(20000, 'a'))) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
      t.cluster.run(kSecond);
      t.cluster.network.cut("a", "b");
      // What only a has: it dies before it notices that it is alone.
      REQUIRE(ok(t.a().write("web.img", 4096, "only a has this")) == "");
      power ? t.a().power_loss() : t.a().kill();
      t.cluster.network.mend("a", "b");
      t.cluster.run(10 * kSecond);
      REQUIRE(ok(t.b().promote("", true)) == "");
      REQUIRE(ok(t.b().write("web.img", 8192, "b went on")) == "");
      REQUIRE(ok(t.b().flush("web.img")) == "");
      t.a().start({"b"});
      t.check_equal();
      CHECK(t.a().read("web.img", 8192, 9) == "b went on");
      CHECK(t.a().read("web.img", 4096, 4) == "aaaa");
      if (!power) {
        // What it alone had is kept.
        auto kept = t.a().store->list("images/.snapshots", "test");
        REQUIRE(kept);
        CHECK(kept->size() == 1);
      }
      for (const ImageStatus& image : t.b().status().images) CHECK(image.role == Role::kPrimary);
      for (const ImageStatus& image : t.a().status().images) CHECK(image.role == Role::kSecondary);
      // And back again, without force.
      REQUIRE(ok(t.a().write("web.img", 0, "a again")) == "");
      t.check_equal();
    }
  }

  TEST_CASE("both lose power at once and settle it between themselves") {
    for (std::uint64_t seed = 10; seed < 16; ++seed) {
      TwoNodes t(seed, seed % 2 ? ReplicationMode::kAsync : ReplicationMode::kSync);
      REQUIRE(ok(t.a().make("web.img")) == "");
      for (int i = 0; i < 30; ++i) {
        REQUIRE(ok(t.a().write("web.img", i * 5000, "block " + std::to_string(i))) == "");
        if (i % 10 == 5) REQUIRE(ok(t.a().flush("web.img")) == "");
        t.cluster.run(5 * kMillisecond);
      }
      t.a().power_loss();
      t.b().power_loss();
      t.cluster.run(kSecond);
      t.b().start({"a"});
      t.cluster.run(3 * kSecond);
      CHECK_FALSE(t.b().status().ready);
      t.a().start({"b"});
      t.check_equal();
      CHECK(t.a().read("web.img", 25 * 5000, 8) == "block 25");
      REQUIRE(ok(t.a().write("web.img", 0, "on it goes")) == "");
      t.check_equal();
    }
  }

  TEST_CASE("a suspended owner waits for its peer, unless it is told not to") {
    TwoNodes t(20);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.b().power_loss();
    t.a().power_loss();
    t.a().start({"b"});
    t.cluster.run(5 * kSecond);
    auto refused = t.a().write("web.img", 0, "x");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().number == EROFS);
    REQUIRE(ok(t.a().promote("", true)) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "x")) == "");
    t.b().start({"a"});
    t.check_equal();
  }

  TEST_CASE("both go on alone: split brain, until a person chooses") {
    for (bool keep_local : {true, false}) {
      TwoNodes t(30);
      REQUIRE(ok(t.a().make("web.img")) == "");
      REQUIRE(ok(t.a().write("web.img", 0, std::string(10000, '.'))) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
      t.cluster.run(kSecond);
      t.cluster.network.cut("a", "b");
      t.cluster.run(10 * kSecond);
      REQUIRE(ok(t.a().write("web.img", 0, "a alone")) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
      REQUIRE(ok(t.b().promote("web.img", true)) == "");
      REQUIRE(ok(t.b().write("web.img", 100, "b alone")) == "");
      REQUIRE(ok(t.b().flush("web.img")) == "");
      t.cluster.network.mend("a", "b");
      auto role = [&](Member& member) {
        for (const ImageStatus& image : member.status().images)
          if (image.path == "web.img") return image.role;
        return Role::kReleased;
      };
      REQUIRE(t.cluster.until([&] { return role(t.a()) == Role::kSplit && role(t.b()) == Role::kSplit; }));
      t.cluster.run(3 * kSecond);
      CHECK_FALSE(t.a().status().problems.empty());
      // Both are kept as they are.
      CHECK(t.a().read("web.img", 0, 7) == "a alone");
      CHECK(t.b().read("web.img", 100, 7) == "b alone");
      std::vector<GroupId> groups{t.a().group("web.img")};
      REQUIRE(ok(t.a().command([&](Node::Done done) {
        t.a().node->resolve(groups, keep_local, std::move(done));
      })) == "");
      REQUIRE(t.cluster.until([&] {
        return role(t.a()) != Role::kSplit && role(t.b()) != Role::kSplit && t.in_sync();
      }));
      t.check_equal();
      CHECK(t.b().read("web.img", 0, 7) == (keep_local ? "a alone" : "......."));
      CHECK(t.a().read("web.img", 100, 7) == (keep_local ? "......." : "b alone"));
      Member& loser = keep_local ? t.b() : t.a();
      auto kept = loser.store->list("images/.snapshots", "test");
      REQUIRE(kept);
      CHECK(kept->size() == 1);
    }
  }

  TEST_CASE("an owner that was cut off and changed nothing gives way to the one that was promoted by force") {
    TwoNodes t(31);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, std::string(10000, '.'))) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.cluster.run(kSecond);
    t.cluster.network.cut("a", "b");
    t.cluster.run(10 * kSecond);
    auto before = t.a().volume->open_image(t.a().group("web.img"), true);
    REQUIRE(before);
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.b().write("web.img", 100, "b went on")) == "");
    REQUIRE(ok(t.b().flush("web.img")) == "");
    REQUIRE(ok(t.b().make("new.img")) == "");
    t.cluster.network.mend("a", "b");
    t.check_equal();
    CHECK(t.a().read("web.img", 100, 9) == "b went on");
    for (const ImageStatus& image : t.b().status().images) CHECK(image.role == Role::kPrimary);
    for (const ImageStatus& image : t.a().status().images) CHECK(image.role == Role::kSecondary);
    // What was open for writing is so no more, and does not take the image back.
    auto late = t.a().volume->write(**before, t.a().caller, 0, as_bytes("late"));
    REQUIRE_FALSE(late);
    CHECK(late.error().number == EIO);
    t.a().volume->close_image(*before);
    REQUIRE(ok(t.a().write("web.img", 0, "a again")) == "");
    t.check_equal();
  }

  TEST_CASE("a node that joins a volume which holds data gets a full copy, while it is written") {
    Cluster cluster(40);
    Member& a = cluster.add("a", false);
    a.start({});
    for (int i = 0; i < 5; ++i) {
      std::string name = "image-" + std::to_string(i);
      REQUIRE(ok(a.make(name)) == "");
      for (int j = 0; j < 8; ++j)
        REQUIRE(ok(a.write(name, j * 300000, std::string(200000, static_cast<char>('a' + i + j)))) == "");
      REQUIRE(ok(a.flush(name)) == "");
      cluster.run(kSecond);
    }
    Member& b = cluster.add("b", true);
    b.start({"a"});
    for (int i = 0; i < 50; ++i) {
      REQUIRE(ok(a.write("image-2", i * 40000, "while it is copied " + std::to_string(i))) == "");
      cluster.run(3 * kMillisecond);
    }
    REQUIRE(cluster.until([&] { return cluster.in_sync(); }));
    cluster.run(2 * kSecond);
    auto here = a.stored(), there = b.stored();
    CHECK(here.size() == 5);
    CHECK((here == there));
  }

  TEST_CASE("a copy that was cut off begins again once, and not twice") {
    TwoNodes t(41);
    t.b().kill();
    REQUIRE(ok(t.a().make("web.img")) == "");
    for (int i = 0; i < 150; ++i) {
      REQUIRE(ok(t.a().write("web.img", (i % 40) * 200'000, std::string(200'000, static_cast<char>('a' + i % 26)))) == "");
      t.cluster.run(50 * kMillisecond);
      if (i % 10 == 0) REQUIRE(ok(t.a().flush("web.img")) == "");
    }
    t.cluster.network.set_path("a", "b", {.bytes_per_second = 1'000'000});  // 8 MB: eight seconds
    t.b().start({"a"});
    REQUIRE(t.cluster.until([&] { return t.b().status().images.size() == 2 && t.a().status().peers.at(0).copies_whole != 0; }));
    t.cluster.run(3 * kSecond);
    t.cluster.network.cut("a", "b");
    t.cluster.run(10 * kSecond);
    const std::uint64_t before = t.a().status().peers.at(0).copies_whole;
    t.cluster.network.mend("a", "b");
    t.check_equal();
    CHECK(t.a().status().peers.at(0).copies_whole == before + 1);
  }

  TEST_CASE("journal space that a peer lacks was reused: a full copy, loudly") {
    TwoNodes t(50);
    REQUIRE(ok(t.a().make("web.img")) == "");
    t.cluster.run(kSecond);
    t.b().kill();
    for (int i = 0; i < 150; ++i) {
      REQUIRE(ok(t.a().write("web.img", (i % 20) * 200000, std::string(200000, static_cast<char>('a' + i % 26)))) == "");
      t.cluster.run(50 * kMillisecond);
      if (i % 10 == 0) REQUIRE(ok(t.a().flush("web.img")) == "");
    }
    t.cluster.network.set_path("a", "b", {.bytes_per_second = 1'000'000});
    t.b().start({"a"});
    // As long as it lasts, both say so, and what it means.
    REQUIRE(t.cluster.until([&] {
      return has_problem(t.a(), "b is being copied to: before the copy's end it cannot take over") &&
             has_problem(t.b(), "a copies the volume to this node: what is inconsistent here cannot be promoted");
    }));
    t.check_equal();
    CHECK(t.a().status().peers.at(0).copies_whole != 0);
    CHECK(t.a().status().problems.empty());
    CHECK(t.b().status().problems.empty());
  }

  TEST_CASE("a clean unmount hands everything over") {
    TwoNodes t(60);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "bye")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.a().clean_stop();
    t.cluster.run(2 * kSecond);
    for (const ImageStatus& image : t.b().status().images) CHECK(image.role == Role::kPrimary);
    REQUIRE(ok(t.b().write("web.img", 0, "mine")) == "");
    REQUIRE(ok(t.b().flush("web.img")) == "");
    t.a().start({"b"});
    t.check_equal();
    CHECK(t.a().read("web.img", 0, 4) == "mine");
  }

  TEST_CASE("and what was made a moment before") {
    TwoNodes t(13, ReplicationMode::kAsync);
    REQUIRE(ok(t.a().make("new.img")) == "");
    REQUIRE(ok(t.a().write("new.img", 0, "new")) == "");
    const GroupId made = t.a().group("new.img");
    t.a().clean_stop();
    REQUIRE(t.cluster.until([&] {
      auto state = t.b().volume->group(made);
      return state && state->owner == t.b().id;
    }));
    CHECK(t.b().read("new.img", 0, 3) == "new");
    CHECK(ok(t.b().write("new.img", 0, "b's")) == "");
  }

  TEST_CASE("on-peer-loss = freeze holds writes until the peer is back") {
    TwoNodes t(70);
    VolumeSettings settings = t.a().settings;
    settings.on_peer_loss = OnPeerLoss::kFreeze;
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->set_settings(settings, std::move(done)); })) == "");
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "before")) == "");
    t.settle();
    t.cluster.network.cut("a", "b");
    t.cluster.run(10 * kSecond);
    CHECK(t.a().status().images.back().role == Role::kFrozen);
    auto image = t.a().volume->open_image(t.a().group("web.img"), true);
    REQUIRE(image);
    auto held = t.a().volume->write(**image, t.a().caller, 0, as_bytes("held"));
    REQUIRE_FALSE(held);
    CHECK(held.error().kind == ErrorKind::kWouldWait);
    t.cluster.network.mend("a", "b");
    REQUIRE(t.cluster.until([&] { return t.in_sync(); }));
    REQUIRE(ok(t.a().volume->write(**image, t.a().caller, 0, as_bytes("goes on"))) == "");
    t.a().volume->close_image(*image);
    t.check_equal();
  }

  TEST_CASE("a removed peer is not waited for, and is refused") {
    TwoNodes t(80);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.b().kill();
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->remove_peer(NodeId{2}, std::move(done)); })) == "");
    CHECK(t.a().node->peers().empty());
    REQUIRE(ok(t.a().write("web.img", 0, "alone")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.b().start({"a"});
    t.cluster.run(5 * kSecond);
    CHECK(t.b().status().peers[0].link == LinkState::kRefused);
    CHECK(t.b().status().peers[0].link_reason.find("removed") != std::string::npos);
  }
}
