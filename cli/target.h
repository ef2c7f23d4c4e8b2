// What the PATH of a command means: a mount point (the whole volume), a file or directory under one,
// or, where a command allows it, a store.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "fs/base/result.h"
#include "fs/holder/holder.h"

namespace vmfs {

struct Target {
  std::string store;       // absolute
  std::string mountpoint;  // empty: the store is not mounted
  std::string path;        // relative to the volume's root; empty: the whole volume
};

// The absolute path without ".", "..", and doubled slashes. Looks at nothing but the text, so that it
// works on a mount whose daemon does not answer.
std::string normal_path(const std::string& path, const std::string& current_directory);

// normal_path() from where this process is.
std::string absolute_path(const std::string& path);

// The mount that holds `absolute`, if one of `mounts` does: the longest match.
const MountEntry* mount_of(const std::string& absolute, std::span<const MountEntry> mounts);

enum class StoreAllowed { kNo, kYes };
// kNotFound says what the path is instead, and what to do.
Result<Target> resolve_target(const std::string& path, StoreAllowed store_allowed);

// A directory that must be a store (it has a vmfs.toml); absolute, symlinks resolved.
Result<std::string> resolve_store(const std::string& path);

// Every volume mounted here, once, however often it is bound elsewhere.
std::vector<Target> mounted_volumes();

}  // namespace vmfs
