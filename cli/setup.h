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

// The options of a new volume as a configuration says them.
VolumeOptions volume_options(const Config& config);
// Of one that is there: its segments stay as large as they are, whatever `journal-size` says by now. kInvalid:
// the journal is another node's, or `journal-size` is less than four of its segments.
Result<VolumeOptions> existing_volume_options(const std::string& store, const Config& config, Disk& journal_disk);

// Whether a daemon could start on this store as far as a person's edits decide it: vmfs.toml, the secret, the
// journal's place and size. Reads only, also while a daemon is at work there; the error is the daemon's.
Result<> check_start(const std::string& store);

// The first address of this machine that another may know it by; "" if there is only loopback.
std::string guess_address();
// This machine's name up to the first dot, if it is fit to be a node's name.
std::string default_node_name();

}  // namespace vmfs
