#include <doctest/doctest.h>

#include "fs/journal/sequence_trail.h"

namespace vmfs {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

TEST_SUITE("lag") {
  TEST_CASE("what was changed since a record: exact for the last ones") {
    SequenceTrail trail;
    CHECK_FALSE(trail.since(0));
    // The group stood at 100 before the start.
    for (std::uint64_t seq = 101; seq <= 120; ++seq)
      trail.note(seq, seq, static_cast<std::int64_t>(seq) * kSecond, false);
    CHECK_FALSE(trail.since(99));
    auto all = trail.since(100);
    REQUIRE(all);
    CHECK(all->records == 20);
    CHECK(all->bytes == (101 + 120) * 20 / 2);
    CHECK(all->oldest_wall_ns == 101 * kSecond);
    auto last = trail.since(119);
    REQUIRE(last);
    CHECK(last->records == 1);
    CHECK(last->bytes == 120);
    CHECK(last->oldest_wall_ns == 120 * kSecond);
    auto none = trail.since(120);
    REQUIRE(none);
    CHECK(none->records == 0);
    CHECK(none->bytes == 0);
    CHECK(none->oldest_wall_ns == 0);
  }

  TEST_CASE("records that change nothing are nobody's loss") {
    SequenceTrail trail;
    trail.note(1, 4096, kSecond, false);
    trail.note(2, 200, 2 * kSecond, true);
    trail.note(3, 200, 3 * kSecond, true);
    CHECK(trail.since(1)->records == 0);
    CHECK(trail.since(1)->bytes == 0);
    CHECK(trail.since(2)->oldest_wall_ns == 0);
    trail.note(4, 500, 4 * kSecond, false);
    for (std::uint64_t seq : {1u, 2u, 3u}) {
      CAPTURE(seq);
      CHECK(trail.since(seq)->records == 1);
      CHECK(trail.since(seq)->bytes == 500);
      CHECK(trail.since(seq)->oldest_wall_ns == 4 * kSecond);
    }
    CHECK(trail.since(0)->bytes == 4596);
  }

  TEST_CASE("a sequence that goes on elsewhere begins a new trail") {
    SequenceTrail trail;
    for (std::uint64_t seq = 1; seq <= 10; ++seq) trail.note(seq, 100, kSecond, false);
    // Another node wrote up to 50.
    trail.note(51, 70, 9 * kSecond, false);
    CHECK_FALSE(trail.since(10));
    CHECK_FALSE(trail.since(49));
    CHECK(trail.since(50)->bytes == 70);
  }

  TEST_CASE("a long trail stays small, never says too little, and hardly too much") {
    // Bursts of small and large records, with idle times between them.
    SequenceTrail trail;
    std::vector<std::uint64_t> bytes{0};        // changes up to each seq
    std::vector<std::int64_t> when{0};
    std::int64_t now = kSecond;
    for (std::uint64_t seq = 1; seq <= 200'000; ++seq) {
      now += seq % 5000 == 0 ? 3600 * kSecond : 1'000'000;
      std::uint64_t size = seq % 7 == 0 ? 1u << 20 : 4216;
      bytes.push_back(bytes.back() + size);
      when.push_back(now);
      trail.note(seq, size, now, false);
    }
    const std::uint64_t end = bytes.size() - 1;
    for (std::uint64_t seq = 0; seq < end; seq += seq + 100 < end ? 37 : 1) {
      CAPTURE(seq);
      auto since = trail.since(seq);
      REQUIRE(since);
      const std::uint64_t right = bytes[end] - bytes[seq];
      const std::int64_t age = now - when[seq + 1], told = now - since->oldest_wall_ns;
      const bool exact = end - seq <= SequenceTrail::kExact;
      // A record of 1 MiB may lie between two marks, whatever they are.
      REQUIRE(since->bytes >= right);
      REQUIRE(since->bytes <= (exact ? right : right + right / 2 + (1u << 20)));
      REQUIRE(told >= age);
      REQUIRE(told <= (exact ? age : age + age / 2 + 1));
      REQUIRE(since->records == end - seq);
    }
  }
}

}  // namespace
}  // namespace vmfs
