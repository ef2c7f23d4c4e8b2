#include <map>

#include "fs/journal/record_reader.h"
#include "tests/unit/volume_fixture.h"

namespace vmfs {
namespace {

using test::errno_of;
using test::VolumeHome;

TEST_SUITE_BEGIN("volume life");

TEST_CASE("that an image is open for writing, and that nobody has it open any more, are records") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto records = [&] {
    std::vector<RecordType> out;
    RecordReader reader(home->journal(), 0);
    for (;;) {
      auto record = reader.next(home->journal().written_lsn());
      REQUIRE(record);
      if (!*record) return out;
      if ((*record)->header.group == raw(id)) out.push_back((*record)->header.type);
    }
  };
  auto reads = home.open_image(id), first = home.open_image(id), second = home.open_image(id);
  home.write(*first, 0, "1");
  home.write(*second, 0, "2");
  home->close_image(first);
  home->close_image(reads);
  const std::vector<RecordType> open{RecordType::kOpen, RecordType::kWrite, RecordType::kWrite};
  CHECK(records() == open);
  // Who goes on after a daemon's death had opened it before.
  home.kill_and_open({.connection = ConnectionId{1}});
  second = home->open_image(id, true, true).value();
  home.write(*second, 0, "3");
  home->close_image(second);
  auto all = open;
  all.insert(all.end(), {RecordType::kWrite, RecordType::kClose});
  CHECK(records() == all);
  // What may not be changed here is closed all the same, without a word.
  auto third = home.open_image(id);
  home.write(*third, 0, "4");
  all.insert(all.end(), {RecordType::kOpen, RecordType::kWrite});
  home->set_gate(id, Gate::kSecondary);
  home->close_image(third);
  CHECK(records() == all);
}

TEST_CASE("what was written is read, before and after it is applied") {
  VolumeHome home;
  ObjectId id = home.create("disk.img");
  auto image = home.open_image(id);
  CHECK(home.read(*image, 0, 10).empty());
  home.write(*image, 5, "hello");
  CHECK(home.read(*image, 0, 100) == std::string("\0\0\0\0\0hello", 10));
  CHECK(home->attributes(id)->stat.size == 10);
  home.write(*image, 1 << 20, "far");
  CHECK(home.stored("disk.img").empty());
  home.apply_all();
  CHECK(home.stored("disk.img").size() == (1 << 20) + 3);
  CHECK(home.stored("disk.img").substr(5, 5) == "hello");
  CHECK(home.read(*image, (1 << 20) - 2, 10) == std::string("\0\0far", 5));
  CHECK(home->usage().unapplied_bytes == 0);
  home->close_image(image);
}

TEST_CASE("whoever changes an image's attributes, or makes it once more, is told what it takes up now") {
  VolumeHome home;
  const ConnectionId connection{42};
  const Volume::OpenArguments arguments{
      .connection = connection, .unanswered = {10}, .unanswered_now = [] { return std::vector<std::uint64_t>{10}; }};
  home.kill_and_open(arguments);
  auto made = home->create({{connection, 10}}, kRootObject, "disk", 0600);
  REQUIRE(made);
  CHECK(made->stat.allocated == 0);
  auto image = home.open_image(made->object);
  home.write(*image, 0, std::string(8192, 'x'));
  AttributesToSet times;
  times.set.mtime_ns = 1;
  SUBCASE("in the journal") {}
  SUBCASE("in the store") { home.apply_all(); }
  CHECK(home->set_attributes({}, made->object, times)->stat.allocated >= 8192);
  CHECK(home->set_attributes({}, made->object, {})->stat.allocated >= 8192);
  home->close_image(image);
  home.kill_and_open(arguments);
  auto again = home->create({{connection, 10}, true}, kRootObject, "disk", 0600);
  REQUIRE(again);
  CHECK(again->object == made->object);
  CHECK(again->stat.allocated >= 8192);
}

TEST_CASE("everything acknowledged survives the daemon, everything flushed the machine") {
  VolumeHome home;
  auto image = home.open_image(home.create("a"));
  home.write(*image, 0, "flushed");
  CHECK(home.flush(*image));
  home.write(*image, 7, "written");
  image.reset();
  home.kill_and_open();
  image = home.open_path("a");
  CHECK(home.read(*image, 0, 100) == "flushedwritten");
  image.reset();
  home.lose_power_and_open();
  image = home.open_path("a");
  CHECK(home.read(*image, 0, 7) == "flushed");
}

TEST_CASE("a clean close leaves plain files, with size and mtime, and nothing to replay") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto image = home.open_image(id);
  home.write(*image, 100, "x");
  home.clock.advance(5'000'000'000);
  home.write(*image, 10, "y");
  REQUIRE(home->set_attributes({}, id, {.set = {}, .size = 5000}));
  std::int64_t mtime = home->attributes(id)->stat.mtime_ns;
  image.reset();
  REQUIRE(home->close());
  home.volume.reset();
  auto stat = home.disk.stat("images/a", "test");
  REQUIRE(stat);
  CHECK(stat->size == 5000);
  CHECK(stat->mtime_ns == mtime);
  CHECK(stat->permissions == 0640);
  home.disk.lose_power();
  home.open();
  image = home.open_path("a");
  CHECK(home.read(*image, 10, 1) == "y");
  CHECK(home->attributes(id)->stat.mtime_ns == mtime);
  CHECK(home->groups().size() == 2);
}

TEST_CASE("truncation voids what the store still has") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto image = home.open_image(id);
  home.write(*image, 0, std::string(10000, 'a'));
  home.apply_all();
  REQUIRE(home->set_attributes({}, id, {.set = {}, .size = 100}));
  REQUIRE(home->set_attributes({}, id, {.set = {}, .size = 9000}));
  home.write(*image, 8000, "b");
  auto check = [&](Object& opened) {
    std::string expected = std::string(100, 'a') + std::string(8900, '\0');
    expected[8000] = 'b';
    CHECK(home.read(opened, 0, 20000) == expected);
  };
  check(*image);
  SUBCASE("applied") {
    home.apply_all();
    check(*image);
    CHECK(home.stored("a").size() == 9000);
    CHECK(home.stored("a").substr(100, 7900) == std::string(7900, '\0'));
  }
  SUBCASE("after the daemon died") {
    image.reset();
    home.kill_and_open();
    image = home.open_path("a");
    check(*image);
    home.apply_all();
    check(*image);
  }
}

