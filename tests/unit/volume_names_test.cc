#include <algorithm>
#include <map>

#include "tests/unit/volume_fixture.h"

namespace vmfs {
namespace {

using test::errno_of;
using test::VolumeHome;

TEST_SUITE_BEGIN("volume names");

TEST_CASE("creation, lookup and their errors") {
  VolumeHome home;
  ObjectId directory = home->make_directory({}, kRootObject, "d", 0755)->object;
  ObjectId file = home.create("f", directory);
  CHECK(home->lookup(directory, "f")->object == file);
  CHECK(errno_of(home->lookup(directory, "g")) == ENOENT);
  CHECK(errno_of(home->lookup(file, "g")) == ENOTDIR);
  CHECK(errno_of(home->create({}, directory, "f", 0600)) == EEXIST);
  CHECK(errno_of(home->create({}, file, "g", 0600)) == ENOTDIR);
  CHECK(errno_of(home->create({}, directory, std::string(256, 'n'), 0600)) == ENAMETOOLONG);
  CHECK(errno_of(home->make_directory({}, directory, "f", 0700)) == EEXIST);
  CHECK(errno_of(home->create({}, kRootObject, ".snapshots", 0600)) == EROFS);
  CHECK(home->make_symlink({}, directory, "s", "../x"));
  CHECK(*home->read_symlink(home->resolve("d/s")->object) == "../x");
  CHECK(errno_of(home->read_symlink(file)) == EINVAL);
  CHECK(home->path_of(file) == "d/f");
  CHECK(home->attributes(kRootObject)->stat.links == 3);
  CHECK(home->list(directory)->size() == 2);
  CHECK(errno_of(home->open_image(directory, false)) == EISDIR);
  Caller caller;
  caller.uid = 5;
  caller.gid = 6;
  REQUIRE(home->set_attributes({}, directory, {.set = {.permissions = 02775, .gid = 9}, .size = {}}));
  auto made = home->make_directory(caller, directory, "sub", 0755);
  CHECK(made->stat.gid == 9);
  CHECK(made->stat.permissions == 02755);
  CHECK(made->stat.uid == 5);
}

TEST_CASE("removal and renaming, as POSIX has them") {
  VolumeHome home;
  ObjectId a = home->make_directory({}, kRootObject, "a", 0755)->object;
  ObjectId b = home->make_directory({}, a, "b", 0755)->object;
  ObjectId f = home.create("f");
  ObjectId g = home.create("g", b);
  CHECK(errno_of(home->unlink({}, kRootObject, "a")) == EISDIR);
  CHECK(errno_of(home->remove_directory({}, kRootObject, "f")) == ENOTDIR);
  CHECK(errno_of(home->remove_directory({}, kRootObject, "a")) == ENOTEMPTY);
  CHECK(errno_of(home->rename({}, kRootObject, "a", b, "x", false)) == EINVAL);
  CHECK(errno_of(home->rename({}, kRootObject, "f", kRootObject, "a", false)) == EISDIR);
  CHECK(errno_of(home->rename({}, kRootObject, "a", kRootObject, "f", false)) == ENOTDIR);
  CHECK(errno_of(home->rename({}, kRootObject, "f", b, "g", true)) == EEXIST);
  CHECK(errno_of(home->rename({}, kRootObject, "nothing", b, "g", true)) == ENOENT);
  CHECK(home->rename({}, kRootObject, "f", kRootObject, "f", false));
  CHECK(home->rename({}, kRootObject, "f", b, "g", false));
  CHECK(home->resolve("a/b/g")->object == f);
  CHECK(errno_of(home->attributes(g)) == ENOENT);
  CHECK(home->rename({}, a, "b", kRootObject, "c", false));
  CHECK(home->path_of(f) == "c/g");
  CHECK(home->remove_directory({}, kRootObject, "a"));
  home.lose_power_and_open();
  CHECK(home->path_of(f) == "c/g");
  CHECK(errno_of(home->resolve("a")) == ENOENT);
  CHECK(home->unlink({}, b, "g"));
  CHECK(home->remove_directory({}, kRootObject, "c"));
  CHECK(home->list(kRootObject)->empty());
  CHECK(home->groups().size() == 1);
}

TEST_CASE("an unlinked image lives until its last close") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto first = home.open_image(id), second = home.open_image(id, false);
  home.write(*first, 0, "text");
  REQUIRE(home->unlink({}, kRootObject, "a"));
  CHECK(errno_of(home->resolve("a")) == ENOENT);
  home.write(*first, 4, "more");
  home.apply_all();
  CHECK(home.read(*second, 0, 100) == "textmore");
  home->close_image(first);
  CHECK(home->attributes(id));
  SUBCASE("closed") {
    home->close_image(second);
    CHECK(errno_of(home->attributes(id)) == ENOENT);
  }
  SUBCASE("orphaned by the daemon's death") {
    second.reset();
    home.kill_and_open();
    REQUIRE(home->apply_some(false));
    CHECK(errno_of(home->attributes(id)) == ENOENT);
  }
  home.lose_power_and_open();
  CHECK(errno_of(home->attributes(id)) == ENOENT);
}

TEST_CASE("a request that comes again gets the first answer") {
  VolumeHome home;
  ConnectionId connection{42};
  std::vector<std::uint64_t> open{10, 11, 12, 13, 14};
  auto caller = [&](std::uint64_t unique, bool resent) {
    Caller c;
    c.request = {connection, unique};
    c.resent = resent;
    return c;
  };
  auto made = home->create(caller(10, false), kRootObject, "a", 0600);
  REQUIRE(made);
  REQUIRE(home->make_directory(caller(11, false), kRootObject, "d", 0700));
  REQUIRE(home->rename(caller(12, false), kRootObject, "a", kRootObject, "b", false));
  home.create("c");
  REQUIRE(home->unlink(caller(13, false), kRootObject, "c"));
  Volume::OpenArguments arguments{.connection = connection,
                                  .unanswered = open,
                                  .unanswered_now = [&] { return open; }};
  home.kill_and_open(arguments);
  SUBCASE("at once") {}
  SUBCASE("after the records were recycled") {
    for (int i = 0; i < 3; ++i) {
      auto image = home.open_path("b");
      home.write(*image, 0, "x");
      home->close_image(image);
      home.apply_all();
      home.kill_and_open(arguments);
    }
  }
  auto again = home->create(caller(10, true), kRootObject, "a", 0600);
  REQUIRE(again);
  CHECK(again->object == made->object);
  CHECK(errno_of(home->make_directory(caller(11, true), kRootObject, "d", 0700)) == 0);
  CHECK(errno_of(home->rename(caller(12, true), kRootObject, "a", kRootObject, "b", false)) == 0);
  CHECK(errno_of(home->unlink(caller(13, true), kRootObject, "c")) == 0);
  CHECK(errno_of(home->unlink(caller(14, true), kRootObject, "nothing")) == ENOENT);
  CHECK(home->list(kRootObject)->size() == 2);
}

TEST_CASE("a request that waits for its answer is known again, however much others change meanwhile") {
  VolumeHome home;
  ConnectionId connection{42};
  const std::vector<std::uint64_t> open{10, 11};
  const auto caller = [&](std::uint64_t unique, bool resent = false) {
    return Caller{{connection, unique}, resent, 0, 0};
  };
  const Volume::OpenArguments arguments{
      .connection = connection, .unanswered = open, .unanswered_now = [&] { return open; }};
  home.kill_and_open(arguments);
  auto made = home->create(caller(10), kRootObject, "log", 0600);
  REQUIRE(made);
  {
    auto image = home.open_path("log");
    REQUIRE(home->write(*image, caller(11), 0, as_bytes("once"), Placed::kAtEnd));
    for (std::uint64_t unique = 12; unique < 12 + 20'000; ++unique)
      REQUIRE(home->write(*image, caller(unique), 0, as_bytes("o")));
    home->close_image(image);
  }
  // The records are behind the checkpoint; the second death finds only what the first daemon was told.
  for (int i = 0; i < 2; ++i) {
    home.apply_all();
    home.kill_and_open(arguments);
  }
  auto again = home->create(caller(10, true), kRootObject, "log", 0600);
  REQUIRE(again);
  CHECK(again->object == made->object);
  auto image = home.open_path("log");
  REQUIRE(home->write(*image, caller(11, true), 0, as_bytes("once"), Placed::kAtEnd));
  CHECK(home.read(*image, 0, 100) == "once");
  home->close_image(image);
}

TEST_CASE("changes that the store refuses are made later") {
  VolumeHome home;
  home.disk.fail_calls("store.make", {}, 1, ENOSPC, true);
  // Nobody is told that it was refused: it happens later.
  CHECK(errno_of(home->create({}, kRootObject, "a", 0600)) == EIO);
  CHECK(!home->problems().empty());
  CHECK(errno_of(home->create({}, kRootObject, "b", 0600)) == ENOSPC);
  std::optional<int> flushed;
  home->flush_names({}, [&](Result<> result) { flushed = errno_of(result); });
  CHECK(flushed == EIO);
  home.disk.heal();
  CHECK(home->create({}, kRootObject, "c", 0600));
  CHECK(home->problems().empty());
  CHECK(home->list(kRootObject)->size() == 2);
  home.lose_power_and_open();
  CHECK(home->list(kRootObject)->size() == 2);
}

TEST_CASE("what was recorded and refused by the store is made before anything else is looked up") {
  VolumeHome home;
  const ObjectId a = home.create("a"), x = home.create("x");
  home.write(*home.open_image(a), 0, "precious");
  SUBCASE("a rename, and a creation under the new name") {
    home.disk.fail_calls("store.rename", {}, 1, EIO, true);
    CHECK(errno_of(home->rename({}, kRootObject, "a", kRootObject, "b", false)) == EIO);
    home.disk.heal();
    CHECK(errno_of(home->create({}, kRootObject, "b", 0600)) == EEXIST);
    CHECK(errno_of(home->rename({}, kRootObject, "x", kRootObject, "b", true)) == EEXIST);
    CHECK(home.read(*home.open_path("b"), 0, 20) == "precious");
    CHECK(!home->lookup(kRootObject, "a"));
  }
  SUBCASE("a removal, and a guest that is started from the image") {
    home.disk.fail_calls("store.rename", {}, 1, EIO, true);
    CHECK(errno_of(home->unlink({}, kRootObject, "x")) == EIO);
    // It goes as soon as it can: nothing that is written to it would stay.
    auto opened = home->open_image(x, true);
    REQUIRE_FALSE(opened);
    CHECK(opened.error().number == EIO);
    CHECK(opened.error().message.find("status") != std::string::npos);
    CHECK(home->open_image(a, true));
    home.disk.heal();
    CHECK(errno_of(home->unlink({}, kRootObject, "x")) == ENOENT);
  }
  home.lose_power_and_open();
  CHECK(home->list(kRootObject)->size() == (home->lookup(kRootObject, "b") ? 2 : 1));
}

TEST_CASE("a name that the store refused is made as soon as it can be, though nobody changes another one") {
  VolumeHome home;
  const ObjectId a = home.create("a");
  struct : Volume::Observer {
    void group_changed(GroupId, RecordType) override { FAIL("no group was changed"); }
    void names_changed(ObjectId parent, const std::string& name) override {
      CHECK(parent == kRootObject);
      told.push_back(name);
    }
    std::vector<std::string> told;
  } kernel;
  home->add_observer(&kernel);
  home.disk.fail_calls("store.make", {}, 1, ENOSPC, true);
  CHECK(errno_of(home->create({}, kRootObject, "late", 0600)) == EIO);
  home.apply_all();
  CHECK_FALSE(home->problems().empty());
  home.disk.heal();
  // Until then the journal keeps its record: it would be full in the end.
  auto image = home.open_image(a);
  for (int i = 0; i < 200; ++i) {
    home.write(*image, 0, std::string(200'000, 'w'));
    home.clock.advance(100'000'000);
    REQUIRE(home->apply_some(false));
  }
  CHECK(home->problems().empty());
  CHECK(home->lookup(kRootObject, "late"));
  CHECK(kernel.told == std::vector<std::string>{"late"});
  home->remove_observer(&kernel);
}

TEST_CASE("what the store could not hold is refused before it is in the journal") {
  VolumeHome home;
  CHECK(home->make_symlink({}, kRootObject, "s", std::string(1023, 'x')));
  CHECK(errno_of(home->make_symlink({}, kRootObject, "t", std::string(1024, 'x'))) == ENAMETOOLONG);
  // A store with few files: those that journal and state need stay free.
  home.disk.set_files(500, DiskSpace{}.file_size_max);
  home.kill_and_open();
  int made = 0;
  while (made < 1000 && home->create({}, kRootObject, std::to_string(made), 0600)) ++made;
  CHECK(made > 300);
  CHECK(made < 480);
  CHECK(errno_of(home->make_directory({}, kRootObject, "d", 0700)) == ENOSPC);
  CHECK(home->problems().empty());
  // Making room is always possible.
  for (int i = 0; i < 10; ++i) CHECK(home->unlink({}, kRootObject, std::to_string(i)));
  home.close_and_open();
  CHECK(home->make_directory({}, kRootObject, "d", 0700));
}

TEST_CASE("random name-space changes with deaths and power cuts at any call" *
          doctest::test_suite("volume names, one thread")) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    CAPTURE(seed);
    sim::Random random(seed);
    VolumeHome home(seed);
    std::map<std::string, ObjectId> model;  // path: object
    // The change under way when the disk stopped may or may not have happened.
    for (int round = 0; round < 12; ++round) {
      CAPTURE(round);
      std::map<std::string, ObjectId> before;
      home.disk.stop_at_change(1 + random.below(60));
      while (!home.disk.stopped()) {
        before = model;
        std::string name(1, static_cast<char>('a' + random.below(5)));
        std::string other(1, static_cast<char>('a' + random.below(5)));
        ObjectId parent = kRootObject;
        switch (random.below(5)) {
          case 0:
          case 1: {
            auto made = home->create({}, parent, name, 0600);
            if (made) model[name] = made->object;
            break;
          }
          case 2:
            if (home->unlink({}, parent, name)) model.erase(name);
            break;
          case 3:
            if (home->rename({}, parent, name, parent, other, false) && name != other) {
              model[other] = model[name];
              model.erase(name);
            }
            break;
          case 4:
            (void)home->apply_some(true);
            break;
        }
      }
      home.volume.reset();
      if (random.one_in(2))
        home.disk.restart();
      else
        home.disk.lose_power();
      home.open();
      std::map<std::string, ObjectId> found;
      auto listed = home->list(kRootObject);
      for (const ListedEntry& entry : *listed) found[entry.name] = entry.object;
      // All but the last change are there; that one may be, too, unacknowledged.
      auto difference = [&](const std::map<std::string, ObjectId>& expected) {
        int names = 0;
        for (const auto& [name, object] : expected) names += !found.contains(name) || found[name] != object;
        for (const auto& [name, object] : found) names += !expected.contains(name);
        return names;
      };
      REQUIRE(difference(model) <= 2);
      for (const auto& [name, object] : found) REQUIRE(home->open_image(object, false));
      model = found;
    }
  }
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
