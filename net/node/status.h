// What `status` shows: plain values, gathered on the node's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "net/node/settings.h"

namespace vmfs {

enum class LinkState : std::uint8_t {
  kConnecting,  // no connection; trying, or waiting for the peer to dial
  kConnected,   // hands shaken
  kRefused,     // one side refuses the other: PeerStatus::link_reason says why; tried again, rarely
};

enum class PeerSync : std::uint8_t {
  kLost,        // not connected, or connected without having compared histories yet
  kCatchingUp,  // gets from the journal what it lacks
  kFullCopy,    // at least one group is being copied whole
  kInSync,      // caught up: counts for what a flush promises
  kFull,        // connected, but cannot take records (its journal or disk is full)
};

const char* to_string(LinkState state);  // "connecting", "connected", "refused"
const char* to_string(PeerSync sync);    // "lost", "catching-up", "full-copy", "in-sync", "full"

// What somebody lacks. Housekeeping (flushes, epochs) is not counted: nobody would miss it. Without records: not
// known, the peer was not met since the start; bytes and age are upper bounds then. Exact for an image's last
// changes, at most about half too high for older ones, and never above what the journal holds since
// (fs/journal/sequence_trail.h).
struct Lag {
  std::optional<std::uint64_t> records = 0;
  std::uint64_t bytes = 0;  // of the journal; the image's size if it is copied whole
  std::int64_t ns = 0;      // age of the oldest such record
};

struct PeerStatus {
  PeerInfo peer;
  LinkState link = LinkState::kConnecting;
  std::string link_reason;         // why it is not connected, or was refused
  std::string remote;              // the connection's other end
  std::int64_t link_since_wall_ns = 0;  // when `link` became what it is; 0: since the start
  std::int64_t last_contact_wall_ns = 0;  // 0: never
  bool was_in_sync = false;        // now, or when last heard
  PeerSync sync = PeerSync::kLost;
  bool copies_here = false;        // kFullCopy: it is this node that is copied to
  Lag lag;  // of the groups that it does not own: what it has not confirmed durable
  bool journal_reused = false;     // it is away, and not all that it lacks is in the journal any more
  std::uint64_t copies_due = 0;    // groups of which it has no state: they are being copied, or about to be
  // This node's journal up to where the peer has received it, has it durable, and has it in its store.
  Lsn received = 0, durable = 0, applied = 0;
  std::uint64_t bytes_sent = 0, bytes_received = 0;  // on this connection, payloads as on the wire
  std::uint64_t send_bytes_per_second = 0, receive_bytes_per_second = 0;
  std::uint64_t copy_bytes_done = 0, copy_bytes_total = 0;  // kFullCopy
  // Copies to it that were begun since the start: of groups whole, and of ranges after it had parted.
  std::uint64_t copies_whole = 0, copies_partial = 0;
};

enum class Role : std::uint8_t {
  kPrimary,       // may be changed here
  kSecondary,     // another node may change it
  kSuspended,     // owned here before a stop; waits until the peers have been heard
  kReleased,      // between two owners
  kFrozen,        // owned here, waits for a lost peer (on-peer-loss = freeze)
  kInconsistent,  // a full copy is under way
  kSplit,         // split brain; replication of it has stopped
};
const char* to_string(Role role);  // "primary", "secondary", ...

struct ImagePeerStatus {
  NodeId node{};
  Position position;              // the last record the peer has confirmed durable
  Lag lag;                        // ours beyond it
  bool copy_due = false;          // it has no state of the group
  std::string state;              // as PeerSync, or as Course where histories have parted or a copy is due
  std::string rule;               // of net/history/compare.h, by which histories were last compared
};

struct ImageStatus {
  GroupId group{};  // kNameSpace: the name space itself, path ""
  std::string path;
  Role role = Role::kSecondary;
  NodeId owner{};   // 0: none
  std::string owner_name;
  Position position;
  std::uint64_t size = 0;  // of the image
  std::vector<ImagePeerStatus> peers;
  Lag lost;                 // if this node died now: what the peer that has most lacks; nothing if it owns it not
  bool lost_whole = false;  // no peer has a state of it
};

struct NodeStatus {
  NodeId node{};
  std::string node_name;
  VolumeSettings settings;
  bool ready = false;  // guests may be started (Condition::kReady)
  std::string ready_reason;  // what it waits for
  std::vector<PeerStatus> peers;
  std::vector<ImageStatus> images;  // by path; the name space first
  std::vector<std::string> problems;  // what a person should know or do; empty: healthy
  Lsn written = 0;  // this node's journal
  std::uint64_t write_bytes_per_second = 0;  // into the journal, from here and from peers; of the last seconds
  Lag lost;  // if this node died now: of all groups that it owns
  std::uint64_t lost_images = 0;  // images of which no peer has any state
};

}  // namespace vmfs
