// What nodes tell each other about their configuration: the volume's settings, which all share, and who
// belongs to it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/ids.h"

namespace vmfs {

// What a flush waits for besides the local disk (DRBD's protocols A, B and C).
enum class ReplicationMode : std::uint8_t {
  kAsync = 1,     // nothing
  kSemisync = 2,  // every peer in sync has received it
  kSync = 3,      // every peer in sync has it durable
};

enum class OnPeerLoss : std::uint8_t {
  kContinue = 1,  // go on without the peer, and say so
  kFreeze = 2,    // hold writes until the peer is back
};

// Settings of the volume: a change on one node reaches the others (the later change wins).
struct VolumeSettings {
  ReplicationMode mode = ReplicationMode::kAsync;
  OnPeerLoss on_peer_loss = OnPeerLoss::kContinue;
  // zstd level; 0: off; absent: by mode (off in sync and semisync, 1 in async).
  std::optional<std::int32_t> compression;
  std::int64_t changed_wall_ns = 0;  // 0: not told yet (a node that joins)
  friend bool operator==(const VolumeSettings&, const VolumeSettings&) = default;
};

// Another node of the volume.
struct PeerInfo {
  NodeId id{};          // 0: not known yet, only its address (just joined by a token)
  std::string name;     // may be empty until first contact; two nodes may have one name
  std::string address;  // "host:port"; empty: it dials, we do not
  friend bool operator==(const PeerInfo&, const PeerInfo&) = default;
};

const char* to_string(ReplicationMode mode);  // "async", "semisync", "sync"

}  // namespace vmfs
