#include <doctest/doctest.h>

#include "net/node/written_times.h"
#include "net/replication/base_source.h"

namespace vmfs {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

TEST_SUITE("lag") {
  TEST_CASE("the age of the oldest byte that somebody lacks") {
    WrittenTimes times;
    CHECK(times.age_ns(0, 5 * kSecond) == 0);
    times.note(1000, 10 * kSecond);
    times.note(1000, 20 * kSecond);  // idle
    times.note(2000, 21 * kSecond);
    times.note(3000, 22 * kSecond);
    CHECK(times.age_ns(3000, 30 * kSecond) == 0);
    CHECK(times.age_ns(4000, 30 * kSecond) == 0);
    CHECK(times.age_ns(2500, 30 * kSecond) == 9 * kSecond);
    // What came first after the idle time is not as old as that.
    CHECK(times.age_ns(1000, 30 * kSecond) == 10 * kSecond);
    CHECK(times.age_ns(500, 30 * kSecond) == 10 * kSecond);
  }

  TEST_CASE("long histories of moments stay small and right") {
    WrittenTimes times;
    for (std::int64_t i = 0; i < 100'000; ++i) times.note(static_cast<Lsn>(i * 10), i * kSecond);
    const std::int64_t now = 100'000 * kSecond;
    for (Lsn lsn : {50'000u, 500'000u, 990'000u}) {
      const std::int64_t age = times.age_ns(lsn, now), right = now - static_cast<std::int64_t>(lsn / 10) * kSecond;
      CHECK(age >= right);
      CHECK(age < right + 100 * kSecond);
    }
    // Once somebody has caught up, the next lag is told exactly again.
    times.forget(1'000'000);
    times.note(1'000'010, now);
    times.note(1'000'020, now + kSecond);
    CHECK(times.age_ns(1'000'010, now + 3 * kSecond) == 3 * kSecond);
  }

  TEST_CASE("ranges grow together until they are few, and cover what they did") {
    std::vector<BaseRange> ranges;
    for (std::uint64_t i = 0; i < 10'000; ++i) ranges.push_back({i * 300'000 + 7, 100});
    auto few = coarsen_ranges(ranges, 500);
    CHECK(few.size() <= 500);
    for (const BaseRange& range : ranges) {
      bool covered = false;
      for (const BaseRange& wide : few)
        covered |= wide.offset <= range.offset && range.offset + range.length <= wide.offset + wide.length;
      CHECK(covered);
    }
    std::vector<BaseRange> same = {{7, 1}, {100'000, 5}};
    same = coarsen_ranges(same, 2);
    REQUIRE(same.size() == 2);
    CHECK(same[0].offset == 7);
    CHECK(same[0].length == 1);
  }
}

}  // namespace
}  // namespace vmfs
