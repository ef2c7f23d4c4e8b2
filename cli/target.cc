#include "cli/target.h"

#include <fmt/format.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace vmfs {

namespace {

std::string current_directory() {
  std::unique_ptr<char, decltype(&::free)> name(::getcwd(nullptr, 0), &::free);
  return name ? name.get() : "/";
}

bool has_configuration(const std::string& directory) {
  struct stat status {};
  return ::stat((directory + "/vmfs.toml").c_str(), &status) == 0;
}

Result<std::string> real_path(const std::string& path) {
  std::unique_ptr<char, decltype(&::free)> real(::realpath(path.c_str(), nullptr), &::free);
  if (!real) {
    int number = errno;
    return fail(number == ENOENT ? ErrorKind::kNotFound : ErrorKind::kInvalid, number,
                fmt::format("{}: {}", path, std::strerror(number)));
  }
  return std::string(real.get());
}

Target target_under(const MountEntry& mount, const std::string& absolute) {
  const std::string inside = mount.root + "/" + absolute.substr(mount.mountpoint.size());
  return {mount.source, mount.mountpoint, normal_path(inside, "/").substr(1)};
}

// Where a store is mounted: as a whole, if it is.
const MountEntry* mount_from(const std::string& store, std::span<const MountEntry> mounts) {
  const MountEntry* found = nullptr;
  for (const MountEntry& mount : mounts)
    if (mount.source == store && (found == nullptr || (found->root != "/" && mount.root == "/"))) found = &mount;
  return found;
}

}  // namespace

std::string normal_path(const std::string& path, const std::string& current_directory) {
  std::string whole = path.starts_with('/') ? path : current_directory + "/" + path;
  std::vector<std::string> parts;
  for (std::size_t start = 0; start < whole.size();) {
    std::size_t slash = std::min(whole.find('/', start), whole.size());
    std::string part = whole.substr(start, slash - start);
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
    } else if (!part.empty() && part != ".") {
      parts.push_back(std::move(part));
    }
    start = slash + 1;
  }
  std::string out;
  for (const std::string& part : parts) out += "/" + part;
  return out.empty() ? "/" : out;
}

std::string absolute_path(const std::string& path) { return normal_path(path, current_directory()); }

const MountEntry* mount_of(const std::string& absolute, std::span<const MountEntry> mounts) {
  const MountEntry* best = nullptr;
  for (const MountEntry& mount : mounts) {
    bool below = absolute == mount.mountpoint || mount.mountpoint == "/" ||
                 absolute.starts_with(mount.mountpoint + "/");
    // Of two mounts on one directory the later one is seen.
    if (below && (best == nullptr || mount.mountpoint.size() >= best->mountpoint.size())) best = &mount;
  }
  return best;
}

Result<std::string> resolve_store(const std::string& path) {
  VMFS_ASSIGN(std::string real, real_path(path));
  if (!has_configuration(real))
    return fail(ErrorKind::kNotFound, ENOENT,
                fmt::format("{} is not a store: it has no vmfs.toml\n"
                            "make a new volume with:   vmfs init {}\n"
                            "or join an existing one:  vmfs join {} TOKEN",
                            path, path, path));
  return real;
}

Result<Target> resolve_target(const std::string& path, StoreAllowed store_allowed) {
  std::vector<MountEntry> mounts = vmfs_mounts();
  std::string absolute = absolute_path(path);
  if (const MountEntry* mount = mount_of(absolute, mounts)) return target_under(*mount, absolute);
  // A symlink may lead into a mount, or to a store.
  VMFS_ASSIGN(std::string real, real_path(path));
  if (const MountEntry* mount = mount_of(real, mounts)) return target_under(*mount, real);
  if (has_configuration(real)) {
    const MountEntry* mount = mount_from(real, mounts);
    if (store_allowed == StoreAllowed::kYes) return Target{real, mount == nullptr ? "" : mount->mountpoint, ""};
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("{} is a store; this command wants a mount point, or a file or directory "
                            "under one\nmount it with:  vmfs mount {} MOUNTPOINT",
                            path, path));
  }
  std::string here;
  for (const MountEntry& mount : mounts) here += fmt::format("\n  {}  (store {})", mount.mountpoint, mount.source);
  return fail(ErrorKind::kNotFound, ENOENT,
              here.empty()
                  ? fmt::format("{} is not in a vmfs volume, and none is mounted here\n"
                                "mount one with:  vmfs mount STORE MOUNTPOINT",
                                path)
                  : fmt::format("{} is not in a vmfs volume; mounted here:{}", path, here));
}

std::vector<Target> mounted_volumes() {
  std::vector<Target> out;
  const std::vector<MountEntry> mounts = vmfs_mounts();
  for (const MountEntry& mount : mounts)
    if (mount_from(mount.source, mounts) == &mount)
      out.push_back({mount.source, mount.mountpoint, ""});
  return out;
}

}  // namespace vmfs
