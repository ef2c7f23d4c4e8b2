#include "cli/registry.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "cli/run_directory.h"
#include "cli/target.h"
#include "fs/base/hash.h"
#include "fs/base/log.h"
#include "fs/holder/holder.h"

namespace vmfs {

namespace {

namespace stdfs = std::filesystem;
constexpr const char* kDirectory = "/run/vmfs";  // gone with the machine's stop, as its mounts are

}  // namespace

void note_mount(const std::string& store) {
  const std::string entry =
      fmt::format("{}/{:016x}", kDirectory, hash64(std::as_bytes(std::span(store.data(), store.size()))));
  if ((::mkdir(kDirectory, 0755) != 0 && errno != EEXIST) ||
      (::symlink(store.c_str(), entry.c_str()) != 0 && errno != EEXIST))
    log_warning("{}: {}: `vmfs status` without an argument would not know of {} if it were given up", entry,
                std::strerror(errno), store);
}

std::vector<std::string> lost_mounts() {
  std::vector<Target> mounted = mounted_volumes();
  std::vector<std::string> out;
  std::error_code failed;
  for (auto& entry : stdfs::directory_iterator(kDirectory, failed)) {
    std::error_code unreadable;
    const std::string store = stdfs::read_symlink(entry.path(), unreadable).string();
    if (unreadable) continue;
    if (std::any_of(mounted.begin(), mounted.end(), [&](const Target& other) { return other.store == store; }))
      continue;
    auto holder = read_holder_status(holder_status_path(store));
    // One that lives is about to end well.
    if (holder && (holder->state == HolderStatus::State::kGaveUp || !holder_alive(*holder)))
      out.push_back(store);
    else if (!holder && holder.error().kind == ErrorKind::kNotFound)
      stdfs::remove(entry.path(), unreadable);
  }
  std::sort(out.begin(), out.end());
  return out;
}

bool forget_lost_mount(const std::string& store) {
  auto holder = read_holder_status(holder_status_path(store));
  return holder && !holder_alive(*holder) && !daemon_alive(*holder) && ::unlink(holder_status_path(store).c_str()) == 0;
}

}  // namespace vmfs
