// The file system that a directory lies on, as far as a store cares.
#pragma once

#include <string>

namespace vmfs {

// What a person should know before `what` ("store", "journal") is kept in `directory`: nothing on XFS, btrfs and ext4,
// on which stores are tested. Anything else works or does not; tmpfs, say, forgets all with the machine.
std::string file_system_warning(const std::string& directory, const char* what);

}  // namespace vmfs
