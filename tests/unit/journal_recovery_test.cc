// What recovery makes of files that were cut, torn, damaged or exchanged.
#include "tests/unit/journal_support.h"

namespace vmfs {
namespace {

using namespace journal_test;

const std::string kFirst = segment_name(1);

Error refusal(Disk& disk, const JournalOptions& options, Lsn start = 0) {
  auto journal = Journal::open(disk, system_clock(), options, {.start = start});
  REQUIRE(!journal);
  return journal.error();
}

bool mentions(const Error& error, const std::string& text) {
  return error.message.find(text) != std::string::npos;
}

TEST_SUITE("journal recovery") {
  TEST_CASE("a tail that is cut at any byte ends the log before the record that it hits" *
            doctest::test_suite("journal recovery, one thread")) {
    ScratchDirectory scratch;
    JournalOptions options = small_options();
    std::vector<Journal::Reservation> tail;
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      REQUIRE(appender.append());
      REQUIRE(journal->sync_through(journal->written_lsn()));
      for (int i = 0; i < 3; ++i) {
        Bytes bytes = content(appender.cursor.seq + 1, 300 + 40 * static_cast<unsigned>(i));
        Draft draft = write_draft(appender.group, appender.cursor.seq + 1, bytes);
        auto reservation = journal->append(draft, &appender.cursor);
        REQUIRE(reservation);
        tail.push_back(*reservation);
      }
    }
    std::filesystem::path good = scratch.path() / "good";
    std::filesystem::copy_file(scratch.path() / kFirst, good);
    const Lsn base = options.segment_size;
    for (Lsn cut = tail.front().lsn; cut <= tail.back().end; cut += cut % 128 < 16 ? 1 : 7) {
      CAPTURE(cut);
      std::filesystem::copy_file(good, scratch.path() / kFirst,
                                 std::filesystem::copy_options::overwrite_existing);
      scratch.zero(kFirst, cut - base, 4096);
      std::uint64_t whole = 1;
      // The bytes of a record's padding may be lost: they mean nothing.
      for (std::size_t i = 0; i < tail.size(); ++i)
        if (cut + 7 >= tail[i].end &&
            cut >= tail[i].lsn + sizeof(RecordHeader) + 300 + 40 * i)
          whole = 2 + i;
      auto journal = open_journal(scratch.disk(), options);
      auto seen = replayed(*journal);
      // A payload byte that was zero already makes no difference, so at least `whole` records.
      REQUIRE(seen.size() >= whole);
      REQUIRE(seen.size() <= whole + 1);
      // And it goes on from there.
      Appender appender{*journal};
      appender.cursor.seq = seen.size();
      REQUIRE(appender.append());
      REQUIRE(journal->sync_through(journal->reserved_lsn()));
      journal.reset();
      journal = open_journal(scratch.disk(), options);
      REQUIRE(replayed(*journal).size() == seen.size() + 1);
    }
  }

  TEST_CASE("a record in the middle of what was durable: refused, named, and nothing is changed") {
    ScratchDirectory scratch;
    JournalOptions options = small_options();
    Journal::Reservation bad;
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      for (int i = 0; i < 20; ++i) {
        auto reservation = appender.append();
        REQUIRE(reservation);
        if (i == 7) bad = *reservation;
        REQUIRE(journal->sync_through(reservation->end));
      }
    }
    scratch.flip(kFirst, bad.lsn % options.segment_size + sizeof(RecordHeader) + 3);
    Error error = refusal(scratch.disk(), options);
    CHECK(error.kind == ErrorKind::kCorrupt);
    CHECK(mentions(error, kFirst));
    CHECK(mentions(error, fmt::format("offset {}", bad.lsn % options.segment_size)));
    CHECK(mentions(error, fmt::format("--until {}", bad.lsn)));
    CHECK(mentions(error, "damaged-in-the-middle"));
    CHECK(refusal(scratch.disk(), options).message == error.message);

