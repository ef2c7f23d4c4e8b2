// Several writers on one journal, step by step, so that their reservations interleave in every way;
// with process deaths, power losses and failing calls at any moment.
#include <algorithm>
#include <deque>
#include <map>
#include <memory>

#include "fs/base/ids.h"
#include "fs/journal/journal.h"
#include "fs/journal/record_reader.h"
#include "tests/sim/lib/scenario.h"
#include "tests/sim/lib/seeded_ids.h"
#include "tests/sim/lib/sim_clock.h"
#include "tests/sim/lib/sim_disk.h"
#include "tests/sim/scenario_list.h"

namespace vmfs::sim {
namespace {

constexpr std::uint64_t kGroups = 3;

struct Record {
  std::uint64_t id = 0;  // its payload follows from it
  Draft draft;
  Bytes payload;
  Journal::Reservation place;
  bool filled = false;
  bool acknowledged = false;
};

Bytes payload_of(std::uint64_t id, std::size_t size) {
  Random random(id);
  Bytes bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random.next());
  return bytes;
}

class JournalWorld {
 public:
  // failed_syncs: each life has a sync that fails, and ends by a power loss.
  JournalWorld(std::uint64_t seed, bool failed_syncs)
      : failed_syncs_(failed_syncs),
        ids_(seed),
        random_(seed),
        disk_({.name = "journal"}, random_.next(), &clock_) {
    options_.volume = new_volume_id();
    options_.node = new_node_id();
    options_.segment_size = 1u << 20;
    options_.size_max = random_.between(4, 6) << 20;
    if (verbose)
      disk_.set_hook([](const DiskCall& call) -> std::optional<int> {
        if (changes_disk(call.operation))
          say("    {} {} {}", to_string(call.operation), call.path, call.label);
        return std::nullopt;
      });
    require(Journal::create(disk_, options_), "create");
    for (std::uint64_t group = 0; group < kGroups; ++group) cursors_[group].epoch = new_epoch_id();
    large_percent_ = random_.one_in(4) ? 30 : 3;
  }

  void run() {
    const std::uint64_t lives = random_.between(2, 6);
    open();
    for (std::uint64_t life = 0; life < lives; ++life) {
      plan_faults();
      const std::uint64_t steps = random_.between(5, 200);
      for (std::uint64_t i = 0; i < steps && !disk_.stopped() && !journal_->state().dead; ++i)
        step();
      crash();
      open();
    }
  }

 private:
  static void require(const Result<>& result, const char* what) {
    if (!result) fail_scenario("{}: {}", what, result.error().message);
  }

  void plan_faults() {
    failures_before_ = disk_.failures();
    if (failed_syncs_) {
      disk_.fail_calls("journal.sync", {}, random_.between(1, 3), EIO, false);
      return;
    }
    if (random_.percent(60)) disk_.stop_at_change(random_.between(1, 60));
    if (random_.percent(25))
      disk_.fail_calls("journal.sync", {}, random_.between(1, 8), EIO, random_.one_in(4));
    if (random_.percent(15))
      disk_.fail_calls("journal.append", Operation::kWrite, random_.between(1, 30),
                       random_.one_in(2) ? EIO : ENOSPC, false);
    if (random_.percent(10))
      disk_.fail_calls("journal.heal", {}, random_.between(1, 6), EIO, random_.one_in(2));
  }

  void step() {
    clock_.advance(static_cast<std::int64_t>(random_.below(1'000'000)));
    switch (random_.below(10)) {
      case 0:
      case 1:
      case 2:
        if (std::size_t open = unfilled(); open < 6) reserve();
        break;
      case 3:
      case 4:
      case 5:
        fill_one();
        break;
      case 6:
      case 7:
      case 8:
        poll_one();
        break;
      case 9:
        if (failed_syncs_ || random_.one_in(3)) sync();
        break;
    }
  }

  std::size_t unfilled() const {
    return static_cast<std::size_t>(
        std::count_if(records_.begin(), records_.end(), [](const Record& r) { return !r.filled; }));
  }

