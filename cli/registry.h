// Which stores have been mounted on this machine since it started: a symlink for each in /run/vmfs. What is
// mounted the kernel knows; this is for what is not mounted any more and should be, because its daemon was
// given up or its holder died: `vmfs status` without an argument must not pass it over. Whether an entry still
// counts, the store's own run/holder says, which is removed at a clean unmount.
#pragma once

#include <string>
#include <vector>

namespace vmfs {

// At each mount. That it cannot be written is logged, and no reason not to mount.
void note_mount(const std::string& store);

// The stores that were mounted, are not, and were not unmounted by anybody. Entries that count no more are
// removed.
std::vector<std::string> lost_mounts();

// A person knows of it: until the next mount it is no lost mount. False: it was none.
bool forget_lost_mount(const std::string& store);

}  // namespace vmfs
