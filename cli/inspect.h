// Prints any file that this program writes, read-only, also while a daemon is at work.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "fs/base/result.h"
#include "fs/journal/inspect.h"

namespace vmfs {

// `line` gets the output, a line a call.
Result<> inspect_file(const std::string& path, const InspectOptions& options,
                      const std::function<void(std::string_view)>& line);

}  // namespace vmfs
