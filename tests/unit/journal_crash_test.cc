// The journal over the simulated disk: failed syncs, failed writes, the process's death, power loss.
#include <cerrno>
#include <map>

#include "fs/base/mistakes.h"
#include "tests/sim/lib/sim_disk.h"
#include "tests/unit/journal_support.h"

namespace vmfs {
namespace {

using namespace journal_test;

TEST_SUITE("journal crash") {
  TEST_CASE("a failed sync is healed: durable only once the tail is on disk again") {
    sim::SimDisk disk({}, 1);
    JournalOptions options = small_options();
    auto journal = new_journal(disk, options);
    Appender appender{*journal};
    for (int i = 0; i < 10; ++i) REQUIRE(appender.append());
    REQUIRE(journal->sync_through(journal->reserved_lsn()));
    for (int i = 0; i < 10; ++i) REQUIRE(appender.append());
    disk.fail_calls("journal.sync", {}, 1, EIO, false);
    REQUIRE(journal->sync_through(journal->reserved_lsn()));
    CHECK(!journal->state().failed);
    CHECK(!disk.stat(kSyncFailedMarker, "test"));
    for (int i = 0; i < 10; ++i) REQUIRE(appender.append());
    RecordReader reader(*journal, 0);
    for (int i = 1; i <= 30; ++i) {
      auto record = reader.next(journal->written_lsn());
      if (!record) FAIL(record.error().message);
      REQUIRE(*record);
      CHECK((*record)->header.seq == static_cast<std::uint64_t>(i));
    }
    journal.reset();
    disk.lose_power();
    journal = open_journal(disk, options);
    auto seen = replayed(*journal);
    CHECK(seen.size() >= 20);
    check_sequence(*journal, seen, 1, seen.size());
  }

  TEST_CASE("while healing fails, nothing is acknowledged; a later sync heals") {
    sim::SimDisk disk({}, 2);
    JournalOptions options = small_options();
    auto journal = new_journal(disk, options);
    int space = 0;
    journal->on_space([&] { ++space; });
    Appender appender{*journal};
    for (int i = 0; i < 10; ++i) REQUIRE(appender.append());
    disk.fail_calls("journal.sync", {}, 1, EIO, true);
    disk.fail_calls("journal.heal", {}, 1, ENOSPC, true);
    const Lsn before = journal->durable_lsn();
    CHECK(!journal->sync_through(journal->reserved_lsn()));
    CHECK(!journal->sync_through(journal->reserved_lsn()));
    CHECK(journal->durable_lsn() == before);
    CHECK(journal->state().failed);
    CHECK(!journal->state().dead);
    CHECK(!journal->state().message.empty());
    CHECK(disk.stat(kSyncFailedMarker, "test"));
    CHECK(appender.append().error().kind == ErrorKind::kWouldWait);
    disk.heal();
    REQUIRE(journal->sync_through(journal->reserved_lsn()));
    CHECK(space == 1);
    CHECK(!journal->state().failed);
    CHECK(appender.append());
    journal.reset();
    disk.lose_power();
    journal = open_journal(disk, options);
    CHECK(replayed(*journal).size() >= 10);
  }

  TEST_CASE("a failed sync that nothing could note, and a death: what reads back is not taken to be on disk") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      sim::SimDisk disk({}, seed);
      JournalOptions options = small_options();
      auto journal = new_journal(disk, options);
      Appender appender{*journal};
      for (int i = 0; i < 100; ++i) REQUIRE(appender.append());
      for (const char* call : {"journal.sync", "journal.heal", "journal.marker"})
        disk.fail_calls(call, {}, 1, EIO, true);
      REQUIRE(!journal->sync_through(journal->reserved_lsn()));
      CHECK(!disk.stat(kSyncFailedMarker, "test"));
      journal.reset();
      disk.heal();
      journal = open_journal(disk, options);
      check_sequence(*journal, replayed(*journal), 1, 100);
      journal.reset();
      disk.lose_power();
      journal = open_journal(disk, options);
      check_sequence(*journal, replayed(*journal), 1, 100);
    }
  }

