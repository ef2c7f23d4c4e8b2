// What a person sees of a segment's file: `vmfs inspect FILE`.
#pragma once

#include <functional>
#include <string_view>

#include "fs/seam/disk.h"

namespace vmfs {

// Whether the file begins as a segment does (or has a segment's name and size).
bool looks_like_segment(ByteView first_bytes);

// Prints the header, then a line for each record, then what is wrong or left over behind the last.
// Reads only, needs neither the rest of the journal nor its configuration, and goes on past damage:
// it looks for the next whole record. An error is one of the disk.
Result<> inspect_segment(File& file, const std::function<void(std::string_view line)>& print);

}  // namespace vmfs
