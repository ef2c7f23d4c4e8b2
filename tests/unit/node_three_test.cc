// Three nodes, as far as they go: one owner, two peers.
#include <doctest/doctest.h>

#include "tests/unit/two_nodes.h"

using namespace vmfs;
using namespace vmfs::sim;

namespace {

// `a` owns everything; `b` and `c` joined it, and all know each other.
struct ThreeNodes {
  // with_c: else it is yet to be started.
  explicit ThreeNodes(std::uint64_t seed, const std::vector<std::string>& images = {}, bool with_c = true)
      : cluster(seed) {
    for (const char* name : {"a", "b", "c"}) {
      Member& member = cluster.add(name, std::string(name) != "a");
      member.settings.mode = ReplicationMode::kSync;
    }
    a().start({});
    b().start({"a"});
    REQUIRE(in_sync(2));
    for (const std::string& name : images) {
      REQUIRE(ok(a().make(name)) == "");
      for (int i = 0; i < 8; ++i) REQUIRE(ok(a().write(name, i * 100'000, std::string(100'000, 'd'))) == "");
      REQUIRE(ok(a().flush(name)) == "");
    }
    if (!with_c) return;
    c().start({"a"});
    REQUIRE_MESSAGE(in_sync(3), why());
  }
  Member& a() { return cluster.member("a"); }
  Member& b() { return cluster.member("b"); }
  Member& c() { return cluster.member("c"); }
  // So many are up, and each is in sync with all others.
  bool in_sync(std::size_t nodes) {
    return cluster.until([&] {
      std::size_t up = 0;
      for (auto& member : cluster.members) {
        if (!member->up()) continue;
        ++up;
        const NodeStatus status = member->status();
        if (!status.ready || status.peers.size() != nodes - 1) return false;
        for (const PeerStatus& peer : status.peers)
          if (peer.sync != PeerSync::kInSync) return false;
      }
      return up == nodes;
    });
  }
  void check_equal() {
    REQUIRE(in_sync(3));
    cluster.run(2 * kSecond);
    auto first = a().stored();
    for (Member* other : {&b(), &c()}) {
      CAPTURE(other->name);
      CHECK((other->stored() == first));
    }
  }
  std::string why() {
    std::string text;
    for (auto& member : cluster.members) {
      if (!member->up()) continue;
      const NodeStatus status = member->status();
      text += member->name + (status.ready ? " ready" : " " + status.ready_reason);
      for (const PeerStatus& peer : status.peers)
        text += fmt::format(" [{} {} {} {}]", peer.peer.name, to_string(peer.link), peer.link_reason,
                            to_string(peer.sync));
      for (const ImageStatus& image : status.images)
        text += fmt::format(" \"{}\" {}", image.path, to_string(image.role));
      for (const std::string& problem : status.problems) text += "; " + problem;
      text += "\n";
    }
    return text;
  }
  Cluster cluster;
};

}  // namespace

