#include "cli/status_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace vmfs {

namespace {

using nlohmann::json;

double seconds(std::int64_t ns) { return static_cast<double>(ns) / 1e9; }

// Seconds since 1970; null: never.
json moment(std::int64_t wall_ns) { return wall_ns == 0 ? json(nullptr) : json(seconds(wall_ns)); }

// null: not known.
json count(const std::optional<std::uint64_t>& number) { return number ? json(*number) : json(nullptr); }

std::string id_text(auto id) { return fmt::format("{}", id); }

std::string peer_name(const PeerInfo& peer) {
  if (!peer.name.empty()) return peer.name;
  return peer.address.empty() ? id_text(peer.id) : peer.address;
}

std::string name_of(NodeId id, const NodeStatus& node) {
  if (id == NodeId{}) return "";
  if (id == node.node) return node.node_name;
  for (const PeerStatus& peer : node.peers)
    if (peer.peer.id == id) return peer_name(peer.peer);
  return id_text(id);
}

json peer_to_json(const PeerStatus& peer, const VolumeSettings& settings) {
  return {
      {"node", peer_name(peer.peer)},
      {"node_id", id_text(peer.peer.id)},
      {"address", peer.peer.address},
      {"link", to_string(peer.link)},
      {"link_reason", peer.link_reason},
      {"link_since", moment(peer.link_since_wall_ns)},
      {"remote", peer.remote},
      {"last_contact", moment(peer.last_contact_wall_ns)},
      {"mode", mode_name(settings.mode)},
      {"state", to_string(peer.sync)},
      {"in_sync", peer.sync == PeerSync::kInSync},
      {"was_in_sync", peer.was_in_sync},
      {"lag_records", count(peer.lag.records)},
      {"lag_bytes", peer.lag.bytes},
      {"lag_seconds", seconds(peer.lag.ns)},
      {"received_lsn", peer.received},
      {"durable_lsn", peer.durable},
      {"applied_lsn", peer.applied},
      {"journal_reused", peer.journal_reused},
      {"copies_due", peer.copies_due},
      {"copies_here", peer.copies_here},
      {"copies_whole", peer.copies_whole},
      {"copies_partial", peer.copies_partial},
      {"bytes_sent", peer.bytes_sent},
      {"bytes_received", peer.bytes_received},
      {"send_bytes_per_second", peer.send_bytes_per_second},
      {"receive_bytes_per_second", peer.receive_bytes_per_second},
      {"copy_bytes_done", peer.copy_bytes_done},
      {"copy_bytes_total", peer.copy_bytes_total},
  };
}

json image_to_json(const ImageStatus& image, const NodeStatus& node) {
  json peers = json::array();
  for (const ImagePeerStatus& peer : image.peers)
    peers.push_back({{"node", name_of(peer.node, node)},
                     {"epoch", id_text(peer.position.epoch)},
                     {"seq", peer.position.seq},
                     {"lag_records", count(peer.lag.records)},
                     {"lag_bytes", peer.lag.bytes},
                     {"lag_seconds", seconds(peer.lag.ns)},
                     {"copy_due", peer.copy_due},
                     {"state", peer.state},
                     {"rule", peer.rule}});
  return {{"path", image.path},
          {"role", to_string(image.role)},
          {"owner", image.owner_name.empty() ? name_of(image.owner, node) : image.owner_name},
          {"state", image_state(image)},
          {"epoch", id_text(image.position.epoch)},
          {"seq", image.position.seq},
          {"size", image.size},
          {"lost_records", count(image.lost.records)},
          {"lost_bytes", image.lost.bytes},
          {"lost_seconds", seconds(image.lost.ns)},
          {"lost_whole", image.lost_whole},
          {"peers", std::move(peers)}};
}

}  // namespace

std::string image_state(const ImageStatus& image) {
  if (image.role == Role::kSplit) return "split";
  if (image.role == Role::kInconsistent) return "inconsistent";
  if (image.peers.empty()) return "alone";
  // From bad to good; what is not listed (a peer's special state) is worse than all of them.
  static constexpr std::array kOrder{"lost", "full", "full-copy", "catching-up", "in-sync"};
  auto rank = [](const std::string& state) {
    auto found = std::find(kOrder.begin(), kOrder.end(), state);
    return found == kOrder.end() ? -1 : static_cast<int>(found - kOrder.begin());
  };
  std::string worst = image.peers.front().state;
  for (const ImagePeerStatus& peer : image.peers)
    if (rank(peer.state) < rank(worst)) worst = peer.state;
  return worst;
}

