#include "cli/recover.h"

#include <fmt/format.h>

#include <cerrno>

#include "cli/config.h"
#include "cli/registry.h"
#include "cli/run_directory.h"
#include "cli/setup.h"
#include "cli/store_lock.h"
#include "cli/target.h"
#include "fs/holder/holder.h"
#include "fs/seam/clock.h"
#include "fs/seam/disk.h"
#include "fs/store/state.h"
#include "fs/volume/volume.h"

namespace vmfs {

namespace {

// A daemon that is dead or cannot start has no lock, but its guests wait for what is in the journal.
Result<> check_unmounted(const std::string& store) {
  auto holder = read_holder_status(holder_status_path(store));
  if (!holder || (!holder_alive(*holder) && !daemon_alive(*holder))) return {};
  return fail(ErrorKind::kBusy, EBUSY,
              fmt::format("{0}: this store is in use: mounted on {1}, whose users rely on its journal\n"
                          "when nobody uses that any more (fuser -vm {1}):  vmfs umount {1}",
                          store, holder->mountpoint));
}

}  // namespace

Result<RecoverySummary> recover_store(const std::string& argument, std::optional<Lsn> until) {
  VMFS_ASSIGN(std::string store, resolve_store(argument));
  VMFS_TRY(check_unmounted(store));
  VMFS_ASSIGN(Config config, read_config(store));
  VMFS_TRY(prepare_run_directory(store));
  VMFS_ASSIGN(auto store_disk, open_posix_disk(store));
  VMFS_ASSIGN(auto lock, lock_store(*store_disk, store));
  VMFS_ASSIGN(auto journal_disk, open_posix_disk(journal_directory(store, config)));
  RecoverySummary summary;
  summary.images_directory = store + "/images";
  VMFS_ASSIGN(VolumeOptions options, existing_volume_options(store, config, *journal_disk));
  if (until) {
    VMFS_ASSIGN(CheckpointState state, read_state(*store_disk));
    VMFS_ASSIGN(std::string cut, Journal::cut(*journal_disk, system_clock(), options.journal,
                                              state.replay_from, *until));
    summary.cut_directory = journal_directory(store, config) + "/" + cut;
  }
  VMFS_ASSIGN(auto volume, Volume::open(*store_disk, *journal_disk, system_clock(), options, {}));
  VMFS_TRY(volume->close());
  forget_lost_mount(store);  // what it left has been dealt with
  summary.images = volume->usage().images;
  summary.problems = volume->problems();
  return summary;
}

}  // namespace vmfs
