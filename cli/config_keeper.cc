#include "cli/config_keeper.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

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
  const char* way_out = "mend the file";
  auto attempt = [&]() -> Result<> {
    VMFS_ASSIGN(Config in_file, read_config(store_));
    change(in_file);
    way_out = "free space on the store's file system";
    return write_config(store_, in_file);
  };
  auto done = attempt();
  problem_ = done ? ""
                  : fmt::format("a change of the volume or its peers is not in vmfs.toml, and would be "
                                "forgotten with the next start: {}\n{}, then give the command (vmfs set, vmfs peer) "
                                "again",
                                done.error().message, way_out);
  if (!done) log_error("{}", problem_);
  return done;
}

std::string ConfigKeeper::problem() const {
  std::lock_guard lock(mutex_);
  return problem_;
}

void record_peer(Config& config, const PeerInfo& peer) {
  // The same id, or the entry that so far had only the address that it was reached at, or a person's name for it.
  auto same = std::find_if(config.peers.begin(), config.peers.end(),
                           [&](const PeerInfo& other) { return other.id == peer.id; });
  if (same == config.peers.end())
    same = std::find_if(config.peers.begin(), config.peers.end(), [&](const PeerInfo& other) {
      return other.id == NodeId{} && ((!peer.address.empty() && other.address == peer.address) ||
                                      (!peer.name.empty() && other.name == peer.name));
    });
  if (same == config.peers.end()) {
    config.peers.push_back(peer);
  } else {
    // What a person wrote counts as long as the node itself tells of no address.
    const std::string address = peer.address.empty() ? same->address : peer.address;
    *same = peer;
    same->address = address;
  }
  std::erase(config.removed, peer.id);
}

void forget_peer(Config& config, NodeId peer) {
  std::erase_if(config.peers, [&](const PeerInfo& other) { return other.id == peer; });
  if (std::find(config.removed.begin(), config.removed.end(), peer) == config.removed.end())
    config.removed.push_back(peer);
}

Result<PeerInfo> peer_called(const std::vector<PeerInfo>& peers, const std::string& node) {
  std::vector<PeerInfo> found;
  std::string known, ids;
  for (const PeerInfo& peer : peers) {
    if (fmt::format("{}", peer.id) == node) return peer;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", peer.name.empty() ? peer.address : peer.name);
    if (peer.name != node && peer.address != node) continue;
    ids += fmt::format("{}{}", found.empty() ? "" : ", ", peer.id);
    found.push_back(peer);
  }
  if (found.empty())
    return fail(ErrorKind::kNotFound, ENOENT,
                fmt::format("no peer is called \"{}\"; there {}", node, known.empty() ? "are none" : "are: " + known));
  if (found.size() > 1)
    return fail(ErrorKind::kRefused, EINVAL,
                fmt::format("\"{}\" is ambiguous: {} peers are called that\ngive the id of the one that is meant: {}",
                            node, found.size(), ids));
  return found.front();
}

}  // namespace vmfs
