// A node that stops answers whoever waits for it, once: commands, conditions and flushes, wherever they have got to.
#include "tests/unit/two_nodes.h"

namespace vmfs::sim {
namespace {

struct Stopping : TwoNodes {
  explicit Stopping(std::uint64_t seed) : TwoNodes(seed) {
    REQUIRE(ok(a().make("web.img")) == "");
    REQUIRE(ok(a().write("web.img", 0, "common")) == "");
    REQUIRE(ok(a().flush("web.img")) == "");
    settle();
    web = a().group("web.img");
  }
  // Something that waits; its answers are collected.
  Node::Done waits() {
    const std::size_t number = answers.size();
    answers.emplace_back();
    return [this, number](Result<std::string> result) { answers[number].push_back(std::move(result)); };
  }
  std::function<void(Result<>)> flush_waits() {
    return [done = waits()](Result<> result) {
      done(result ? Result<std::string>(std::string()) : pass(std::move(result.error())));
    };
  }
  // As the daemon ends: what still runs beside the node's thread is waited for, and comes to nothing.
  void stop(Member& member) {
    for (const auto& got : answers) REQUIRE(got.empty());
    member.node->stop();
    REQUIRE(cluster.until([&] { return member.node->idle(); }));
    cluster.run(20 * kSecond);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      CAPTURE(i);
      REQUIRE(answers[i].size() == 1);
      REQUIRE_FALSE(answers[i].front());
      CHECK(answers[i].front().error().message.find("stopping") != std::string::npos);
    }
  }
  GroupId web{};
  std::vector<std::vector<Result<std::string>>> answers;
};

TEST_SUITE("node stop") {
  TEST_CASE("who asks for the token, or waits for a condition") {
    Stopping t(321);
    t.b().node->promote({t.web}, false, t.waits());
    t.b().node->wait(Condition::kPrimary, {t.web}, t.waits());
    t.stop(t.b());
  }

  TEST_CASE("who takes by force") {
    Stopping t(322);
    t.cluster.network.cut("a", "b");
    t.cluster.run(10 * kSecond);
    t.b().node->promote({t.web}, true, t.waits());
    t.stop(t.b());
  }

  TEST_CASE("who gives away, while that is being made durable") {
    Stopping t(323);
    t.a().node->demote({t.web}, false, t.waits());
    t.stop(t.a());
  }

  TEST_CASE("a hand-over that the peer has not confirmed") {
    Stopping t(324);
    t.cluster.network.cut("a", "b");
    t.a().node->hand_over_all(t.cluster.scheduler.now() + 60 * kSecond, t.waits());
    t.cluster.run(kSecond);
    t.stop(t.a());
  }

  TEST_CASE("who settles a split brain") {
    Stopping t(325);
    t.cluster.network.cut("a", "b");
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("", true)) == "");
    for (Member* member : {&t.a(), &t.b()}) {
      REQUIRE(ok(member->write("web.img", 0, "alone")) == "");
      REQUIRE(ok(member->flush("web.img")) == "");
    }
    t.cluster.network.mend("a", "b");
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(t.web)->split && t.b().volume->group(t.web)->split; }));
    t.cluster.run(kSecond);
    t.a().node->resolve({t.web}, false, t.waits());
    t.stop(t.a());
  }

  TEST_CASE("a flush that waits for the peer") {
    Stopping t(326);
    auto image = t.a().volume->open_image(t.web, true);
    REQUIRE(image);
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().volume->write(**image, t.a().caller, 0, as_bytes("x"))) == "");
    t.a().volume->flush(**image, t.a().caller, t.flush_waits());
    t.cluster.run(kSecond);
    t.stop(t.a());
  }

  TEST_CASE("a flush that is about to be acknowledged without the peer") {
    Stopping t(327);
    auto image = t.a().volume->open_image(t.web, true);
    REQUIRE(image);
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().volume->write(**image, t.a().caller, 0, as_bytes("x"))) == "");
    t.a().volume->flush(**image, t.a().caller, t.flush_waits());
    // It is known to be alone, and the new epoch is being made durable.
    REQUIRE(t.cluster.until([&] { return t.a().status().peers.at(0).link != LinkState::kConnected; }));
    t.stop(t.a());
  }
}

}  // namespace
}  // namespace vmfs::sim
