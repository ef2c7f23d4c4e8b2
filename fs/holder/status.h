// Writing the holder's status file. Private to fs/holder.
#pragma once

#include <cstdint>
#include <string>

#include "fs/base/result.h"
#include "fs/holder/holder.h"

namespace vmfs {

// Replaces it in one step.
Result<> write_holder_status(const std::string& path, const HolderStatus& status);
// When the process started, in clock ticks since boot: with the pid it names a process for good.
std::uint64_t process_start(int process);

}  // namespace vmfs
