// What two nodes say to each other. docs/PROTOCOL.md explains the exchange; nobody else knows an
// offset. Each message is the body of one frame (the link cuts frames and authenticates them):
//
//   message := u8 type, u8 flags (0 but for Records), u16 reserved (0), fields
//
// Fields are little-endian, as fs/base/bytes.h writes them. Decoders check every length and every
// value before anything is allocated from it; bytes left over are an error.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "fs/base/bytes.h"
#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "fs/journal/changes.h"
#include "net/seam/link.h"
#include "net/wire/settings.h"

namespace vmfs {

// The protocol's version. A node speaks this one and the one before it (there is none before 1).
inline constexpr std::uint16_t kProtocolVersion = 1;
inline constexpr std::uint16_t kProtocolVersionOldest = 1;
inline constexpr std::uint32_t kHelloMagic = 0x4f4c4856;  // "VHLO"

enum class MessageType : std::uint8_t {
  kHello = 1,
  kWelcome = 2,
  kRefusal = 3,
  kPositions = 4,
  kRecords = 5,  // net/wire/records.h
  kAck = 6,
  kFlushRequest = 7,
  kWant = 8,
  kWantRefused = 9,
  kHeartbeat = 10,
  kBaseRequest = 11,
  kResolve = 12,
  kSettings = 13,
  kPeers = 14,
  kPeerRemoved = 15,
  kBye = 16,
  kStanding = 17,
};

// Optional abilities; both sides use those that both have. Bit set, none defined so far: decoding
// passes unknown bits over, so that a later version can offer more.
inline constexpr std::uint64_t kFeatures = 0;

inline constexpr std::size_t kTextMax = 1024;            // names, addresses, reasons
inline constexpr std::size_t kPeersMax = 64;             // nodes of one volume that a message lists
inline constexpr std::size_t kRangesMax = 64u << 10;     // ranges of one BaseRequest
inline constexpr std::size_t kPositionsBytes = 1u << 20;  // a Positions frame is cut near this size

// First message on a link, by both sides. Its beginning (magic, versions) never changes.
struct Hello {
  std::uint16_t version_oldest = kProtocolVersionOldest;
  std::uint16_t version = kProtocolVersion;
  std::uint64_t features = kFeatures;
  VolumeId volume{};
  std::uint64_t life = 0;  // random for each start of the node: tells a stale connection from a second one
  std::uint32_t payload_max = 0;  // bytes of a record's payload that its journal takes (by its segments' size)
  bool joining = false;
  PeerInfo self;
};

// The other side's Hello is accepted.
struct Welcome {
  std::uint16_t version = 0;  // the highest that both speak
};

enum class RefusalReason : std::uint8_t {
  kWrongVolume = 1,
  kVersion = 2,
  kRemoved = 3,     // the peer was removed from the volume
  kUnknown = 4,     // not a peer, and does not ask to join
  kSameNode = 5,    // both sides bear one node id: a copied store, or a link to oneself
  kDuplicate = 6,   // another connection between the two is in use
  kProtocol = 7,
  kSegments = 8,    // one side's journal cannot take what the other may send
};

struct HelloRefused {
  RefusalReason reason{};
  std::string text;  // for a person
};

// Where one group stands at the sender of the message: durable there.
struct GroupPosition {
  GroupId group{};
  NodeId owner{};
  NodeId taker{};
  bool inconsistent = false;
  bool split = false;
  bool open_writer = false;
  std::uint64_t seq = 0;            // in the last epoch of `history`
  std::vector<EpochEntry> history;  // as GroupState::history
  Position position() const {
    return history.empty() ? Position{} : Position{history.back().epoch, seq};
  }
};

struct Positions {
  bool update = false;  // single groups, later on; else part of the full exchange
  bool last = false;    // of the exchange or update
  std::vector<GroupPosition> groups;
};

// About the Records that the receiver of this message sent on this connection, by their numbers.
struct Ack {
  std::uint64_t received = 0;  // in the peer's memory or better
  std::uint64_t durable = 0;   // in the peer's journal, synced, and shown there
  std::uint64_t applied = 0;   // in the peer's store, synced
  bool full = false;  // the peer cannot take more records now
};

// Make what you have got durable now and acknowledge it: somebody waits.
struct FlushRequest {
  std::uint64_t number = 0;  // of the last Records that it is about
};

// Asks the owner for the token.
struct Want {
  GroupId group{};
  bool force = false;  // even if the group is active (a person said so)
};

enum class WantRefusal : std::uint8_t {
  kActive = 1,    // in use there
  kNotOwner = 2,  // not the owner (any more)
  kBehind = 3,    // the asker lags too far behind
  kUnsettled = 4,  // suspended, split, inconsistent, failed
};

struct WantRefused {
  GroupId group{};
  WantRefusal reason{};
  std::string text;
};

struct Heartbeat {
  std::int64_t sent_ns = 0;  // the sender's monotonic clock
  std::int64_t wall_ns = 0;
};

// The asker's extra records are kept aside; it now wants the group as the receiver has it.
struct BaseRequest {
  GroupId group{};
  bool whole = true;
  Position common;                // the content outside `ranges` is that of this position
  std::vector<BaseRange> ranges;  // what the asker changed since `common`
};

// A person chose, in a split brain: `winner` keeps its side and says so by a new epoch.
struct Resolve {
  GroupId group{};
  NodeId winner{};
};

struct Peers {
  std::vector<PeerInfo> peers;  // all nodes of the volume that the sender knows, itself included
};

struct PeerRemoved {
  NodeId peer{};
};

struct Bye {
  std::string reason;
};

// How the receiver of this message stands in the sender's eyes. Only who sends the records knows whether
// all of them have been sent; said whenever it changes.
struct Standing {
  bool caught_up = false;  // it has everything, durably, and counts for what a flush promises
  bool copying = false;    // groups are being copied to it whole
  bool given = false;      // it has all, durably, that was here when histories were compared, copies aside
  bool operator==(const Standing&) const = default;
};

using Message = std::variant<Hello, Welcome, HelloRefused, Positions, Ack, FlushRequest, Want, WantRefused,
                             Heartbeat, BaseRequest, Resolve, VolumeSettings, Peers, PeerRemoved, Bye,
                             Standing>;

Bytes encode_message(const Message& message);

// kNone-like 0 for an empty frame.
MessageType message_type(ByteView body);

// Every message except Records. kProtocol with the reason if the bytes cannot be one.
Result<Message> decode_message(ByteView body);

}  // namespace vmfs
