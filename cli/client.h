// What the commands share that talk to a daemon.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/control.h"
#include "cli/target.h"

namespace vmfs {

// How long the daemon may take to answer a question; a change may take longer.
inline constexpr std::int64_t kQuestionNs = 10'000'000'000;
inline constexpr std::int64_t kChangeNs = 300'000'000'000;

// Connects to the daemon of a mounted volume. If none answers, the error says why, from what the
// holder left, and what to do.
Result<std::unique_ptr<ControlClient>> connect_to(const Target& target);

// The same, and one request.
Result<nlohmann::json> ask(const Target& target, const nlohmann::json& request, std::int64_t timeout_ns);

// Several PATHs of one command: they must be of one volume.
struct Targets {
  Target volume;
  std::vector<std::string> paths;  // relative; empty: the whole volume
};
Result<Targets> resolve_targets(const std::vector<std::string>& paths);

// Why no daemon serves this store, and the next command.
std::string why_not_served(const std::string& store, const std::string& mountpoint);

}  // namespace vmfs
