#include "cli/store_lock.h"

#include <fmt/format.h>

#include <cerrno>

#include "cli/run_directory.h"
#include "fs/holder/holder.h"

namespace vmfs {

Result<std::unique_ptr<DiskLock>> lock_store(Disk& store_disk, const std::string& store) {
  auto lock = store_disk.lock("run/lock", "store.lock");
  if (lock || lock.error().kind != ErrorKind::kBusy) return lock;
  std::string who;
  if (auto holder = read_holder_status(holder_status_path(store)); holder && holder_alive(*holder))
    who = fmt::format(": mounted on {}, daemon {}, holder {}", holder->mountpoint, holder->daemon_pid,
                      holder->holder_pid);
  return fail(ErrorKind::kBusy, EBUSY,
              fmt::format("{}: this store is in use{}\n"
                          "one process works on a store at a time; see what it does:  vmfs status {}",
                          store, who, store));
}

}  // namespace vmfs
