// The volume's settings: the same on every node, changed by `vmfs set` on any of them, carried by the
// connection between nodes, and kept by each node in its vmfs.toml.
#pragma once

#include <cstdint>

namespace vmfs {

// What a guest's flush waits for, beside the local disk.
enum class ReplicationMode : std::uint8_t {
  kAsync = 1,     // nothing
  kSemisync = 2,  // the peer has received it
  kSync = 3,      // it is durable at the peer
};

// What a flush in semisync or sync mode does when a peer is lost.
enum class PeerLossPolicy : std::uint8_t {
  kContinue = 1,  // goes on alone, in a new epoch, and says so
  kFreeze = 2,    // waits until the peer is back
};

enum class CompressionKind : std::uint8_t {
  kAutomatic = 1,  // off in sync and semisync mode, zstd:1 in async mode
  kOff = 2,
  kZstd = 3,
};

struct CompressionSetting {
  CompressionKind kind = CompressionKind::kAutomatic;
  std::int8_t level = 1;  // of zstd: -7 to 19
  friend bool operator==(const CompressionSetting&, const CompressionSetting&) = default;
};

struct VolumeSettings {
  ReplicationMode mode = ReplicationMode::kSync;
  PeerLossPolicy on_peer_loss = PeerLossPolicy::kContinue;
  CompressionSetting compression;
  // Each change counts it up; of two nodes that meet, the higher version wins. On a tie with
  // different settings the node with the lower id wins.
  std::uint64_t version = 1;
  friend bool operator==(const VolumeSettings&, const VolumeSettings&) = default;
};

}  // namespace vmfs