  void reserve() {
    Record& record = records_.emplace_back();
    record.id = next_id_++;
    const std::uint64_t most = random_.percent(large_percent_) ? journal_->payload_max() : 9000;
    record.payload = payload_of(record.id, random_.below(most));
    RecordHeader& header = record.draft.header;
    header.type = random_.one_in(5) ? RecordType::kFlush : RecordType::kWrite;
    header.group = 1 + random_.below(kGroups);
    header.offset = record.id * 1000;
    header.extent = record.payload.size();
    header.wall_ns = clock_.wall_ns();
    record.draft.payload = record.payload;
    SequenceCursor before = cursors_[header.group - 1];
    auto place = journal_->reserve(record.draft, &cursors_[header.group - 1]);
    if (!place) {
      SIM_CHECK(
          place.error().kind == ErrorKind::kWouldWait || disk_.stopped() || journal_->state().dead,
          "reserve: {}", place.error().message);
      SIM_CHECK(cursors_[header.group - 1].seq == before.seq, "a refused record took a number");
      records_.pop_back();
      if (unfilled() == 0) make_room();
      return;
    }
    record.place = *place;
    say("reserve #{} group {} seq {} lsn {} size {}", record.id, header.group, header.seq,
        place->lsn, record.payload.size());
    if (records_.size() > 1)
      SIM_CHECK(record.place.lsn >= records_[records_.size() - 2].place.end, "places overlap");
  }

  void make_room() {
    sync();
    if (disk_.stopped()) return;
    // The store has all that is durable: what a checkpoint says.
    const Lsn through = journal_->durable_lsn();
    start_ = std::max(start_, through);
    if (journal_->release_through(start_)) say("release through {}", start_);
    (void)journal_->prepare_segments();
    std::erase_if(records_, [&](const Record& r) { return r.place.end <= start_; });
  }

  void fill_one() {
    std::vector<Record*> open;
    for (Record& record : records_)
      if (!record.filled) open.push_back(&record);
    if (open.empty()) return;
    Record& record = *open[random_.below(open.size())];
    journal_->fill(record.draft, record.place);
    record.filled = true;
    say("fill #{}", record.id);
  }

  void poll_one() {
    std::vector<Record*> waiting;
    for (Record& record : records_)
      if (record.filled && !record.acknowledged) waiting.push_back(&record);
    if (waiting.empty()) return;
    Record& record = *waiting[random_.below(waiting.size())];
    auto written = journal_->poll_written(record.place);
    if (!written || !*written || disk_.stopped()) return;
    record.acknowledged = true;
    say("acknowledge #{}", record.id);
  }

  void sync() {
    if (unfilled() > 0) return;  // it would wait for them, and nobody else runs here
    const Lsn to = journal_->reserved_lsn();
    auto synced = journal_->sync_through(to);
    if (disk_.stopped()) return;
    say("sync through {}: {}", to, synced ? "ok" : synced.error().message);
    if (!synced) {
      SIM_CHECK(disk_.failures() > failures_before_, "sync failed: {}", synced.error().message);
      return;
    }
    durable_ = std::max(durable_, to);
    failures_before_ = disk_.failures();
  }

  void crash() {
    const bool power = failed_syncs_ || random_.one_in(2);
    say("{}", power ? "power loss" : "process death");
    const bool unhealed = disk_.failures() > failures_before_;
    disk_.stop();
    journal_.reset();
    disk_.heal();
    if (power)
      disk_.lose_power();
    else
      disk_.restart();
    if (power) power_lost_ = true;
    // After a failed sync that was not healed, the cache may have lost what no sync has confirmed.
    must_have_acknowledged_ = must_have_acknowledged_ && !power && !unhealed;
  }

  void open() {
    for (int attempt = 0;; ++attempt) {
      if (attempt < 3 && random_.percent(30)) disk_.stop_at_change(random_.between(1, 20));
      auto opened = Journal::open(disk_, clock_, options_,
                                  {.start = start_,
                                   .quick = !power_lost_ && random_.one_in(2)});
      if (opened && !disk_.stopped()) {
        journal_ = std::move(*opened);
        if (disk_.stopped()) continue;
        break;
      }
      if (!disk_.stopped()) fail_scenario("open: {}", opened.error().message);
      if (opened) opened->reset();
      say("died while recovering");
      crash_while_recovering();
    }
    disk_.stop_at_change(0);
    check_recovered();
    power_lost_ = false;
    must_have_acknowledged_ = true;
    failures_before_ = disk_.failures();
  }

