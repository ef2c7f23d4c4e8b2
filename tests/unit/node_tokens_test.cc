// Taking a group while the world goes on: the kernel's caches take their time to go, and what was decided before that
// is decided again after it.
#include <deque>
#include <map>
#include <string>

#include "tests/unit/two_nodes.h"

namespace vmfs::sim {
namespace {

// `b` has a kernel whose caches are gone when the test says so, and an image that `a` owns.
struct SlowKernel : TwoNodes {
  explicit SlowKernel(std::uint64_t seed) : TwoNodes(seed) {
    REQUIRE(ok(a().make("web.img")) == "");
    REQUIRE(ok(a().write("web.img", 0, "common")) == "");
    REQUIRE(ok(a().flush("web.img")) == "");
    web = a().group("web.img");
    b().clean_stop();
    b().callbacks.invalidate_caches = [this](GroupId group, std::function<void()> done) {
      if (group == web && slow)
        dropping.push_back(std::move(done));
      else
        done();
    };
    b().start({"a"});
    settle();
    slow = true;
  }
  // From here on at once; what waits now is over.
  void caches_are_gone() {
    slow = false;
    for (auto& done : std::exchange(dropping, {})) done();
  }
  void mend() { cluster.network.mend("a", "b"); }
  void cut_for_long() {
    cluster.network.cut("a", "b");
    cluster.run(10 * kSecond);
  }
  bool anybody_forced() {
    for (Member* member : {&a(), &b()}) {
      const GroupState state = *member->volume->group(web);
      for (const EpochEntry& entry : state.history)
        if (entry.cause == EpochCause::kForced) return true;
    }
    return false;
  }
  GroupId web{};
  bool slow = false;
  std::deque<std::function<void()>> dropping;
};

TEST_SUITE("node tokens") {
  TEST_CASE("chmod, chown and truncation by a node that does not own the image bring the token over") {
    const std::map<std::string, AttributesToSet> changes{
        {"chmod", {.set = {.permissions = 0600}, .size = {}}},
        {"chown", {.set = {.uid = 1000, .gid = 1001}, .size = {}}},
        {"truncation", {.set = {}, .size = 3}},
        {"extension", {.set = {}, .size = 70'000}},
    };
    TwoNodes t(307);
    REQUIRE(ok(t.a().make("web.img")) == "");
    t.settle();
    const GroupId web = t.a().group("web.img");
    for (const auto& [name, change] : changes) {
      CAPTURE(name);
      auto set_on_b = [&] { return t.b().change([&] { return t.b().volume->set_attributes({}, web, change); }); };
      REQUIRE(ok(t.a().promote("web.img", false)) == "");
      auto guest = t.a().volume->open_image(web, true);
      REQUIRE(guest);
      REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 0, as_bytes("from a"))) == "");
      // Not flushed: in use.
      auto refused = set_on_b();
      REQUIRE_FALSE(refused);
      CHECK(refused.error().number == EBUSY);
      REQUIRE(ok(t.a().flush("web.img")) == "");
      t.a().volume->close_image(*guest);
      REQUIRE(t.a().volume->group(web)->owner == t.a().id);
      REQUIRE(ok(set_on_b()) == "");
      CHECK(t.b().volume->group(web)->owner == t.b().id);
      CHECK(t.b().volume->group(web)->history.back().cause == EpochCause::kTaken);
      t.check_equal();
      CHECK(t.a().volume->group(web)->owner == t.b().id);
      for (Member* member : {&t.a(), &t.b()}) {
        CAPTURE(member->name);
        auto found = member->volume->attributes(web);
        REQUIRE(found);
        if (change.set.permissions) CHECK(found->stat.permissions == *change.set.permissions);
        if (change.set.uid) CHECK(found->stat.uid == *change.set.uid);
        if (change.set.gid) CHECK(found->stat.gid == *change.set.gid);
        CHECK(found->stat.size == change.size.value_or(6));
        CHECK(member->read("web.img", 0, 6) == (name == "truncation" ? "fro" : "from a"));
      }
    }
  }

