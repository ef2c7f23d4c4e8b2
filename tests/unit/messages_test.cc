#include <doctest/doctest.h>

#include <random>
#include <string>

#include "fs/base/hash.h"
#include "net/wire/messages.h"
#include "net/wire/records.h"

namespace vmfs {
namespace {

TEST_SUITE_BEGIN("messages");

Positions some_positions() {
  Positions positions;
  positions.last = true;
  GroupPosition group;
  group.group = GroupId{0x1122};
  group.owner = NodeId{7};
  group.split = true;
  group.seq = 42;
  EpochEntry entry;
  entry.epoch = EpochId{0xabc};
  entry.node = NodeId{7};
  entry.parent = {EpochId{0xab}, 17};
  entry.cause = EpochCause::kForced;
  entry.wall_ns = 5;
  group.history.push_back(entry);
  positions.groups.push_back(group);
  return positions;
}

std::vector<Message> all_messages() {
  Hello hello;
  hello.volume[0] = std::byte{9};
  hello.life = 3;
  hello.payload_max = 1 << 20;
  hello.joining = true;
  hello.self = {NodeId{5}, "host-a", "192.0.2.1:7411"};
  VolumeSettings settings;
  settings.mode = ReplicationMode::kSync;
  settings.compression = -3;
  settings.changed_wall_ns = 77;
  return {hello,
          Welcome{1},
          HelloRefused{RefusalReason::kRemoved, "gone"},
          some_positions(),
          Ack{9, 8, 7, true},
          FlushRequest{4},
          Want{GroupId{3}, true},
          WantRefused{GroupId{3}, WantRefusal::kBehind, "lags"},
          Heartbeat{1, 2},
          BaseRequest{GroupId{3}, false, {EpochId{1}, 2}, {{4096, 8192}, {1 << 20, 1}}},
          Resolve{GroupId{3}, NodeId{5}},
          settings,
          Peers{{hello.self, {NodeId{6}, "host-b", ""}}},
          PeerRemoved{NodeId{6}},
          Bye{"stopping"},
          Standing{true, false, true}};
}

TEST_CASE("every message comes back as it went, and no shorter or longer one is taken for it") {
  CHECK(all_messages().size() == std::variant_size_v<Message>);
  for (const Message& message : all_messages()) {
    Bytes bytes = encode_message(message);
    CAPTURE(message.index());
    auto back = decode_message(bytes);
    REQUIRE(back);
    CHECK(back->index() == message.index());
    CHECK(encode_message(*back) == bytes);
    for (std::size_t size = 0; size < bytes.size(); ++size)
      CHECK_FALSE(decode_message(ByteView(bytes).first(size)));
    bytes.push_back(std::byte{0});
    CHECK_FALSE(decode_message(bytes));
  }
}

TEST_CASE("random damage never crashes a decoder") {
  std::mt19937_64 random(7);
  for (int round = 0; round < 20000; ++round) {
    for (const Message& message : all_messages()) {
      if (random() % 8) continue;
      Bytes bytes = encode_message(message);
      for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = std::byte(random());
      (void)decode_message(bytes);
    }
  }
}

TEST_CASE("a number that asks for too much is refused before anything is allocated") {
  Bytes bytes;
  Writer out(bytes);
  out.put(MessageType::kPositions).put(std::uint8_t{0}).put(std::uint16_t{0});
  out.put(std::uint8_t{0}).put(std::uint8_t{1}).put(std::uint32_t{0xffffffff});
  CHECK_FALSE(decode_message(bytes));
}

RecordHeader write_header(std::uint64_t seq, ByteView payload) {
  RecordHeader header;
  header.type = RecordType::kWrite;
  header.group = 5;
  header.epoch = 6;
  header.seq = seq;
  header.payload_size = static_cast<std::uint32_t>(payload.size());
  header.extent = payload.size();
  header.payload_hash = hash64(payload);
  header.lsn = 1234;  // local: must not travel
  header.header_hash = 99;
  return header;
}

TEST_CASE("records, plain and compressed") {
  Bytes text(5000, std::byte{'a'});
  Bytes noise(5000);
  std::mt19937_64 random(1);
  for (std::byte& byte : noise) byte = std::byte(random());
  for (int level : {0, 1, 3}) {
    RecordsEncoder encoder;
    encoder.add(write_header(1, text), text);
    encoder.add(write_header(2, noise), noise);
    encoder.add(write_header(3, {}), {});
    Bytes frame = encoder.finish(17, true, level);
    CHECK(encoder.count() == 0);
    if (level != 0) CHECK(frame.size() < 6000);
    auto back = decode_records(frame);
    REQUIRE(back);
    CHECK(back->number == 17);
    CHECK(back->sync_now);
    REQUIRE(back->records.size() == 3);
    CHECK(back->records[0].header.lsn == 0);
    CHECK(back->records[1].header.seq == 2);
    CHECK(std::equal(noise.begin(), noise.end(), back->records[1].payload.begin(),
                     back->records[1].payload.end()));
    // Every single flipped bit is noticed, or changes nothing but the flags that are not hashed.
    for (std::size_t i = 4; i < frame.size(); i += 1 + i / 40) {
      if (i >= 8 && i < 16) continue;  // the frame's number is checked by the receiver
      Bytes damaged = frame;
      damaged[i] ^= std::byte{4};
      auto result = decode_records(damaged);
      if (result && level != 0) {
        // zstd has a few bits without meaning; the content must be the same then.
        CHECK(std::equal(noise.begin(), noise.end(), result->records[1].payload.begin()));
        continue;
      }
      CHECK_FALSE(result);
    }
  }
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
