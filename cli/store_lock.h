// One process works on a store at a time: a daemon, or `vmfs recover`.
#pragma once

#include <memory>
#include <string>

#include "fs/base/result.h"
#include "fs/seam/disk.h"

namespace vmfs {

// STORE/run/lock; held as long as the result lives. kBusy names who has it.
Result<std::unique_ptr<DiskLock>> lock_store(Disk& store_disk, const std::string& store);

}  // namespace vmfs
