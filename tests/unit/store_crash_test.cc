// The store's name space under crashes: stopped at any call, the power cut, redone from any record
// since the last sync or before, maybe stopped again meanwhile.
#include <doctest/doctest.h>

#include "fs/base/mistakes.h"
#include "fs/store/store.h"
#include "tests/sim/lib/sim_disk.h"
#include "tests/unit/name_space_model.h"

namespace vmfs {
namespace {

using test::NameSpaceModel;
using test::NameSpaceRecord;

class CrashTest {
 public:
  explicit CrashTest(std::uint64_t seed)
      : model_(seed),
        disk_({.metadata_order = seed % 2 ? sim::MetadataOrder::kPerDirectory
                                          : sim::MetadataOrder::kGlobal},
              seed) {
    REQUIRE(Store::create(disk_));
    open();
  }

  // Empty: the tree was always what the records say; else what was wrong.
  std::string run() {
    for (int life = 0; life < 6; ++life) {
      disk_.stop_at_change(1 + model_.pick(150));
      change_names();
      crash();
      if (model_.pick(3) == 0) {  // recovery may be cut short as well
        disk_.stop_at_change(1 + model_.pick(80));
        if (auto store = Store::open(disk_)) {
          store_ = std::move(*store);
          redo_all();
        }
        crash();
      }
      open();
      redo_all();
      if (auto synced = store_->sync_names(); !synced) return synced.error().message;
      if (std::string wrong = compare("after the redo"); !wrong.empty()) return wrong;
      synced_ = redo_from_ = records_.size();
      crash();
      open();
      if (std::string wrong = compare("after the sync"); !wrong.empty()) return wrong;
    }
    return "";
  }

 private:
  void open() {
    auto store = Store::open(disk_);
    REQUIRE_MESSAGE(store, (store ? "" : store.error().message));
    store_ = std::move(*store);
  }

  void crash() {
    store_.reset();
    if (model_.pick(4) == 0)
      disk_.restart();
    else
      disk_.lose_power();
  }

  // Until the disk stops, or for long enough. The record that the stop interrupts is in the journal.
  void change_names() {
    for (int i = 0; i < 40 && !disk_.stopped(); ++i) {
      records_.push_back(model_.next());
      (void)test::redo(*store_, records_.back());
      if (model_.pick(12) == 0 && !disk_.stopped()) {
        const std::size_t applied = records_.size();
        if (store_->sync_names()) synced_ = redo_from_ = applied;
      }
    }
  }

  // A redo that is not finished (through sync_names) may have brought objects back to where they were
  // at its beginning; so the next one begins there or earlier, as it does when both begin at the last
  // checkpoint.
  void redo_all() {
    redo_from_ = model_.pick(std::min(synced_, redo_from_) + 1);
    for (std::size_t i = redo_from_; i < records_.size(); ++i) {
      auto done = test::redo(*store_, records_[i]);
      if (!done && disk_.stopped()) return;
      CHECK_MESSAGE(done, (done ? "" : done.error().message));
    }
  }

  std::string compare(const char* when) {
    // By a fresh scan: what is on the disk counts, not what the store remembers.
    auto store = Store::open(disk_);
    if (!store) return store.error().message;
    auto found = test::tree_of(**store);
    for (const auto& [object, where] : model_.tree()) {
      auto other = found.find(object);
      if (other == found.end())
        return fmt::format("{}: {} ({}) is missing", when, object, where.name);
      if (other->second != where)
        return fmt::format("{}: {} is {} in {} instead of {} in {}", when, object,
                           other->second.name, other->second.parent, where.name, where.parent);
    }
    for (const auto& [object, where] : found)
      if (!model_.tree().contains(object))
        return fmt::format("{}: {} ({}) should be gone", when, object, where.name);
    return "";
  }

  NameSpaceModel model_;
  sim::SimDisk disk_;
  std::unique_ptr<Store> store_;
  std::vector<NameSpaceRecord> records_;
  std::size_t synced_ = 0;  // records_ below are durable in the store
  std::size_t redo_from_ = 0;
};

TEST_SUITE("store") {
  TEST_CASE("after any crash and a redo the tree is what the records say" *
            doctest::test_suite("store, one thread")) {
    for (std::uint64_t seed = 1; seed <= 400; ++seed) {
      std::string wrong = CrashTest(seed).run();
      CHECK_MESSAGE(wrong.empty(), "seed ", seed, ": ", wrong);
    }
  }

  TEST_CASE("redoing a rename by its path would be found") {
    mistakes.rename_by_path = true;
    int found = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed)
      found += !CrashTest(seed).run().empty();
    mistakes.rename_by_path = false;
    CHECK(found > 10);
  }

  TEST_CASE("a failed sync of the names is told, and what it was to sync is synced the next time") {
    sim::SimDisk disk({}, 7);
    REQUIRE(Store::create(disk));
    auto store = Store::open(disk).value();
    Create change{.object = ObjectId{11}, .parent = kRootObject, .name = "a",
                  .type = FileType::kRegular, .permissions = 0600, .first_epoch = EpochId{1}};
    REQUIRE(store->create_object(change));
    disk.fail_calls("store.sync", {}, 1, EIO, /*always=*/false);
    auto synced = store->sync_names();
    REQUIRE(!synced);
    CHECK(synced.error().number == EIO);
    REQUIRE(store->create_object(change));
    REQUIRE(store->sync_names());
    store.reset();
    disk.lose_power();
    CHECK(Store::open(disk).value()->exists(ObjectId{11}));
  }

  TEST_CASE("a full disk refuses a creation and leaves no trace") {
    sim::SimDisk disk({}, 8);
    REQUIRE(Store::create(disk));
    auto store = Store::open(disk).value();
    disk.fail_calls("store.make", sim::Operation::kSetTag, 1, ENOSPC, /*always=*/false);
    Create change{.object = ObjectId{11}, .parent = kRootObject, .name = "a",
                  .type = FileType::kRegular, .permissions = 0600, .first_epoch = EpochId{1}};
    auto created = store->create_object(change);
    REQUIRE(!created);
    CHECK(created.error().kind == ErrorKind::kNoSpace);
    CHECK(!store->exists(ObjectId{11}));
    CHECK(disk.list("images", "test")->empty());
    CHECK(disk.list("unlinked", "test")->empty());
    REQUIRE(store->create_object(change));
    CHECK(store->path_of(ObjectId{11}) == "images/a");
  }
}

}  // namespace
}  // namespace vmfs
