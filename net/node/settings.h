// What the configuration says about this node's part in replication.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "net/wire/settings.h"

namespace vmfs {

struct NodeOptions {
  VolumeId volume{};
  NodeId node{};
  std::string node_name;
  std::string address;  // where peers can dial this node; may be empty
  // This node has just joined and the peers do not know it: it presents itself for admission. Cleared
  // by NodeCallbacks::admitted.
  bool joining = false;
  std::vector<PeerInfo> peers;
  std::vector<NodeId> removed;  // peers that were removed: refused for good
  VolumeSettings settings;
  // After a start, go on alone with the owned groups if the peers have not been heard for so long;
  // 0: never (a person says `promote --force`).
  std::int64_t start_alone_after_ns = 0;
  std::uint64_t seed = 0;  // of the back-off's jitter; 0: random
  std::string mountpoint;  // for messages: where a person finds the volume
};

}  // namespace vmfs
