// The journal's part of `vmfs inspect`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "cli/inspect.h"
#include "fs/base/result.h"

namespace vmfs {

Result<> inspect_segment(const std::string& path, const InspectOptions& options,
                         const std::function<void(std::string_view)>& line);

// Local time with milliseconds; "never" for 0.
std::string time_text(std::int64_t wall_ns);

}  // namespace vmfs
