#include <atomic>
#include <thread>

#include "tests/unit/journal_support.h"

namespace vmfs {
namespace {

using namespace journal_test;

std::unique_ptr<Journal> open_or_new(ScratchDirectory& scratch, const JournalOptions& options,
                                     Lsn start, int round) {
  return round == 0 ? new_journal(scratch.disk(), options)
                    : open_journal(scratch.disk(), options, start, round % 2 == 0);
}

std::size_t files_in(ScratchDirectory& scratch) {
  auto entries = std::filesystem::directory_iterator(scratch.path());
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

std::size_t segments_in(ScratchDirectory& scratch) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path()))
    count += parse_segment_name(entry.path().filename().string()).has_value();
  return count;
}

void prepare_all(Journal& journal) {
  for (auto more = journal.prepare_segments();; more = journal.prepare_segments()) {
    REQUIRE(more);
    if (!*more) return;
  }
}

TEST_SUITE("journal") {
  TEST_CASE("what was appended is there after opening again, with its content") {
    ScratchDirectory scratch;
    JournalOptions options = small_options();
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      for (int i = 0; i < 100; ++i) REQUIRE(appender.append());
      CHECK(journal->written_lsn() == journal->reserved_lsn());
      CHECK(journal->durable_lsn() < journal->written_lsn());
      REQUIRE(journal->sync_through(journal->written_lsn()));
      CHECK(journal->durable_lsn() == journal->written_lsn());
      CHECK(journal->durable_lsn() % kBlock == 0);
    }
    for (bool quick : {false, true}) {
      auto journal = open_journal(scratch.disk(), options, 0, quick);
      check_sequence(*journal, replayed(*journal), 1, 100);
    }
  }

  TEST_CASE("a segment is sealed and the log goes on in the next") {
    ScratchDirectory scratch;
    JournalOptions options = small_options(8);
    std::uint64_t count = 0;
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      while (journal->written_lsn() < 5 * options.segment_size) {
        REQUIRE(appender.append());
        ++count;
        if (count % 50 == 0) REQUIRE(journal->sync_through(journal->written_lsn()));
      }
    }
    for (bool quick : {true, false}) {
      auto journal = open_journal(scratch.disk(), options, 0, quick);
      check_sequence(*journal, replayed(*journal), 1, count);
    }
  }

  TEST_CASE("many threads: every record once, in its group's order, in the log's order") {
    constexpr int kThreads = 8;
    constexpr int kEach = 300;
    ScratchDirectory scratch;
    JournalOptions options = small_options(64);
    {
      auto journal = new_journal(scratch.disk(), options);
      std::atomic<int> failures{0};
      std::vector<std::thread> threads;
      for (int t = 0; t < kThreads; ++t)
        threads.emplace_back([&, t] {
          Appender appender{*journal};
          appender.group = GroupId{ObjectId(100 + static_cast<unsigned>(t))};
          for (int i = 0; i < kEach; ++i) {
            auto reservation = appender.append();
            if (!reservation || journal->written_lsn() < reservation->end) ++failures;
            if (i % 40 == t && !journal->sync_through(reservation->end)) ++failures;
          }
        });
      for (auto& thread : threads) thread.join();
      CHECK(failures == 0);
      CHECK(journal->written_lsn() == journal->reserved_lsn());
      RecordReader reader(*journal, 0);
      std::vector<std::uint64_t> last(200);
      int records = 0;
      for (;;) {
        auto record = reader.next(journal->written_lsn());
        if (!record) FAIL(record.error().message);
        if (!*record) break;
        const RecordHeader& header = (*record)->header;
        REQUIRE(header.seq == last[header.group] + 1);
        last[header.group] = header.seq;
        REQUIRE(Bytes((*record)->payload.begin(), (*record)->payload.end()) ==
                content(header.seq, header.payload_size));
        ++records;
      }
      CHECK(records == kThreads * kEach);
    }
    auto journal = open_journal(scratch.disk(), options);
    CHECK(replayed(*journal).size() == kThreads * kEach);
  }

  TEST_CASE("a full journal says so, keeps its last segment for urgent records, and goes on") {
    ScratchDirectory scratch;
    JournalOptions options = small_options(4);
    auto journal = new_journal(scratch.disk(), options);
    int called = 0;
    journal->on_space([&] { ++called; });
    Appender appender{*journal};
    Result<Journal::Reservation> last;
    do last = appender.append();
    while (last);
    CHECK(last.error().kind == ErrorKind::kWouldWait);
    std::uint64_t before = appender.cursor.seq;
    Draft flush;
    flush.header.type = RecordType::kFlush;
    for (int i = 0; i < 1000; ++i) REQUIRE(journal->append(flush, &appender.cursor));
    CHECK(appender.cursor.seq == before + 1000);
    // Even full to the brim, it can be synced and so be emptied.
    for (;;) {
      auto appended = journal->append(flush, &appender.cursor);
      if (appended) continue;
      CHECK(appended.error().kind == ErrorKind::kWouldWait);
      break;
    }
    REQUIRE(journal->sync_through(journal->reserved_lsn()));
    REQUIRE(journal->release_through(journal->durable_lsn()));
    CHECK(called > 0);
    CHECK(appender.append());
  }

  TEST_CASE("segments are recycled over many wraps, and old records never show") {
    ScratchDirectory scratch;
    JournalOptions options = small_options(4);
    Lsn replay_from = 0;
    std::uint64_t first = 1, next = 1;
    for (int round = 0; round < 12; ++round) {
      auto journal = open_or_new(scratch, options, replay_from, round);
      check_sequence(*journal, replayed(*journal), first, next - first);
      Appender appender{*journal};
      appender.cursor.seq = next - 1;
      Lsn until = journal->written_lsn() + 2 * options.segment_size;
      while (journal->written_lsn() < until) {
        if (!appender.append()) {
          REQUIRE(journal->sync_through(journal->reserved_lsn()));
          REQUIRE(journal->release_through(journal->durable_lsn()));
          replay_from = journal->durable_lsn();
          first = appender.cursor.seq + 1;
        }
      }
      next = appender.cursor.seq + 1;
      CHECK(files_in(scratch) <= 4);
    }
  }

  TEST_CASE("a burst of half the journal finds its segments ready, once their files are there") {
    ScratchDirectory scratch;
    JournalOptions options = small_options(16);
    auto journal = new_journal(scratch.disk(), options);
    Appender appender{*journal};
    prepare_all(*journal);
    CHECK(segments_in(scratch) == 1 + 4);  // files that are to be made are not made long ahead

    while (appender.append()) {
    }
    REQUIRE(journal->sync_through(journal->reserved_lsn()));
    REQUIRE(journal->release_through(journal->durable_lsn()));
    prepare_all(*journal);
    CHECK(segments_in(scratch) == 1 + 8);
    const Lsn until = Geometry{options.segment_size}.start(journal->reserved_lsn() / options.segment_size + 9) - 64 * 1024;
    while (journal->reserved_lsn() < until) REQUIRE(appender.append());
    CHECK(segments_in(scratch) == 1 + 8);
  }

  TEST_CASE("appending, reading, preparing and recycling at once") {
    ScratchDirectory scratch;
    JournalOptions options = small_options(6);
    auto journal = new_journal(scratch.disk(), options);
    std::atomic<bool> stop{false};
    std::atomic<int> failures{0}, read{0}, recycled{0};
    std::vector<std::thread> threads;
    std::vector<std::atomic<Lsn>> latest(3);
    for (unsigned t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        Appender appender{*journal};
        appender.group = GroupId{ObjectId(100 + t)};
        while (!stop) {
          auto reservation = appender.append();
          if (reservation)
            latest[t] = reservation->lsn;
          else if (reservation.error().kind != ErrorKind::kWouldWait)
            ++failures;
          else
            std::this_thread::yield();
        }
      });
    // Whatever is still alive after it was read is what was written there.
    threads.emplace_back([&] {
      for (unsigned n = 0; !stop; ++n) {
        Lsn lsn = latest[n % 3];
        if (lsn == 0) continue;
        std::this_thread::yield();
        RecordHeader header;
        auto alive = journal->read_payload(
            lsn, {reinterpret_cast<std::byte*>(&header), sizeof header});
        if (!alive) ++failures;
        if (!alive || !*alive) continue;
        if (header.lsn != lsn || header.magic != kRecordMagic) ++failures;
        Bytes bytes(header.payload_size);
        alive = journal->read_payload(lsn + sizeof header, bytes);
        if (!alive) ++failures;
        if (!alive || !*alive) continue;
        if (bytes != content(header.seq, bytes.size())) ++failures;
        ++read;
      }
    });
    threads.emplace_back([&] {
      auto from = std::make_unique<RecordReader>(*journal, 0);
      while (!stop) {
        auto record = from->next(journal->written_lsn());
        if (record) continue;
        if (record.error().kind != ErrorKind::kNotFound) ++failures;
        ++recycled;
        from = std::make_unique<RecordReader>(*journal, 0);
      }
    });
    threads.emplace_back([&] {
      while (!stop) {
        if (!journal->prepare_segments()) ++failures;
        std::this_thread::yield();
      }
    });
    const Lsn end = journal->written_lsn() + 60 * options.segment_size;
    while (journal->written_lsn() < end && failures == 0) {
      if (!journal->sync_through(journal->reserved_lsn())) ++failures;
      if (!journal->release_through(journal->durable_lsn())) ++failures;
    }
    stop = true;
    for (auto& thread : threads) thread.join();
    CHECK(failures == 0);
    CHECK(read > 0);
  }
}

}  // namespace
}  // namespace vmfs