TEST_CASE("a truncation that comes while the applier waits for the journal loses nothing that was written before") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto image = home.open_image(id);
  home.write(*image, 0, std::string(1000, 'a'));
  home.apply_all();
  REQUIRE(home->set_attributes({}, id, {.set = {}, .size = 100}));
  home.write(*image, 200, std::string(100, 'b'));
  // The pass begins; then blocks are reserved, so that it waits for the journal once more; meanwhile the
  // image is truncated again, into what is about to be applied.
  int syncs = 0;
  home.disk.set_hook([&](const sim::DiskCall& call) -> std::optional<int> {
    if (std::string_view(call.label) != "journal.sync" || call.operation != sim::Operation::kSyncData) return {};
    if (++syncs == 1) REQUIRE(home->allocate(*image, {}, 0, 4096, true));
    if (syncs == 2) REQUIRE(home->set_attributes({}, id, {.set = {}, .size = 250}));
    return {};
  });
  REQUIRE(home->apply_some(true));
  home.disk.set_hook(nullptr);
  CHECK(syncs >= 2);
  const std::string expected = std::string(100, 'a') + std::string(100, '\0') + std::string(50, 'b');
  CHECK(home.read(*image, 0, 1000) == expected);
  home.apply_all();
  CHECK(home.read(*image, 0, 1000) == expected);
  image.reset();
  home.close_and_open();
  CHECK(home.stored("a") == expected);
}

