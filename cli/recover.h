// `vmfs recover`: an unmounted store is brought up to its journal, without a mount.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "fs/base/result.h"

namespace vmfs {

struct RecoverySummary {
  std::uint64_t images = 0;
  std::string images_directory;
  std::string cut_directory;  // where `until` put what it cut off; empty: nothing was cut
  std::vector<std::string> problems;
};

// `until`: cut the journal off there first. kBusy: it is mounted, even if no daemon serves
// the mount just now, or a daemon has the store.
Result<RecoverySummary> recover_store(const std::string& store, std::optional<Lsn> until);

}  // namespace vmfs
