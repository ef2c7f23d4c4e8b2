// Checkpoints on a disk whose syncs fail, and what may be said of the store meanwhile.
#include <thread>

#include "tests/unit/volume_fixture.h"

namespace vmfs {
namespace {

using test::VolumeHome;

TEST_SUITE_BEGIN("volume checkpoint");

// The journal cannot be synced and read, respectively, just when what a failed sync took is to be put back.
void check_put_back(const std::function<void(VolumeHome&)>& break_journal) {
  VolumeHome home;
  auto image = home.open_image(home.create("a"));
  home.apply_all();
  const std::string text(100'000, 'a');
  home.write(*image, 0, text);
  REQUIRE(home.flush(*image));
  home.disk.fail_calls("store.checkpoint", sim::Operation::kSync, 1, EIO, false);
  break_journal(home);
  // The volume goes on with its background work, as its workers do.
  bool failed = false;
  for (int i = 0; i < 20; ++i) failed = failed || !home->apply_some(true);
  CHECK(failed);
  home.disk.heal();
  home.apply_all();
  REQUIRE(home->checkpoint());
  home.disk.evict();
  CHECK(home.read(*image, 0, text.size()) == text);
  image.reset();
  home.lose_power_and_open();
  CHECK(home.read(*home.open_path("a"), 0, text.size()) == text);
}

TEST_CASE("what a failed sync of the store took is put back before anything counts as synced") {
  check_put_back([](VolumeHome& home) {
    home.disk.fail_calls("journal.stream", sim::Operation::kRead, 1, EIO, false);
  });
}

TEST_CASE("the same when the journal can be read only after several attempts") {
  check_put_back([](VolumeHome& home) {
    for (int n : {1, 1, 1}) home.disk.fail_calls("journal.stream", sim::Operation::kRead, n, EIO, false);
  });
}

TEST_CASE("a failed sync while a snapshot is kept: everything since the checkpoint is applied again") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto image = home.open_image(id);
  home.apply_all();
  const std::string text(100'000, 'a');
  home.write(*image, 0, text);
  REQUIRE(home.flush(*image));
  home.disk.fail_calls("store.checkpoint", sim::Operation::kSync, 1, EIO, false);
  CHECK(!home->keep_as_snapshot(id, "kept"));
  home.apply_all();
  REQUIRE(home->checkpoint());
  home.disk.evict();
  CHECK(home.read(*image, 0, text.size()) == text);
  image.reset();
  home.lose_power_and_open();
  CHECK(home.read(*home.open_path("a"), 0, text.size()) == text);
}

TEST_CASE("a state that is saved while a checkpoint fails claims nothing of its pass") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    VolumeHome home(seed, NodeId{7}, false, false, sim::MetadataOrder::kPerDirectory);
    ObjectId id = home.create("a");
    home.apply_all();
    REQUIRE(home->make_directory({}, kRootObject, "d", 0755));
    home.create("b", home->resolve("d")->object);
    // The pass ends, the directories cannot be made durable, and a state is saved for another reason.
    home.disk.fail_calls("store.sync_names", sim::Operation::kSyncDirectory, 1, EIO, true);
    bool failed = false;
    for (int i = 0; i < 10 && !failed; ++i) failed = !home->apply_some(true);
    REQUIRE(failed);
    REQUIRE(home->set_split(id, true));
    REQUIRE(home->set_split(id, false));
    home.disk.heal();
    home.lose_power_and_open();
    CHECK(home->resolve("d/b"));
  }
}

TEST_CASE("an image whose file somebody took out of the store waits in the journal, and that is said") {
  VolumeHome home;
  const ObjectId id = home.create("a");
  home.close_and_open();
  REQUIRE(home.disk.rename("images/a", "taken", false, "test"));
  // As a secondary does: nobody has it open.
  REQUIRE(home->set_attributes({}, id, {.set = {}, .size = 1000}));
  const Lsn written = home->journal().written_lsn();
  bool failed = false;
  for (int i = 0; i < 5; ++i) failed = failed || !home->apply_some(true);
  CHECK(failed);
  CHECK(home->stored_lsn() < written);
  REQUIRE(home->problems().size() == 1);
  CHECK(home->problems().front().find("images/a") != std::string::npos);
  REQUIRE(home.disk.rename("taken", "images/a", false, "test"));
  home.apply_all();
  CHECK(home->problems().empty());
  CHECK(home.stored("a") == std::string(1000, '\0'));
}

TEST_CASE("a name that is made while a checkpoint syncs the directories is in the next redo") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    VolumeHome home(seed, NodeId{7}, false, false, sim::MetadataOrder::kPerDirectory);
    const ObjectRef image = home.open_image(home.create("a"));
    home.apply_all();
    // Another name waits to be synced once more; this one is not made yet, and lies below what is applied.
    home.create("b");
    home.disk.fail_calls("store.make", std::nullopt, 1, ENOSPC, true);
    home.disk.fail_calls("store.sync_names", sim::Operation::kSyncDirectory, 1, EIO, false);
    CHECK_FALSE(home->make_directory({}, kRootObject, "d", 0755));
    home.write(*image, 0, "text");
    CHECK_FALSE(home->apply_some(true));
    home.disk.heal();
    std::thread other;
    home.disk.set_hook([&](const sim::DiskCall& call) -> std::optional<int> {
      if (std::string_view(call.label) != "store.sync_names" || other.joinable()) return {};
      other = std::thread([&] { (void)home->make_directory({}, kRootObject, "e", 0755); });
      // It makes both when this sync lets it, or if it comes later, after the checkpoint.
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      return {};
    });
    REQUIRE(home->checkpoint());
    home.disk.set_hook({});
    REQUIRE(other.joinable());
    other.join();
    REQUIRE(home->resolve("d"));
    home.lose_power_and_open();
    CHECK(home->resolve("d"));
  }
}

