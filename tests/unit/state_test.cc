#include "fs/store/state.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "fs/store/inspect.h"

namespace vmfs {
namespace {

CheckpointState sample() {
  CheckpointState state;
  for (std::size_t i = 0; i < state.volume.size(); ++i) state.volume[i] = std::byte(i);
  state.node = NodeId{0x77};
  state.replay_from = 123456789;
  state.clean = true;
  state.checkpoints = 42;
  state.generation = 3;
  GroupState group;
  group.id = ObjectId{0x1122};
  group.owner = NodeId{0x77};
  group.taker = NodeId{0x78};
  group.history = {{EpochId{1}, NodeId{0x77}, {}, EpochCause::kCreated, 1'700'000'000'000'000'000},
                   {EpochId{2}, NodeId{0x78}, {EpochId{1}, 55}, EpochCause::kForced, 5}};
  group.seq = 99;
  group.recycled = {EpochId{1}, 20};
  group.split = true;
  GroupState names;
  names.id = kNameSpace;
  names.inconsistent = true;
  state.groups = {names, group};
  state.peers = {{NodeId{0x78}, "host-b", 4096, true, 1'700'000'001'000'000'000}};
  state.answered = {{{ConnectionId{5}, 6}, -17, ObjectId{0x1122}}};
  return state;
}

// A directory that is removed at the end.
struct Directory {
  Directory() {
    char pattern[] = "/tmp/vmfs-state-test-XXXXXX";
    REQUIRE(::mkdtemp(pattern) != nullptr);
    path = pattern;
    disk = open_posix_disk(path).value();
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string path;
  std::unique_ptr<Disk> disk;
};

TEST_SUITE("state") {
  TEST_CASE("the file is that of version 1") {
    auto disk = open_posix_disk(VMFS_SOURCE_DIR "/tests/golden").value();
    if (std::getenv("VMFS_UPDATE_GOLDEN"))
      REQUIRE(replace_file(*disk, "state-v1", encode_state(sample()), "test"));
    auto golden = read_whole_file(*disk, "state-v1", "test");
    REQUIRE(golden);
    CHECK(*golden == encode_state(sample()));
  }

  TEST_CASE("what was written is read") {
    Directory dir;
    CHECK(read_state(*dir.disk).error().kind == ErrorKind::kNotFound);
    REQUIRE(write_state(*dir.disk, sample()));
    auto state = read_state(*dir.disk, sample().volume);
    REQUIRE(state);
    CHECK(state->node == NodeId{0x77});
    CHECK(state->replay_from == 123456789);
    CHECK(state->clean);
    CHECK(state->checkpoints == 42);
    CHECK(state->generation == 3);
    REQUIRE(state->groups.size() == 2);
    CHECK(state->groups[0].inconsistent);
    CHECK(!state->groups[0].split);
    CHECK(state->groups[1].history == sample().groups[1].history);
    CHECK(state->groups[1].taker == NodeId{0x78});
    CHECK(state->groups[1].seq == 99);
    CHECK(state->groups[1].recycled == Position{EpochId{1}, 20});
    CHECK(state->groups[1].split);
    REQUIRE(state->peers.size() == 1);
    CHECK(state->peers[0].name == "host-b");
    CHECK(state->peers[0].was_in_sync);
    REQUIRE(state->answered.size() == 1);
    CHECK(state->answered[0].request == RequestId{ConnectionId{5}, 6});
    CHECK(state->answered[0].error == -17);
  }

  TEST_CASE("every flipped bit and every cut is noticed, and the file is named") {
    const Bytes good = encode_state(sample());
    for (std::size_t i = 0; i < good.size(); ++i) {
      CAPTURE(i);
      Bytes bad = good;
      bad[i] ^= std::byte{0x10};
      auto state = decode_state(bad, "/srv/store/state");
      REQUIRE(!state);
      CHECK(state.error().message.find("/srv/store/state") != std::string::npos);
      CHECK(!decode_state(ByteView(good).first(i), "x"));
    }
    auto damaged = decode_state(ByteView(good).first(good.size() - 1), "x");
    CHECK(damaged.error().kind == ErrorKind::kCorrupt);
    CHECK(damaged.error().message.find("announces") != std::string::npos);
  }

  TEST_CASE("a newer version and another volume's state are refused, with the reason") {
    Bytes newer = encode_state(sample());
    newer[4] = std::byte{9};
    auto state = decode_state(newer, "x");
    REQUIRE(!state);
    CHECK(state.error().kind == ErrorKind::kRefused);
    CHECK(state.error().message.find("version 9") != std::string::npos);

    Directory dir;
    REQUIRE(write_state(*dir.disk, sample()));
    auto other = read_state(*dir.disk, VolumeId{});
    REQUIRE(!other);
    CHECK(other.error().kind == ErrorKind::kRefused);
    CHECK(other.error().message.find("belongs to volume 000102") != std::string::npos);
  }

  TEST_CASE("inspect prints what is in it") {
    Bytes bytes = encode_state(sample());
    CHECK(looks_like_state(bytes));
    CHECK(!looks_like_state(ByteView(bytes).subspan(1)));
    auto text = inspect_state(bytes, "state");
    REQUIRE(text);
    CAPTURE(*text);
    for (const char* part :
         {"node         0000000000000077", "LSN 123456789", "(name space)", "inconsistent",
          "epoch 0000000000000002 of node 0000000000000078, forced",
          "leaves epoch 0000000000000001 at seq 55", "host-b", "released to 0000000000000078",
          "request 6 of connection 0000000000000005", "2023-11-14 22:13:21.000 UTC", "cleanly"})
      CHECK_MESSAGE(text->find(part) != std::string::npos, part);
  }
}

}  // namespace
}  // namespace vmfs
