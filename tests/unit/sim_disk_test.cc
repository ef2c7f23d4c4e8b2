#include "tests/sim/lib/sim_disk.h"

#include <doctest/doctest.h>

#include <set>

#include "tests/sim/lib/sim_clock.h"

using namespace vmfs;
using namespace vmfs::sim;

namespace {

std::string text_of(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Bytes filled(std::size_t size, char with) { return Bytes(size, static_cast<std::byte>(with)); }

std::unique_ptr<File> create(SimDisk& disk, const std::string& path) {
  return *disk.open(path, OpenMode::kCreate, "test.open");
}

// A file whose name and first content are on the medium.
std::unique_ptr<File> create_durable(SimDisk& disk, const std::string& path, ByteView content) {
  auto file = create(disk, path);
  REQUIRE(file->write(content, 0, "test.write"));
  REQUIRE(file->sync("test.sync"));
  REQUIRE(disk.sync_directory("", "test.sync"));
  return file;
}

}  // namespace

TEST_SUITE("simulated disk") {
  TEST_CASE("a process's death keeps what it wrote and closes what it opened") {
    SimDisk disk({}, 1);
    auto file = create(disk, "a");
    REQUIRE(file->write(as_bytes("hello"), 0, "test.write"));
    auto lock = disk.lock("lock", "test.lock");
    REQUIRE(lock);
    CHECK(disk.lock("lock", "test.lock").error().kind == ErrorKind::kBusy);
    disk.stop();
    CHECK(!file->write(as_bytes("lost"), 0, "test.write"));
    CHECK(!disk.stat("a", "test.stat"));
    disk.restart();
    CHECK(!file->write(as_bytes("lost"), 0, "test.write"));
    CHECK(text_of(*read_whole_file(disk, "a", "test.read")) == "hello");
    CHECK(disk.lock("lock", "test.lock"));
  }

  TEST_CASE("power loss: synced bytes stay, others are kept, lost or torn by sector") {
    std::set<std::string> outcomes;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      SimDisk disk({}, seed);
      auto file = create_durable(disk, "a", filled(2048, 'a'));
      REQUIRE(file->write(filled(1024, 'b'), 512, "test.write"));
      REQUIRE(file->write(filled(10, 'c'), 700, "test.write"));
      disk.lose_power();
      std::string now = text_of(*read_whole_file(disk, "a", "test.read"));
      REQUIRE(now.size() == 2048);
      CHECK(now.substr(0, 512) == std::string(512, 'a'));
      CHECK(now.substr(1536) == std::string(512, 'a'));
      // A sector is whole: c never without the b around it.
      bool b = now[600] == 'b', c = now[705] == 'c';
      CHECK((!c || b));
      outcomes.insert({now[600], now[705], now[1100]});
    }
    CHECK(outcomes.contains("aaa"));
    CHECK(outcomes.contains("bcb"));
    CHECK(outcomes.contains("bbb"));
    CHECK(outcomes.contains("aab"));  // torn
  }

