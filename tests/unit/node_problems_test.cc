// What a node calls a problem, and that it is one no longer than it lasts.
#include <doctest/doctest.h>

#include "tests/unit/two_nodes.h"

using namespace vmfs;
using namespace vmfs::sim;

namespace {

// Each problem says in its further lines what to do. Returns those that speak of `part`.
std::size_t problems_about(Member& member, const std::string& part) {
  std::size_t count = 0;
  for (const std::string& problem : member.status().problems) {
    CAPTURE(problem);
    CHECK(problem.find('\n') != std::string::npos);
    count += problem.find(part) != std::string::npos;
  }
  return count;
}

void cut_for(TwoNodes& t, std::int64_t ns) {
  t.cluster.network.cut("a", "b");
  t.cluster.run(ns);
}

}  // namespace

TEST_SUITE("node") {
  TEST_CASE("a name with a line break makes no line of its own in a problem") {
    TwoNodes t(121);
    const std::string name = "x\n2. y.img";
    REQUIRE(ok(t.a().make(name)) == "");
    REQUIRE(ok(t.a().write(name, 0, "common")) == "");
    t.settle();
    cut_for(t, 10 * kSecond);
    REQUIRE(ok(t.b().promote(name, true)) == "");
    REQUIRE(ok(t.a().write(name, 0, "from a")) == "");
    REQUIRE(ok(t.b().write(name, 0, "from b")) == "");
    t.cluster.network.mend("a", "b");
    REQUIRE(t.cluster.until([&] { return problems_about(t.a(), "x\\x0a2. y.img: split brain") == 1; }));
    CHECK(problems_about(t.a(), name) == 0);
  }

  TEST_CASE("a split brain is a problem on both sides until it is settled, and on neither afterwards") {
    for (bool keep_local : {true, false}) {
      TwoNodes t(120);
      REQUIRE(ok(t.a().make("x.img")) == "");
      REQUIRE(ok(t.a().write("x.img", 0, "common")) == "");
      t.settle();
      cut_for(t, 10 * kSecond);
      REQUIRE(ok(t.b().promote("x.img", true)) == "");
      REQUIRE(ok(t.a().write("x.img", 0, "from a")) == "");
      REQUIRE(ok(t.b().write("x.img", 0, "from b")) == "");
      t.cluster.network.mend("a", "b");
      REQUIRE(t.cluster.until([&] {
        return problems_about(t.a(), "split brain") == 1 && problems_about(t.b(), "split brain") == 1;
      }));
      // A new life has not met the other side yet, and knows all the same.
      cut_for(t, kSecond);
      t.a().kill();
      t.a().start({"b"});
      CHECK(problems_about(t.a(), "split brain") == 1);
      t.cluster.network.mend("a", "b");
      REQUIRE(t.cluster.until([&] { return t.a().status().peers.at(0).link == LinkState::kConnected; }));
      t.cluster.run(5 * kSecond);
      CHECK(problems_about(t.a(), "split brain") == 1);
      REQUIRE(ok(t.a().command([&](Node::Done done) {
        t.a().node->resolve({t.a().group("x.img")}, keep_local, std::move(done));
      })) == "");
      t.settle();
      CHECK(t.a().status().problems.empty());
      CHECK(t.b().status().problems.empty());
      t.check_equal();
    }
  }

  TEST_CASE("what a peer owned that was removed is named, with the way to write it again") {
    TwoNodes t(121);
    REQUIRE(ok(t.b().make("theirs.img")) == "");
    REQUIRE(ok(t.b().write("theirs.img", 0, "written on b")) == "");
    t.settle();
    t.b().kill();
    t.cluster.run(10 * kSecond);
    CHECK(problems_about(t.a(), "vmfs promote --force") == 1);
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->remove_peer(t.b().id, std::move(done)); })) == "");
    t.cluster.run(kSecond);
    CHECK(problems_about(t.a(), "theirs.img") == 1);
    CHECK(problems_about(t.a(), "vmfs promote --force") == 1);
    // Nobody else has it.
    for (const ImageStatus& image : t.a().status().images) CHECK(image.lost_whole);
    REQUIRE(ok(t.a().promote("", true)) == "");
    CHECK(t.a().status().problems.empty());
    CHECK(ok(t.a().write("theirs.img", 0, "written on a")) == "");
  }

  TEST_CASE("a copy that was cut off and will not go on is a problem, also when the peer is removed") {
    Cluster cluster(122);
    Member& a = cluster.add("a", false);
    a.start({});
    REQUIRE(ok(a.make("web.img")) == "");
    for (int j = 0; j < 20; ++j) REQUIRE(ok(a.write("web.img", j * 200000, std::string(200000, 'd'))) == "");
    cluster.run(3 * kSecond);
    Member& b = cluster.add("b", true);
    cluster.network.set_path("a", "b", {.bytes_per_second = 500'000});
    b.start({"a"});
    auto inconsistent = [&] {
      for (const ImageStatus& image : b.status().images)
        if (image.path == "web.img" && image.role == Role::kInconsistent) return true;
      return false;
    };
    REQUIRE(cluster.until(inconsistent));
    // While it is under way: wait.
    CHECK(problems_about(b, "copies the volume to this node") == 1);
    CHECK(problems_about(b, "was not finished") == 0);
    cluster.network.cut("a", "b");
    cluster.run(10 * kSecond);
    CHECK(problems_about(b, "was not finished") == 1);
    REQUIRE(ok(b.command([&](Node::Done done) { b.node->remove_peer(a.id, std::move(done)); })) == "");
    cluster.run(kSecond);
    CHECK(inconsistent());
    CHECK(problems_about(b, "was not finished") == 1);
  }

  TEST_CASE("connected and not in sync yet: until then the peer counts as lost, and that is said") {
    TwoNodes t(123, ReplicationMode::kAsync);
    REQUIRE(ok(t.a().make("x.img")) == "");
    t.settle();
    CHECK(t.a().status().problems.empty());
    cut_for(t, 10 * kSecond);
    for (int j = 0; j < 20; ++j) {
      REQUIRE(ok(t.a().write("x.img", j * 100000, std::string(100000, static_cast<char>('a' + j)))) == "");
      t.cluster.run(100 * kMillisecond);
    }
    t.cluster.network.set_path("a", "b", {.bytes_per_second = 300'000});
    t.cluster.network.mend("a", "b");
    REQUIRE(t.cluster.until([&] { return t.a().sync_of() == PeerSync::kCatchingUp; }));
    CHECK(problems_about(t.a(), "in-sync") == 1);
    t.settle();
    CHECK(t.a().status().problems.empty());
  }
}
