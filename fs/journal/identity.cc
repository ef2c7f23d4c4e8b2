#include "fs/journal/identity.h"

#include <cstring>

#include "fs/journal/record_check.h"
#include "fs/journal/segment.h"

namespace vmfs {

Result<std::optional<JournalIdentity>> identify_journal(Disk& disk) {
  VMFS_ASSIGN(auto entries, disk.list("", "journal.identify"));
  for (const DirectoryEntry& entry : entries) {
    auto number = parse_segment_name(entry.name);
    if (!number || entry.type != FileType::kRegular) continue;
    auto file = disk.open(entry.name, OpenMode::kRead, "journal.identify");
    // A daemon at work may have recycled it meanwhile.
    if (!file && file.error().kind == ErrorKind::kNotFound) continue;
    if (!file) return pass(std::move(file.error()));
    SegmentHeader header;
    VMFS_ASSIGN(std::size_t got,
                (*file)->read({reinterpret_cast<std::byte*>(&header), sizeof header}, 0, "journal.identify"));
    if (got < sizeof header) continue;
    JournalIdentity identity{{}, NodeId{header.node}, header.size};
    std::memcpy(identity.volume.data(), header.volume, sizeof header.volume);
    // It says whose it is; what is to be seen is whether it is whole.
    if (check_segment_header(header, {identity.volume, identity.node, identity.segment_size, *number}) ==
        HeaderValidity::kValid)
      return std::optional(identity);
  }
  return std::optional<JournalIdentity>{};
}

}  // namespace vmfs
