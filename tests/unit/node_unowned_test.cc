// Images whose owner has left the volume, and copies that will not end: nobody is left with nothing unnoticed.
#include <doctest/doctest.h>

#include "tests/unit/parting.h"

namespace vmfs::sim {
namespace {

Result<std::string> remove_peer(Member& member, NodeId peer) {
  return member.command([&](Node::Done done) { member.node->remove_peer(peer, std::move(done)); });
}

// A volume that `b` joins over a slow line: it has one of two images whole, and of the other a part.
struct SlowJoin {
  explicit SlowJoin(std::uint64_t seed) : cluster(seed) {
    Member& a = cluster.add("a", false);
    a.start({});
    for (const char* name : {"one.img", "two.img"}) {
      REQUIRE(ok(a.make(name)) == "");
      for (int i = 0; i < 10; ++i) REQUIRE(ok(a.write(name, i * 200000, std::string(200000, 'd'))) == "");
      cluster.run(3 * kSecond);
    }
    cluster.add("b", true);
    cluster.network.set_path("a", "b", {.bytes_per_second = 500'000});
    b().start({"a"});
    REQUIRE(cluster.until([&] {
      whole = part = "";
      for (const ImageStatus& image : b().status().images) {
        if (image.path.empty()) continue;
        const bool has_all = image.role != Role::kInconsistent && image.position.seq != 0;
        (has_all ? whole : part) = image.path;
      }
      return !whole.empty() && !part.empty();
    }));
  }
  Member& a() { return cluster.member("a"); }
  Member& b() { return cluster.member("b"); }
  std::string whole, part;
  Cluster cluster;
};

TEST_SUITE("node") {
  TEST_CASE("what nobody owns any more is copied to a new peer, and then taken") {
    Parting t(621);
    REQUIRE(ok(t.b().write("web.img", 0, "from b")) == "");
    REQUIRE(ok(t.b().flush("web.img")) == "");
    t.settle();
    REQUIRE(t.a().volume->group(t.web)->owner == t.b().id);
    t.b().kill();
    REQUIRE(ok(remove_peer(t.a(), t.b().id)) == "");
    Member& c = t.cluster.add("c", true);
    c.settings = t.a().settings;
    c.start({"a"});
    REQUIRE(t.cluster.until([&] { return t.a().status().peers.size() == 1 && t.a().sync_of() == PeerSync::kInSync; }));
    CHECK(c.read("web.img", 0, 6) == "from b");
    REQUIRE(ok(t.a().promote("web.img", true)) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "from a")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.a().power_loss();
    REQUIRE(ok(c.promote("web.img", true)) == "");
    CHECK(c.read("web.img", 0, 6) == "from a");
  }

  TEST_CASE("a split whose other side is removed after another node has joined ends, and that node gets it") {
    Parting t(622);
    t.cut();
    REQUIRE(ok(t.b().promote("", true)) == "");
    for (Member* each : {&t.a(), &t.b()}) {
      REQUIRE(ok(each->write("web.img", 100, "from " + each->name)) == "");
      REQUIRE(ok(each->flush("web.img")) == "");
    }
    t.mend();
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(t.web)->split; }));
    t.b().kill();
    Member& c = t.cluster.add("c", true);
    c.settings = t.a().settings;
    c.start({"a"});
    REQUIRE(t.cluster.until([&] { return t.a().status().peers.size() == 2; }));
    t.cluster.run(5 * kSecond);
    CHECK(t.a().volume->group(t.web)->split);
    REQUIRE(ok(remove_peer(t.a(), t.b().id)) == "");
    REQUIRE(t.cluster.until([&] { return !t.a().volume->group(t.web)->split && t.a().status().ready; }));
    REQUIRE(t.cluster.until([&] { return t.a().sync_of() == PeerSync::kInSync; }));
    REQUIRE(ok(t.a().write("web.img", 200, "for c")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.cluster.run(kSecond);
    CHECK(c.read("web.img", 100, 6) == "from a");
    CHECK(c.read("web.img", 200, 5) == "for c");
  }

  TEST_CASE("one image that cannot be taken keeps none of the others from it") {
    SlowJoin t(623);
    t.a().power_loss();
    t.cluster.run(10 * kSecond);
    auto promoted = t.b().promote("", true);
    REQUIRE_FALSE(promoted);
    CHECK(promoted.error().message.find(t.part + ": a copy") != std::string::npos);
    CHECK(t.b().volume->gate(t.b().group(t.whole)) == Gate::kOpen);
    CHECK(t.b().volume->gate(kNameSpace) == Gate::kOpen);
    CHECK(ok(t.b().write(t.whole, 0, "goes on")) == "");
    CHECK(ok(t.b().make("new.img")) == "");
  }

  TEST_CASE("a part of a copy that nobody can complete can be removed, and nothing else done with it") {
    SlowJoin t(625);
    t.a().power_loss();
    t.cluster.run(10 * kSecond);
    REQUIRE_FALSE(t.b().promote("", true));
    auto remove = [&] { return t.b().change([&] { return t.b().volume->unlink(t.b().caller, kRootObject, t.part); }); };
    // It may be completed yet.
    auto refused = remove();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().number == EROFS);
    REQUIRE(ok(remove_peer(t.b(), t.a().id)) == "");
    t.cluster.run(kSecond);
    refused = t.b().write(t.part, 0, "not a part of it");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().number == EROFS);
    REQUIRE(ok(remove()) == "");
    CHECK(ok(t.b().write(t.whole, 0, "goes on")) == "");
    // Another node that joins gets what there is, and is in sync with it.
    Member& c = t.cluster.add("c", true);
    c.settings = t.b().settings;
    c.start({"b"});
    REQUIRE(t.cluster.until([&] { return t.b().status().peers.size() == 1 && t.b().sync_of() == PeerSync::kInSync; }));
    CHECK((t.b().stored() == c.stored()));
  }

  TEST_CASE("an image that is removed while it is copied keeps nobody out of sync") {
    SlowJoin t(624);
    REQUIRE(ok(t.a().change([&] { return t.a().volume->unlink(t.a().caller, kRootObject, t.part); })) == "");
    REQUIRE(t.cluster.until([&] { return t.cluster.in_sync(); }));
    CHECK(t.a().status().ready);
    CHECK(t.b().status().ready);
    CHECK((t.a().stored() == t.b().stored()));
  }
}

}  // namespace
}  // namespace vmfs::sim