  TEST_CASE("the known mistake of syncing again loses what the healing saves") {
    for (bool mistaken : {false, true}) {
      sim::SimDisk disk({}, 3);
      JournalOptions options = small_options();
      auto journal = new_journal(disk, options);
      Appender appender{*journal};
      for (int i = 0; i < 100; ++i) REQUIRE(appender.append());
      mistakes.retry_failed_sync = mistaken;
      disk.fail_calls("journal.sync", {}, 1, EIO, false);
      REQUIRE(journal->sync_through(journal->reserved_lsn()));
      mistakes.retry_failed_sync = false;
      journal.reset();
      disk.lose_power();
      auto opened = Journal::open(disk, system_clock(), options, {});
      std::size_t count = opened ? replayed(**opened).size() : 0;
      CHECK((count == 100) == !mistaken);
    }
  }

  TEST_CASE("the known mistake of acknowledging early loses an acknowledged record") {
    for (bool mistaken : {false, true}) {
      sim::SimDisk disk({}, 4);
      JournalOptions options = small_options();
      auto journal = new_journal(disk, options);
      SequenceCursor cursor{EpochId{5}, 0};
      Bytes bytes = content(1, 500);
      Draft first = write_draft(GroupId{9}, 1, bytes), second = write_draft(GroupId{9}, 2, bytes);
      auto one = journal->reserve(first, &cursor);
      auto two = journal->reserve(second, &cursor);
      REQUIRE(one);
      REQUIRE(two);
      mistakes.acknowledge_early = mistaken;
      journal->fill(second, *two);
      auto acknowledged = journal->poll_written(*two);
      mistakes.acknowledge_early = false;
      REQUIRE(acknowledged);
      CHECK(*acknowledged == mistaken);
      journal.reset();
      disk.restart();
      journal = open_journal(disk, options);
      CHECK(replayed(*journal).empty());
    }
  }

  TEST_CASE("a failed write is healed too; if it cannot be, the journal says that it is dead") {
    sim::SimDisk disk({}, 5);
    JournalOptions options = small_options();
    auto journal = new_journal(disk, options);
    Appender appender{*journal};
    for (int i = 0; i < 10; ++i) REQUIRE(appender.append());
    disk.fail_calls("journal.append", {}, 1, EIO, false);
    REQUIRE(appender.append());
    CHECK(!journal->state().failed);
    disk.fail_calls("journal.append", {}, 1, EIO, true);
    auto refused = appender.append();
    REQUIRE(!refused);
    CHECK(refused.error().kind == ErrorKind::kIo);
    CHECK(journal->state().dead);
    CHECK(!appender.append());
    disk.heal();
    journal.reset();
    disk.restart();
    journal = open_journal(disk, options);
    auto seen = replayed(*journal);
    CHECK(seen.size() >= 11);
    check_sequence(*journal, seen, 1, seen.size());
  }

  TEST_CASE("a full disk: the journal waits, and goes on when there is space") {
    sim::SimDisk disk({.capacity = 3u << 20}, 6);
    JournalOptions options = small_options(6);
    auto journal = new_journal(disk, options);
    Appender appender{*journal};
    Result<Journal::Reservation> last;
    do last = appender.append();
    while (last);
    CHECK(last.error().kind == ErrorKind::kWouldWait);
    CHECK(!journal->state().message.empty());
    CHECK(!journal->state().failed);
    disk.set_capacity(64u << 20);
    CHECK(journal->prepare_segments());
    CHECK(appender.append());
  }

  // What must be there after the n-th crash, by seq: in which life it was appended.
  struct Model {
    std::map<std::uint64_t, std::uint64_t> life_of;
    std::uint64_t reserved = 0, acknowledged = 0, durable = 0;
    Lsn replay_from = 0;
    std::uint64_t replay_first = 1;  // seq of the first record at replay_from
  };