  TEST_CASE("by force, and the owner is back before the kernel's caches are gone: it is asked") {
    SlowKernel t(301);
    t.cut_for_long();
    std::optional<Result<std::string>> outcome;
    t.b().node->promote({t.web}, true, [&](Result<std::string> result) { outcome = std::move(result); });
    REQUIRE(t.cluster.until([&] { return t.dropping.size() == 1; }));
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.in_sync(); }));
    REQUIRE(ok(t.a().write("web.img", 0, "a lives")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    REQUIRE_FALSE(outcome);
    t.caches_are_gone();
    REQUIRE(t.cluster.until([&] { return outcome.has_value(); }));
    CHECK(ok(*outcome) == "");
    // Handed over by its owner, not taken from it.
    CHECK_FALSE(t.anybody_forced());
    CHECK(t.b().volume->group(t.web)->history.back().cause == EpochCause::kTaken);
    CHECK(t.a().volume->gate(t.web) == Gate::kSecondary);
    REQUIRE(ok(t.b().write("web.img", 7, " on b")) == "");
    t.check_equal();
    CHECK(t.a().read("web.img", 0, 12) == "a lives on b");
  }

  TEST_CASE("by force, and the owner is back with a tail before the kernel's caches are gone: that is adopted") {
    SlowKernel t(302);
    // What b lacks: in the common epoch, and never flushed, so that a fork would give it up.
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().write("web.img", 0, "a's tail")) == "");
    t.cluster.run(10 * kSecond);
    std::optional<Result<std::string>> outcome;
    t.b().node->promote({t.web}, true, [&](Result<std::string> result) { outcome = std::move(result); });
    REQUIRE(t.cluster.until([&] { return t.dropping.size() == 1; }));
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.in_sync(); }));
    t.caches_are_gone();
    REQUIRE(t.cluster.until([&] { return outcome.has_value(); }));
    CHECK(ok(*outcome) == "");
    CHECK_FALSE(t.anybody_forced());
    t.check_equal();
    CHECK(t.b().read("web.img", 0, 8) == "a's tail");
  }

  TEST_CASE("released to this node, and taken back by force before the kernel's caches are gone: it is not taken") {
    SlowKernel t(303);
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->demote({t.web}, false, std::move(done)); })) == "");
    REQUIRE(t.cluster.until([&] { return t.dropping.size() == 1; }));
    t.cut_for_long();
    REQUIRE(ok(t.a().promote("web.img", true)) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "a took it back")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.in_sync() && t.b().volume->group(t.web)->owner == t.a().id; }));
    t.caches_are_gone();
    t.cluster.run(2 * kSecond);
    CHECK(t.b().volume->group(t.web)->owner == t.a().id);
    CHECK(t.b().volume->gate(t.web) == Gate::kSecondary);
    CHECK(t.a().volume->group(t.web)->owner == t.a().id);
    CHECK(t.a().volume->group(t.web)->history.back().cause == EpochCause::kForced);
    REQUIRE(ok(t.a().write("web.img", 14, " and keeps it")) == "");
    t.check_equal();
    CHECK(t.b().read("web.img", 0, 27) == "a took it back and keeps it");
  }

  TEST_CASE("released to a peer that is connected and has not taken it yet: it is not taken back by force") {
    SlowKernel t(305);
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->demote({t.web}, false, std::move(done)); })) == "");
    REQUIRE(t.cluster.until([&] { return t.dropping.size() == 1; }));
    std::optional<Result<std::string>> outcome;
    t.a().node->promote({t.web}, true, [&](Result<std::string> result) { outcome = std::move(result); });
    t.cluster.run(2 * kSecond);
    CHECK_FALSE(outcome);
    CHECK_FALSE(t.anybody_forced());
    t.caches_are_gone();
    REQUIRE(t.cluster.until([&] { return outcome.has_value(); }));
    CHECK(ok(*outcome) == "");
    CHECK_FALSE(t.anybody_forced());
    CHECK(t.a().volume->gate(t.web) == Gate::kOpen);
    t.check_equal();
  }

  TEST_CASE("nothing changed while the kernel's caches went: what was decided is done") {
    SlowKernel t(304);
    t.cut_for_long();
    std::optional<Result<std::string>> outcome;
    t.b().node->promote({t.web}, true, [&](Result<std::string> result) { outcome = std::move(result); });
    REQUIRE(t.cluster.until([&] { return t.dropping.size() == 1; }));
    // Not before: the kernel would show what it had cached of another's image.
    CHECK(t.b().volume->gate(t.web) == Gate::kSecondary);
    CHECK_FALSE(outcome);
    t.caches_are_gone();
    REQUIRE(t.cluster.until([&] { return outcome.has_value(); }));
    CHECK(ok(*outcome) == "");
    CHECK(t.b().volume->group(t.web)->history.back().cause == EpochCause::kForced);
  }

  TEST_CASE("what is let go when writes are held no more is what was held, not what is not settled") {
    TwoNodes t(306);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "common")) == "");
    VolumeSettings settings = t.a().settings;
    settings.on_peer_loss = OnPeerLoss::kFreeze;
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->set_settings(settings, std::move(done)); })) == "");
    t.settle();
    const GroupId web = t.a().group("web.img");
    t.b().kill();
    t.a().power_loss();
    t.a().settings = settings;
    t.a().start({"b"});
    t.cluster.run(10 * kSecond);
    // It may have been taken over meanwhile: nobody who could say so has been heard.
    REQUIRE(t.a().volume->gate(web) == Gate::kSuspended);
    REQUIRE(ok(t.a().promote("", true)) == "");
    REQUIRE(t.a().volume->gate(web) == Gate::kFrozen);
    t.a().power_loss();
    t.a().start({"b"});
    t.cluster.run(10 * kSecond);
    REQUIRE(t.a().volume->gate(web) == Gate::kSuspended);
    settings.on_peer_loss = OnPeerLoss::kContinue;
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->set_settings(settings, std::move(done)); })) == "");
    t.cluster.run(10 * kSecond);
    CHECK(t.a().volume->gate(web) == Gate::kSuspended);
    CHECK_FALSE(t.a().write("web.img", 0, "stale"));
    // Once it is said who owns it, it goes on.
    t.b().start({"a"});
    REQUIRE(t.cluster.until([&] { return t.in_sync(); }));
    REQUIRE(ok(t.a().write("web.img", 0, "settled")) == "");
    t.check_equal();
  }
}

}  // namespace
}  // namespace vmfs::sim
