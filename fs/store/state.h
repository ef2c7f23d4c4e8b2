// STORE/state: what a checkpoint knows that neither the images nor the journal after it can tell.
// Replaced atomically and durably at each checkpoint. Layout in state.cc's encode(); magic, version,
// volume, node and a checksum first; golden file in tests/golden.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "fs/seam/disk.h"
#include "fs/journal/changes.h"

namespace vmfs {

// Everything about one group that outlives the process.
struct GroupState {
  GroupId id{};
  NodeId owner{};  // who may change it; 0: released and not yet taken
  NodeId taker{};  // named by a release
  // Oldest first; the last is the current epoch; the first may have been trimmed to. seq: of the last
  // record here, in the last epoch. seq goes on counting across epochs: the record that begins an epoch
  // (kEpoch, kTaken) bears the new epoch and parent.seq + 1. Empty: nothing is known here yet.
  std::vector<EpochEntry> history;
  std::uint64_t seq = 0;
  Position position() const { return {history.empty() ? EpochId{} : history.back().epoch, seq}; }
  // The last record of the group that was in a segment which has been recycled: who is behind it
  // cannot be caught up from this journal.
  Position recycled;
  // A base copy is under way: the content is no state of the group, promote refuses.
  bool inconsistent = false;
  // Both sides have changes that the other lacks; replication of this group has stopped.
  bool split = false;
  // Owned here, but not yet settled with the peers: a daemon that goes on with the connection leaves it so.
  bool suspended = false;
};

struct PeerState {
  NodeId id{};
  std::string name;
  Lsn confirmed = 0;  // of this node's journal: all that the peer needs below is durable there
  bool was_in_sync = false;
  std::int64_t last_contact_wall_ns = 0;
  // Not stored: it takes records now, so that writers wait for it when it lags too far. Else it loses
  // journal space beyond what is kept for a peer that is away.
  bool present = false;
};

// The answer to a request that the kernel had not yet received when the record's place was recycled.
struct AnsweredRequest {
  RequestId request;
  std::int32_t error = 0;
  ObjectId object{};
};

struct CheckpointState {
  VolumeId volume{};
  NodeId node{};
  Lsn replay_from = 0;        // all records below are in the store
  bool clean = false;         // unmounted cleanly: nothing to replay, no tail lost
  std::uint64_t checkpoints = 0;
  std::uint32_t generation = 0;  // of the journal, at the time
  std::vector<GroupState> groups;
  std::vector<PeerState> peers;
  std::vector<AnsweredRequest> answered;
};

inline constexpr std::uint32_t kStateMagic = 0x54534d56;  // "VMST"
inline constexpr std::uint32_t kStateVersion = 1;
inline constexpr const char* kStateFile = "state";  // in STORE

// kCorrupt / kRefused (newer version, or not of the `expected` volume) name the file and the evidence,
// and say what to do. kNotFound: no such file.
Result<CheckpointState> read_state(Disk& disk, const std::optional<VolumeId>& expected = {});
// Durable on return.
Result<> write_state(Disk& disk, const CheckpointState& state);

Bytes encode_state(const CheckpointState& state);
// `shown`: the file's name, for messages.
Result<CheckpointState> decode_state(ByteView content, const std::string& shown);

}  // namespace vmfs
