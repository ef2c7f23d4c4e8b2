#include "fs/store/store.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "fs/base/mistakes.h"
#include "fs/store/file_cache.h"
#include "tests/unit/name_space_model.h"

namespace vmfs {
namespace {

using test::NameSpaceModel;
using test::NameSpaceRecord;

// A store in a fresh directory, removed at the end.
class StoreDirectory {
 public:
  StoreDirectory() {
    char pattern[] = "/tmp/vmfs-store-test-XXXXXX";
    REQUIRE(::mkdtemp(pattern) != nullptr);
    path_ = pattern;
    disk_ = open_posix_disk(path_).value();
    REQUIRE(Store::create(*disk_));
  }
  ~StoreDirectory() { std::filesystem::remove_all(path_); }
  std::unique_ptr<Store> open() { return Store::open(*disk_).value(); }
  Disk& disk() { return *disk_; }
  std::filesystem::path operator/(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
  std::unique_ptr<Disk> disk_;
};

Create image(std::uint64_t id, const char* name, ObjectId parent = kRootObject) {
  return {.object = ObjectId{id}, .parent = parent, .name = name, .type = FileType::kRegular,
          .permissions = 0640, .uid = 12, .gid = 34, .time_ns = 1'700'000'000'000'000'001,
          .first_epoch = EpochId{1}};
}
Create directory(std::uint64_t id, const char* name, ObjectId parent = kRootObject) {
  return {.object = ObjectId{id}, .parent = parent, .name = name, .type = FileType::kDirectory,
          .permissions = 0755, .time_ns = 5};
}

void write_text(Store& store, std::uint64_t id, std::string_view text, std::uint64_t offset = 0) {
  auto file = store.file(ObjectId{id});
  REQUIRE(file);
  REQUIRE((*file)->write(as_bytes(text), offset, "test"));
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.is_open());
  std::string text(std::filesystem::file_size(path), '\0');
  REQUIRE(file.read(text.data(), static_cast<std::streamsize>(text.size())));
  return text;
}

TEST_SUITE("store") {
  TEST_CASE("an image is a plain file in the tree, with its attributes, and is found again") {
    StoreDirectory dir;
    auto store = dir.open();
    REQUIRE(store->create_object(directory(10, "guests")));
    REQUIRE(store->create_object(image(11, "web.img", ObjectId{10})));
    REQUIRE(store->create_object({.object = ObjectId{12}, .parent = kRootObject, .name = "latest",
                                  .type = FileType::kSymlink, .target = "guests/web.img"}));
    write_text(*store, 11, "boot");
    REQUIRE(store->sync_names());
    CHECK(read_text(dir / "images/guests/web.img") == "boot");
    CHECK(store->path_of(ObjectId{11}) == "images/guests/web.img");

    store = dir.open();
    CHECK(store->foreign().empty());
    REQUIRE(store->loaded().size() == 4);
    CHECK(store->loaded().front().object == kRootObject);
    for (const StoredObject& found : store->loaded()) {
      if (found.object == ObjectId{11}) {
        CHECK(found.parent == ObjectId{10});
        CHECK(found.stat.permissions == 0640);
        CHECK(found.stat.uid == 12);
        CHECK(found.stat.gid == 34);
        CHECK(found.stat.size == 4);
      }
      if (found.object == ObjectId{12}) CHECK(found.target == "guests/web.img");
    }
  }

  TEST_CASE("an open image stays usable through rename, unlink and delete") {
    StoreDirectory dir;
    auto store = dir.open();
    REQUIRE(store->create_object(image(11, "a")));
    auto file = store->file(ObjectId{11}).value();
    REQUIRE(store->rename({ObjectId{11}, kRootObject, "a", kRootObject, "b", {}, 6}));
    REQUIRE(store->unlink({ObjectId{11}, kRootObject, "b", 7}));
    CHECK(std::filesystem::exists(dir / "unlinked/000000000000000b"));
    REQUIRE(file->write(as_bytes("x"), 0, "test"));
    REQUIRE(store->delete_object(ObjectId{11}));
    CHECK(!std::filesystem::exists(dir / "unlinked/000000000000000b"));
    REQUIRE(file->write(as_bytes("y"), 0, "test"));
    CHECK(store->file(ObjectId{11}).error().kind == ErrorKind::kNotFound);
    REQUIRE(store->delete_object(ObjectId{11}));
  }

  TEST_CASE("what a rename replaces is kept until its deletion is recorded") {
    StoreDirectory dir;
    auto store = dir.open();
    REQUIRE(store->create_object(image(11, "a")));
    REQUIRE(store->create_object(image(12, "b")));
    write_text(*store, 12, "old");
    REQUIRE(store->rename({ObjectId{11}, kRootObject, "a", kRootObject, "b", ObjectId{12}, 6}));
    CHECK(store->path_of(ObjectId{11}) == "images/b");
    CHECK(read_text(dir / "unlinked/000000000000000c") == "old");
  }

  TEST_CASE("foreign entries are reported, left alone, and moved out of the way, never deleted") {
    StoreDirectory dir;
    std::ofstream(dir / "images/stranger") << "precious";
    auto store = dir.open();
    REQUIRE(store->foreign() == std::vector<std::string>{"images/stranger"});
    REQUIRE(store->create_object(image(11, "stranger")));
    CHECK(store->path_of(ObjectId{11}) == "images/stranger");
    bool found = false;
    for (const auto& entry : std::filesystem::directory_iterator(dir / "unlinked"))
      found |= read_text(entry.path()) == "precious";
    CHECK(found);
  }

  TEST_CASE("a damaged tag is refused by name, and nothing is removed for it") {
    StoreDirectory dir;
    {
      auto store = dir.open();
      REQUIRE(store->create_object(image(11, "web.img")));
      REQUIRE(store->create_object(image(12, "open.img")));
      write_text(*store, 12, "still open");
      REQUIRE(store->unlink({.object = ObjectId{12}, .parent = kRootObject, .name = "open.img"}));
      REQUIRE(store->sync_names());
    }
    // Of an image without a name, too: one without any id would be an unfinished file, which is removed.
    for (const char* path : {"images/web.img", "unlinked/000000000000000c"}) {
      const Bytes whole = dir.disk().get_tag(path, "id", "test").value();
      REQUIRE(dir.disk().set_tag(path, "id", ByteView(whole).first(7), "test"));
      auto refused = Store::open(dir.disk());
      REQUIRE_FALSE(refused);
      CHECK(refused.error().kind == ErrorKind::kCorrupt);
      CHECK(refused.error().message.find((dir / path).string()) != std::string::npos);
      CHECK(refused.error().message.find("trusted.vmfs.id") != std::string::npos);
      CHECK(std::filesystem::exists(dir / path));
      REQUIRE(dir.disk().set_tag(path, "id", whole, "test"));
      REQUIRE(Store::open(dir.disk()));
    }
    // An id of another object: the image would be looked for under that one's name.
    {
      const Bytes whole = dir.disk().get_tag("unlinked/000000000000000c", "id", "test").value();
      Bytes other = whole;
      other[0] ^= std::byte{0x40};
      REQUIRE(dir.disk().set_tag("unlinked/000000000000000c", "id", other, "test"));
      auto refused = Store::open(dir.disk());
      REQUIRE_FALSE(refused);
      CHECK(refused.error().kind == ErrorKind::kCorrupt);
      CHECK(refused.error().message.find("unlinked/000000000000000c") != std::string::npos);
      REQUIRE(dir.disk().set_tag("unlinked/000000000000000c", "id", whole, "test"));
    }
    // Where a displaced object belongs: a name that leads elsewhere.
    for (const char* name : {"..", "a/b", ""}) {
      Bytes home;
      Writer(home).put(kRootObject).text(name);
      REQUIRE(dir.disk().set_tag("unlinked/000000000000000c", "home", home, "test"));
      auto refused = Store::open(dir.disk());
      REQUIRE_FALSE(refused);
      CHECK(refused.error().message.find("trusted.vmfs.home") != std::string::npos);
    }
    CHECK(read_text(dir / "unlinked/000000000000000c") == "still open");
  }

  TEST_CASE("what a redo had made again, and what it was made for after all, are one") {
    StoreDirectory dir;
    {
      auto store = dir.open();
      REQUIRE(store->create_object(directory(11, "d")));
      REQUIRE(store->create_object({.object = ObjectId{12}, .parent = kRootObject, .name = "link",
                                    .type = FileType::kSymlink, .time_ns = 5, .target = "d"}));
    }
    const std::string again[] = {fmt::format("unlinked/{}", ObjectId{11}), fmt::format("unlinked/{}", ObjectId{12})};
    REQUIRE(dir.disk().make_directory(again[0], "test"));
    REQUIRE(dir.disk().make_symlink(again[1], "d", "test"));
    REQUIRE(dir.disk().set_tag(again[0], "id", *dir.disk().get_tag("images/d", "id", "test"), "test"));
    REQUIRE(dir.disk().set_tag(again[1], "id", *dir.disk().get_tag("images/link", "id", "test"), "test"));
    auto store = dir.open();
    CHECK(store->path_of(ObjectId{11}) == "images/d");
    CHECK(store->path_of(ObjectId{12}) == "images/link");
    CHECK(dir.disk().list("unlinked", "test")->empty());
    store.reset();
    // A copy that a person made of an image is another matter: nothing tells which is the image.
    REQUIRE(dir.open()->create_object(image(13, "a")));
    REQUIRE(dir.disk().open("unlinked/000000000000000d", OpenMode::kCreate, "test"));
    REQUIRE(dir.disk().set_tag("unlinked/000000000000000d", "id", *dir.disk().get_tag("images/a", "id", "test"), "test"));
    CHECK_FALSE(Store::open(dir.disk()));
  }

  TEST_CASE("removing a directory that holds something foreign keeps it") {
    StoreDirectory dir;
    auto store = dir.open();
    REQUIRE(store->create_object(directory(10, "d")));
    std::ofstream(dir / "images/d/stranger") << "precious";
    REQUIRE(store->unlink({ObjectId{10}, kRootObject, "d", 7}));
    CHECK(!std::filesystem::exists(dir / "images/d"));
    bool found = false;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir / "unlinked"))
      found |= entry.is_regular_file() && read_text(entry.path()) == "precious";
    CHECK(found);
    CHECK(dir.open()->loaded().size() == 1);
  }