TEST_SUITE("node") {
  TEST_CASE("three nodes: who joins gets every image once, from its owner, though another one has it too") {
    ThreeNodes t(54, {"web.img", "db.img"});
    t.check_equal();
    for (const PeerStatus& peer : t.a().status().peers)
      if (peer.peer.id == t.c().id) CHECK(peer.copies_whole == 3);  // and the names
    for (const PeerStatus& peer : t.b().status().peers)
      if (peer.peer.id == t.c().id) CHECK(peer.copies_whole == 0);
    REQUIRE(ok(t.a().write("web.img", 0, "more")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    CHECK(t.c().read("web.img", 0, 4) == "more");
    t.check_equal();
  }

  TEST_CASE("three nodes: what is flushed is on both peers, and goes on when one of them is cut off") {
    ThreeNodes t(51);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "hello")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    CHECK(t.b().read("web.img", 0, 5) == "hello");
    CHECK(t.c().read("web.img", 0, 5) == "hello");

    t.cluster.network.cut("a", "c");
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.a().write("web.img", 0, "HELLO")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    CHECK(t.b().read("web.img", 0, 5) == "HELLO");
    t.cluster.network.mend("a", "c");
    INFO(t.why());
    t.check_equal();
    CHECK(t.c().read("web.img", 0, 5) == "HELLO");
  }

  TEST_CASE("three nodes: what arrives goes on at once to a peer that its author does not reach") {
    ThreeNodes t(57, {"web.img"});
    t.cluster.network.cut("a", "c");
    t.cluster.run(10 * kSecond);
    for (int i = 0; i < 20; ++i) {
      const std::string text = fmt::format("text {:04}", i);
      REQUIRE(ok(t.a().write("web.img", 0, text)) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
      CHECK(t.cluster.until([&] { return t.c().read("web.img", 0, text.size()) == text; }, 250 * kMillisecond));
      t.cluster.run(i * 17 * kMillisecond);
    }
    t.cluster.network.mend("a", "c");
    t.check_equal();
  }

  TEST_CASE("three nodes: the owner dies, one peer is promoted, the owner comes back and follows") {
    ThreeNodes t(52);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, std::string(8192, 'f'))) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.a().power_loss();
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("", true)) == "");
    CHECK(t.b().read("web.img", 0, 8192) == std::string(8192, 'f'));
    REQUIRE(ok(t.b().write("web.img", 4096, std::string(4096, 'b'))) == "");
    REQUIRE(ok(t.b().flush("web.img")) == "");
    CHECK(t.c().read("web.img", 4096, 4096) == std::string(4096, 'b'));
    t.a().start({"b", "c"});
    t.cluster.run(20 * kSecond);
    INFO(t.why());
    t.check_equal();
    CHECK(t.a().read("web.img", 4096, 4096) == std::string(4096, 'b'));
    CHECK(t.a().volume->group(t.a().group("web.img"))->owner == t.b().id);
  }

  TEST_CASE("three nodes: the token goes from peer to peer") {
    ThreeNodes t(53);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "a")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    REQUIRE(ok(t.b().write("web.img", 1, "b")) == "");
    REQUIRE(ok(t.b().flush("web.img")) == "");
    REQUIRE(ok(t.c().write("web.img", 2, "c")) == "");
    REQUIRE(ok(t.c().flush("web.img")) == "");
    INFO(t.why());
    t.check_equal();
    CHECK(t.a().read("web.img", 0, 3) == "abc");
  }

  TEST_CASE("three nodes: the owner is lost while it copies, and another one that has all of it goes on") {
    enum class Loss { kProcess, kMachine, kRemoved, kCutOffThenProcess, kCutOffThenRemoved };
    for (Loss loss : {Loss::kProcess, Loss::kMachine, Loss::kRemoved, Loss::kCutOffThenProcess, Loss::kCutOffThenRemoved})
      for (std::int64_t after : {0, 200, 1500, 4000, 5500}) {
        CAPTURE(static_cast<int>(loss));
        CAPTURE(after);
        const std::vector<std::string> images{"web.img", "db.img", "log.img"};
        ThreeNodes t(58 + static_cast<std::uint64_t>(after), images, false);
        t.cluster.network.set_path("a", "c", {.bytes_per_second = 400'000});
        t.c().start({"a"});
        auto connected = [](Member& from, Member& to) {
          for (const PeerStatus& peer : from.status().peers)
            if (peer.peer.id == to.id && peer.link == LinkState::kConnected) return true;
          return false;
        };
        REQUIRE(t.cluster.until([&] { return connected(t.a(), t.c()) && connected(t.b(), t.c()); }));
        t.cluster.run(after * kMillisecond);
        auto since = [&] {
          for (const PeerStatus& peer : t.b().status().peers)
            if (peer.peer.id == t.c().id) return peer.link_since_wall_ns;
          return std::int64_t{0};
        };
        const std::int64_t connected_since = since();
        if (loss == Loss::kCutOffThenProcess || loss == Loss::kCutOffThenRemoved) {
          t.cluster.network.cut("a", "c");
          t.cluster.run(20 * kSecond);
        }
        if (loss == Loss::kMachine)
          t.a().power_loss();
        else
          t.a().kill();
        if (loss == Loss::kRemoved || loss == Loss::kCutOffThenRemoved) {
          Member& remover = loss == Loss::kRemoved ? t.c() : t.b();
          REQUIRE(ok(remover.command([&](Node::Done done) { remover.node->remove_peer(t.a().id, std::move(done)); })) == "");
        }
        // Until the last of what it had sent has come, its copy may begin again here, and a second one is refused.
        auto whole = [&] {
          for (const GroupState& state : t.c().volume->groups())
            if (state.inconsistent || state.history.empty()) return false;
          return t.c().volume->groups().size() == images.size() + 1;
        };
        t.cluster.run(6 * kSecond);
        REQUIRE_MESSAGE(t.cluster.until(whole, 20 * kSecond), t.why());
        for (const std::string& image : images) CHECK(t.c().read(image, 0, 800'000) == std::string(800'000, 'd'));
        if (after != 0) CHECK(since() == connected_since);
        t.cluster.run(2 * kSecond);
        CHECK((t.c().stored() == t.b().stored()));
      }
  }
}
