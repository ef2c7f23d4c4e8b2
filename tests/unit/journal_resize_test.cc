// A journal whose size a person has changed: the segments stay as large as they are.
#include "cli/file.h"
#include "cli/journal_size.h"
#include "cli/setup.h"
#include "fs/journal/identity.h"
#include "tests/unit/journal_support.h"
#include "tests/unit/volume_fixture.h"

namespace vmfs {
namespace {

using namespace journal_test;

// Segments and spares; how many bytes they take.
std::uint64_t bytes_on_disk(const ScratchDirectory& scratch) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path())) bytes += entry.file_size();
  return bytes;
}

void append_through(Appender& appender, Lsn end) {
  while (appender.journal.written_lsn() < end) {
    auto done = appender.append();
    if (!done) FAIL("after record " << appender.cursor.seq << ": " << done.error().message);
  }
  REQUIRE(appender.journal.sync_through(appender.journal.written_lsn()));
}

TEST_SUITE("journal size") {
  TEST_CASE("files say whose journal it is and how large its segments are") {
    ScratchDirectory scratch;
    auto none = identify_journal(scratch.disk());
    REQUIRE(none);
    CHECK_FALSE(none->has_value());
    JournalOptions options = small_options();
    options.segment_size = 2u << 20;
    options.size_max = 16u << 20;
    REQUIRE(Journal::create(scratch.disk(), options));
    for (bool damaged : {false, true}) {
      // One whole header is enough.
      if (damaged) scratch.flip(segment_name(1), offsetof(SegmentHeader, size));
      auto found = identify_journal(scratch.disk());
      REQUIRE(found);
      REQUIRE(found->has_value());
      CHECK((*found)->segment_size == 2u << 20);
      CHECK((*found)->volume == options.volume);
      CHECK((*found)->node == options.node);
    }
    scratch.flip(segment_name(2), offsetof(SegmentHeader, size));
    CHECK_FALSE(identify_journal(scratch.disk())->has_value());
  }

  TEST_CASE("a larger limit: what was there is there, and there is more room") {
    ScratchDirectory scratch;
    JournalOptions options = small_options(4);
    std::uint64_t records = 0;
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      append_through(appender, 2 * options.segment_size);
      records = appender.cursor.seq;
    }
    options.size_max = 16u << 20;
    auto journal = open_journal(scratch.disk(), options);
    check_sequence(*journal, replayed(*journal), 1, records);
    Appender appender{*journal, {EpochId{5}, records}};
    append_through(appender, 12 * options.segment_size);
    CHECK(journal->oldest_lsn() == options.segment_size);
  }

  TEST_CASE("a smaller limit on a journal full of live records: all are there, and the files go as they are released" *
            doctest::test_suite("journal size, one thread")) {
    ScratchDirectory scratch;
    JournalOptions options = small_options(200);
    std::uint64_t records = 0;
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      append_through(appender, 190 * options.segment_size);
      records = appender.cursor.seq;
    }
    CHECK(bytes_on_disk(scratch) >= 190u << 20);
    options.size_max = 4u << 20;
    for (bool quick : {true, false}) {
      auto journal = open_journal(scratch.disk(), options, 0, quick);
      check_sequence(*journal, replayed(*journal), 1, records);
      // Above the limit nothing new is taken, and nothing fails.
      Appender appender{*journal, {EpochId{5}, records}};
      CHECK(appender.append().error().kind == ErrorKind::kWouldWait);
    }
    auto journal = open_journal(scratch.disk(), options);
    REQUIRE(journal->release_through(journal->durable_lsn()));
    CHECK(bytes_on_disk(scratch) <= options.size_max);
    Appender appender{*journal, {EpochId{5}, records}};
    for (int round = 0; round < 10; ++round) {
      append_through(appender, journal->written_lsn() + options.segment_size);
      REQUIRE(journal->release_through(journal->durable_lsn()));
      CHECK(bytes_on_disk(scratch) <= options.size_max);
    }
    journal.reset();
    auto again = open_journal(scratch.disk(), options);
    CHECK(again->durable_lsn() > 190u << 20);
  }

  TEST_CASE("a volume whose journal was full before it was made smaller applies what it has, and goes on") {
    test::VolumeHome home;
    ObjectId image = home.create("a.img");
    std::string text(10u << 20, '?');
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / 4096 % 26);
    home.write(*home.open_image(image), 0, text);
    REQUIRE(home.flush(*home.open_image(image)));
    REQUIRE(home->journal().bytes_used() > 8u << 20);
    home.options.journal.size_max = 4u << 20;
    for (bool power : {false, true}) {
      power ? home.lose_power_and_open() : home.kill_and_open();
      CHECK(home.read(*home.open_image(image), 0, text.size()) == text);
    }
    // A writer has to wait for the applier, as with any full journal.
    auto refused = home->write(*home.open_image(image), {}, 0, as_bytes(text.substr(0, 4096)));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == ErrorKind::kWouldWait);
    home.apply_all();
    CHECK(home->journal().bytes_used() <= 4u << 20);
    home.write(*home.open_image(image), 0, "goes on");
    text.replace(0, 7, "goes on");
    home.close_and_open();
    CHECK(home.stored("a.img") == text);
  }

  TEST_CASE("`journal-size` in vmfs.toml is edited") {
    ScratchDirectory scratch;
    NewStore wish;
    wish.store = (scratch.path() / "store").string();
    wish.node_name = "a";
    wish.journal_size = 64u << 20;
    auto made = create_store(wish);
    if (!made) FAIL(made.error().message);
    auto journal_disk = open_posix_disk(wish.store + "/journal");
    REQUIRE(journal_disk);
    for (std::uint64_t size : {std::uint64_t{2} << 30, std::uint64_t{32} << 20, std::uint64_t{16} << 30}) {
      Config edited = *made;
      edited.journal_size = size;
      REQUIRE(write_config(wish.store, edited));
      CHECK(check_start(wish.store));
      auto options = existing_volume_options(wish.store, edited, **journal_disk);
      REQUIRE(options);
      CHECK(options->journal.segment_size == segment_size_for(64u << 20));
      CHECK(options->journal.size_max == size);
      CHECK(Journal::open(**journal_disk, system_clock(), options->journal, {}));
    }
  }

  TEST_CASE("a size that the segments do not allow, and another's journal, are refused with what to do") {
    ScratchDirectory scratch;
    NewStore wish;
    wish.store = (scratch.path() / "store").string();
    wish.node_name = "a";
    wish.journal_size = 256u << 20;  // segments of 16 MiB
    auto made = create_store(wish);
    REQUIRE(made);
    auto refused = [&](const Config& config) {
      REQUIRE(write_config(wish.store, config));
      auto checked = check_start(wish.store);
      REQUIRE_FALSE(checked);
      return checked.error();
    };
    Config small = *made;
    small.journal_size = 32u << 20;
    CHECK(refused(small).kind == ErrorKind::kInvalid);
    CHECK(refused(small).message.find("64M or more") != std::string::npos);
    Config stranger = *made;
    stranger.node = NodeId{99};
    CHECK(refused(stranger).message.find("belongs to node") != std::string::npos);
    Config lost = *made;
    lost.journal = "images";
    CHECK(refused(lost).message.find("there is no journal here") != std::string::npos);
    REQUIRE(write_config(wish.store, *made));
    CHECK(check_start(wish.store));
  }
}

}  // namespace
}  // namespace vmfs