TEST_CASE("zeros: punched and kept, extending and not") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto image = home.open_image(id);
  home.write(*image, 0, std::string(100000, 'a'));
  home.apply_all();
  REQUIRE(home->zero(*image, {}, 4096, 8192, true, false));
  REQUIRE(home->zero(*image, {}, 50000, 1000, false, false));
  REQUIRE(home->zero(*image, {}, 99000, 5000, false, false));
  CHECK(home->attributes(id)->stat.size == 100000);
  REQUIRE(home->zero(*image, {}, 99000, 5000, false, true));
  CHECK(home->attributes(id)->stat.size == 104000);
  REQUIRE(home->allocate(*image, {}, 200000, 1000, true));
  CHECK(home->attributes(id)->stat.size == 104000);
  REQUIRE(home->allocate(*image, {}, 104000, 1000, false));
  CHECK(home->attributes(id)->stat.size == 105000);
  std::string expected(105000, 'a');
  for (auto [from, to] : {std::pair{4096, 12288}, {50000, 51000}, {99000, 105000}})
    std::fill(expected.begin() + from, expected.begin() + to, '\0');
  CHECK(home.read(*image, 0, 200000) == expected);
  CHECK(*home->seek(*image, 4096, true) == 12288);
  CHECK(*home->seek(*image, 0, false) == 4096);
  CHECK(errno_of(home->seek(*image, 105000, true)) == ENXIO);
  home.apply_all();
  CHECK(home.read(*image, 0, 200000) == expected);
  CHECK(home.stored("a") == expected);
}

TEST_CASE("holes lie between whole blocks, applied or not") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto image = home.open_image(id);
  REQUIRE(home->set_attributes({}, id, {.set = {}, .size = 100000}));
  home.write(*image, 8192 + 100, std::string(420, 'a'));
  home.write(*image, 12288 + 4000, std::string(200, 'b'));
  home.write(*image, 90000, "c");
  auto check = [&] {
    CHECK(*home->seek(*image, 0, true) == 8192);
    CHECK(*home->seek(*image, 8192, true) == 8192);
    CHECK(*home->seek(*image, 9000, true) == 9000);
    CHECK(*home->seek(*image, 0, false) == 0);
    CHECK(*home->seek(*image, 5000, false) == 5000);
    CHECK(*home->seek(*image, 8192, false) == 20480);
    CHECK(*home->seek(*image, 9000, false) == 20480);
    CHECK(*home->seek(*image, 30000, false) == 30000);
    CHECK(*home->seek(*image, 30000, true) == 86016);
    CHECK(*home->seek(*image, 90001, false) == 90112);
    CHECK(errno_of(home->seek(*image, 90112, true)) == ENXIO);
    home.write(*image, 99000, "d");
    CHECK(*home->seek(*image, 99500, true) == 99500);
    CHECK(*home->seek(*image, 99000, false) == 100000);
    REQUIRE(home->zero(*image, {}, 98304, 1696, true, false));
  };
  check();
  home.apply_all();
  check();
}

