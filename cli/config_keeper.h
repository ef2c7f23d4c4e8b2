// vmfs.toml in the hands of a running daemon: what changes at run time is written at once and durably,
// without touching what a person may have edited in the meantime for the next start.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "cli/config.h"

namespace vmfs {

// Thread-safe.
class ConfigKeeper {
 public:
  ConfigKeeper(std::string store, Config config);

  // As it was at the start, with the changes since.
  Config config() const;
  // Applies `change` to what runs and to what is in the file now. If the file cannot be read or
  // written, what runs is changed nevertheless, and problem() says so.
  Result<> update(const std::function<void(Config&)>& change);
  std::string problem() const;  // empty: none

 private:
  const std::string store_;
  mutable std::mutex mutex_;
  Config config_;
  std::string problem_;
};

// The changes that a node asks for.
void record_peer(Config& config, const PeerInfo& peer);
void forget_peer(Config& config, NodeId peer);

// The peer that a person means: by its id, name or address. kRefused: two are called that.
Result<PeerInfo> peer_called(const std::vector<PeerInfo>& peers, const std::string& node);

}  // namespace vmfs
