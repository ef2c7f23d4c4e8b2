// One node: a client on a volume on a simulated disk, and everything that can go wrong below it.
#include <memory>

#include "tests/sim/lib/invariants.h"
#include "tests/sim/lib/scenario.h"
#include "tests/sim/lib/seeded_ids.h"
#include "tests/sim/lib/sim_clock.h"
#include "tests/sim/lib/sim_disk.h"
#include "tests/sim/lib/volume_client.h"
#include "tests/sim/scenario_list.h"

namespace vmfs::sim {
namespace {

enum class Trouble { kCrashes, kFailingCalls, kFullDisk, kNames };

class VolumeWorld {
 public:
  VolumeWorld(std::uint64_t seed, Trouble trouble)
      : ids_(seed),
        random_(seed),
        trouble_(trouble),
        disk_({.name = "store",
               .capacity =
                   trouble == Trouble::kFullDisk ? (random_.between(8, 14) << 20) : 1ull << 40,
               .clones = random_.one_in(2),
               .metadata_order =
                   random_.one_in(2) ? MetadataOrder::kGlobal : MetadataOrder::kPerDirectory},
              random_.next(), &clock_),
        client_(random_.fork(), limits(trouble)) {
    options_.journal.volume = new_volume_id();
    options_.journal.node = new_node_id();
    options_.journal.segment_size = 1u << 20;
    options_.journal.size_max = random_.between(4, 8) << 20;
    if (random_.one_in(4)) options_.memory_max = random_.between(1, 16) << 10;
    disk_.set_hook([this](const DiskCall& call) -> std::optional<int> {
      watch(call);
      return std::nullopt;
    });
    if (!disk_.make_directory("journal", "sim")) fail_scenario("the journal's directory");
    journal_disk_ = disk_.subdirectory("journal");
    if (auto made = Volume::create(disk_, *journal_disk_, clock_, options_); !made)
      fail_scenario("create: {}", made.error().message);
  }

  void run() {
    open();
    const std::uint64_t lives = random_.between(2, 6);
    for (std::uint64_t life = 0; life < lives; ++life) {
      plan_faults();
      const std::uint64_t steps = random_.between(10, 150);
      bool alive = true;
      for (std::uint64_t i = 0; i < steps && alive; ++i) alive = step();
      if (alive && random_.one_in(4))
        close();
      else
        crash();
      open();
    }
    close();
  }

 private:
  static ClientLimits limits(Trouble trouble) {
    ClientLimits limits;
    if (trouble == Trouble::kNames) {
      limits.names_percent = 80;
      limits.objects_max = 8;
      limits.cells_max = 64;
      limits.write_cells_max = 16;
    }
    if (trouble == Trouble::kFullDisk) limits.cells_max = 8192;
    return limits;
  }

  void plan_faults() {
    failures_before_ = disk_.failures();
    may_lose_acknowledged_ = false;
    if (random_.percent(60)) disk_.stop_at_change(random_.between(1, 250));
    if (trouble_ != Trouble::kFailingCalls) return;
    const bool always = random_.one_in(4);
    switch (random_.below(4)) {
      case 0:
        disk_.fail_calls("journal.sync", {}, random_.between(1, 10), EIO, always);
        journal_faults_ = true;
        break;
      case 1:
        disk_.fail_calls("journal.append", Operation::kWrite, random_.between(1, 60),
                         random_.one_in(2) ? EIO : ENOSPC, always);
        journal_faults_ = true;
        break;
      case 2:
        disk_.fail_calls("store.apply", {}, random_.between(1, 20),
                         random_.one_in(2) ? EIO : ENOSPC, always);
        break;
      case 3:
        disk_.fail_calls(random_.one_in(2) ? "store.checkpoint" : "state.write", {},
                         random_.between(1, 4), EIO, always);
        break;
    }
  }

  // Between two writes to the store: what the first has brought there must be durable in the
  // journal. The call comes from within the volume, so what is wrong is told later.
  void watch(const DiskCall& call) {
    if (!invariants_ || call.operation != Operation::kWrite || !wrong_.empty() ||
        std::string_view(call.label) != "store.apply" || !random_.one_in(4))
      return;
    try {
      invariants_->check_store(disk_, client_.history().now(), client_.change_ends());
    } catch (const SimFailure& failure) {
      wrong_ = failure.what;
    }
  }

  // Whether the node is in trouble that explains an error.
  bool troubled() const {
    return disk_.stopped() || disk_.failures() > failures_before_ ||
           trouble_ == Trouble::kFullDisk || volume_->journal().state().dead;
  }

  // False: the node is to be restarted.
  bool step() {
    clock_.advance(static_cast<std::int64_t>(random_.below(100'000'000)));
    const std::uint64_t what = random_.below(20);
    if (what < 12) {
      auto outcome = client_.change([&] { return disk_.stopped(); });
      if (outcome == VolumeClient::Outcome::kUnknown) {
        SIM_CHECK(troubled(), "a change failed without a reason");
        return false;
      }
      if (outcome == VolumeClient::Outcome::kRefused) background();
    } else if (what < 14) {
      client_.check_some_read();
    } else if (what < 16) {
      flush();
    } else {
      background();
    }
    if (!wrong_.empty()) throw SimFailure{wrong_};
    if (disk_.stopped()) return false;
    invariants_->check_new_records();
    invariants_->check_journal();
    return !disk_.stopped();
  }

