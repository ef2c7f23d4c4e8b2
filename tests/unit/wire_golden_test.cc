// What version 1 of the protocol looks like, byte for byte: encoder and decoder changed alike would fit each other,
// but not a node that runs the version before. A changed line here means a new version of the protocol.
#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

#include "fs/base/hash.h"
#include "net/link/handshake.h"
#include "net/wire/messages.h"
#include "net/wire/records.h"

namespace vmfs {
namespace {

TEST_SUITE_BEGIN("wire golden");

std::string hex(ByteView bytes) {
  std::string out;
  for (std::byte byte : bytes) out += fmt::format("{:02x}", static_cast<int>(byte));
  return out;
}

template <class Struct>
std::string hex_of(const Struct& value) {
  return hex(std::as_bytes(std::span(&value, 1)));
}

// Blanks stand between fields.
std::string packed(std::string text) {
  std::erase(text, ' ');
  return text;
}

Bytes unhex(const std::string& text) {
  Bytes bytes;
  const std::string digits = packed(text);
  for (std::size_t i = 0; i < digits.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  return bytes;
}

// Eight bytes n0, n1 ... n7 as they are written: no two fields look alike, and none looks like a shorter one.
constexpr std::uint64_t field(std::uint64_t n) { return 0x0706050403020100 + n * 0x1010101010101010; }
constexpr std::int64_t time_field(std::uint64_t n) { return static_cast<std::int64_t>(field(n)); }
constexpr GroupId group(std::uint64_t n) { return GroupId{field(n)}; }
constexpr NodeId node(std::uint64_t n) { return NodeId{field(n)}; }
constexpr EpochId epoch(std::uint64_t n) { return EpochId{field(n)}; }

template <class Array>
void count_up(Array& bytes, int first) {
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(first++);
}

struct Golden {
  Message message;
  std::string bytes;
};

Hello hello() {
  Hello m;
  m.version_oldest = 1;
  m.version = 0x0302;
  m.features = field(1);
  count_up(m.volume, 0xa0);
  m.life = field(2);
  m.payload_max = 0x33323130;
  m.joining = true;
  m.self = {node(4), "ab", "c:1"};
  return m;
}

GroupPosition inconsistent_group() {
  GroupPosition m{group(1), node(2), node(3)};
  m.inconsistent = true;
  m.seq = field(4);
  m.history = {{epoch(5), node(6), {epoch(7), field(8)}, EpochCause::kForced, time_field(9)},
               {epoch(10), node(11), {epoch(12), field(13)}, EpochCause::kResolved, time_field(14)}};
  return m;
}

GroupPosition split_group() {
  GroupPosition m{group(2), node(3), node(1)};
  m.split = true;
  m.seq = field(5);
  return m;
}

GroupPosition written_group() {
  GroupPosition m{group(3), node(1), node(2)};
  m.open_writer = true;
  m.seq = field(6);
  return m;
}

// Each message with each field set; flags that stand side by side one by one.
std::vector<Golden> golden_messages() {
  return {
      {hello(),
       "01000000 56484c4f 0100 0203 1011121314151617 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 2021222324252627 30313233 01"
       "4041424344454647 02000000 6162 03000000 633a31"},
      {Welcome{0x0201}, "02000000 0102"},
      {HelloRefused{RefusalReason::kRemoved, "no"}, "03000000 03 02000000 6e6f"},
      {Positions{true, false, {inconsistent_group(), split_group(), written_group()}},
       "04000000 01 00 03000000"
       "1011121314151617 2021222324252627 3031323334353637 01 4041424344454647 02000000"
       "5051525354555657 6061626364656667 7071727374757677 8081828384858687 03 9091929394959697"
       "a0a1a2a3a4a5a6a7 b0b1b2b3b4b5b6b7 c0c1c2c3c4c5c6c7 d0d1d2d3d4d5d6d7 06 e0e1e2e3e4e5e6e7"
       "2021222324252627 3031323334353637 1011121314151617 02 5051525354555657 00000000"
       "3031323334353637 1011121314151617 2021222324252627 04 6061626364656667 00000000"},
      {Positions{false, true, {}}, "04000000 00 01 00000000"},
      {Ack{field(3), field(2), field(1), true}, "06000000 3031323334353637 2021222324252627 1011121314151617 01"},
      {FlushRequest{field(1)}, "07000000 1011121314151617"},
      {Want{group(1), true}, "08000000 1011121314151617 01"},
      {WantRefused{group(1), WantRefusal::kBehind, "no"}, "09000000 1011121314151617 03 02000000 6e6f"},
      {Heartbeat{time_field(1), time_field(2)}, "0a000000 1011121314151617 2021222324252627"},
      {BaseRequest{group(3), true, {epoch(4), field(5)}, {{field(1), field(2)}, {field(6), field(0)}}},
       "0b000000 3031323334353637 01 4041424344454647 5051525354555657 02000000"
       "1011121314151617 2021222324252627 6061626364656667 0001020304050607"},
      {Resolve{group(1), node(2)}, "0c000000 1011121314151617 2021222324252627"},
      {VolumeSettings{ReplicationMode::kSync, OnPeerLoss::kFreeze, -3, time_field(1)},
       "0d000000 03 02 01 fdffffff 1011121314151617"},
      {VolumeSettings{ReplicationMode::kSemisync, OnPeerLoss::kContinue, {}, time_field(1)},
       "0d000000 02 01 00 00000000 1011121314151617"},
      {Peers{{{node(1), "ab", "c:1"}, {node(2), "d", ""}}},
       "0e000000 02000000 1011121314151617 02000000 6162 03000000 633a31 2021222324252627 01000000 64 00000000"},
      {PeerRemoved{node(1)}, "0f000000 1011121314151617"},
      {Bye{"off"}, "10000000 03000000 6f6666"},
      {Standing{true, false, false}, "11000000 01 00 00"},
      {Standing{false, true, false}, "11000000 00 01 00"},
      {Standing{false, false, true}, "11000000 00 00 01"},
  };
}

TEST_CASE("messages") {
  std::set<std::size_t> seen;
  std::set<int> types;
  for (const Golden& golden : golden_messages()) {
    CAPTURE(golden.bytes);
    CHECK(hex(encode_message(golden.message)) == packed(golden.bytes));
    auto back = decode_message(unhex(golden.bytes));
    REQUIRE(back);
    CHECK(back->index() == golden.message.index());
    CHECK(hex(encode_message(*back)) == packed(golden.bytes));
    seen.insert(golden.message.index());
    types.insert(static_cast<int>(message_type(unhex(golden.bytes))));
  }
  // None is missing above: neither one that can be encoded nor one that is decoded.
  CHECK(seen.size() == std::variant_size_v<Message>);
  for (int type = 0; type < 256; ++type) {
    CAPTURE(type);
    auto back = decode_message(Bytes{std::byte(type), {}, {}, {}});
    REQUIRE_FALSE(back);
    CHECK((back.error().message == fmt::format("message of unknown type {}", type)) == !types.contains(type));
  }
}

// The first is number `first`, and so on.
template <class Enum>
void numbered(int first, std::initializer_list<Enum> values) {
  for (Enum value : values) {
    CAPTURE(first);
    CHECK(static_cast<int>(value) == first++);
  }
}

TEST_CASE("numbers that stand for something") {
  using R = RefusalReason;
  numbered(1, {R::kWrongVolume, R::kVersion, R::kRemoved, R::kUnknown, R::kSameNode, R::kDuplicate, R::kProtocol,
               R::kSegments});
  using W = WantRefusal;
  numbered(1, {W::kActive, W::kNotOwner, W::kBehind, W::kUnsettled});
  numbered(1, {ReplicationMode::kAsync, ReplicationMode::kSemisync, ReplicationMode::kSync});
  numbered(1, {OnPeerLoss::kContinue, OnPeerLoss::kFreeze});
  using C = EpochCause;
  numbered(1, {C::kCreated, C::kTaken, C::kForced, C::kPeerLost, C::kUncleanStop, C::kResolved});
  using V = HelloVerdict;
  numbered(0, {V::kAccepted, V::kWrongVersion, V::kWrongVolume, V::kWantsTls, V::kWantsClear, V::kClearNotAllowed,
               V::kWrongSecret});
}

RecordHeader header_of(RecordType type, ByteView payload) {
  RecordHeader header;
  header.type = type;
  header.flags = 0x0605;
  header.lsn = header.durable = header.header_hash = field(15);  // local: go as zeros
  header.generation = 0xffffffff;
  header.payload_size = static_cast<std::uint32_t>(payload.size());
  header.group = field(1);
  header.epoch = field(2);
  header.seq = field(3);
  header.wall_ns = time_field(4);
  header.offset = field(5);
  header.extent = field(6);
  header.connection = field(7);
  header.unique = field(8);
  header.payload_hash = hash64(payload);
  return header;
}

// A header: magic, type, flags, local fields, the payload's size, the change, the payload's hash, reserved and local.
const std::string kChange =
    "1011121314151617 2021222324252627 3031323334353637 4041424344454647"
    "5051525354555657 6061626364656667 7071727374757677 8081828384858687";
const std::string kRecordsBody =
    "56464d52 10 00 0506 0000000000000000 0000000000000000 00000000 03000000" + kChange +
    "50392f89945faf78 0000000000000000 0000000000000000 616263"
    "56464d52 30 00 0506 0000000000000000 0000000000000000 00000000 05000000" + kChange +
    "49d730ce97901e4b 0000000000000000 0000000000000000 766d667321";
// After type and flags: count, number, hash of the headers, size of the body.
const std::string kRecordsHead = "0000 02000000 9091929394959697 4c84cf5558a03614 f8000000";

TEST_CASE("records") {
  RecordsEncoder encoder;
  for (bool sync_now : {false, true}) {
    encoder.add(header_of(RecordType::kWrite, as_bytes("abc")), as_bytes("abc"));
    encoder.add(header_of(RecordType::kFlush, as_bytes("vmfs!")), as_bytes("vmfs!"));
    const std::string flags = sync_now ? "02" : "00";
    CHECK(hex(encoder.finish(field(9), sync_now, 0)) == packed("05" + flags + kRecordsHead + kRecordsBody));
  }
  // Compressed: a zstd frame that holds 248 bytes as they are, in one block.
  const std::string zstd = "28b52ffd 20 f8 c10700";
  for (const std::string& frame : {"0502" + kRecordsHead + kRecordsBody, "0503" + kRecordsHead + zstd + kRecordsBody}) {
    const Bytes bytes = unhex(frame);
    auto back = decode_records(bytes);
    REQUIRE(back);
    CHECK(back->number == field(9));
    CHECK(back->sync_now);
    REQUIRE(back->records.size() == 2);
    std::string body;
    for (const ReceivedRecord& record : back->records) body += hex_of(record.header) + hex(record.payload);
    CHECK(body == packed(kRecordsBody));
  }
}

TEST_CASE("compressed records have the same head, and are a zstd frame") {
  const Bytes text(600, std::byte{'a'});
  std::string frames[2];
  for (int level : {0, 1}) {
    RecordsEncoder encoder;
    encoder.add(header_of(RecordType::kWrite, text), text);
    frames[level] = hex(encoder.finish(field(9), false, level));
  }
  CHECK(frames[0].substr(0, 4) == "0500");
  CHECK(frames[1].substr(0, 4) == "0501");
  CHECK(frames[0].substr(4, 52) == frames[1].substr(4, 52));
  CHECK(frames[1].substr(56, 8) == "28b52ffd");
}

LinkHello link_hello(LinkRole role, int nonce) {
  LinkCredentials credentials;
  count_up(credentials.volume, 0xa0);
  LinkHello hello = make_hello(role, credentials);
  count_up(hello.nonce, nonce);
  seal_hello(hello);
  return hello;
}

TEST_CASE("the link's first messages") {
  const std::string volume = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf";
  const std::string nonce = "101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f";
  CHECK(hex_of(link_hello(LinkRole::kDialer, 0x10)) ==
        packed("56464d48 0100 01 01 00 00000000000000" + volume + nonce + "138ef839aa4fb9ce"));
  LinkHello hello = link_hello(LinkRole::kListener, 0x10);
  hello.version = 0x0504;
  hello.verdict = HelloVerdict::kWantsTls;
  seal_hello(hello);
  const std::string golden = "56464d48 0405 02 01 03 00000000000000" + volume + nonce + "61a9a05568d2b895";
  CHECK(hex_of(hello) == packed(golden));
  auto back = parse_hello(unhex(golden), LinkRole::kListener);
  REQUIRE(back);
  CHECK(hex_of(*back) == packed(golden));
}

TEST_CASE("the link's proofs") {
  const LinkHello dialer = link_hello(LinkRole::kDialer, 0x10);
  const LinkHello listener = link_hello(LinkRole::kListener, 0x50);
  Secret secret{};
  count_up(secret, 0xc0);
  Proof proof = make_proof(LinkRole::kDialer, dialer, listener, {}, secret);
  CHECK(hex_of(proof) == packed("00 00000000000000 bff06b7a4b8a9351d42b68adc4e0388c695539af64ff4226a69bae1bca2ee6fc"));
  proof = make_proof(LinkRole::kListener, dialer, listener, as_bytes("keys"), secret);
  proof.verdict = HelloVerdict::kWrongSecret;
  CHECK(hex_of(proof) == packed("06 00000000000000 45582db9d3188f091f5aabc6768dda2acde715433f4510fffb21571974709fc6"));
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
