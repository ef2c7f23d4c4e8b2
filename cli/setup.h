// Making stores: what `vmfs init`, `token` and `join` do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/config.h"
#include "fs/volume/volume.h"

namespace vmfs {

// What the command line says about a new store; empty: the default.
struct NewStore {
  std::string store;
  std::string volume_name, node_name, listen;
  std::string journal;                        // a directory
  std::optional<std::uint64_t> journal_size;  // bytes
  ReplicationMode mode = ReplicationMode::kSync;
  std::optional<JoinToken> token;             // to join an existing volume
};

// Makes the store's directory (unless it is there, and empty), the journal's, the empty volume, the
// secret, and at last vmfs.toml, whose being there makes it a store. On an error everything that was
// made is removed again.
Result<Config> create_store(const NewStore& wish);

// The volume's options as a configuration says them.
VolumeOptions volume_options(const Config& config);

// The first address of this machine that another may know it by; "" if there is only loopback.
std::string guess_address();
// This machine's name up to the first dot, if it is fit to be a node's name.
std::string default_node_name();

}  // namespace vmfs
