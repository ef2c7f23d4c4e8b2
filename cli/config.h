// STORE/vmfs.toml: what a node is configured to be. Written by init and join, by the daemon when the
// volume's settings or peers change, and by a person; read strictly: an unknown key or a bad value is an
// error, never passed over. vmfs.toml(5) documents every key; a test holds it to that.
//
// The volume's secret is in a file of its own, STORE/secret, mode 0600: vmfs.toml is what people
// show, mail, and keep in version control, and it must stay fit for that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "net/link/handshake.h"
#include "net/link/token.h"
#include "net/wire/settings.h"

namespace vmfs {

inline constexpr int kConfigFormat = 1;

struct Config {
  // [volume]: the same on every node; replicated.
  VolumeId volume{};
  std::string volume_name;
  VolumeSettings settings;
  // [node]: this node's alone.
  std::string node_name;
  NodeId node{};
  std::string listen;             // "host:port"; empty: nobody can call
  Encryption encryption = Encryption::kTls;
  std::string journal = "journal";  // a directory; relative to STORE, or absolute
  std::uint64_t journal_size = 0;
  std::uint64_t peer_journal_size = 0;  // 0: half of the journal
  std::uint64_t memory = 256u << 20;
  unsigned threads = 0;           // 0: as many as suit the machine
  bool joining = false;           // the peers do not know this node yet
  std::int64_t start_alone_after_ns = 0;  // 0: never
  std::vector<NodeId> removed;    // peers that were removed: refused for good
  // [[peer]]
  std::vector<PeerInfo> peers;
};

// `file` is for messages. An error names file, line and key, and what is allowed there.
Result<Config> parse_config(std::string_view text, const std::string& file);
std::string format_config(const Config& config);

// STORE/vmfs.toml. A missing file says that `store` is no store.
Result<Config> read_config(const std::string& store);
// Atomic and durable.
Result<> write_config(const std::string& store, const Config& config);

// STORE/secret. Reading refuses a file that others can read.
Result<Secret> read_secret(const std::string& store);
Result<> write_secret(const std::string& store, const Secret& secret);
// The file's content; hexadecimal digits and nothing else but blanks and line ends behind them. `file` is for messages.
std::string format_secret(const Secret& secret);
Result<Secret> parse_secret(std::string_view text, const std::string& file);

// Where the journal is: `config.journal` seen from the store.
std::string journal_directory(const std::string& store, const Config& config);

// Names of volumes and nodes: 1 to 63 letters, digits, '.', '-' and '_', not beginning with '.' or '-'.
Result<> check_name(std::string_view what, std::string_view name);

// Words of the volume's settings, as in vmfs.toml and `vmfs set`.
std::string_view mode_name(ReplicationMode mode);
std::string_view peer_loss_name(OnPeerLoss policy);
std::string compression_name(const std::optional<std::int32_t>& level);  // "auto", "off", "zstd:3"
std::string_view encryption_name(Encryption encryption);
std::string start_alone_name(std::int64_t after_ns);  // "never", "after:60"
Result<std::int64_t> parse_start_alone(std::string_view text);
Result<ReplicationMode> parse_mode(std::string_view text);
Result<OnPeerLoss> parse_peer_loss(std::string_view text);
Result<std::optional<std::int32_t>> parse_compression(std::string_view text);
Result<Encryption> parse_encryption(std::string_view text);

// Applies "key=value" to the volume's settings, as `vmfs set` takes them.
Result<> change_setting(VolumeSettings& settings, std::string_view assignment);

// Ids as hex digits.
Result<VolumeId> parse_volume_id(std::string_view text);
Result<NodeId> parse_node_id(std::string_view text);

}  // namespace vmfs
