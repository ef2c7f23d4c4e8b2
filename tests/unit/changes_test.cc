#include "fs/journal/changes.h"

#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <fstream>
#include <map>

namespace vmfs {
namespace {

// tests/golden/changes-v1.hex: a line for each change, "name hex". An old file must be readable for
// ever, so a changed line means a new version of the format.
std::map<std::string, std::string> golden_lines() {
  std::map<std::string, std::string> lines;
  std::ifstream file(VMFS_SOURCE_DIR "/tests/golden/changes-v1.hex");
  for (std::string name, hex; file >> name >> hex;) lines[name] = hex;
  return lines;
}

std::string hex(ByteView bytes) {
  std::string text;
  for (std::byte b : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(b));
  return text;
}

Create sample_create() {
  return {.object = ObjectId{0x1122334455667788},
          .parent = kRootObject,
          .name = "web01.img",
          .type = FileType::kRegular,
          .permissions = 0640,
          .uid = 1000,
          .gid = 1001,
          .time_ns = 1'700'000'000'123'456'789,
          .target = "",
          .first_epoch = EpochId{0xabcdef},
          .creator = NodeId{77}};
}

EpochEntry sample_entry() {
  return {.epoch = EpochId{0xe1},
          .node = NodeId{0xa},
          .parent = {EpochId{0xe0}, 41208},
          .cause = EpochCause::kForced,
          .wall_ns = 1'700'000'001'000'000'000};
}

FinalHistory sample_end() { return {.epochs = {sample_entry()}, .seq = 41300}; }

FileStat sample_stat() {
  return {.type = FileType::kRegular, .permissions = 0600, .uid = 1, .gid = 2, .links = 1,
          .size = 10ull << 30, .allocated = 4096, .atime_ns = 5, .mtime_ns = -6, .ctime_ns = 7};
}

BaseBegin sample_base() {
  return {.whole = false, .ranges = {{0, 4096}, {1 << 20, 8192}}, .history = {sample_entry()},
          .stat = sample_stat(), .owner = NodeId{3}, .taker = NodeId{4}};
}

std::vector<BaseObject> sample_objects() {
  FileStat directory{.type = FileType::kDirectory, .permissions = 0755};
  FileStat symlink{.type = FileType::kSymlink, .permissions = 0777};
  return {{kRootObject, ObjectId{}, "", FileType::kDirectory, directory, ""},
          {ObjectId{5}, kRootObject, "link", FileType::kSymlink, symlink, "../x"},
          {ObjectId{6}, ObjectId{}, "", FileType::kRegular, sample_stat(), ""}};
}

// Every change once, as the golden file has it.
std::map<std::string, Bytes> samples() {
  return {
      {"create", encode(sample_create())},
      {"unlink", encode(Unlink{ObjectId{9}, kRootObject, "old", 12345})},
      {"rename", encode(Rename{ObjectId{9}, kRootObject, "a", ObjectId{4}, "b", ObjectId{8}, 1})},
      {"delete_object", encode(DeleteObject{ObjectId{9}})},
      {"unlink_image", encode(Unlink{ObjectId{9}, kRootObject, "old", 12345, sample_end()})},
      {"rename_over_image",
       encode(Rename{ObjectId{9}, kRootObject, "a", ObjectId{4}, "b", ObjectId{8}, 1, sample_end()})},
      {"delete_image", encode(DeleteObject{ObjectId{9}, sample_end()})},
      {"set_attributes",
       encode(AttributeChange{ObjectId{9}, {.permissions = 0600, .mtime_ns = -3}, 99})},
      {"epoch", encode(EpochChange{sample_entry()})},
      {"released", encode(Release{NodeId{12}})},
      {"flush", encode(PeerConfirmations{{NodeId{1}, 4096}, {NodeId{2}, 8192}})},
      {"base_begin", encode(sample_base())},
      {"base_objects", encode(sample_objects())},
  };
}

template <class Change>
std::string why(ByteView bytes) {
  auto change = decode<Change>(bytes);
  if (change) return "";
  CHECK(change.error().kind == ErrorKind::kCorrupt);
  return change.error().message;
}

template <class Change>
std::string why_not(const Change& change) {
  return why<Change>(encode(change));
}

bool contains(const std::string& text, const char* part) {
  CAPTURE(text);
  return text.find(part) != text.npos;
}

TEST_SUITE("changes") {
  TEST_CASE("the encoding is that of version 1") {
    if (std::getenv("VMFS_UPDATE_GOLDEN")) {
      std::ofstream file(VMFS_SOURCE_DIR "/tests/golden/changes-v1.hex");
      for (const auto& [name, bytes] : samples()) file << name << ' ' << hex(bytes) << '\n';
    }
    auto golden = golden_lines();
    CHECK(golden.size() == samples().size());
    for (const auto& [name, bytes] : samples()) {
      CAPTURE(name);
      CHECK(golden[name] == hex(bytes));
    }
  }

  TEST_CASE("what was encoded is decoded") {
    auto create = decode<Create>(encode(sample_create()));
    REQUIRE(create);
    CHECK(create->object == ObjectId{0x1122334455667788});
    CHECK(create->name == "web01.img");
    CHECK(create->permissions == 0640);
    CHECK(create->gid == 1001);
    CHECK(create->time_ns == 1'700'000'000'123'456'789);
    CHECK(create->first_epoch == EpochId{0xabcdef});
    CHECK(create->creator == NodeId{77});

    auto rename = decode<Rename>(encode(
        Rename{ObjectId{9}, kRootObject, "a", ObjectId{4}, "b", ObjectId{8}, 1}));
    REQUIRE(rename);
    CHECK(rename->from_name == "a");
    CHECK(rename->to_parent == ObjectId{4});
    CHECK(rename->replaced == ObjectId{8});
    CHECK(rename->had.epochs.empty());

    auto removal = decode<DeleteObject>(encode(DeleteObject{ObjectId{9}, sample_end()}));
    REQUIRE(removal);
    CHECK(removal->had.epochs == sample_end().epochs);
    CHECK(removal->had.seq == 41300);
    // Of a long history the newest end is told.
    FinalHistory long_one = sample_end();
    long_one.epochs.insert(long_one.epochs.begin(), kFinalEpochsMax, EpochEntry{EpochId{1}, NodeId{1}, {}});
    removal = decode<DeleteObject>(encode(DeleteObject{ObjectId{9}, long_one}));
    REQUIRE(removal);
    CHECK(removal->had.epochs.size() == kFinalEpochsMax);
    CHECK(removal->had.epochs.back() == sample_entry());

    auto attributes = decode<AttributeChange>(
        encode(AttributeChange{ObjectId{9}, {.permissions = 0600, .mtime_ns = -3}, 99}));
    REQUIRE(attributes);
    CHECK(attributes->set.permissions == 0600u);
    CHECK(!attributes->set.uid);
    CHECK(attributes->set.mtime_ns == -3);

    auto base = decode<BaseBegin>(encode(sample_base()));
    REQUIRE(base);
    CHECK(!base->whole);
    CHECK(base->ranges.at(1).length == 8192);
    CHECK(base->history.at(0) == sample_entry());
    CHECK(base->stat.mtime_ns == -6);

    auto objects = decode<std::vector<BaseObject>>(encode(sample_objects()));
    REQUIRE(objects);
    CHECK(objects->size() == 3);
    CHECK(objects->at(1).target == "../x");

    auto peers = decode<PeerConfirmations>(encode(PeerConfirmations{{NodeId{1}, 4096}}));
    REQUIRE(peers);
    CHECK(peers->at(0).confirmed == 4096);
  }

  TEST_CASE("a payload that is cut short or too long is refused") {
    for (auto& [name, bytes] : samples()) {
      CAPTURE(name);
      auto try_all = [&](ByteView view) {
        if (name == "create") return why<Create>(view);
        if (name.starts_with("unlink")) return why<Unlink>(view);
        if (name.starts_with("rename")) return why<Rename>(view);
        if (name.starts_with("delete")) return why<DeleteObject>(view);
        if (name == "set_attributes") return why<AttributeChange>(view);
        if (name == "epoch") return why<EpochChange>(view);
        if (name == "released") return why<Release>(view);
        if (name == "flush") return why<PeerConfirmations>(view);
        if (name == "base_begin") return why<BaseBegin>(view);
        return why<std::vector<BaseObject>>(view);
      };
      CHECK(try_all(bytes) == "");
      // What an image's removal says of it may be missing as a whole.
      const std::size_t end = name.ends_with("_image") ? encode(DeleteObject{ObjectId{9}, sample_end()}).size() - sizeof(ObjectId) : 0;
      const std::size_t whole_without = end != 0 ? bytes.size() - end : 0;
      for (std::size_t size = 0; size < bytes.size(); ++size)
        CHECK((try_all(ByteView(bytes).first(size)) == "") == (end != 0 && size == whole_without));
      Bytes longer = bytes;
      longer.push_back(std::byte{0});
      const bool end_missing = name == "unlink" || name == "rename" || name == "delete_object";
      CHECK(contains(try_all(longer), end_missing ? "too early" : "left over"));
    }
  }

  TEST_CASE("values that cannot be are refused, with the reason") {
    auto create_with = [](auto change) {
      Create create = sample_create();
      change(create);
      return why_not(create);
    };
    CHECK(create_with([](Create&) {}) == "");
    CHECK(contains(create_with([](Create& c) { c.name = ".."; }), "\"..\""));
    CHECK(contains(create_with([](Create& c) { c.name = "a/b"; }), "'/'"));
    CHECK(contains(create_with([](Create& c) { c.name = std::string("a\0b", 3); }), "zero byte"));
    CHECK(contains(create_with([](Create& c) { c.name = ""; }), "empty"));
    CHECK(create_with([](Create& c) { c.name = std::string(255, 'n'); }) == "");
    CHECK(create_with([](Create& c) { c.name = std::string(256, 'n'); }) != "");
    CHECK(contains(create_with([](Create& c) { c.type = FileType::kOther; }), "type"));
    CHECK(contains(create_with([](Create& c) { c.type = FileType::kSymlink; }), "target"));
    CHECK(contains(create_with([](Create& c) { c.target = "x"; }), "target"));
    CHECK(contains(create_with([](Create& c) { c.object = ObjectId{}; }), "no object"));
    CHECK(contains(create_with([](Create& c) { c.object = kRootObject; }), "root"));
    CHECK(contains(create_with([](Create& c) { c.object = ObjectId{1ull << 63}; }), "bit 63"));
    CHECK(contains(create_with([](Create& c) { c.permissions = 010000; }), "12 bits"));
    CHECK(contains(create_with([](Create& c) { c.first_epoch = EpochId{}; }), "epoch"));

    EpochEntry entry = sample_entry();
    entry.cause = EpochCause{7};
    CHECK(contains(why_not(EpochChange{entry}), "cause"));
    CHECK(contains(why_not(BaseBegin{.whole = true, .ranges = {{0, 1}}, .history = {}, .stat = {}}),
                   "names ranges"));
    CHECK(contains(
        why_not(BaseBegin{.whole = false, .ranges = {{1ull << 62, 1ull << 62}}, .history = {},
                          .stat = {}}),
        "2^63"));
  }

  TEST_CASE("a count is checked against what has arrived before anything is allocated") {
    Bytes bytes;
    Writer(bytes).put(std::uint32_t{0xffffffff});
    CHECK(contains(why<PeerConfirmations>(bytes), "longer than its limit"));
    CHECK(contains(why<std::vector<BaseObject>>(bytes), "longer than its limit"));
    Bytes removal;
    Writer(removal).put(ObjectId{9}).put(std::uint32_t{0x7fffffff});
    CHECK(contains(why<DeleteObject>(removal), "longer than its limit"));
    Bytes base;
    Writer(base).put(std::uint8_t{0}).put(std::uint32_t{0x7fffffff});
    CHECK(contains(why<BaseBegin>(base), "longer than its limit"));
  }
}

}  // namespace
}  // namespace vmfs
