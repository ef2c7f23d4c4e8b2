#include "cli/inspect_segment.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>

#include "fs/base/sizes.h"
#include "fs/journal/changes.h"
#include "fs/journal/format.h"
#include "fs/journal/record_check.h"
#include "fs/journal/segment_scan.h"
#include "fs/seam/disk.h"

namespace vmfs {

namespace {

// What a name-space record did, in words.
std::string change_text(const RecordHeader& header, ByteView payload) {
  switch (header.type) {
    case RecordType::kCreate:
      if (auto change = decode<Create>(payload))
        return fmt::format("\"{}\" in {} is {}", change->name, change->parent, change->object);
      break;
    case RecordType::kUnlink:
      if (auto change = decode<Unlink>(payload))
        return fmt::format("\"{}\" in {} was {}", change->name, change->parent, change->object);
      break;
    case RecordType::kRename:
      if (auto change = decode<Rename>(payload))
        return fmt::format("{}: \"{}\" in {} to \"{}\" in {}", change->object, change->from_name,
                           change->from_parent, change->to_name, change->to_parent);
      break;
    case RecordType::kDeleteObject:
      if (auto change = decode<DeleteObject>(payload)) return fmt::format("{}", change->object);
      break;
    case RecordType::kReleased:
      if (auto change = decode<Release>(payload)) return fmt::format("to node {}", change->taker);
      break;
    case RecordType::kEpoch:
    case RecordType::kTaken:
      if (auto change = decode<EpochChange>(payload))
        return fmt::format("epoch {} of node {}, leaves {} at seq {}", change->entry.epoch,
                           change->entry.node, change->entry.parent.epoch, change->entry.parent.seq);
      break;
    case RecordType::kWrite:
    case RecordType::kZero:
    case RecordType::kAllocate:
    case RecordType::kBaseData:
      return fmt::format("{} at {}", human_size(header.extent), header.offset);
    case RecordType::kTruncate:
      return fmt::format("from {} to {}", header.extent, header.offset);
    default: return "";
  }
  return "a payload that cannot be read";
}

std::string record_text(const RecordHeader& header, ByteView payload) {
  std::string text = fmt::format("  {:#014x} {} {:<14}", header.lsn, time_text(header.wall_ns),
                                 name_of(header.type));
  if (header.group != 0)
    text += fmt::format(" group {:016x} epoch {:016x} seq {}", header.group, header.epoch, header.seq);
  if (std::string change = change_text(header, payload); !change.empty()) text += "  " + change;
  if ((header.flags & kBatchEnd) != 0) text += "  batch-end";
  if ((header.flags & kGenerationStart) != 0)
    text += fmt::format("  generation {} starts", header.generation);
  if (header.connection != 0)
    text += fmt::format("  answers {} of connection {:016x}", header.unique, header.connection);
  return text;
}

std::string payload_text(ByteView payload) {
  constexpr std::size_t kShown = 32;
  std::string text = "      ";
  for (std::size_t i = 0; i < std::min(payload.size(), kShown); ++i)
    text += fmt::format("{:02x} ", static_cast<unsigned>(payload[i]));
  if (payload.size() > kShown) text += "...";
  return text;
}

}  // namespace

Result<> inspect_segment(const std::string& path, const InspectOptions& options,
                         const std::function<void(std::string_view)>& line) {
  std::filesystem::path whole(path);
  VMFS_ASSIGN(auto disk, open_posix_disk(whole.parent_path().string()));
  VMFS_ASSIGN(auto file, disk->open(whole.filename().string(), OpenMode::kRead, "inspect.open"));
  VMFS_ASSIGN(FileStat stat, file->stat("inspect.stat"));
  SegmentHeader header;
  VMFS_ASSIGN(std::size_t got, file->read(std::as_writable_bytes(std::span(&header, 1)), 0, "inspect.read"));
  if (got != sizeof header)
    return fail(ErrorKind::kCorrupt, EIO, fmt::format("{}: too short to be a segment: {} bytes", path, stat.size));
  // Expected to be what it says of itself: a file that is looked at alone has nothing to be compared to.
  HeaderExpectation itself;
  std::memcpy(itself.volume.data(), header.volume, sizeof header.volume);
  itself.node = NodeId{header.node};
  itself.segment_size = header.size;
  itself.number = header.number;
  HeaderValidity validity = check_segment_header(header, itself);
  bool nothing = header.magic == 0 && header.hash == 0;
  if (nothing) {
    line(fmt::format("{}: prepared, not in use yet", path));
    return {};
  }
  line(fmt::format("{}: segment {} of volume {}, node {:016x}", path, header.number,
                   to_string(itself.volume), header.node));
  if (validity != HeaderValidity::kValid)
    return fail(ErrorKind::kCorrupt, EIO, fmt::format("{}: its header: {}", path, to_string(validity)));
  SegmentIdentity identity{Geometry{header.size}, header.number, header.incarnation};
  FileWindow window(*file, stat.size, "inspect.read");
  struct Sum {
    std::uint64_t count = 0, bytes = 0;
  };
  std::map<RecordType, Sum> sums;
  std::int64_t first_ns = 0, last_ns = 0;
  VMFS_ASSIGN(WalkEnd end, walk_segment(window, identity, {}, [&](const RecordHeader& record, ByteView payload) -> Result<> {
    Sum& sum = sums[record.type];
    ++sum.count;
    sum.bytes += record.payload_size;
    if (record.wall_ns != 0) {
      if (first_ns == 0) first_ns = record.wall_ns;
      last_ns = record.wall_ns;
    }
    if (options.records) line(record_text(record, payload));
    if (options.payloads && !payload.empty()) line(payload_text(payload));
    return {};
  }));
  for (auto& [type, sum] : sums)
    line(fmt::format("  {:>8} {:<14} {}", sum.count, name_of(type), human_size(sum.bytes)));
  if (first_ns != 0) line(fmt::format("  from {} to {}", time_text(first_ns), time_text(last_ns)));
  line(fmt::format("  ends at LSN {:#x} ({}), {}; generation {}, durable when last said: {:#x}", end.end,
                   identity.geometry.offset(end.end),
                   end.sealed ? "sealed" : fmt::format("then: {}", to_string(end.reason)), end.generation,
                   end.claimed_durable));
  return {};
}

}  // namespace vmfs
