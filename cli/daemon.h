// The daemon of one mount: started by the holder with the FUSE connection, it opens the volume, serves
// the kernel, the peers and the commands, and ends when the volume is unmounted or restarted.
#pragma once

#include <string>

#include "cli/config.h"

namespace vmfs {

struct DaemonArguments {
  std::string store;
  bool pretend_no_resend = false;
};

// Returns the process's exit status, as the holder understands it (fs/holder/holder.h). A failed start
// is reported through the holder to whoever mounts.
int run_daemon(const DaemonArguments& arguments);

// How many threads serve the kernel, and so how many clones of /dev/fuse the holder makes.
unsigned daemon_threads(const Config& config);

}  // namespace vmfs
