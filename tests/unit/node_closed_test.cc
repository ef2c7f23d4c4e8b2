// Groups that are closed, because it is not known yet who owns them or because they are about to be given up: nothing
// is added to them, and nothing opens them but what they wait for.
#include <doctest/doctest.h>

#include "tests/unit/parting.h"

namespace vmfs::sim {
namespace {

// `a` dies with a tail that only it has, before it could notice that it is cut off; `b` is promoted and goes on.
struct FailedPrimary : Parting {
  explicit FailedPrimary(std::uint64_t seed) : Parting(seed) {
    cluster.run(3 * kSecond);  // all is applied: the tail will be what is not
    cluster.network.cut("a", "b");
    REQUIRE(ok(a().write("web.img", 100, "tail")) == "");
    cluster.run(200 * kMillisecond);
    a().power_loss();
    cluster.run(10 * kSecond);
    REQUIRE(ok(b().promote("", true)) == "");
    REQUIRE(ok(b().write("web.img", 200, "from b")) == "");
    REQUIRE(ok(b().flush("web.img")) == "");
  }
  void check_that_it_follows() {
    mend();
    settle();
    CHECK_FALSE(a().volume->group(web)->split);
    CHECK_FALSE(b().volume->group(web)->split);
    CHECK(a().read("web.img", 200, 6) == "from b");
    CHECK(contains(kept_copies(a(), "web.img"), "tail"));
    check_equal();
  }
};

Result<> flush_names(Member& member) {
  auto outcome = std::make_shared<std::optional<Result<>>>();
  member.volume->flush_names(member.caller, [outcome](Result<> result) { *outcome = std::move(result); });
  REQUIRE(member.cluster.until([&] { return outcome->has_value(); }));
  return std::move(**outcome);
}

TEST_SUITE("node") {
  TEST_CASE("a flush of what is not settled leaves no trace: a failed primary follows all the same") {
    FailedPrimary t(601);
    t.a().start({"b"});
    const Position before = t.a().volume->group(t.web)->history.empty() ? Position{} : t.a().volume->final_position(t.web);
    CHECK(ok(t.a().flush("web.img")) == "");
    CHECK(ok(flush_names(t.a())) == "");
    CHECK(t.a().volume->final_position(t.web) == before);
    t.check_that_it_follows();
  }

  TEST_CASE("nor does a clean stop of what was never settled; what is due is not forgotten by it") {
    FailedPrimary t(602);
    t.a().start({"b"});
    t.cluster.run(kSecond);
    t.a().clean_stop();
    t.a().start({"b"});
    t.check_that_it_follows();
    // With nobody who could have more of it, the next change begins an epoch.
    TwoNodes u(603);
    REQUIRE(ok(u.a().make("web.img")) == "");
    REQUIRE(ok(u.a().write("web.img", 0, "common")) == "");
    u.settle();
    const GroupId web = u.a().group("web.img");
    u.b().kill();
    u.a().power_loss();
    u.a().start({"b"});
    u.a().clean_stop();
    u.a().start({"b"});
    const std::size_t epochs = u.a().volume->group(web)->history.size();
    u.b().start({"a"});
    u.settle();
    REQUIRE(ok(u.a().write("web.img", 0, "after")) == "");
    CHECK(u.a().volume->group(web)->history.size() > epochs);
    u.check_equal();
  }

  TEST_CASE("an owner that was told of another one opens nothing though the link is lost at that moment") {
    Parting t(604);
    t.cut();
    REQUIRE(ok(t.b().promote("", true)) == "");
    t.cluster.network.set_path("b", "a", {.bytes_per_second = 20'000});
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.a().volume->gate(t.web) == Gate::kSuspended; }));
    REQUIRE(t.a().volume->group(t.web)->owner == t.a().id);
    t.cut();
    REQUIRE(t.a().volume->group(t.web)->owner == t.a().id);
    auto refused = t.a().write("web.img", 300, "too late");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().number == EROFS);
    refused = t.a().make("too-late.img") ? Result<>{} : Result<>(fail(ErrorKind::kReadOnly, EROFS));
    CHECK_FALSE(refused);
    t.cluster.run(30 * kSecond);
    CHECK(t.a().volume->gate(t.web) == Gate::kSuspended);
    t.cluster.network.set_path("b", "a", {});
    t.mend();
    t.settle();
    CHECK(t.a().volume->group(t.web)->owner == t.b().id);
    t.check_equal();
  }

