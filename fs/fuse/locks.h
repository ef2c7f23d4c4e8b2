// Whether a file of a mounted file system is locked, from what the kernel shows in /proc/locks.
#pragma once

#include <cstdint>
#include <string_view>

#include "fs/base/result.h"

namespace vmfs {

// True if `text`, in the form of /proc/locks, shows a lock on the inode that says "I may write":
// any write lock, held by whomever, or what QEMU holds instead of one: shared open-file-description
// locks on single bytes from 100 on, one for each permission it uses, of which 101 stands for writing
// and 103 for resizing. Locks that are only waited for do not count.
bool shows_write_lock(std::string_view text, unsigned device_major, unsigned device_minor,
                      std::uint64_t inode);

// The same, of this machine now. Locks of processes in other pid namespaces are not shown by the
// kernel, except open-file-description locks (QEMU's are).
Result<bool> has_write_lock(unsigned device_major, unsigned device_minor, std::uint64_t inode);

}  // namespace vmfs
