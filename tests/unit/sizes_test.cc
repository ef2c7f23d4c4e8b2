#include "fs/base/sizes.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <limits>

using namespace vmfs;

TEST_SUITE("sizes") {
  TEST_CASE("sizes are read with and without units") {
    CHECK(*parse_size("4096") == 4096);
    CHECK(*parse_size("0") == 0);
    CHECK(*parse_size("64M") == 64ull << 20);
    CHECK(*parse_size("64m") == 64ull << 20);
    CHECK(*parse_size("1.5G") == 3ull << 29);
    CHECK(*parse_size("2 GiB") == 2ull << 30);
    CHECK(*parse_size("3T") == 3ull << 40);
    CHECK(*parse_size("0.5K") == 512);
    CHECK(*parse_size("18446744073709551615") == std::numeric_limits<std::uint64_t>::max());
  }

  TEST_CASE("what is no size is refused, and the message quotes it") {
    for (const char* text : {"", "M", "-1", "12Q", "12MB", "1.G", "1.5", "0x10", "12 34", "16384P",
                             "18446744073709551616", "1.0000000001G", "64Mi"}) {
      CAPTURE(text);
      Result<std::uint64_t> result = parse_size(text);
      REQUIRE(!result);
      CHECK(result.error().kind == ErrorKind::kInvalid);
      CHECK(result.error().message.find(fmt::format("\"{}\"", text)) != std::string::npos);
    }
  }

  TEST_CASE("a printed size reads back exactly") {
    for (std::uint64_t bytes : {0ull, 1ull, 1023ull, 1024ull, 4097ull, 64ull << 20, 3ull << 29,
                                (1ull << 40) + 1, std::numeric_limits<unsigned long long>::max()})
      CHECK(*parse_size(format_size(bytes)) == bytes);
    CHECK(format_size(64u << 20) == "64M");
    CHECK(format_size(1536u << 20) == "1536M");
    CHECK(human_size(1536u << 20) == "1.50 GiB");
    CHECK(human_size(512) == "512 B");
    CHECK(human_size(10240) == "10.0 KiB");
  }

  TEST_CASE("durations") {
    CHECK(*parse_duration("10") == 10'000'000'000);
    CHECK(*parse_duration("10s") == 10'000'000'000);
    CHECK(*parse_duration("500ms") == 500'000'000);
    CHECK(*parse_duration("1.5m") == 90'000'000'000);
    CHECK(*parse_duration("2h") == 7'200'000'000'000);
    for (const char* text : {"", "s", "-1s", "10 weeks", "1e3", "400000d", "1.5ns"}) {
      CAPTURE(text);
      CHECK(!parse_duration(text));
    }
    for (std::int64_t ns :
         {0ll, 1ll, 999ll, 1'500'000'000ll, 90'000'000'000ll, 86'400'000'000'000ll})
      CHECK(*parse_duration(format_duration(ns)) == ns);
    CHECK(format_duration(90'000'000'000) == "90s");
    CHECK(human_duration(7'500'000'000'000) == "2 h 5 min");
    CHECK(human_duration(850'000'000) == "850 ms");
  }

  TEST_CASE("times") {
    CHECK(human_time(0) == "never");
    CHECK(human_time(1'700'000'001'023'456'789) == "2023-11-14 22:13:21.023 UTC");
    CHECK(human_time(-1) == "1969-12-31 23:59:59.999 UTC");
    CHECK(human_time(std::numeric_limits<std::int64_t>::min()) == "1677-09-21 00:12:43.145 UTC");
    CHECK(human_time(std::numeric_limits<std::int64_t>::max()) == "2262-04-11 23:47:16.854 UTC");
  }
}
