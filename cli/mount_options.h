// The options after -o, as fstab and mount(8) give them.
#pragma once

#include <string>
#include <string_view>

#include "fs/base/result.h"

namespace vmfs {

struct MountOptions {
  bool read_only = false;
  bool no_exec = false;
  bool no_atime = true;
  bool pretend_no_resend = false;  // for tests: treat the kernel as one that cannot resend requests
};

// Applies a comma-separated list. What mount(8) and systemd alone need is passed over (auto, nofail,
// _netdev, x-*, ...), what a vmfs mount always does too (allow_other, nosuid, ...); anything else is
// kInvalid.
Result<> apply_mount_options(MountOptions& options, std::string_view list);

}  // namespace vmfs
