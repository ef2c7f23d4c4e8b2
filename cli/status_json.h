// What `vmfs status --json` prints, made of what node and volume report. Its keys are stable: the
// manual page lists them, and a test holds both together.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cli/config.h"
#include "fs/holder/protection.h"
#include "fs/volume/volume.h"
#include "net/node/status.h"

namespace vmfs {

// What the daemon knows beside its node and volume.
struct DaemonFacts {
  std::string store, mountpoint, journal_directory, listen;
  int pid = 0;
  int holder_pid = 0;
  std::uint64_t starts = 1;      // daemons on this mount so far
  std::int64_t started_wall_ns = 0;
  std::uint64_t parked_requests = 0, open_handles = 0;
  Protection protection;
  std::int64_t now_wall_ns = 0;
};

nlohmann::json status_to_json(const DaemonFacts& facts, const Config& config, const NodeStatus& node,
                              const VolumeUsage& usage, const std::vector<std::string>& problems);

// For a store that no daemon serves: the same keys, as far as its files tell. `why` says what is the matter,
// with the next command; it becomes a problem. `mountpoint` is empty if it is not mounted; `config` may be
// what nothing is known of, if vmfs.toml cannot be read.
nlohmann::json offline_status(const std::string& store, const std::string& mountpoint,
                              const std::optional<Config>& config, const std::string& why);

// One word for where an image stands: "alone" (no peers), "in-sync", "catching-up", "full-copy",
// "lost", "full", "split", "inconsistent", or what the worst peer's state is.
std::string image_state(const ImageStatus& image);

}  // namespace vmfs