TEST_CASE("a failed sync of directories whose changes cannot be made again at once") {
  VolumeHome home;
  home.apply_all();
  REQUIRE(home->make_directory({}, kRootObject, "d", 0755));
  home.create("a", home->resolve("d")->object);
  home.disk.fail_calls("store.sync_names", sim::Operation::kSyncDirectory, 1, EIO, false);
  home.disk.fail_calls("journal.stream", sim::Operation::kRead, 1, EIO, false);
  std::uint64_t read_before = home.disk.calls();
  bool failed = false;
  for (int i = 0; i < 20; ++i) failed = failed || !home->apply_some(true);
  CHECK(failed);
  CHECK(home.disk.calls() > read_before);
  // The changes were made once more before a sync of them was believed.
  home.disk.heal();
  home.apply_all();
  REQUIRE(home->checkpoint());
  CHECK(home->problems().empty());
  home.lose_power_and_open();
  CHECK(home->resolve("d/a"));
}

TEST_CASE("what lies below the last checkpoint and is kept for a peer is known to be freed, also after a start") {
  VolumeHome home;
  const ObjectId x = home.create("x"), y = home.create("y");
  const Position before = home->durable_position(x);
  home.write(*home.open_image(x), 0, "what the peer lacks");
  REQUIRE(home.flush(*home.open_image(x)));
  home->set_peer({.id = NodeId{8}, .name = "b", .confirmed = 0});
  home.close_and_open();
  auto touched = home->touched_since(x, before);
  REQUIRE((touched && touched->ranges && touched->changed));
  const Position all = home->durable_position(x);
  CHECK(home->group(x)->recycled.seq < all.seq);
  auto image = home.open_image(y);
  for (int i = 0; i < 60; ++i) {
    home.write(*image, 0, std::string(400'000, 'y'));
    home.apply_all();
  }
  CHECK(home->group(x)->recycled == all);
  touched = home->touched_since(x, before);
  REQUIRE(touched);
  CHECK_FALSE(touched->ranges);
  CHECK(touched->changed);
}

TEST_CASE("what gathered in the journal is freed bit by bit, also after a death") {
  VolumeHome home;
  ObjectId id = home.create("a");
  {
    auto image = home.open_image(id);
    for (std::uint64_t i = 0; i < 12; ++i) home.write(*image, i << 20, std::string(1 << 20, static_cast<char>('a' + i)));
  }
  home.kill_and_open();
  const Lsn written = home->journal().written_lsn(), oldest = home->journal().oldest_lsn();
  const Lsn before = home->stored_lsn();
  // A little at first, which is done soon; then more, as long as the daemon lives.
  const std::uint64_t size = home->journal().bytes_max();
  Lsn stored_before = std::max(before, oldest);
  for (std::uint64_t most : {size / 16, size / 8, size / 4}) {
    for (int i = 0; home->stored_lsn() <= stored_before; ++i) {
      REQUIRE(i < 1000);
      REQUIRE(home->apply_some(true));
    }
    CHECK(home->stored_lsn() - stored_before <= most);
    stored_before = home->stored_lsn();
  }
  CHECK(home->stored_lsn() < written);
  CHECK(home->journal().oldest_lsn() > oldest);
  // A daemon that dies as soon as its first pass is done gets on all the same.
  for (int lives = 0; home->stored_lsn() < written; ++lives) {
    REQUIRE(lives < 16);
    home.kill_and_open();
    const Lsn stored = home->stored_lsn();
    for (int i = 0; home->stored_lsn() == stored && i < 1000; ++i) REQUIRE(home->apply_some(true));
  }
  auto image = home.open_path("a");
  for (std::uint64_t i = 0; i < 12; ++i)
    CHECK(home.read(*image, i << 20, 1 << 20) == std::string(1 << 20, static_cast<char>('a' + i)));
}

TEST_CASE("a background that cannot write says so, and that it can again") {
  VolumeHome home;
  auto image = home.open_image(home.create("a"));
  home.apply_all();
  home.write(*image, 0, "some text");
  home.disk.fail_calls("state.write", {}, 1, ENOSPC, true);
  CHECK(!home->apply_some(true));
  REQUIRE(home->problems().size() == 1);
  CHECK(home->problems().front().find("state") != std::string::npos);
  home.disk.heal();
  home.apply_all();
  CHECK(home->problems().empty());
  REQUIRE(home->set_attributes({}, home->resolve("a")->object, {.set = {}, .size = 3}));
  home.disk.fail_calls("store.apply", sim::Operation::kTruncate, 1, EIO, true);
  CHECK(!home->apply_some(true));
  CHECK(home->problems().size() == 1);
  home.disk.heal();
  home.apply_all();
  CHECK(home->problems().empty());
}

TEST_CASE("a file whose creation was cut off with the journal's end can be used and removed") {
  VolumeHome home;
  home.create("a");
  home.apply_all();
  REQUIRE(home->checkpoint());
  home.create("b");
  home.volume.reset();
  home.disk.restart();
  const Lsn start = read_state(home.disk)->replay_from;
  REQUIRE(Journal::cut(*home.journal_disk, home.clock, home.options.journal, start, start));
  home.open();
  auto image = home.open_path("b");
  home.write(*image, 0, "text");
  REQUIRE(home.flush(*image));
  image.reset();
  home.lose_power_and_open();
  CHECK(home.read(*home.open_path("b"), 0, 10) == "text");
  CHECK(home->unlink({}, kRootObject, "b"));
}

TEST_CASE("what a peer had confirmed beyond the log's end was cut off, and confirms nothing that comes there") {
  VolumeHome home;
  home.write(*home.open_image(home.create("a")), 0, "something");
  home->set_peer({.id = NodeId{8}, .name = "b", .confirmed = home->journal().written_lsn() + (1u << 20)});
  home.close_and_open();
  REQUIRE(home->peers().size() == 1);
  CHECK(home->peers().at(0).confirmed <= home->journal().written_lsn());
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