  TEST_CASE("two entries with one id are refused, and the message names both") {
    StoreDirectory dir;
    REQUIRE(dir.open()->create_object(image(11, "a")));
    std::filesystem::copy(dir / "images/a", dir / "images/b");
    std::byte id[8] = {std::byte{11}};
    REQUIRE(::setxattr((dir / "images/b").c_str(), "trusted.vmfs.id", id, sizeof id, 0) == 0);
    auto store = Store::open(dir.disk());
    REQUIRE(!store);
    CHECK(store.error().kind == ErrorKind::kRefused);
    CHECK(store.error().message.find("images/a") != std::string::npos);
    CHECK(store.error().message.find("images/b") != std::string::npos);
    CHECK(store.error().message.find("setfattr -x") != std::string::npos);
  }

  TEST_CASE("a directory that is no store is refused") {
    StoreDirectory dir;
    std::filesystem::remove(dir / "images");
    auto store = Store::open(dir.disk());
    REQUIRE(!store);
    CHECK(store.error().kind == ErrorKind::kRefused);
    CHECK(store.error().message.find("is missing") != std::string::npos);
  }

  TEST_CASE("a creation that was cut short is removed when the store is opened") {
    StoreDirectory dir;
    std::ofstream(dir / "unlinked/00000000000000aa") << "half a copy";
    auto store = dir.open();
    CHECK(store->foreign().empty());
    CHECK(!std::filesystem::exists(dir / "unlinked/00000000000000aa"));
  }

