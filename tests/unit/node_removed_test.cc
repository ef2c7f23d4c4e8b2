// An image that one node removed while the other had changes of it that the first never received: it goes, and
// what was given up with it is kept.
#include "tests/unit/parting.h"

namespace vmfs::sim {
namespace {

Result<> remove(Member& member, const std::string& name) {
  return member.change([&] { return member.volume->unlink(member.caller, kRootObject, name); });
}

Result<> rename_over(Member& member, const std::string& from, const std::string& to) {
  return member.change(
      [&] { return member.volume->rename(member.caller, kRootObject, from, kRootObject, to, false); });
}

std::size_t snapshots(Member& member) {
  auto listed = member.store->list("images/.snapshots", "test.list");
  return listed ? listed->size() : 0;
}

// `a` has a tail of web.img that `b` lacks, and fails; `b` is promoted.
struct FailedOwner : Parting {
  explicit FailedOwner(std::uint64_t seed, const std::string& tail = "tail") : Parting(seed) {
    cluster.network.cut("a", "b");
    if (!tail.empty()) REQUIRE(ok(a().write("web.img", 100, tail)) == "");
    a().kill();
    cluster.run(10 * kSecond);
    REQUIRE(ok(b().promote("", true)) == "");
  }
  void come_back() {
    mend();
    a().start({"b"});
  }
};

TEST_SUITE("node removed") {
  TEST_CASE("what a failed owner alone had of an image that was removed meanwhile is kept") {
    FailedOwner t(301);
    REQUIRE(ok(remove(t.b(), "web.img")) == "");
    t.come_back();
    t.check_equal();
    CHECK_FALSE(t.a().volume->lookup(kRootObject, "web.img"));
    CHECK_FALSE(t.a().volume->group(t.web));
    CHECK(contains(kept_copies(t.a(), "web.img"), "tail"));
    CHECK(t.a().status().problems.empty());
    CHECK(snapshots(t.b()) == 0);
  }

  TEST_CASE("and of one whose name another image took") {
    FailedOwner t(302);
    REQUIRE(ok(t.b().make("new.img")) == "");
    REQUIRE(ok(t.b().write("new.img", 0, "from b")) == "");
    REQUIRE(ok(rename_over(t.b(), "new.img", "web.img")) == "");
    t.come_back();
    t.check_equal();
    CHECK(t.a().read("web.img", 0, 6) == "from b");
    CHECK(contains(kept_copies(t.a(), "web.img"), "tail"));
  }

  TEST_CASE("and of one that was open at its removal") {
    FailedOwner t(303);
    auto guest = t.b().volume->open_image(t.web, true);
    REQUIRE(guest);
    REQUIRE(ok(t.b().volume->write(**guest, t.b().caller, 200, as_bytes("from b"))) == "");
    REQUIRE(ok(remove(t.b(), "web.img")) == "");
    t.come_back();
    t.settle();
    CHECK(contains(kept_copies(t.a(), "web.img"), "tail"));
    t.b().volume->close_image(*guest);
    t.cluster.run(kSecond);
    t.check_equal();
    CHECK_FALSE(t.a().volume->group(t.web));
    CHECK(snapshots(t.a()) == 1);
  }

  TEST_CASE("an image that was removed meanwhile is not opened for its guest before it goes") {
    FailedOwner t(311);
    REQUIRE(ok(remove(t.b(), "web.img")) == "");
    t.come_back();
    bool opened = false;
    REQUIRE(t.cluster.until([&] {
      opened |= t.a().volume->gate(t.web) == Gate::kOpen;
      return !t.a().volume->group(t.web);
    }));
    CHECK_FALSE(opened);
    t.settle();
  }

  TEST_CASE("nothing is kept of an image that went with all that this node had of it") {
    FailedOwner t(304, "");
    REQUIRE(ok(t.b().write("web.img", 200, "from b")) == "");
    REQUIRE(ok(remove(t.b(), "web.img")) == "");
    t.come_back();
    t.check_equal();
    CHECK_FALSE(t.a().volume->group(t.web));
    CHECK(snapshots(t.a()) == 0);
  }

  TEST_CASE("nothing is kept when the right to it was handed over") {
    Parting t(305);
    REQUIRE(ok(t.a().write("web.img", 100, "more")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    REQUIRE(ok(remove(t.b(), "web.img")) == "");
    t.check_equal();
    REQUIRE(ok(t.b().make("two.img")) == "");
    REQUIRE(ok(t.b().write("two.img", 0, "x")) == "");
    REQUIRE(ok(t.b().flush("two.img")) == "");
    REQUIRE(ok(remove(t.a(), "two.img")) == "");
    t.check_equal();
    CHECK(snapshots(t.a()) == 0);
    CHECK(snapshots(t.b()) == 0);
  }

  TEST_CASE("an image that is open for writing here goes when it is closed") {
    Parting t(306);
    auto guest = t.a().volume->open_image(t.web, true);
    REQUIRE(guest);
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 100, as_bytes("tail"))) == "");
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(remove(t.b(), "web.img")) == "");
    t.mend();
    REQUIRE(t.cluster.until([&] { return contains(t.a().status().problems, "web.img: was removed on b"); }));
    CHECK(contains(t.a().status().problems, "close it (stop the guest)"));
    // Writers at the other node do not wait for that.
    REQUIRE(t.cluster.until([&] { return t.b().sync_of() == PeerSync::kFull; }));
    t.cluster.run(10 * kSecond);
    // Nobody asks for it while b cannot be heard.
    t.cut();
    CHECK_FALSE(contains(t.a().status().problems, "was removed on b"));
    t.mend();
    REQUIRE(t.cluster.until([&] { return contains(t.a().status().problems, "web.img: was removed on b"); }));
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 300, as_bytes("a went on"))) == "");
    CHECK(t.a().read("web.img", 300, 9) == "a went on");
    t.a().volume->close_image(*guest);
    t.check_equal();
    CHECK_FALSE(t.a().volume->group(t.web));
    CHECK(contains(kept_copies(t.a(), "web.img"), "a went on"));
    CHECK(t.a().status().problems.empty());
  }

  TEST_CASE("an owner that was cut off and changed nothing writes no more into an image that was removed") {
    Parting t(307);
    auto guest = t.a().volume->open_image(t.web, true);
    REQUIRE(guest);
    t.cut();
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(remove(t.b(), "web.img")) == "");
    t.mend();
    t.check_equal();
    CHECK_FALSE(t.a().volume->write(**guest, t.a().caller, 0, as_bytes("lost")));
    t.a().volume->close_image(*guest);
    CHECK(snapshots(t.a()) == 0);
  }

  TEST_CASE("a side of a split brain that the other node removes is kept") {
    FailedOwner t(308);
    t.a().start({"b"});
    REQUIRE(ok(t.a().promote("", true)) == "");
    REQUIRE(ok(t.a().write("web.img", 300, "a went on")) == "");
    REQUIRE(ok(t.b().write("web.img", 200, "from b")) == "");
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(t.web)->split && t.b().volume->group(t.web)->split; }));
    t.cluster.run(5 * kSecond);
    REQUIRE(ok(remove(t.b(), "web.img")) == "");
    t.check_equal();
    CHECK_FALSE(t.a().volume->group(t.web));
    CHECK(contains(kept_copies(t.a(), "web.img"), "a went on"));
    CHECK(t.a().status().problems.empty());
    CHECK(t.b().status().problems.empty());
  }

  TEST_CASE("a removal that a copy of the names brings gives nothing up unkept") {
    FailedOwner t(309);
    REQUIRE(ok(remove(t.b(), "web.img")) == "");
    // Until b's journal has no place any more for what a lacks.
    REQUIRE(ok(t.b().make("bulk.img")) == "");
    const std::string block(256u << 10, 'b');
    for (int i = 0; i < 80; ++i) {
      REQUIRE(ok(t.b().write("bulk.img", 0, block)) == "");
      t.cluster.run(kSecond);
    }
    t.come_back();
    t.check_equal();
    CHECK(t.b().status().peers.at(0).copies_whole > 0);
    CHECK_FALSE(t.a().volume->group(t.web));
    CHECK(contains(kept_copies(t.a(), "web.img"), "tail"));
  }

  TEST_CASE("an image that is kept and removed in spite of crashes in between") {
    for (int crash_ms = 0; crash_ms < 60; crash_ms += 3) {
      CAPTURE(crash_ms);
      FailedOwner t(310 + crash_ms);
      REQUIRE(ok(remove(t.b(), "web.img")) == "");
      t.come_back();
      t.cluster.until([&] { return t.a().status().peers.at(0).link == LinkState::kConnected; });
      t.cluster.run(crash_ms * kMillisecond);
      crash_ms % 2 == 0 ? t.a().kill() : t.a().power_loss();
      t.cluster.run(kSecond);
      t.a().start({"b"});
      t.check_equal();
      CHECK_FALSE(t.a().volume->group(t.web));
      CHECK(contains(kept_copies(t.a(), "web.img"), "tail"));
    }
  }
}

}  // namespace
}  // namespace vmfs::sim
