// What `vmfs inspect` prints of a store's state file.
#pragma once

#include <string>

#include "fs/base/bytes.h"
#include "fs/base/result.h"

namespace vmfs {

// Whether the content begins as a state file does.
bool looks_like_state(ByteView content);
// For a person, with a newline after each line. The errors of decode_state().
Result<std::string> inspect_state(ByteView content, const std::string& shown);

}  // namespace vmfs