json status_to_json(const DaemonFacts& facts, const Config& config, const NodeStatus& node,
                    const VolumeUsage& usage, const std::vector<std::string>& problems) {
  json peers = json::array();
  for (const PeerStatus& peer : node.peers) peers.push_back(peer_to_json(peer, node.settings));
  json images = json::array();
  json name_space = nullptr;
  for (const ImageStatus& image : node.images) {
    if (image.group == kNameSpace)
      name_space = image_to_json(image, node);
    else
      images.push_back(image_to_json(image, node));
  }
  json all_problems = json::array();
  for (const std::string& problem : node.problems) all_problems.push_back(problem);
  for (const std::string& problem : problems) all_problems.push_back(problem);
  return {
      {"volume", config.volume_name},
      {"volume_id", to_string(config.volume)},
      {"node", node.node_name},
      {"node_id", id_text(node.node)},
      {"mode", mode_name(node.settings.mode)},
      {"on_peer_loss", peer_loss_name(node.settings.on_peer_loss)},
      {"compression", compression_name(node.settings.compression)},
      {"healthy", all_problems.empty()},
      {"ready", node.ready},
      {"ready_reason", node.ready_reason},
      {"store", facts.store},
      {"mountpoint", facts.mountpoint},
      {"listen", facts.listen},
      {"tls", encryption_name(config.encryption)},
      {"time", moment(facts.now_wall_ns)},
      {"daemon",
       {{"pid", facts.pid},
        {"holder_pid", facts.holder_pid},
        {"version", VMFS_VERSION},
        {"started", moment(facts.started_wall_ns)},
        {"starts", facts.starts},
        {"open_handles", facts.open_handles},
        {"parked_requests", facts.parked_requests},
        {"io_flusher", facts.protection.io_flusher},
        {"oom_score_adj", facts.protection.oom_score_adj},
        {"index_memory_bytes", usage.index_memory}}},
      {"journal",
       {{"directory", facts.journal_directory},
        {"bytes_used", usage.journal_used},
        {"bytes_max", usage.journal_max},
        {"unapplied_bytes", usage.unapplied_bytes},
        {"written_lsn", node.written},
        {"write_bytes_per_second", node.write_bytes_per_second}}},
      {"store_space",
       {{"bytes_total", usage.store.total}, {"bytes_available", usage.store.available}}},
      {"peers", std::move(peers)},
      {"name_space", std::move(name_space)},
      {"images", std::move(images)},
      {"loss_if_this_node_dies",
       {{"records", count(node.lost.records)},
        {"bytes", node.lost.bytes},
        {"seconds", seconds(node.lost.ns)},
        {"images", node.lost_images}}},
      {"problems", std::move(all_problems)},
  };
}

json offline_status(const std::string& store, const std::string& mountpoint, const std::optional<Config>& known,
                    const std::string& why) {
  if (!known)
    return {{"volume", nullptr},      {"node", nullptr},
            {"mode", nullptr},        {"healthy", false},
            {"ready", false},         {"store", store},
            {"mountpoint", mountpoint.empty() ? json(nullptr) : json(mountpoint)},
            {"daemon", {{"pid", nullptr}}},
            {"journal", json::object()},
            {"peers", json::array()}, {"images", json::array()},
            {"problems", json::array({why})}};
  const Config& config = *known;
  json peers = json::array();
  for (const PeerInfo& peer : config.peers)
    peers.push_back({{"node", peer_name(peer)},
                     {"node_id", id_text(peer.id)},
                     {"address", peer.address},
                     {"link", "unmounted"},
                     {"mode", mode_name(config.settings.mode)}});
  return {{"volume", config.volume_name},
          {"volume_id", to_string(config.volume)},
          {"node", config.node_name},
          {"node_id", id_text(config.node)},
          {"mode", mode_name(config.settings.mode)},
          {"on_peer_loss", peer_loss_name(config.settings.on_peer_loss)},
          {"compression", compression_name(config.settings.compression)},
          {"healthy", false},
          {"ready", false},
          {"store", store},
          {"mountpoint", mountpoint.empty() ? json(nullptr) : json(mountpoint)},
          {"listen", config.listen},
          {"tls", encryption_name(config.encryption)},
          {"daemon", {{"pid", nullptr}}},
          {"journal",
           {{"directory", journal_directory(store, config)}, {"bytes_max", config.journal_size}}},
          {"peers", std::move(peers)},
          {"images", json::array()},
          {"problems", json::array({why})}};
}

}  // namespace vmfs
