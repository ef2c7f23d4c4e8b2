// Settings that change what a node does with its peers.
#include <doctest/doctest.h>

#include "tests/unit/two_nodes.h"

namespace vmfs::sim {
namespace {

// A megabyte of what packs well, written on `a` while `b` follows; how much of it went over the wire.
std::uint64_t sent_for_a_megabyte(ReplicationMode mode, std::optional<std::int32_t> compression) {
  TwoNodes t(401, mode);
  VolumeSettings settings = t.a().settings;
  settings.compression = compression;
  REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->set_settings(settings, std::move(done)); })) == "");
  REQUIRE(ok(t.a().make("web.img")) == "");
  t.settle();
  const std::uint64_t before = t.a().status().peers.at(0).bytes_sent;
  for (int i = 0; i < 10; ++i) REQUIRE(ok(t.a().write("web.img", i * 100'000, std::string(100'000, 'x'))) == "");
  t.settle();
  const std::uint64_t sent = t.a().status().peers.at(0).bytes_sent - before;
  t.check_equal();
  return sent;
}

// `b` is away while `a` writes 4 MiB; whether it needs a copy when it is back.
bool copied_after_four_mebibytes(std::uint64_t kept_for_absent) {
  TwoNodes t(402);
  REQUIRE(ok(t.a().make("web.img")) == "");
  t.settle();
  t.a().kill();
  t.a().kept_for_absent = kept_for_absent;
  t.a().start({"b"});
  t.settle();
  t.b().kill();
  for (int i = 0; i < 20; ++i) {
    REQUIRE(ok(t.a().write("web.img", i * 200'000, std::string(200'000, static_cast<char>('a' + i)))) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.cluster.run(kSecond);
  }
  t.b().start({"a"});
  t.check_equal();
  return t.a().status().peers.at(0).copies_whole != 0;
}

TEST_SUITE("node settings") {
  TEST_CASE("start-alone: after that time a node goes on with what is its own, and nothing else") {
    TwoNodes t(400);
    for (const char* name : {"web.img", "db.img"}) {
      REQUIRE(ok(t.a().make(name)) == "");
      REQUIRE(ok(t.a().write(name, 0, "common")) == "");
      REQUIRE(ok(t.a().flush(name)) == "");
    }
    t.settle();
    REQUIRE(ok(t.b().promote("db.img", false)) == "");
    t.settle();
    const GroupId web = t.a().group("web.img"), db = t.a().group("db.img");
    t.a().power_loss();
    t.b().power_loss();
    t.a().start_alone_after_ns = 30 * kSecond;
    t.a().start({"b"});
    t.cluster.run(25 * kSecond);
    CHECK(t.a().volume->gate(web) == Gate::kSuspended);
    CHECK_FALSE(t.a().status().ready);
    t.cluster.run(10 * kSecond);
    CHECK(t.a().volume->gate(web) == Gate::kOpen);
    CHECK(t.a().status().ready);
    REQUIRE(ok(t.a().write("web.img", 0, "alone!")) == "");
    auto refused = t.a().write("db.img", 0, "stolen");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().number == EROFS);
    t.b().start({"a"});
    t.check_equal();
    CHECK(t.b().read("web.img", 0, 6) == "alone!");
    CHECK(t.a().volume->group(db)->owner == t.b().id);
    REQUIRE(ok(t.b().write("db.img", 0, "b's own")) == "");
    t.check_equal();
  }

  TEST_CASE("compression: off in sync and semisync, on in async, and as it is set") {
    constexpr std::uint64_t kAll = 1'000'000, kLittle = 50'000;
    CHECK(sent_for_a_megabyte(ReplicationMode::kSync, {}) >= kAll);
    CHECK(sent_for_a_megabyte(ReplicationMode::kSemisync, {}) >= kAll);
    CHECK(sent_for_a_megabyte(ReplicationMode::kAsync, {}) < kLittle);
    CHECK(sent_for_a_megabyte(ReplicationMode::kSync, 3) < kLittle);
    CHECK(sent_for_a_megabyte(ReplicationMode::kAsync, 0) >= kAll);
  }

  TEST_CASE("peer-journal-size: so much is kept for a peer that is away, and not more") {
    CHECK_FALSE(copied_after_four_mebibytes(6u << 20));
    CHECK(copied_after_four_mebibytes(2u << 20));
  }

  TEST_CASE("sync: who writes more than the link carries is slowed down, and a flush stays short") {
    TwoNodes t(403, ReplicationMode::kSync, 64u << 20);
    REQUIRE(ok(t.a().make("web.img")) == "");
    t.settle();
    auto now = [&] { return t.cluster.scheduler.now(); };
    constexpr std::uint64_t kPiece = 64u << 10;
    std::uint64_t offset = 0;
    // Writes for so long, as fast as it is let; then flushes, and tells how long that took.
    auto flush_after = [&](std::int64_t ns) {
      for (const std::int64_t end = now() + ns; now() < end; offset += kPiece) {
        REQUIRE(ok(t.a().write("web.img", offset % (256u << 20), std::string(kPiece, 'x'))) == "");
        t.cluster.run(kMillisecond);
      }
      const std::int64_t begun = now();
      REQUIRE(ok(t.a().flush("web.img")) == "");
      return now() - begun;
    };
    CHECK(flush_after(2 * kSecond) < kSecond);
    const std::uint64_t written = offset;
    t.cluster.network.set_path("a", "b", {.bytes_per_second = 2u << 20});
    (void)flush_after(5 * kSecond);  // until it is seen
    CHECK(flush_after(10 * kSecond) < 2 * kSecond);
    // A link that is faster again is used.
    t.cluster.network.set_path("a", "b", {});
    CHECK(flush_after(5 * kSecond) < kSecond);
    const std::uint64_t before = offset;
    CHECK(flush_after(2 * kSecond) < kSecond);
    CHECK(offset - before > written / 4 * 3);
    t.check_equal();
  }

  TEST_CASE("a peer that is far behind over a slow link is waited for when a second brings the rest") {
    TwoNodes t(404, ReplicationMode::kSync, 64u << 20);
    REQUIRE(ok(t.a().make("web.img")) == "");
    t.settle();
    t.b().kill();
    for (std::uint64_t i = 0; i < 100; ++i)
      REQUIRE(ok(t.a().write("web.img", i << 17, std::string(1 << 17, 'x'))) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.cluster.network.set_path("a", "b", {.bytes_per_second = 2u << 20});
    t.b().start({"a"});
    // At whatever moment a guest flushes.
    std::int64_t longest = 0;
    while (!t.in_sync()) {
      const std::int64_t begun = t.cluster.scheduler.now();
      REQUIRE(ok(t.a().write("web.img", 0, "now")) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
      longest = std::max(longest, t.cluster.scheduler.now() - begun);
      t.cluster.run(100 * kMillisecond);
    }
    CHECK(longest < 2 * kSecond);
    t.check_equal();
  }
}

}  // namespace
}  // namespace vmfs::sim