  void crash_while_recovering() {
    if (random_.one_in(2)) {
      disk_.lose_power();
      power_lost_ = true;
      must_have_acknowledged_ = false;
    } else {
      disk_.restart();
    }
  }

  // What is there is a beginning of what was reserved, whole, and long enough.
  void check_recovered() {
    std::size_t found = 0;
    require(journal_->replay([&](Lsn lsn, const SealEntry& entry) -> Result<> {
      while (found < records_.size() && records_[found].place.end <= start_) ++found;
      SIM_CHECK(found < records_.size(), "a record at {} that was never reserved", lsn);
      const Record& record = records_[found++];
      SIM_CHECK(record.place.lsn == lsn, "expected #{} at {}, found a record at {}", record.id,
                record.place.lsn, lsn);
      SIM_CHECK(entry.seq == record.draft.header.seq && entry.group == record.draft.header.group &&
                    entry.type == record.draft.header.type &&
                    entry.payload_size == record.payload.size(),
                "#{} came back as another record", record.id);
      Bytes payload(record.payload.size());
      auto read = journal_->read_payload(lsn + sizeof(RecordHeader), payload);
      SIM_CHECK(read && *read, "#{}: payload cannot be read", record.id);
      SIM_CHECK(payload == record.payload, "#{}: the payload is another", record.id);
      return {};
    }),
            "replay");
    for (std::size_t i = found; i < records_.size(); ++i) {
      const Record& lost = records_[i];
      SIM_CHECK(lost.place.end > durable_, "#{} was durable and is lost", lost.id);
      SIM_CHECK(!must_have_acknowledged_ || !lost.acknowledged,
                "#{} was acknowledged and is lost by the death of the process", lost.id);
    }
    say("recovered {} of {} records", found, records_.size());
    records_.resize(found);
    for (auto& [group, cursor] : cursors_) cursor.seq = first_seq_[group];
    for (Record& record : records_) {
      record.filled = record.acknowledged = true;
      cursors_[record.draft.header.group - 1].seq = record.draft.header.seq;
    }
    // replay() yields only what is durable.
    durable_ = journal_->durable_lsn();
    check_reader(found);
    // Numbers below are taken, even if their records have been released since.
    for (auto& [group, cursor] : cursors_) first_seq_[group] = cursor.seq;
  }

  void check_reader(std::size_t found) {
    RecordReader reader(*journal_, start_);
    std::size_t at = 0;
    while (at < found && records_[at].place.end <= start_) ++at;
    for (;;) {
      auto next = reader.next(journal_->written_lsn());
      SIM_CHECK(next.has_value(), "reading: {}", next.error().message);
      if (!*next) break;
      SIM_CHECK(at < found && (*next)->header.lsn == records_[at].place.lsn,
                "the reader sees another record at {}", (*next)->header.lsn);
      SIM_CHECK(std::equal((*next)->payload.begin(), (*next)->payload.end(),
                           records_[at].payload.begin(), records_[at].payload.end()),
                "the reader sees another payload of #{}", records_[at].id);
      ++at;
    }
    SIM_CHECK(at == found, "the reader sees {} of {} records", at, found);
  }

  const bool failed_syncs_;
  SeededIds ids_;
  Random random_;
  SimClock clock_;
  SimDisk disk_;
  JournalOptions options_;
  std::unique_ptr<Journal> journal_;
  std::map<std::uint64_t, SequenceCursor> cursors_;
  std::map<std::uint64_t, std::uint64_t> first_seq_;
  std::deque<Record> records_;  // by place; payloads must not move
  std::uint64_t next_id_ = 1;
  std::uint64_t large_percent_ = 0;
  Lsn start_ = 0, durable_ = 0;
  std::uint64_t failures_before_ = 0;
  bool power_lost_ = false;
  bool must_have_acknowledged_ = true;
};

}  // namespace

void run_journal_scenario(std::uint64_t seed) { JournalWorld(seed, false).run(); }
void run_failed_sync_scenario(std::uint64_t seed) { JournalWorld(seed, true).run(); }

}  // namespace vmfs::sim
