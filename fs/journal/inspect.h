// What a person sees of a segment's file: `vmfs inspect FILE`.
#pragma once

#include <functional>
#include <string_view>

#include "fs/seam/disk.h"

namespace vmfs {

// Whether the file begins as a segment does (or has a segment's name and size).
bool looks_like_segment(ByteView first_bytes);

struct InspectOptions {
  bool records = false;   // a line for each record, not only the sums
  bool payloads = false;  // and one with the first bytes of its payload
};

// Prints the header, the records or only what is wrong among them, what is left over behind the last,
// and how many there are of each type. Reads only, needs neither the rest of the journal nor its configuration, and goes on past damage:
// it looks for the next whole record. An error is one of the disk.
Result<> inspect_segment(File& file, const InspectOptions& options,
                         const std::function<void(std::string_view line)>& print);

}  // namespace vmfs