  TEST_CASE("a kept copy has the image's bytes, is sparse, read-only, found again, and made once") {
    StoreDirectory dir;
    auto store = dir.open();
    REQUIRE(store->create_object(directory(10, "guests")));
    REQUIRE(store->create_object(image(11, "web.img", ObjectId{10})));
    write_text(*store, 11, "begin");
    write_text(*store, 11, "end", 64u << 20);
    auto made = store->keep_copy(ObjectId{11}, "left-a-1");
    REQUIRE(made);
    REQUIRE(made->size() == 4);  // .snapshots, left-a-1, guests, web.img
    CHECK(made->at(0).object == kSnapshotsDirectory);
    CHECK(made->at(1).parent == kSnapshotsDirectory);
    CHECK(made->at(3).name == "web.img");
    CHECK(made->at(3).stat.permissions == 0440);
    CHECK(store->file(made->at(3).object));
    write_text(*store, 11, "NEW!!");
    auto copy = dir / "images/.snapshots/left-a-1/guests/web.img";
    std::string bytes = read_text(copy);
    CHECK(bytes.size() == (64u << 20) + 3);
    CHECK(bytes.substr(0, 5) == "begin");
    CHECK(bytes.substr(64u << 20) == "end");
    struct stat stat;
    REQUIRE(::stat(copy.c_str(), &stat) == 0);
    CHECK(stat.st_blocks * 512 < 1 << 20);

    auto again = store->keep_copy(ObjectId{11}, "left-a-1");
    REQUIRE(again);
    CHECK(again->empty());
    CHECK(read_text(copy).substr(0, 5) == "begin");

    // Another image that has the path by now.
    REQUIRE(store->unlink({ObjectId{11}, ObjectId{10}, "web.img", 7}));
    REQUIRE(store->create_object(image(13, "web.img", ObjectId{10})));
    auto other = store->keep_copy(ObjectId{13}, "left-a-1");
    REQUIRE(other);
    CHECK(other->back().name == "web.img.000000000000000d");
    // And one whose directory has the name of a copy.
    auto unlinked = store->keep_copy(ObjectId{11}, "left-a-2");
    REQUIRE(unlinked);
    CHECK(unlinked->back().name == "unlinked-000000000000000b");

    store = dir.open();
    CHECK(store->exists(made->at(3).object));
    CHECK(store->exists(kSnapshotsDirectory));
  }