  TEST_CASE("start-alone goes on without a peer that was not heard, not against one that was") {
    FailedPrimary t(605);
    t.a().start_alone_after_ns = 5 * kSecond;
    t.a().start({"b"});
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.a().volume->gate(t.web) == Gate::kInconsistent; }, 4 * kSecond));
    t.cut();
    t.cluster.run(60 * kSecond);
    CHECK(t.a().volume->gate(t.web) == Gate::kSuspended);
    const GroupState state = *t.a().volume->group(t.web);
    for (const EpochEntry& epoch : state.history) CHECK(epoch.cause != EpochCause::kForced);
    t.check_that_it_follows();
  }

  TEST_CASE("a branch on which nothing was changed is given up without a copy of the image") {
    Parting t(607);
    t.cut();
    REQUIRE(ok(t.b().promote("", true)) == "");  // a mistake
    REQUIRE(ok(t.b().flush("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 100, "from a")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.mend();
    t.settle();
    CHECK(t.b().read("web.img", 100, 6) == "from a");
    CHECK_FALSE(t.b().volume->group(t.web)->split);
    CHECK(kept_copies(t.b(), "web.img").empty());
    t.check_equal();
  }

  TEST_CASE("freeze: a flush that was held is not acknowledged on a branch that is given up") {
    Parting t(606);
    for (Member* each : {&t.a(), &t.b()}) {
      VolumeSettings settings = each->settings;
      settings.on_peer_loss = OnPeerLoss::kFreeze;
      each->settings = settings;
      REQUIRE(ok(each->command([&](Node::Done done) { each->node->set_settings(settings, std::move(done)); })) == "");
    }
    t.settle();
    auto guest = t.a().volume->open_image(t.web, true);
    REQUIRE(guest);
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 100, as_bytes("tail"))) == "");
    auto flushed = std::make_shared<std::optional<Result<>>>();
    t.a().volume->flush(**guest, t.a().caller, [flushed](Result<> result) { *flushed = std::move(result); });
    t.cluster.run(10 * kSecond);
    CHECK_FALSE(flushed->has_value());
    REQUIRE(ok(t.b().promote("", true)) == "");
    VolumeSettings settings = t.b().settings;
    settings.on_peer_loss = OnPeerLoss::kContinue;
    REQUIRE(ok(t.b().command([&](Node::Done done) { t.b().node->set_settings(settings, std::move(done)); })) == "");
    REQUIRE(ok(t.b().write("web.img", 200, "from b")) == "");
    REQUIRE(ok(t.b().flush("web.img")) == "");
    t.mend();
    t.wait_for_its_end("web.img");
    t.cluster.run(5 * kSecond);
    CHECK_FALSE(flushed->has_value());
    t.a().volume->close_image(*guest);
    t.settle();
    REQUIRE(flushed->has_value());
    CHECK_FALSE(**flushed);
    CHECK_FALSE(t.a().volume->group(t.web)->split);
    CHECK(t.a().read("web.img", 200, 6) == "from b");
    CHECK(contains(kept_copies(t.a(), "web.img"), "tail"));
  }

  TEST_CASE("freeze: what a daemon that died held back, the next holds back too") {
    Parting t(607);
    VolumeSettings settings = t.a().settings;
    settings.on_peer_loss = OnPeerLoss::kFreeze;
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->set_settings(settings, std::move(done)); })) == "");
    t.a().settings = settings;
    t.settle();
    auto guest = t.a().volume->open_image(t.web, true);
    REQUIRE(guest);
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 100, as_bytes("flushed"))) == "");
    // It is in the store, and the checkpoint behind it.
    REQUIRE(t.cluster.until([&] { return t.a().volume->stored_lsn() >= t.a().volume->journal().written_lsn(); }));
    t.cluster.run(3 * kSecond);
    t.a().volume->close_image(*guest);
    t.a().kill();
    t.a().start({"b"}, true);
    guest = t.a().volume->open_image(t.web, true, true);
    REQUIRE(guest);
    auto flushed = std::make_shared<std::optional<Result<>>>();
    t.a().volume->flush(**guest, t.a().caller, [flushed](Result<> result) { *flushed = std::move(result); });
    t.cluster.run(10 * kSecond);
    CHECK_FALSE(flushed->has_value());
    t.mend();
    REQUIRE(t.cluster.until([&] { return flushed->has_value(); }));
    CHECK(**flushed);
    CHECK(t.b().volume->durable_position(t.web) == t.a().volume->durable_position(t.web));
    t.a().volume->close_image(*guest);
    t.check_equal();
  }

  TEST_CASE("a guest that reads goes on reading when the daemon has died, and keeps nobody from the token") {
    Parting t(608);
    auto reader = t.a().volume->open_image(t.web, false);
    REQUIRE(reader);
    t.a().volume->close_image(*reader);
    t.a().kill();
    t.a().start({"b"}, true);
    reader = t.a().volume->open_image(t.web, false);
    REQUIRE(reader);
    t.settle();
    CHECK(ok(t.b().write("web.img", 0, "from b")) == "");
    t.a().volume->close_image(*reader);
    t.check_equal();
  }

  TEST_CASE("who was handed over in the middle of a write does not ask for it back") {
    Parting t(609);
    REQUIRE(ok(t.b().promote("web.img", false)) == "");
    // A writer on a had met the gate while it was being closed.
    CHECK(t.a().node->may_not_change(t.web, Gate::kReleasing).kind == ErrorKind::kWouldWait);
    t.cluster.run(15 * kSecond);
    CHECK(t.b().volume->group(t.web)->owner == t.b().id);
    CHECK(t.b().volume->gate(t.web) == Gate::kOpen);
    t.check_equal();
  }

  TEST_CASE("a flush of what was handed over waits until who has it now holds it, or fails") {
    for (const bool lost : {false, true}) {
      Parting t(610);
      auto guest = t.a().volume->open_image(t.web, true);
      REQUIRE(guest);
      t.cluster.network.set_path("a", "b", {.delay_ns = 300 * kMillisecond});
      REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 100, as_bytes("late"))) == "");
      auto released = t.a().volume->release(t.web, t.b().id);
      REQUIRE(released);
      auto flushed = std::make_shared<std::optional<Result<>>>();
      t.a().volume->flush(**guest, t.a().caller, [flushed](Result<> result) { *flushed = std::move(result); });
      CHECK_FALSE(flushed->has_value());
      if (lost) t.b().power_loss();
      REQUIRE(t.cluster.until([&] { return flushed->has_value(); }));
      if (lost) {
        CHECK_FALSE(**flushed);
        t.b().start({"a"});
      } else {
        CHECK(**flushed);
        CHECK(t.b().volume->durable_position(t.web).seq >= t.a().volume->durable_position(t.web).seq);
      }
      t.a().volume->close_image(*guest);
      t.check_equal();
      CHECK(t.b().read("web.img", 100, 4) == "late");
    }
  }

  TEST_CASE("what was taken with all that was in it is flushed: it keeps nobody from the token, and no flush fails for it") {
    Parting t(611);
    REQUIRE(ok(t.a().write("web.img", 0, "never flushed")) == "");
    REQUIRE(ok(t.b().promote("web.img", false)) == "");
    t.settle();
    REQUIRE(ok(t.a().promote("web.img", false)) == "");
    t.settle();
    auto reader = t.a().volume->open_image(t.web, false);
    REQUIRE(reader);
    CHECK_FALSE(t.a().volume->activity(t.web).unflushed);
    CHECK(ok(t.b().promote("web.img", false)) == "");
    t.settle();
    t.b().kill();
    t.cluster.run(10 * kSecond);
    CHECK(ok(t.a().flush("web.img")) == "");
    t.a().volume->close_image(*reader);
    t.b().start({"a"});
    t.check_equal();
  }
}

}  // namespace
}  // namespace vmfs::sim
