// What holder and daemon ask of the kernel so that they outlive a machine that has run out of memory.
#pragma once

namespace vmfs {

struct Protection {
  // Memory reclaim on behalf of this process does not wait for this very file system (PR_SET_IO_FLUSHER).
  bool io_flusher = false;
  int oom_score_adj = 0;  // -1000: the out-of-memory killer passes this process over
};

// Asks for both, and logs what it did not get: it needs CAP_SYS_RESOURCE. Both are inherited.
Protection protect_holder();
// The daemon's part: what it has of its holder.
Protection protect_daemon();

}  // namespace vmfs