TEST_CASE("random changes against a model, with deaths, power cuts and clean restarts" *
          doctest::test_suite("volume life, one thread")) {
  // Power cuts come right after a flush here: what an unflushed tail may become is the simulator's.
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    CAPTURE(seed);
    sim::Random random(seed);
    VolumeHome home(seed);
    constexpr int kImages = 3;
    constexpr std::uint64_t kSize = 600'000;
    std::map<std::string, std::string> model;
    std::vector<ObjectRef> open(kImages);
    auto name = [](int i) { return "image" + std::to_string(i); };
    for (int i = 0; i < kImages; ++i) {
      open[i] = home.open_image(home.create(name(i)));
      model[name(i)] = "";
    }
    auto check_all = [&] {
      for (int i = 0; i < kImages; ++i) {
        REQUIRE(home->attributes(home->resolve(name(i))->object)->stat.size == model[name(i)].size());
        REQUIRE(home.read(*open[i], 0, 2 * kSize) == model[name(i)]);
      }
    };
    for (int step = 0; step < 250; ++step) {
      CAPTURE(step);
      int which = static_cast<int>(random.below(kImages));
      std::string& content = model[name(which)];
      Object& image = *open[which];
      std::uint64_t offset = random.below(kSize);
      std::uint64_t length = 1 + random.below(random.one_in(5) ? 200'000 : 5'000);
      home.clock.advance(1'000'000);
      switch (random.below(12)) {
        case 0:
        case 1:
        case 2:
        case 3: {
          std::string text(length, static_cast<char>('a' + random.below(26)));
          home.write(image, offset, text);
          if (content.size() < offset + length) content.resize(offset + length);
          content.replace(offset, length, text);
          break;
        }
        case 4: {
          bool extend = random.one_in(2);
          REQUIRE(home->zero(image, {}, offset, length, random.one_in(2), extend));
          if (extend && content.size() < offset + length) content.resize(offset + length);
          if (offset < content.size())
            std::fill(content.begin() + offset,
                      content.begin() + std::min(content.size(), offset + length), '\0');
          break;
        }
        case 5:
          REQUIRE(home->set_attributes({}, home->resolve(name(which))->object,
                                       {.set = {}, .size = offset}));
          content.resize(offset);
          break;
        case 6:
          REQUIRE(home.flush(image));
          break;
        case 7:
        case 8:
          REQUIRE(home->apply_some(random.one_in(2)));
          break;
        case 9:
          REQUIRE(home.read(image, offset, length) ==
                  (offset < content.size() ? content.substr(offset, length) : ""));
          break;
        case 10:
          if (random.one_in(4)) home.apply_all();
          break;
        case 11: {
          if (!random.one_in(4)) break;
          if (random.one_in(3)) REQUIRE(home->checkpoint());
          int how = static_cast<int>(random.below(3));
          if (how == 1)
            for (auto& each : open) REQUIRE(home.flush(*each));
          open.assign(kImages, nullptr);
          if (how == 0) home.kill_and_open();
          if (how == 1) home.lose_power_and_open();
          if (how == 2) home.close_and_open();
          for (int i = 0; i < kImages; ++i) open[i] = home.open_path(name(i));
          check_all();
          break;
        }
      }
    }
    check_all();
    home.apply_all();
    check_all();
    open.assign(kImages, nullptr);
    REQUIRE(home->close());
    for (auto& [path, content] : model) REQUIRE(home.stored(path) == content);
  }
}

TEST_CASE("a full journal makes writers wait, and the applier ends that") {
  VolumeHome home;
  auto image = home.open_image(home.create("a"));
  std::string text(256 << 10, 'x');
  Result<> last;
  int written = 0;
  for (; written < 100 && last; ++written)
    last = home->write(*image, {}, static_cast<std::uint64_t>(written) * text.size(), as_bytes(text));
  REQUIRE(!last);
  CHECK(last.error().kind == ErrorKind::kWouldWait);
  bool retried = false;
  home->park(home->resolve("a")->object, [&] { retried = true; });
  CHECK(!home->run_parked());
  home.apply_all();
  CHECK(home->run_parked());
  CHECK(retried);
  CHECK(home->write(*image, {}, 0, as_bytes(text)));
}

