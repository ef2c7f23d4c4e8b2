#include "cli/config_keeper.h"

#include <fmt/format.h>

#include <algorithm>

#include "fs/base/log.h"

namespace vmfs {

ConfigKeeper::ConfigKeeper(std::string store, Config config)
    : store_(std::move(store)), config_(std::move(config)) {}

Config ConfigKeeper::config() const {
  std::lock_guard lock(mutex_);
  return config_;
}

Result<> ConfigKeeper::update(const std::function<void(Config&)>& change) {
  std::lock_guard lock(mutex_);
  change(config_);
  auto attempt = [&]() -> Result<> {
    VMFS_ASSIGN(Config in_file, read_config(store_));
    change(in_file);
    return write_config(store_, in_file);
  };
  auto done = attempt();
  problem_ = done ? ""
                  : fmt::format("a change of the volume or its peers is not in vmfs.toml, and would be "
                                "forgotten with the next start: {}\nfree space on the store's file system, then give "
                                "the command (vmfs set, vmfs peer) again",
                                done.error().message);
  if (!done) log_error("{}", problem_);
  return done;
}

std::string ConfigKeeper::problem() const {
  std::lock_guard lock(mutex_);
  return problem_;
}

void record_peer(Config& config, const PeerInfo& peer) {
  // The same id, or the entry that so far had only the address that it was reached at.
  auto same = std::find_if(config.peers.begin(), config.peers.end(),
                           [&](const PeerInfo& other) { return other.id == peer.id; });
  if (same == config.peers.end())
    same = std::find_if(config.peers.begin(), config.peers.end(), [&](const PeerInfo& other) {
      return other.id == NodeId{} && (other.address == peer.address || peer.address.empty());
    });
  if (same == config.peers.end())
    config.peers.push_back(peer);
  else
    *same = peer;
  std::erase(config.removed, peer.id);
}

void forget_peer(Config& config, NodeId peer) {
  std::erase_if(config.peers, [&](const PeerInfo& other) { return other.id == peer; });
  if (std::find(config.removed.begin(), config.removed.end(), peer) == config.removed.end())
    config.removed.push_back(peer);
}

}  // namespace vmfs