  TEST_CASE("the open files are bounded, and one that is held stays open") {
    StoreDirectory dir;
    auto store = dir.open();
    FileCache cache(2);
    std::vector<std::shared_ptr<File>> held;
    for (std::uint64_t id = 11; id < 16; ++id) {
      REQUIRE(store->create_object(image(id, std::to_string(id).c_str())));
      held.push_back(cache.insert(ObjectId{id}, store->file(ObjectId{id}).value()));
      if (id == 12) CHECK(cache.find(ObjectId{11}));  // now 12 is the longest unused
    }
    CHECK(cache.size() == 2);
    CHECK(!cache.find(ObjectId{11}));
    CHECK(cache.find(ObjectId{15}) == held.back());
    CHECK(held.front()->write(as_bytes("x"), 0, "test"));
    cache.forget(ObjectId{15});
    CHECK(!cache.find(ObjectId{15}));
  }

  TEST_CASE("a redo from any record on a store that is further ends in the same tree") {
    int differing_with_mistake = 0;
    for (bool mistake : {false, true}) {
      mistakes.rename_by_path = mistake;
      for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        CAPTURE(seed);
        StoreDirectory dir;
        NameSpaceModel model(seed);
        std::vector<NameSpaceRecord> records;
        auto store = dir.open();
        std::size_t further = 30 + model.pick(60);
        bool differs = false;
        for (std::size_t i = 0; i < further; ++i) {
          records.push_back(model.next());
          REQUIRE(test::redo(*store, records.back()));
        }
        REQUIRE(store->sync_names());
        differs |= test::tree_of(*dir.open()) != model.tree();
        for (int round = 0; round < 3; ++round) {
          store = dir.open();
          for (std::size_t i = model.pick(further); i < further; ++i)
            REQUIRE(test::redo(*store, records[i]));
          differs |= test::tree_of(*dir.open()) != model.tree();
        }
        if (mistake)
          differing_with_mistake += differs;
        else
          CHECK(!differs);
      }
    }
    mistakes.rename_by_path = false;
    CHECK(differing_with_mistake > 10);
  }
}

}  // namespace
}  // namespace vmfs
