// Small files outside of the engine's Disk seam: configuration and secrets.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "fs/base/result.h"

namespace vmfs {

// At most 1 MiB.
Result<std::string> read_small_file(const std::string& path);

// Atomic and durable: written beside with `mode` from the start, synced, renamed, the directory synced.
Result<> replace_small_file(const std::string& path, std::string_view content, mode_t mode);

// Makes the directory unless it is there; its parent must be. Durable.
Result<> make_directory_durably(const std::string& path, mode_t mode);

}  // namespace vmfs