    SUBCASE("repaired, it opens as if nothing had been") {
      scratch.flip(kFirst, bad.lsn % options.segment_size + sizeof(RecordHeader) + 3);
      auto journal = open_journal(scratch.disk(), options);
      check_sequence(*journal, replayed(*journal), 1, 20);
    }
    SUBCASE("cut there, it has what came before, and the rest is kept") {
      auto directory = Journal::cut(scratch.disk(), system_clock(), options, 0, bad.lsn);
      if (!directory) FAIL(directory.error().message);
      CHECK(std::filesystem::file_size(scratch.path() / *directory / kFirst) ==
            options.segment_size);
      auto journal = open_journal(scratch.disk(), options);
      check_sequence(*journal, replayed(*journal), 1, 7);
      Appender appender{*journal};
      appender.cursor.seq = 7;
      REQUIRE(appender.append());
      REQUIRE(journal->sync_through(journal->reserved_lsn()));
      journal = open_journal(scratch.disk(), options);
      check_sequence(*journal, replayed(*journal), 1, 8);
    }
    SUBCASE("it cannot be cut behind the damage, nor below the checkpoint") {
      CHECK(!Journal::cut(scratch.disk(), system_clock(), options, 0, bad.end + 8192));
      CHECK(!Journal::cut(scratch.disk(), system_clock(), options, bad.lsn, bad.lsn - 4096));
      CHECK(refusal(scratch.disk(), options).message == error.message);
    }
  }

