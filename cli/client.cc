#include "cli/client.h"

#include <fmt/format.h>

#include <cerrno>

#include "cli/run_directory.h"
#include "fs/holder/holder.h"

namespace vmfs {

std::string why_not_served(const std::string& store, const std::string& mountpoint) {
  auto holder = read_holder_status(holder_status_path(store));
  std::string remount = mountpoint.empty()
                            ? fmt::format("\nmount it with:  vmfs mount {} MOUNTPOINT", store)
                            : fmt::format("\nmount it again with:  vmfs umount {1}; vmfs mount {0} {1}",
                                          store, mountpoint);
  if (!holder)
    return mountpoint.empty()
               ? fmt::format("{} is not mounted{}", store, remount)
               : fmt::format("{}: no daemon serves it, and there is no holder to start one{}",
                             mountpoint, remount);
  std::string log = fmt::format("\nthe log tells more:  {} (or journalctl)", log_path(store));
  if (holder->state == HolderStatus::State::kGaveUp)
    return fmt::format("{}: the daemon was given up: {}{}{}", holder->mountpoint, holder->reason, log, remount);
  if (!holder_alive(*holder))
    return fmt::format("{}: its holder (process {}) has died; nothing that was acknowledged is lost{}{}",
                       holder->mountpoint, holder->holder_pid, log, remount);
  if (holder->state == HolderStatus::State::kStartFailed)
    return fmt::format("{0}: the daemon cannot start: {1}\nguests wait meanwhile, and nothing is lost; it is tried "
                       "again, ever more rarely\nwhen that is mended, at once with:  vmfs restart {0}",
                       holder->mountpoint, holder->reason);
  if (mountpoint.empty() && holder->state == HolderStatus::State::kRunning && daemon_alive(*holder))
    return fmt::format("{}: is unmounted, and its daemon (process {}) is closing the volume\nask again in a moment",
                       holder->mountpoint, holder->daemon_pid);
  return fmt::format("{}: the daemon is being started (start number {}{}{})\nask again in a moment",
                     holder->mountpoint, holder->starts, holder->reason.empty() ? "" : "; before: ",
                     holder->reason);
}

Result<std::unique_ptr<ControlClient>> connect_to(const Target& target) {
  auto client = ControlClient::connect(target.store);
  if (!client && client.error().kind == ErrorKind::kNotFound)
    client.error().message = why_not_served(target.store, target.mountpoint);
  return client;
}

Result<nlohmann::json> ask(const Target& target, const nlohmann::json& request,
                           std::int64_t timeout_ns) {
  VMFS_ASSIGN(auto client, connect_to(target));
  return client->request(request, timeout_ns);
}

Result<Targets> resolve_targets(const std::vector<std::string>& paths) {
  Targets out;
  bool whole = false;
  for (const std::string& path : paths) {
    VMFS_ASSIGN(Target target, resolve_target(path, StoreAllowed::kNo));
    if (!out.volume.store.empty() && out.volume.store != target.store)
      return fail(ErrorKind::kInvalid, EINVAL,
                  fmt::format("{} and {} are in different volumes; give one command for each", paths[0],
                              path));
    out.volume = {target.store, target.mountpoint, ""};
    if (target.path.empty())
      whole = true;
    else
      out.paths.push_back(target.path);
  }
  if (whole) out.paths.clear();
  return out;
}

}  // namespace vmfs
