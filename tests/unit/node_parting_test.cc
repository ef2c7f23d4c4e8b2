// Two nodes that have gone different ways: what follows by itself, what waits for a person, and that nothing that
// is given up is lost.
#include "tests/unit/parting.h"

namespace vmfs::sim {
namespace {

TEST_SUITE("node parting") {
  TEST_CASE("an owner that went on knowing of the other side does not follow") {
    Parting t(201);
    auto guest = t.a().volume->open_image(t.web, true);
    REQUIRE(guest);
    t.cluster.network.cut("a", "b");
    // Before anybody could notice, and never flushed: that alone would be given up.
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 100, as_bytes("tail"))) == "");
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.b().write("web.img", 200, "from b")) == "");
    t.mend();
    t.wait_for_its_end("web.img");
    CHECK(t.a().volume->gate(t.web) == Gate::kOpen);
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 300, as_bytes("a went on"))) == "");
    t.a().volume->close_image(*guest);
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(t.web)->split && t.b().volume->group(t.web)->split; }));
    t.cluster.run(2 * kSecond);
    CHECK(t.a().read("web.img", 300, 9) == "a went on");
    CHECK(t.a().volume->gate(t.web) == Gate::kOpen);
    CHECK(t.b().read("web.img", 200, 6) == "from b");
    // A person chooses: what is given up is kept.
    REQUIRE(ok(t.resolve(t.b(), {t.web}, true)) == "");
    t.check_equal();
    CHECK(t.a().read("web.img", 200, 6) == "from b");
    CHECK(contains(kept_copies(t.a(), "web.img"), "a went on"));
  }

  TEST_CASE("an owner that wrote nothing more follows when its guest ends") {
    Parting t(202);
    auto guest = t.a().volume->open_image(t.web, true);
    REQUIRE(guest);
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 100, as_bytes("tail"))) == "");
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.b().write("web.img", 200, "from b")) == "");
    t.mend();
    t.wait_for_its_end("web.img");
    t.cluster.run(10 * kSecond);
    CHECK(t.a().volume->gate(t.web) == Gate::kOpen);
    CHECK(t.a().read("web.img", 100, 4) == "tail");
    CHECK(kept_copies(t.a(), "web.img").empty());
    t.a().volume->close_image(*guest);
    t.check_equal();
    CHECK_FALSE(t.a().volume->group(t.web)->split);
    CHECK(t.a().read("web.img", 200, 6) == "from b");
    CHECK(contains(kept_copies(t.a(), "web.img"), "tail"));
  }

  TEST_CASE("an image that comes back with the side that survives is its owner's again") {
    Parting t(207);
    REQUIRE(ok(t.a().make("b's own")) == "");
    t.settle();
    REQUIRE(ok(t.b().promote("b's own", false)) == "");
    const GroupId own = t.a().group("b's own");
    REQUIRE(ok(t.b().write("b's own", 0, "common")) == "");
    t.settle();
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.b().write("b's own", 0, "given up")) == "");  // before anybody notices: in the epoch that a knows
    const Position given_up = t.b().volume->group(own)->position();
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("", true)) == "");
    auto removed = t.b().change([&] { return t.b().volume->unlink(t.b().caller, kRootObject, "b's own"); });
    REQUIRE(ok(removed) == "");
    REQUIRE(ok(t.a().make("on a")) == "");
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(kNameSpace)->split && t.b().volume->group(kNameSpace)->split; }));
    REQUIRE(ok(t.resolve(t.a(), {kNameSpace}, true)) == "");
    t.check_equal();
    CHECK(t.b().volume->gate(own) == Gate::kOpen);
    // What comes now is told from what was given up.
    CHECK(t.b().volume->group(own)->history.back().epoch != given_up.epoch);
    CHECK(t.b().volume->group(own)->history.back().parent.seq < given_up.seq);
    t.cluster.network.reset("a", "b");
    REQUIRE(ok(t.b().write("b's own", 100, "from b")) == "");
    t.check_equal();
    CHECK(t.a().read("b's own", 0, 6) == "common");
    REQUIRE(ok(t.a().write("b's own", 0, "from a")) == "");
    t.check_equal();
  }

  TEST_CASE("an image that was made while the names were split is kept when they follow") {
    Parting t(203);
    t.cut();
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.a().make("on a")) == "");
    REQUIRE(ok(t.b().make("on b")) == "");
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(kNameSpace)->split; }));
    REQUIRE(ok(t.a().make("new.img")) == "");
    REQUIRE(ok(t.a().write("new.img", 0, "made while split")) == "");
    REQUIRE(ok(t.a().flush("new.img")) == "");
    auto guest = t.a().volume->open_image(t.a().group("new.img"), true);
    REQUIRE(guest);
    t.b().node->resolve({}, true, [](Result<std::string>) {});
    REQUIRE(t.cluster.until([&] { return t.a().volume->gate(kNameSpace) == Gate::kInconsistent; }));
    // From here on it takes nothing more, though a person's choice does not wait for the handle.
    CHECK_FALSE(t.a().volume->write(**guest, t.a().caller, 0, as_bytes("too late to be kept")));
    t.a().volume->close_image(*guest);
    t.check_equal();
    CHECK(contains(kept_copies(t.a(), "new.img"), "made while split"));
    CHECK_FALSE(t.a().volume->lookup(kRootObject, "new.img"));
  }

  TEST_CASE("names do not follow while an image that only they name is open for writing") {
    Parting t(204);
    t.cluster.network.cut("a", "b");
    // In the common epoch: the name space would follow by itself.
    REQUIRE(ok(t.a().make("new.img")) == "");
    auto guest = t.a().volume->open_image(t.a().group("new.img"), true);
    REQUIRE(guest);
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 0, as_bytes("one"))) == "");
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.b().make("on b")) == "");
    t.mend();
    t.wait_for_its_end("new.img");
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 3, as_bytes(" two"))) == "");
    t.cluster.run(10 * kSecond);
    CHECK(t.a().read("new.img", 0, 7) == "one two");
    t.a().volume->close_image(*guest);
    t.check_equal();
    CHECK(contains(kept_copies(t.a(), "new.img"), "one two"));
  }

  TEST_CASE("a follow that was cut off keeps again what has changed since") {
    Parting t(205);
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().write("web.img", 100, "tail")) == "");
    t.a().kill();
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.b().write("web.img", 200, "from b")) == "");
    t.mend();
    t.a().start({"b"});
    REQUIRE(t.cluster.until([&] { return contains(kept_copies(t.a(), "web.img"), "tail"); }));
    t.cluster.network.cut("a", "b");
    t.cluster.run(10 * kSecond);
    REQUIRE_FALSE(t.a().volume->group(t.web)->inconsistent);  // else the copy had begun
    // Closed to follow, and not replaced: who may change it is open again.
    CHECK(t.a().volume->gate(t.web) == Gate::kSuspended);
    REQUIRE(ok(t.a().promote("", true)) == "");
    REQUIRE(ok(t.a().write("web.img", 300, "days of work")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(t.web)->split; }));
    REQUIRE(ok(t.resolve(t.b(), {}, true)) == "");
    t.check_equal();
    CHECK(contains(kept_copies(t.a(), "web.img"), "days of work"));
  }

  TEST_CASE("a flush that was acknowledged alone is given up by a person only, and its side waits for that") {
    Parting t(206);
    REQUIRE(ok(t.a().write("web.img", 100, "flushed alone")) == "");
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().flush("web.img")) == "");  // when b counts as lost
    t.a().power_loss();
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.b().write("web.img", 200, "from b")) == "");
    t.mend();
    t.a().start({"b"});
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(t.web)->split && t.b().volume->group(t.web)->split; }));
    t.cluster.run(2 * kSecond);
    CHECK(t.a().read("web.img", 100, 13) == "flushed alone");
    // It was not at work when the split was found: no guest starts from it by itself.
    CHECK(t.a().volume->gate(t.web) == Gate::kSplit);
    CHECK(t.b().volume->gate(t.web) == Gate::kOpen);
    CHECK_FALSE(t.a().write("web.img", 0, "x"));
    auto refused = t.a().promote("web.img", false);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("resolve") != std::string::npos);
    CHECK(refused.error().message.find("--force") != std::string::npos);
    REQUIRE(ok(t.a().promote("web.img", true)) == "");
    REQUIRE(ok(t.a().write("web.img", 300, "a chose")) == "");
    REQUIRE(ok(t.resolve(t.a(), {t.web}, true)) == "");
    t.check_equal();
    CHECK(t.b().read("web.img", 100, 13) == "flushed alone");
    CHECK(contains(kept_copies(t.b(), "web.img"), "from b"));
  }

  TEST_CASE("freeze: what was held is not let go on a branch that is given up") {
    Parting t(207);
    VolumeSettings settings = t.a().settings;
    settings.on_peer_loss = OnPeerLoss::kFreeze;
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->set_settings(settings, std::move(done)); })) == "");
    t.settle();
    auto guest = t.a().volume->open_image(t.web, true);
    REQUIRE(guest);
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().volume->write(**guest, t.a().caller, 100, as_bytes("tail"))) == "");
    t.cluster.run(10 * kSecond);
    REQUIRE(t.a().volume->gate(t.web) == Gate::kFrozen);
    settings.on_peer_loss = OnPeerLoss::kContinue;
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.b().command([&](Node::Done done) { t.b().node->set_settings(settings, std::move(done)); })) == "");
    REQUIRE(ok(t.b().write("web.img", 200, "from b")) == "");
    t.mend();
    t.wait_for_its_end("web.img");
    t.cluster.run(10 * kSecond);
    CHECK(t.a().volume->gate(t.web) == Gate::kFrozen);
    t.a().volume->close_image(*guest);
    t.check_equal();
    CHECK(contains(kept_copies(t.a(), "web.img"), "tail"));
  }

  TEST_CASE("freeze: what a connection kept from being let go is let go when that is lost") {
    Parting t(208);
    VolumeSettings settings = t.a().settings;
    settings.on_peer_loss = OnPeerLoss::kFreeze;
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->set_settings(settings, std::move(done)); })) == "");
    t.settle();
    t.cut();
    REQUIRE(t.a().volume->gate(t.web) == Gate::kFrozen);
    t.mend();
    // Connected, and the histories are not compared yet: what was held may belong to a branch that is given up.
    REQUIRE(t.cluster.until([&] {
      const NodeStatus status = t.a().status();
      return status.peers.at(0).link == LinkState::kConnected && status.peers.at(0).sync == PeerSync::kLost;
    }));
    settings.on_peer_loss = OnPeerLoss::kContinue;
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->set_settings(settings, std::move(done)); })) == "");
    CHECK(t.a().volume->gate(t.web) == Gate::kFrozen);
    t.cluster.network.cut("a", "b");
    t.cluster.run(20 * kSecond);
    REQUIRE(t.a().status().peers.at(0).link != LinkState::kConnected);
    CHECK(t.a().volume->gate(t.web) == Gate::kOpen);
    REQUIRE(ok(t.a().write("web.img", 0, "goes on")) == "");
  }

  TEST_CASE("of what is named only what is in split brain is resolved, all of it or none") {
    Parting t(210);
    REQUIRE(ok(t.a().make("second.img")) == "");
    REQUIRE(ok(t.a().make("well.img")) == "");
    t.settle();
    t.cut();
    const GroupId second = t.a().group("second.img"), well = t.a().group("well.img");
    for (const char* name : {"web.img", "second.img"}) {
      REQUIRE(ok(t.b().promote(name, true)) == "");
      REQUIRE(ok(t.a().write(name, 100, "from a")) == "");
      REQUIRE(ok(t.b().write(name, 100, "from b")) == "");
    }
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(t.web)->split && t.a().volume->group(second)->split; }));
    t.cluster.run(2 * kSecond);
    // Who waits for one of the well ones is not held up by the others.
    bool all = false, split = false, of_well = false;
    t.a().node->wait(Condition::kInSync, {}, [&](const Result<std::string>&) { all = true; });
    t.a().node->wait(Condition::kInSync, {t.web}, [&](const Result<std::string>&) { split = true; });
    t.a().node->wait(Condition::kInSync, {well}, [&](const Result<std::string>&) { of_well = true; });
    REQUIRE(t.cluster.until([&] { return of_well; }));
    t.cluster.run(2 * kSecond);
    CHECK_FALSE(all);
    CHECK_FALSE(split);
    auto refused = t.resolve(t.a(), {well}, false);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message == "well.img: is not in split brain");
    // Without the other side nothing is begun.
    t.cluster.network.cut("a", "b");
    t.cluster.run(10 * kSecond);
    refused = t.resolve(t.a(), {t.web, second, well}, false);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("the other side is not connected") != std::string::npos);
    t.mend();
    const auto compared = [&] {
      const NodeStatus status = t.a().status();
      return std::count_if(status.images.begin(), status.images.end(), [](const ImageStatus& image) {
               return image.peers.at(0).state == "split";
             }) == 2;
    };
    REQUIRE(t.cluster.until(compared));
    CHECK(t.b().volume->group(t.web)->split);
    CHECK(t.b().volume->group(second)->split);
    REQUIRE(ok(t.resolve(t.a(), {t.web, second, well}, false)) == "");
    REQUIRE(t.cluster.until([&] { return all && split; }));
    t.check_equal();
    for (const char* name : {"web.img", "second.img"}) {
      CHECK(t.a().read(name, 100, 6) == "from b");
      CHECK(contains(kept_copies(t.a(), name), "from a"));
    }
  }

  TEST_CASE("after a start a side of a split opens for nobody, however slow its disk and quick its guest") {
    Parting t(209);
    t.cut();
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.a().write("web.img", 100, "from a")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    REQUIRE(ok(t.b().write("web.img", 100, "from b")) == "");
    REQUIRE(ok(t.b().flush("web.img")) == "");
    t.a().power_loss();
    t.mend();
    t.a().start({"b"});
    const auto compared = [&] {
      for (const ImageStatus& image : t.a().status().images)
        if (image.path == "web.img") return image.peers.at(0).state == "split";
      return false;
    };
    REQUIRE(t.cluster.until(compared));
    t.a().shell->set_disk_latency(2 * kSecond);
    auto refused = t.a().write("web.img", 100, "stale");
    CHECK_FALSE(refused);
    t.cluster.run(10 * kSecond);
    CHECK(t.a().volume->gate(t.web) == Gate::kSplit);
  }

  TEST_CASE("the other side of a split is removed: this one goes on, and a new peer gets it") {
    Parting t(210);
    t.cut();
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.a().write("web.img", 100, "from a")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    REQUIRE(ok(t.b().write("web.img", 100, "from b")) == "");
    REQUIRE(ok(t.b().flush("web.img")) == "");
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(t.web)->split; }));
    t.a().power_loss();
    t.a().start({"b"});
    REQUIRE(t.cluster.until([&] { return t.a().volume->gate(t.web) == Gate::kSplit; }));
    t.b().kill();
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->remove_peer(t.b().id, std::move(done)); })) == "");
    REQUIRE(t.cluster.until([&] { return !t.a().volume->group(t.web)->split; }));
    // Though nobody asks for it.
    REQUIRE(t.cluster.until([&] { return t.a().volume->gate(t.web) == Gate::kOpen && t.a().status().ready; }));
    Member& c = t.cluster.add("c", true);
    c.settings = t.a().settings;
    c.start({"a"});
    REQUIRE(t.cluster.until([&] { return t.a().status().peers.size() == 1 && t.a().sync_of() == PeerSync::kInSync; }));
    REQUIRE(ok(t.a().write("web.img", 200, "for c")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.cluster.run(kSecond);
    CHECK(c.read("web.img", 100, 6) == "from a");
    CHECK(c.read("web.img", 200, 5) == "for c");
  }
}

}  // namespace
}  // namespace vmfs::sim