TEST_CASE("a store that is too small says so before anything is acknowledged") {
  VolumeHome home;
  auto image = home.open_image(home.create("a"));
  for (int i = 0; i < 4; ++i) home.write(*image, i << 18, std::string(1 << 18, 'x'));
  home.apply_all();
  home.disk.set_capacity(home.disk.used() + home.options.journal.size_max);
  home.clock.advance(5'000'000'000);
  home.apply_all();
  Result<> last;
  int written = 0;
  std::string text(256 << 10, 'y');
  while (last && written < 100)
    last = home->write(*image, {}, (2 << 20) + 262144ull * written++, as_bytes(text));
  REQUIRE(!last);
  CHECK(last.error().number == ENOSPC);
  // What has its blocks already can still be written.
  home.apply_all();
  CHECK(home->write(*image, {}, 0, as_bytes(text)));
  home.apply_all();
  CHECK(home->problems().empty());
}

TEST_CASE("blocks are reserved as far as the store has room, and are not promised twice") {
  for (const bool zeros : {false, true}) {
    CAPTURE(zeros);
    VolumeHome home;
    auto image = home.open_image(home.create("a"));
    home.apply_all();
    constexpr std::uint64_t kMuch = 256u << 20;
    home.disk.set_capacity(home.disk.used() + home.options.journal.size_max + kMuch + (64u << 20));
    auto reserve = [&](std::uint64_t offset, std::uint64_t length) {
      return errno_of(zeros ? home->zero(*image, {}, offset, length, false, true)
                            : home->allocate(*image, {}, offset, length, false));
    };
    CHECK(reserve(0, 2 * kMuch) == ENOSPC);
    REQUIRE(reserve(0, kMuch) == 0);
    // Not in the store yet; what is left is less than this.
    CHECK(reserve(kMuch, 128u << 20) == ENOSPC);
    home.apply_all();
    CHECK(reserve(kMuch, 128u << 20) == ENOSPC);
    CHECK(reserve(kMuch, 1u << 20) == 0);
    home.apply_all();
    CHECK(home->resolve("a")->stat.size == kMuch + (1u << 20));
    // The blocks are there, and nothing was written to them.
    auto stored = home.disk.stat("images/a", "test");
    REQUIRE(stored);
    CHECK(stored->allocated >= kMuch + (1u << 20));
  }
}

TEST_CASE("an image that the store cannot hold is refused") {
  VolumeHome home;
  home.disk.set_files(1u << 20, 1u << 30);
  home.kill_and_open();
  ObjectId object = home.create("a");
  auto image = home.open_image(object);
  constexpr std::uint64_t kEnd = 1u << 30;
  CHECK(home->write(*image, {}, kEnd - 1, as_bytes("x")));
  CHECK(errno_of(home->write(*image, {}, kEnd, as_bytes("x"))) == EFBIG);
  CHECK(errno_of(home->zero(*image, {}, kEnd - 1, 2, false, true)) == EFBIG);
  CHECK(errno_of(home->allocate(*image, {}, kEnd - 1, 2, false)) == EFBIG);
  CHECK(errno_of(home->set_attributes({}, object, {.set = {}, .size = kEnd + 1})) == EFBIG);
  CHECK(home->set_attributes({}, object, {.set = {}, .size = kEnd}));
  home.apply_all();
  CHECK(home->problems().empty());
}

TEST_CASE("a failed sync of the store: everything since the checkpoint is applied again") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto image = home.open_image(id);
  home.write(*image, 0, std::string(100000, 'a'));
  home.apply_all();
  home.write(*image, 1000, std::string(50000, 'b'));
  REQUIRE(home->set_attributes({}, id, {.set = {}, .size = 40000}));
  home.write(*image, 60000, std::string(1000, 'c'));
  home.disk.fail_calls("store.checkpoint", sim::Operation::kSync, 1, EIO, false);
  bool failed = false;
  for (int i = 0; i < 10; ++i) failed = failed || !home->apply_some(true);
  CHECK(failed);
  std::string expected = std::string(1000, 'a') + std::string(39000, 'b') + std::string(20000, '\0') +
                         std::string(1000, 'c');
  CHECK(home.read(*image, 0, 200000) == expected);
  home.apply_all();
  CHECK(home->problems().empty());
  image.reset();
  home.disk.evict();
  CHECK(home.stored("a") == expected);
  home.lose_power_and_open();
  image = home.open_path("a");
  CHECK(home.read(*image, 0, 200000) == expected);
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