  TEST_CASE("power loss: names come and go in order, and stay after a sync of the directory") {
    std::set<std::size_t> counts;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      SimDisk disk(
          {.metadata_order = seed % 2 ? MetadataOrder::kGlobal : MetadataOrder::kPerDirectory},
          seed);
      create_durable(disk, "0", {});
      for (const char* name : {"1", "2", "3"}) create(disk, name);
      REQUIRE(disk.set_tag("3", "id", as_bytes("x"), "test.tag"));
      const bool synced = seed % 4 >= 2;
      if (synced) REQUIRE(disk.sync_directory("", "test.sync"));
      disk.lose_power();
      auto entries = *disk.list("", "test.list");
      CHECK(disk.stat("0", "test.stat"));
      for (const char* name : {"2", "3"})
        if (disk.stat(name, "test.stat"))
          CHECK(disk.stat(std::string(1, static_cast<char>(name[0] - 1)), "test.stat"));
      if (synced) {
        CHECK(entries.size() == 4);
        CHECK(disk.get_tag("3", "id", "test.tag"));
      } else {
        counts.insert(entries.size());
      }
    }
    CHECK(counts == std::set<std::size_t>{1, 2, 3, 4});
  }

  TEST_CASE("a rename between directories is never half done") {
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      SimDisk disk(
          {.metadata_order = seed % 2 ? MetadataOrder::kGlobal : MetadataOrder::kPerDirectory},
          seed);
      REQUIRE(disk.make_directory("a", "test"));
      REQUIRE(disk.make_directory("b", "test"));
      create(disk, "a/f");
      for (const char* path : {"", "a", "b"}) REQUIRE(disk.sync_directory(path, "test"));
      create(disk, "b/before");
      REQUIRE(disk.rename("a/f", "b/f", true, "test"));
      if (seed % 8 < 2) REQUIRE(disk.sync_directory("a", "test"));
      disk.lose_power();
      const bool old_name = disk.stat("a/f", "test").has_value();
      const bool new_name = disk.stat("b/f", "test").has_value();
      CHECK(old_name != new_name);
      if (seed % 8 < 2) CHECK(new_name);
      if (new_name) CHECK(disk.stat("b/before", "test"));
    }
  }

  TEST_CASE(
      "a failed sync loses the pages, shows them, and the next sync does not bring them back") {
    std::set<char> on_medium;
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
      SimDisk disk({}, seed);
      auto file = create_durable(disk, "a", filled(8192, 'a'));
      REQUIRE(file->write(filled(4096, 'b'), 0, "journal.append"));
      disk.fail_calls("journal.sync", {}, 1, EIO, false);
      CHECK(file->sync_data("journal.sync").error().number == EIO);
      Bytes byte(1);
      REQUIRE(file->read(byte, 0, "test.read"));
      CHECK(text_of(byte) == "b");
      CHECK(file->sync_data("journal.sync"));
      disk.lose_power();
      on_medium.insert(text_of(*read_whole_file(disk, "a", "test.read"))[0]);
    }
    CHECK(on_medium == std::set<char>{'a', 'b'});
    // But a page that is written again is written whole.
    SimDisk disk({}, 7);
    auto file = create_durable(disk, "a", filled(8192, 'a'));
    REQUIRE(file->write(filled(8192, 'b'), 0, "journal.append"));
    disk.fail_calls("journal.sync", {}, 1, EIO, false);
    CHECK(!file->sync_data("journal.sync"));
    REQUIRE(file->write(filled(1, 'c'), 4095, "journal.append"));
    REQUIRE(file->sync_data("journal.sync"));
    CHECK(text_of(*disk.durable_content("a")).substr(0, 4096) == std::string(4095, 'b') + "c");
  }

  TEST_CASE("truncations and holes after a power loss") {
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      SimDisk disk({}, seed);
      auto file = create_durable(disk, "a", filled(16384, 'a'));
      REQUIRE(file->truncate(4096, "test"));
      REQUIRE(file->write(filled(4096, 'b'), 8192, "test"));
      if (seed % 2) REQUIRE(file->sync_data("test"));
      disk.lose_power();
      std::string now = text_of(*read_whole_file(disk, "a", "test"));
      if (seed % 2) CHECK(now.size() == 12288);
      // What was cut off never comes back between new bytes.
      if (now.size() > 8192 && now.find('b') != std::string::npos)
        CHECK(now.substr(4096, 4096) == std::string(4096, '\0'));
      CHECK(now.substr(0, 4096) == std::string(4096, 'a'));
    }
  }

  TEST_CASE("a disk fills up") {
    SimDisk disk({.capacity = 10 * 4096}, 1);
    auto file = create(disk, "a");
    CHECK(file->write(filled(8 * 4096, 'a'), 0, "test"));
    Error error = file->write(filled(4 * 4096, 'b'), 8 * 4096, "test").error();
    CHECK(error.kind == ErrorKind::kNoSpace);
    CHECK(disk.space("test")->available == 0);
    CHECK(file->write(filled(4096, 'c'), 0, "test"));  // what is there can be written again
    CHECK(!file->allocate(0, 20 * 4096, true, "test"));
    CHECK(file->punch_hole(0, 4 * 4096, "test"));
    CHECK(disk.space("test")->available == 4 * 4096);
    CHECK(file->write(filled(4096, 'd'), 12 * 4096, "test"));
  }

  TEST_CASE("calls fail by label, and the node can be stopped at any call") {
    SimDisk disk({}, 1);
    auto file = create(disk, "a");
    disk.fail_calls("store.", Operation::kWrite, 2, ENOSPC, true);
    CHECK(file->write(as_bytes("1"), 0, "store.apply"));
    CHECK(!file->write(as_bytes("2"), 0, "store.apply"));
    CHECK(!file->write(as_bytes("3"), 0, "store.apply"));
    CHECK(file->write(as_bytes("4"), 0, "journal.append"));
    disk.heal();
    CHECK(file->write(as_bytes("5"), 0, "store.apply"));
    disk.stop_at_change(2);
    CHECK(file->write(as_bytes("6"), 0, "store.apply"));
    CHECK(disk.stat("a", "test"));
    CHECK(!file->write(as_bytes("7"), 0, "store.apply"));
    CHECK(disk.stopped());
    CHECK(!disk.stat("a", "test"));
    disk.restart();
    CHECK(text_of(*read_whole_file(disk, "a", "test")) == "6");
    disk.set_hook([](const DiskCall& call) -> std::optional<int> {
      if (call.operation == Operation::kList) throw SimCrash{};
      return call.path == "a" ? std::optional<int>(EIO) : std::nullopt;
    });
    CHECK_THROWS_AS((void)disk.list("", "test"), SimCrash);
    CHECK(disk.stat("a", "test").error().number == EIO);
  }

  TEST_CASE("clones share what was there, and rot is seen") {
    SimDisk disk({}, 1);
    auto file = create(disk, "a");
    REQUIRE(file->write(filled(8192, 'a'), 0, "test"));
    auto copy = create(disk, "b");
    REQUIRE(copy->clone_from(*file, "test"));
    REQUIRE(file->write(filled(4096, 'b'), 0, "test"));
    CHECK(text_of(*read_whole_file(disk, "b", "test")) == std::string(8192, 'a'));
    REQUIRE(copy->sync("test"));
    REQUIRE(disk.sync_directory("", "test"));
    CHECK(disk.flip_bit("b", 5, 0));
    disk.lose_power();
    CHECK(text_of(*read_whole_file(disk, "b", "test")).substr(4, 3) == std::string("a`a"));
    SimDisk plain({.clones = false}, 1);
    auto one = create(plain, "a"), two = create(plain, "b");
    CHECK(two->clone_from(*one, "test").error().kind == ErrorKind::kUnsupported);
  }

  TEST_CASE("the same seed gives the same disk") {
    auto run = [](std::uint64_t seed) {
      SimDisk disk({}, seed);
      Random random(seed);
      auto file = create_durable(disk, "a", filled(65536, 'a'));
      for (int i = 0; i < 50; ++i)
        REQUIRE(file->write(filled(1 + random.below(5000), static_cast<char>('b' + i % 20)),
                            random.below(60000), "test"));
      disk.lose_power();
      return text_of(*read_whole_file(disk, "a", "test"));
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) CHECK(run(seed) == run(seed));
    CHECK(run(1) != run(2));
  }

  TEST_CASE("a subdirectory is a disk of its own") {
    SimDisk disk({}, 1);
    REQUIRE(disk.make_directory("journal", "test"));
    auto journal = disk.subdirectory("journal");
    REQUIRE(journal->open("1.seg", OpenMode::kCreate, "test"));
    REQUIRE(journal->sync_directory("", "test"));
    CHECK(disk.stat("journal/1.seg", "test"));
    CHECK(journal->list("", "test")->size() == 1);
    CHECK(replace_file(*journal, "state", as_bytes("x"), "test"));
  }
}