  void check_recovered(Journal& journal, Model& model, std::uint64_t least) {
    auto seen = replayed(journal);
    std::uint64_t last = model.replay_first - 1;
    for (const Seen& one : seen) {
      REQUIRE(one.entry.seq == last + 1);
      last = one.entry.seq;
      // No record of an earlier life in the place of this one.
      REQUIRE(one.entry.epoch == model.life_of[last]);
      Bytes bytes(one.entry.payload_size);
      auto read = journal.read_payload(one.lsn + sizeof(RecordHeader), bytes);
      REQUIRE(read);
      REQUIRE(*read);
      REQUIRE(bytes == content(last * 1000 + one.entry.epoch, bytes.size()));
    }
    REQUIRE(last >= least);
    REQUIRE(last <= model.reserved);
    model.reserved = model.acknowledged = model.durable = last;
  }

  TEST_CASE("from a seed: no acknowledged record is lost by a death, no synced one by power loss" *
            doctest::test_suite("journal crash, one thread")) {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
      CAPTURE(seed);
      sim::Random random(seed);
      sim::SimDisk disk({.metadata_order = seed % 2 ? sim::MetadataOrder::kGlobal
                                                    : sim::MetadataOrder::kPerDirectory},
                        seed);
      JournalOptions options = small_options(5);
      REQUIRE(Journal::create(disk, options));
      Model model;
      bool quick = false;
      for (std::uint64_t life = 1; life <= 12; ++life) {
        CAPTURE(life);
        auto opened = Journal::open(disk, system_clock(), options, {model.replay_from, false, quick});
        if (!opened) FAIL(opened.error().message);
        auto& journal = *opened;
        // Opening made durable what it found.
        check_recovered(*journal, model, model.durable);
        SequenceCursor cursor{EpochId{life}, model.reserved};
        if (random.below(3) == 0) disk.fail_calls("journal.sync", {}, 1 + random.below(6), EIO, false);
        if (random.below(12) == 0) disk.fail_calls("journal.heal", {}, 1 + random.below(9), EIO, true);
        if (random.below(2) == 0) disk.stop_at_change(1 + random.below(400));
        const std::uint64_t steps = random.below(250);
        for (std::uint64_t step = 0; step < steps && !disk.stopped(); ++step) {
          switch (random.below(12)) {
            case 0: {
              std::uint64_t target = model.acknowledged;
              if (journal->sync_through(journal->written_lsn()) && !disk.stopped())
                model.durable = target;
              break;
            }
            case 1:
              if (random.below(6) == 0) (void)journal->prepare_segments();
              break;
            case 2:
              if (random.below(8) != 0 || journal->durable_lsn() != journal->written_lsn()) break;
              if (journal->state().failed || model.durable != model.acknowledged) break;
              model.replay_from = journal->durable_lsn();
              model.replay_first = model.durable + 1;
              (void)journal->release_through(model.replay_from);
              break;
            default: {
              std::uint64_t seq = cursor.seq + 1;
              Bytes bytes = content(seq * 1000 + life, random.below(40'000));
              Draft draft = write_draft(GroupId{4}, seq, bytes);
              model.life_of[seq] = life;
              auto appended = journal->append(draft, &cursor);
              model.reserved = std::max(model.reserved, cursor.seq);
              if (appended && !disk.stopped()) model.acknowledged = seq;
              if (!appended && cursor.seq < seq) model.life_of.erase(seq);
              if (!appended && journal->state().dead) step = steps;
              if (!appended && appended.error().kind == ErrorKind::kWouldWait &&
                  journal->sync_through(journal->reserved_lsn()) && !disk.stopped()) {
                model.durable = model.acknowledged;
                model.replay_from = journal->durable_lsn();
                model.replay_first = model.durable + 1;
                (void)journal->release_through(model.replay_from);
              }
            }
          }
        }
        const bool failed = journal->state().failed;
        journal.reset();
        disk.heal();
        quick = random.below(2) == 0;
        if (quick)
          disk.restart();
        else
          disk.lose_power();
        // A death that comes while healing fails is a double fault: only what was synced is promised.
        std::uint64_t least = quick && !failed ? model.acknowledged : model.durable;
        model.acknowledged = model.durable = least;
      }
    }
  }
}

}  // namespace
}  // namespace vmfs
