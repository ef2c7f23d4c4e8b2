// What the program's exit status says; the manual page has the same table.
#pragma once

namespace vmfs {

enum ExitStatus : int {
  kSuccess = 0,     // done; for `status`: everything is healthy
  kFailure = 1,     // it failed; standard error says why
  kUsage = 2,       // the command line or the configuration is wrong; nothing was done
  kNotHealthy = 3,  // `status`: something needs attention
  kTimeout = 4,     // a time limit was over: `wait`'s, or that for the daemon's answer, start (restart) or end (umount)
  kRefused = 5,     // promote, demote: not now; the message says why, and what would help
};

}  // namespace vmfs
