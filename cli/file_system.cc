#include "cli/file_system.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>

namespace vmfs {

namespace {

// What a statfs(2) says, and how people call it.
struct Kind {
  unsigned magic;
  const char* name;
  bool for_stores = false;
  const char* danger = nullptr;
};

constexpr const char* kForgets = "keeps everything in memory: all of it is gone when this machine stops";
constexpr const char* kOtherMachine = "lies on another machine, or behind another program: what a flush promises "
                                      "depends on that";
// ext2 and ext3 bear ext4's number, and Linux serves all three with ext4's code. linux/magic.h has no names for XFS and
// ZFS.
constexpr std::array kKinds{
    Kind{0x58465342, "XFS", true},
    Kind{BTRFS_SUPER_MAGIC, "btrfs", true},
    Kind{EXT4_SUPER_MAGIC, "ext4", true},
    Kind{TMPFS_MAGIC, "tmpfs", false, kForgets},
    Kind{RAMFS_MAGIC, "ramfs", false, kForgets},
    Kind{OVERLAYFS_SUPER_MAGIC, "overlayfs", false, "belongs to a container, as a rule, and may go with it"},
    Kind{NFS_SUPER_MAGIC, "NFS", false, kOtherMachine},
    Kind{SMB2_SUPER_MAGIC, "SMB", false, kOtherMachine},
    Kind{FUSE_SUPER_MAGIC, "FUSE", false, kOtherMachine},
    Kind{F2FS_SUPER_MAGIC, "F2FS"},
    Kind{0x2fc12fc1, "ZFS"},
    Kind{MSDOS_SUPER_MAGIC, "FAT"},
    Kind{EXFAT_SUPER_MAGIC, "exFAT"},
};

}  // namespace

std::string file_system_warning(const std::string& directory, const char* what) {
  struct statfs status {};
  // Whoever uses the directory next meets the same error, and says so.
  if (::statfs(directory.c_str(), &status) != 0) return "";
  const auto magic = static_cast<unsigned>(status.f_type);
  const auto* kind = std::find_if(kKinds.begin(), kKinds.end(), [&](const Kind& each) { return each.magic == magic; });
  const bool known = kind != kKinds.end();
  if (known && kind->for_stores) return "";
  return fmt::format(
      "warning: {}: this {} is on {}, not on XFS, btrfs or ext4{}\n"
      "for more than a trial, put it on one of these; which one a directory is on:  df -T DIRECTORY\n",
      directory, what, known ? kind->name : fmt::format("a file system of type {:#x}", magic),
      known && kind->danger != nullptr ? fmt::format("; {} {}", kind->name, kind->danger) : "");
}

}  // namespace vmfs