  void flush() {
    const std::optional<GroupId> done = client_.flush();
    if (disk_.stopped()) return;
    say("flush: {}", done ? fmt::format("{}", *done) : "failed");
    if (done) {
      client_.flushed(*done);
      failures_before_ = std::max(failures_before_, journal_faults_ ? disk_.failures() : 0);
    } else {
      SIM_CHECK(troubled(), "a flush failed without a reason");
    }
  }

  void background() {
    auto explained = [&](bool done, const char* what, const std::string& message) {
      SIM_CHECK(done || troubled(), "{} failed without a reason: {}", what, message);
    };
    auto message = [](const auto& result) {
      return result ? std::string() : result.error().message;
    };
    switch (random_.below(5)) {
      case 0: {
        auto due = volume_->sync_if_due();
        explained(due.has_value(), "sync", message(due));
        break;
      }
      case 1: {
        auto prepared = volume_->journal().prepare_segments();
        explained(prepared.has_value(), "prepare", message(prepared));
        break;
      }
      case 2: {
        auto done = volume_->checkpoint();
        explained(done.has_value(), "checkpoint", message(done));
        break;
      }
      default:
        for (std::uint64_t rounds = random_.between(1, 8); rounds > 0; --rounds) {
          auto more = volume_->apply_some(random_.one_in(2));
          explained(more.has_value(), "apply", message(more));
          if (!more || !*more || disk_.stopped()) break;
        }
        break;
    }
    while (volume_->run_parked()) {
    }
    if (!disk_.stopped() && random_.one_in(4)) {
      invariants_->check_store(disk_, client_.history().now(), client_.change_ends());
      invariants_->check_histories();
    }
  }

  void crash() {
    power_lost_ = random_.one_in(2);
    // A failed journal write or sync that was not healed may have taken what no flush has
    // confirmed.
    if (journal_faults_ && disk_.failures() > failures_before_) may_lose_acknowledged_ = true;
    say("{}", power_lost_ ? "power loss" : "process death");
    disk_.stop();
    take_down();
    if (power_lost_)
      disk_.lose_power();
    else
      disk_.restart();
  }

  void take_down() {
    invariants_.reset();
    client_.attach(nullptr);
    volume_.reset();
    disk_.heal();
    journal_faults_ = false;
  }

  void close() {
    disk_.heal();
    disk_.stop_at_change(0);
    if (trouble_ == Trouble::kFullDisk) disk_.set_capacity(1ull << 40);
    client_.close_all();
    auto closed = volume_->close();
    SIM_CHECK(closed.has_value() || volume_->journal().state().dead, "close: {}",
              closed ? "" : closed.error().message);
    say("clean unmount: {}", closed.has_value());
    if (closed) {
      check_plain_files(disk_, client_.history().now());
      client_.all_flushed();
    } else {
      may_lose_acknowledged_ = true;
    }
    take_down();
    power_lost_ = random_.one_in(2);
    if (power_lost_)
      disk_.lose_power();
    else
      disk_.restart();
    if (trouble_ == Trouble::kFullDisk)
      disk_.set_capacity(disk_.used() + (random_.between(2, 6) << 20));
  }

  void open() {
    bool lost_power = power_lost_;
    for (int attempt = 0;; ++attempt) {
      disk_.stop_at_change(attempt < 3 && random_.percent(30) ? random_.between(1, 40) : 0);
      auto opened = Volume::open(disk_, *journal_disk_, clock_, options_, {});
      if (opened && !disk_.stopped()) {
        volume_ = std::move(*opened);
        break;
      }
      SIM_CHECK(disk_.stopped() || trouble_ == Trouble::kFullDisk, "open: {}",
                opened ? "" : opened.error().message);
      if (!disk_.stopped()) {  // the disk is full: a person makes room
        disk_.set_capacity(disk_.used() + (4u << 20));
        continue;
      }
      say("died while opening");
      if (opened) opened->reset();
      if (random_.one_in(2)) {
        lost_power = true;
        disk_.lose_power();
      } else {
        disk_.restart();
      }
    }
    disk_.stop_at_change(0);
    client_.attach(volume_.get());
    const std::string wrong = client_.settle(!lost_power && !may_lose_acknowledged_);
    SIM_CHECK(wrong.empty(), "after {}: {}", lost_power ? "a power loss" : "a process death",
              wrong);
    power_lost_ = false;
    invariants_ = std::make_unique<VolumeInvariants>(*volume_, names_);
    invariants_->check_new_records();
    invariants_->check_histories();
    invariants_->check_store(disk_, client_.history().now(), client_.change_ends());
  }

  SeededIds ids_;
  Random random_;
  const Trouble trouble_;
  SimClock clock_;
  SimDisk disk_;
  std::unique_ptr<Disk> journal_disk_;
  VolumeOptions options_;
  VolumeClient client_;
  RecordNames names_;
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<VolumeInvariants> invariants_;  // of this life of the volume
  std::uint64_t failures_before_ = 0;
  bool journal_faults_ = false;
  bool may_lose_acknowledged_ = false;
  bool power_lost_ = false;
  std::string wrong_;
};

}  // namespace

void run_volume_scenario(std::uint64_t seed) { VolumeWorld(seed, Trouble::kCrashes).run(); }
void run_names_scenario(std::uint64_t seed) { VolumeWorld(seed, Trouble::kNames).run(); }
void run_failing_scenario(std::uint64_t seed) { VolumeWorld(seed, Trouble::kFailingCalls).run(); }
void run_full_scenario(std::uint64_t seed) { VolumeWorld(seed, Trouble::kFullDisk).run(); }

}  // namespace vmfs::sim
