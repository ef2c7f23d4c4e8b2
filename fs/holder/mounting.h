// Mounting and unmounting a FUSE connection by hand, without fusermount. Private to fs/holder.
#pragma once

#include <string>
#include <vector>

#include "fs/base/result.h"
#include "fs/holder/holder.h"

namespace vmfs {

// What stands in a text as /proc/self/mountinfo has it, in its order. Lines that are none are passed over.
std::vector<MountEntry> mounts_in(std::string_view table);

struct Mounted {
  std::string mountpoint;  // absolute, without symlinks
  int descriptor = -1;     // /dev/fuse
  std::vector<int> clones;
  unsigned major = 0, minor = 0;
  std::uint64_t mount_id = 0;  // another mount at the same place has another one
};

// The place where to mount, absolute and without symlinks; kInvalid or kBusy with what is wrong.
Result<std::string> check_mountpoint(const std::string& mountpoint);
// All descriptors are close-on-exec and above the numbers that a daemon inherits them at.
Result<Mounted> mount_connection(const HolderOptions& options);
// Ends the connection, if it has not ended: whoever waits for it gets an error. Closes the descriptors.
void abort_connection(Mounted& mounted);
// If it is still mounted. Somebody else's mount at that place stays.
void detach_mount(const Mounted& mounted);
bool is_mounted(const Mounted& mounted);

// A copy of the descriptor above the inherited numbers; closes the original.
Result<int> move_up(int descriptor);

}  // namespace vmfs
