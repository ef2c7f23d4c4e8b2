// The holder's parts by themselves.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include "fs/holder/crash_policy.h"
#include "fs/holder/holder.h"
#include "fs/holder/mounting.h"
#include "fs/holder/status.h"

namespace vmfs {
namespace {

TEST_SUITE("holder") {
  TEST_CASE("crashes in a row end it; being killed at work does not") {
    constexpr std::int64_t kSecond = 1'000'000'000;
    CrashPolicy policy;
    for (int i = 0; i < 200; ++i) {
      const auto decision = policy.ended({true, true}, (i - 200) * kSecond);
      CHECK_FALSE(decision.give_up);
      CHECK(decision.delay_ns == 0);
    }
    CHECK(policy.ended({true, false}, 20 * kSecond).delay_ns == 0);
    CHECK(policy.ended({false, true}, 21 * kSecond).delay_ns == CrashPolicy::kFirstDelay_ns);
    CHECK(policy.ended({false, true}, 22 * kSecond).delay_ns == 2 * CrashPolicy::kFirstDelay_ns);
    CHECK_FALSE(policy.ended({true, false}, 23 * kSecond).give_up);
    CHECK(policy.ended({true, false}, 24 * kSecond).give_up);
    // Rare crashes are not a row.
    CrashPolicy rare;
    for (int i = 0; i < 20; ++i) CHECK_FALSE(rare.ended({true, false}, i * 16 * kSecond).give_up);
    // What kills ten times a second for long is no person.
    CrashPolicy storm;
    unsigned kills = 1;
    while (!storm.ended({true, true}, kills * kSecond / 10).give_up) REQUIRE(++kills < 1000);
    CHECK(kills == CrashPolicy::kKillsMax);
    // Killed for want of memory: the next one would be, too.
    CrashPolicy memory;
    for (int i = 1; i < static_cast<int>(CrashPolicy::kCrashesMax); ++i)
      CHECK_FALSE(memory.ended({true, true, true}, i * kSecond).give_up);
    CHECK(memory.ended({true, true, true}, 10 * kSecond).give_up);
  }

  TEST_CASE("a start that fails with a reason is tried again for ever, ever more rarely") {
    StartRetries retries;
    CHECK(retries.next_delay_ns() == StartRetries::kFirstDelay_ns);
    CHECK(retries.next_delay_ns() == 2 * StartRetries::kFirstDelay_ns);
    for (int i = 0; i < 100; ++i) CHECK(retries.next_delay_ns() <= StartRetries::kLongestDelay_ns);
    CHECK(retries.next_delay_ns() == StartRetries::kLongestDelay_ns);
    retries.succeeded();
    CHECK(retries.next_delay_ns() == StartRetries::kFirstDelay_ns);
  }

  TEST_CASE("the holder's status file reads back, and names a living process") {
    const std::string path = fmt::format("/tmp/vmfs-holder-status-{}", ::getpid());
    HolderStatus status;
    status.state = HolderStatus::State::kGaveUp;
    status.holder_pid = ::getpid();
    status.holder_started = process_start(::getpid());
    status.mountpoint = "/mnt/with blank";
    status.volume_name = "vm";
    status.reason = "two\nlines, C:\\new";
    REQUIRE(status.holder_started != 0);
    REQUIRE(write_holder_status(path, status));
    auto read = read_holder_status(path);
    REQUIRE(read);
    CHECK(read->state == HolderStatus::State::kGaveUp);
    CHECK(read->mountpoint == "/mnt/with blank");
    CHECK(read->reason == status.reason);
    CHECK(holder_alive(*read));
    read->holder_started += 1;  // the same pid, another process
    CHECK_FALSE(holder_alive(*read));
    ::unlink(path.c_str());
    CHECK(read_holder_status(path).error().kind == ErrorKind::kNotFound);
  }

  TEST_CASE("a status reads back whatever is in it; a damaged one is refused") {
    HolderStatus status;
    status.state = HolderStatus::State::kRestarting;
    status.holder_pid = 7;
    status.mountpoint = "/mnt/two\nreason lines\\n";
    status.volume_name = "vm\nstate gave-up";
    status.reason = "\\\\n\n";
    auto again = parse_holder_status(holder_status_text(status), "holder");
    REQUIRE(again);
    CHECK(again->state == HolderStatus::State::kRestarting);
    CHECK(again->mountpoint == status.mountpoint);
    CHECK(again->volume_name == status.volume_name);
    CHECK(again->reason == status.reason);
    // As versions wrote it that did not escape it: systemd's names of mount points have such.
    CHECK(parse_holder_status("state running\nholder 7\nmountpoint /mnt/a\\x2db\n", "holder")->mountpoint ==
          "/mnt/a\\x2db");
    for (const char* damaged : {"holder -1", "holder 4294967303", "holder 7x", "daemon -1", "starts -1", "crashes ",
                                "since 9223372036854775808", "state odd"}) {
      auto refused = parse_holder_status(fmt::format("state running\nholder 7\n{}\n", damaged), "/run/holder");
      REQUIRE_MESSAGE(!refused, damaged);
      CHECK(refused.error().kind == ErrorKind::kCorrupt);
      CHECK(refused.error().message.find(damaged) != std::string::npos);
    }
    CHECK_FALSE(parse_holder_status("", "holder"));
    CHECK_FALSE(parse_holder_status("state running\n", "holder"));
  }

  TEST_CASE("when a process started stands behind a name that may contain anything") {
    const std::string rest = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 98765 20 21\n";
    CHECK(start_in_stat("7 (vmfs) S" + rest) == 98765);
    CHECK(start_in_stat("7 (odd) R 1) S" + rest) == 98765);
    CHECK(start_in_stat("7 (two\nlines) S" + rest) == 98765);
    CHECK(start_in_stat("7 (vmfs) Z" + rest) == 0);
    CHECK(start_in_stat("7 (vmfs) S 1 2") == 0);
    CHECK(start_in_stat("") == 0);
  }

  TEST_CASE("names in a mount table come back as they are") {
    const auto mounts = mounts_in(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "36 35 0:77 / /srv/two\\040words\\134040 rw shared:1 - fuse.vmfs /srv/a\\012b rw\n"
        // Nothing before the options: the mount has no source.
        "37 35 0:78 / /srv/none rw - fuse.vmfs  rw,fd=3\n"
        "38 35 0:79 / /srv/odd\\09a rw - tmpfs tmpfs rw\n"
        "39 35 none / /srv/x rw - tmpfs tmpfs rw\n"
        "40 35 0:77 /two\\040words /srv/bound rw shared:1 - fuse.vmfs /srv/a\\012b rw\n"
        "garbage\n\n");
    REQUIRE(mounts.size() == 5);
    CHECK(mounts[1].root == "/");
    CHECK(mounts[4].root == "/two words");
    CHECK(mounts[0].source == "/dev/sda1");
    CHECK(mounts[0].major == 8);
    CHECK(mounts[1].mountpoint == "/srv/two words\\040");
    CHECK(mounts[1].source == "/srv/a\nb");
    CHECK(mounts[1].type == "fuse.vmfs");
    CHECK(mounts[1].minor == 77);
    CHECK(mounts[2].source.empty());
    CHECK(mounts[3].mountpoint == "/srv/odd\\09a");
  }

  TEST_CASE("a mount point must be there and free") {
    HolderOptions options;
    options.mountpoint = "/nonexistent/place";
    CHECK(run_holder(options).error().kind == ErrorKind::kInvalid);
    options.mountpoint = "/proc";
    CHECK(run_holder(options).error().kind == ErrorKind::kBusy);
    CHECK(find_mount("/proc")->type == "proc");
  }
}

}  // namespace
}  // namespace vmfs