  TEST_CASE("damage in a sealed segment is found by what later segments claim") {
    ScratchDirectory scratch;
    JournalOptions options = small_options(8);
    Journal::Reservation bad;
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      while (journal->written_lsn() < 4 * options.segment_size) {
        auto reservation = appender.append();
        REQUIRE(reservation);
        if (appender.cursor.seq == 20) bad = *reservation;
      }
      REQUIRE(journal->sync_through(journal->reserved_lsn()));
      REQUIRE(appender.append());
    }
    scratch.flip(kFirst, bad.lsn % options.segment_size + 9);
    Error error = refusal(scratch.disk(), options);
    CHECK(error.kind == ErrorKind::kCorrupt);
    CHECK(mentions(error, kFirst));
    // A checkpoint that lies behind it makes it irrelevant.
    auto journal = open_journal(scratch.disk(), options, 2 * options.segment_size + kBlock);
    CHECK(journal->oldest_lsn() == options.segment_size);
    journal.reset();
    auto directory = Journal::cut(scratch.disk(), system_clock(), options, 0, bad.lsn);
    REQUIRE(directory);
    journal = open_journal(scratch.disk(), options);
    check_sequence(*journal, replayed(*journal), 1, 19);
  }

  TEST_CASE("the checkpoint's position is a claim, too") {
    ScratchDirectory scratch;
    JournalOptions options = small_options();
    Lsn end;
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      for (int i = 0; i < 5; ++i) REQUIRE(appender.append());
      REQUIRE(journal->sync_through(journal->reserved_lsn()));
      end = journal->durable_lsn();
    }
    scratch.zero(kFirst, 3 * kBlock, 16 * kBlock);
    Error error = refusal(scratch.disk(), options, end);
    CHECK(error.kind == ErrorKind::kCorrupt);
    CHECK(mentions(error, "ends-before-checkpoint"));
  }

  TEST_CASE("headers: of a live segment, of a prepared one, of another volume, of the future") {
    ScratchDirectory scratch;
    JournalOptions options = small_options(6);
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      while (journal->written_lsn() < 3 * options.segment_size) REQUIRE(appender.append());
      REQUIRE(journal->prepare_segments());
    }
    const std::string live = segment_name(2), prepared = segment_name(4);
    REQUIRE(std::filesystem::exists(scratch.path() / prepared));
    SUBCASE("live") {
      scratch.flip(live, 33);
      Error error = refusal(scratch.disk(), options);
      CHECK(error.kind == ErrorKind::kCorrupt);
      CHECK(mentions(error, live));
      CHECK(mentions(error, "live-header-damaged"));
      // The way out that it names works.
      REQUIRE(Journal::cut(scratch.disk(), system_clock(), options, 0,
                           2 * options.segment_size + kBlock));
      auto journal = open_journal(scratch.disk(), options);
      CHECK(!replayed(*journal).empty());
    }
    SUBCASE("the only one that matters: the store goes on from its checkpoint") {
      scratch.flip(live, 33);
      Lsn start = 2 * options.segment_size + 5 * kBlock;
      CHECK(refusal(scratch.disk(), options, start).kind == ErrorKind::kCorrupt);
      REQUIRE(Journal::cut(scratch.disk(), system_clock(), options, start, start));
      auto journal = open_journal(scratch.disk(), options, start);
      CHECK(replayed(*journal).empty());
      CHECK(journal->reserved_lsn() > start);
    }
    SUBCASE("prepared: it is made again") {
      scratch.flip(prepared, 33);
      auto journal = open_journal(scratch.disk(), options);
      CHECK(!replayed(*journal).empty());
    }
    SUBCASE("another volume's") {
      JournalOptions other = options;
      other.volume[3] = std::byte{1};
      CHECK(refusal(scratch.disk(), other).kind == ErrorKind::kRefused);
    }
    SUBCASE("another node's") {
      JournalOptions other = options;
      other.node = NodeId{99};
      CHECK(refusal(scratch.disk(), other).kind == ErrorKind::kRefused);
    }
    SUBCASE("another size") {
      JournalOptions other = options;
      other.segment_size *= 2;
      other.size_max *= 2;
      CHECK(refusal(scratch.disk(), other).kind == ErrorKind::kRefused);
    }
    SUBCASE("newer") {
      scratch.flip(prepared, offsetof(SegmentHeader, version));
      Error error = refusal(scratch.disk(), options);
      CHECK(error.kind == ErrorKind::kRefused);
      CHECK(mentions(error, "newer version"));
    }
    SUBCASE("missing in the middle") {
      std::filesystem::remove(scratch.path() / live);
      Error error = refusal(scratch.disk(), options, options.segment_size + kBlock);
      CHECK(error.kind == ErrorKind::kCorrupt);
    }
  }

  TEST_CASE("a generation is above the one that the caller knows of, also where nothing is to be replayed") {
    ScratchDirectory scratch;
    REQUIRE(Journal::create(scratch.disk(), small_options()));
    auto journal = Journal::open(scratch.disk(), system_clock(), small_options(), {.generation = 7});
    REQUIRE(journal);
    CHECK((*journal)->generation() == 8);
  }

  TEST_CASE("what was cut off behind the end never comes alive, and no generation comes twice") {
    ScratchDirectory scratch;
    JournalOptions options = small_options();
    std::vector<Journal::Reservation> records;
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      for (int i = 0; i < 12; ++i) {
        auto reservation = appender.append();
        REQUIRE(reservation);
        records.push_back(*reservation);
      }
    }
    // Power loss: the fourth record did not get to the disk, later ones did.
    scratch.zero(kFirst, records[3].lsn % options.segment_size, 16);
    std::uint32_t generation = 0;
    std::uint64_t expected = 3;
    for (int round = 0; round < 6; ++round) {
      auto journal = open_journal(scratch.disk(), options);
      CHECK(journal->generation() > generation);
      generation = journal->generation();
      auto seen = replayed(*journal);
      REQUIRE(seen.size() == expected);
      if (round % 2 == 0) continue;  // opened, and nothing appended
      Appender appender{*journal};
      appender.cursor.seq = expected;
      // Record by record, so that one is bound to end where an old one begins.
      REQUIRE(appender.append());
      REQUIRE(journal->sync_through(journal->reserved_lsn()));
      ++expected;
    }
  }

  TEST_CASE("all is in the store up to the end of a segment, and the next one was not made") {
    JournalOptions options = small_options(8);
    const Geometry geometry{options.segment_size};
    // A checkpoint names the end of the one or the beginning of the other.
    for (const Lsn start : {geometry.start(2), geometry.first_record(2)}) {
      CAPTURE(start);
      ScratchDirectory scratch;
      {
        auto journal = new_journal(scratch.disk(), options);
        Appender appender{*journal};
        while (journal->reserved_lsn() < geometry.start(2)) REQUIRE(appender.append());
        REQUIRE(journal->sync_through(journal->reserved_lsn()));
      }
      for (const auto& entry : std::filesystem::directory_iterator(scratch.path()))
        if (entry.path().filename() > segment_name(1)) std::filesystem::remove(entry.path());
      auto journal = Journal::open(scratch.disk(), system_clock(), options, {start, false, false});
      REQUIRE_MESSAGE(journal, (journal ? "" : journal.error().message));
      CHECK(replayed(**journal).empty());
      Appender appender{**journal};
      REQUIRE(appender.append());
      REQUIRE((*journal)->sync_through((*journal)->reserved_lsn()));
    }
  }

  TEST_CASE("a generation begins in the next segment when this one has no room") {
    ScratchDirectory scratch;
    JournalOptions options = small_options(8);
    std::uint64_t count = 0;
    Lsn room = 0;
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      // Up to the last record that the first segment takes.
      while (journal->reserved_lsn() < 2 * options.segment_size - 80 * 1024) {
        REQUIRE(appender.append());
        ++count;
      }
      for (;;) {
        Bytes bytes = content(appender.cursor.seq + 1, 500);
        Draft draft = write_draft(appender.group, appender.cursor.seq + 1, bytes);
        room = 2 * options.segment_size - journal->reserved_lsn();
        if (room < 4096 + 700 + (count + 2) * sizeof(SealEntry)) break;
        REQUIRE(journal->append(draft, &appender.cursor));
        ++count;
      }
    }
    for (int round = 0; round < 3; ++round) {
      auto journal = open_journal(scratch.disk(), options, 0, round == 1);
      CHECK(journal->reserved_lsn() > 2 * options.segment_size);
      auto seen = replayed(*journal);
      REQUIRE(seen.size() == count);
      Appender appender{*journal};
      appender.cursor.seq = count;
      REQUIRE(appender.append());
      ++count;
      RecordReader reader(*journal, 0);
      std::uint64_t read = 0;
      for (;;) {
        auto record = reader.next(journal->written_lsn());
        if (!record) FAIL(record.error().message);
        if (!*record) break;
        CHECK((*record)->header.seq == ++read);
      }
      CHECK(read == count);
    }
  }

  TEST_CASE("a reader that does not want a payload does not look at it") {
    ScratchDirectory scratch;
    JournalOptions options = small_options();
    auto journal = new_journal(scratch.disk(), options);
    Appender appender{*journal};
    Lsn bad = 0;
    for (int i = 0; i < 30; ++i) {
      auto reservation = appender.append();
      REQUIRE(reservation);
      if (i == 7) bad = reservation->lsn;
    }
    scratch.flip(kFirst, bad % options.segment_size + sizeof(RecordHeader) + 3);
    auto read_all = [&](std::uint64_t unwanted_to) -> Result<std::uint64_t> {
      RecordReader reader(*journal, 0);
      for (std::uint64_t read = 0;;) {
        VMFS_ASSIGN(auto record, reader.next(journal->written_lsn(), [&](const RecordHeader& header) {
          return header.seq > unwanted_to;
        }));
        if (!record) return read;
        CHECK(record->header.seq == ++read);
        if (read <= unwanted_to) CHECK(record->payload.empty());
      }
    };
    CHECK(read_all(10).value_or(0) == 30);
    CHECK(read_all(30).value_or(0) == 30);
    CHECK_FALSE(read_all(0));
  }

  TEST_CASE("after a failed sync nothing is taken as it reads: the tail is written again") {
    ScratchDirectory scratch;
    JournalOptions options = small_options();
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      for (int i = 0; i < 30; ++i) REQUIRE(appender.append());
    }
    auto incarnation = [&] {
      SegmentHeader header;
      auto file = scratch.disk().open(kFirst, OpenMode::kRead, "test");
      REQUIRE(file);
      REQUIRE((*file)->read({reinterpret_cast<std::byte*>(&header), sizeof header}, 0, "test"));
      return header.incarnation;
    };
    const std::uint64_t before = incarnation();
    std::ofstream(scratch.path() / kSyncFailedMarker).put('x');
    auto journal = open_journal(scratch.disk(), options);
    check_sequence(*journal, replayed(*journal), 1, 30);
    CHECK(!std::filesystem::exists(scratch.path() / kSyncFailedMarker));
    CHECK(incarnation() != before);
  }

  TEST_CASE("a journal is not made over another, nor with impossible sizes") {
    ScratchDirectory scratch;
    JournalOptions options = small_options();
    REQUIRE(Journal::create(scratch.disk(), options));
    CHECK(Journal::create(scratch.disk(), options).error().kind == ErrorKind::kExists);
    options.segment_size = 3u << 20;
    CHECK(Journal::create(scratch.disk(), options).error().kind == ErrorKind::kInvalid);
    options = small_options(2);
    CHECK(Journal::create(scratch.disk(), options).error().kind == ErrorKind::kInvalid);
    ScratchDirectory empty;
    CHECK(refusal(empty.disk(), small_options()).kind == ErrorKind::kNotFound);
  }

  TEST_CASE("a whole journal made at creation needs no space later") {
    ScratchDirectory scratch;
    JournalOptions options = small_options(6);
    options.whole_at_creation = true;
    auto journal = new_journal(scratch.disk(), options);
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(scratch.path()))
      files += entry.file_size() == options.segment_size;
    CHECK(files == 6);
    Appender appender{*journal};
    while (journal->written_lsn() < 5 * options.segment_size) REQUIRE(appender.append());
  }
}

}  // namespace
}  // namespace vmfs
