// The holder's status file, as text and as a file. Private to fs/holder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fs/base/result.h"
#include "fs/holder/holder.h"

namespace vmfs {

// The file's content, and what a content means: parsing the text of any status gives that status. `path` is for
// messages; kCorrupt: it is no holder's.
std::string holder_status_text(const HolderStatus& status);
Result<HolderStatus> parse_holder_status(std::string_view text, const std::string& path);
// Replaces it in one step.
Result<> write_holder_status(const std::string& path, const HolderStatus& status);
// From the text of /proc/PID/stat: see process_start(). 0: it has ended, or this is no such text.
std::uint64_t start_in_stat(std::string_view text);
// When the process started, in clock ticks since boot: with the pid it names a process for good.
std::uint64_t process_start(int process);

}  // namespace vmfs
