#include "fs/journal/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <optional>

#include "fs/base/sizes.h"
#include "fs/journal/changes.h"
#include "fs/journal/segment_scan.h"

namespace vmfs {
namespace {

std::string flags_of(const RecordHeader& header) {
  std::string text;
  auto add = [&](std::uint16_t flag, const char* name) {
    if ((header.flags & flag) == 0) return;
    text += text.empty() ? " [" : ", ";
    text += name;
  };
  add(kKeepAllocated, "keep-allocated");
  add(kKeepSize, "keep-size");
  add(kBatchEnd, "batch-end");
  add(kGenerationStart, "generation-start");
  return text.empty() ? text : text + "]";
}

// What the record changes, in words.
std::string change_of(const RecordHeader& header, ByteView payload) {
  switch (header.type) {
    case RecordType::kPad:
      return fmt::format("{} bytes{}", header.extent,
                         (header.flags & kGenerationStart) != 0
                             ? fmt::format(" after the log's end at {:#x}", header.offset)
                             : "");
    case RecordType::kSeal:
      if (payload.size() < sizeof(SealTrailer)) break;
      return fmt::format("table of {} records",
                         (payload.size() - sizeof(SealTrailer)) / sizeof(SealEntry));
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
    case RecordType::kTruncate:
      return fmt::format("from {} to {}", header.extent, header.offset);
    case RecordType::kWrite:
    case RecordType::kZero:
    case RecordType::kAllocate:
    case RecordType::kBaseData:
      return fmt::format("{} at {}", human_size(header.extent), header.offset);
    default:
      return "";
  }
  return "a payload that cannot be read";
}

std::string line_of(const RecordHeader& header, ByteView payload, std::uint64_t offset) {
  std::string line = fmt::format("{:>10}  {}  lsn {:#x}  gen {}  durable {:#x}  {}{}", offset,
                                 human_time(header.wall_ns), header.lsn, header.generation,
                                 header.durable, name_of(header.type), flags_of(header));
  if (header.group != 0)
    line += fmt::format("  group {:016x}  epoch {:016x}  seq {}", header.group, header.epoch, header.seq);
  if (std::string change = change_of(header, payload); !change.empty()) line += "  " + change;
  if (header.connection != 0)
    line += fmt::format("  answers {} of connection {:016x}", header.unique, header.connection);
  return line;
}

std::string line_of_payload(ByteView payload) {
  constexpr std::size_t kShown = 32;
  std::string line = fmt::format("{:>10} ", "");
  for (std::byte byte : payload.first(std::min(payload.size(), kShown)))
    line += fmt::format(" {:02x}", static_cast<unsigned>(byte));
  return payload.size() > kShown ? line + " ..." : line;
}

class Inspection {
 public:
  Inspection(File& file, std::uint64_t file_size, const SegmentHeader& header,
             const InspectOptions& options, const std::function<void(std::string_view)>& print)
      : options_(options),
        print_(print),
        identity_{{header.size}, header.number, header.incarnation},
        window_(file, std::min(file_size, header.size), "inspect") {}

  Result<> records() {
    const Geometry& geometry = identity_.geometry;
    const Lsn end = geometry.start(identity_.number + 1);
    Lsn next = geometry.first_record(identity_.number);
    std::uint32_t generation = 0;
    while (next < end) {
      VMFS_ASSIGN(SeenRecord seen, look_at(window_, identity_, next, true));
      if (seen.validity != Validity::kValid) {
        VMFS_ASSIGN(std::optional<Lsn> found, next_whole(next + 8, seen.validity));
        if (!found) break;
        next = *found;
        continue;
      }
      const bool stale = seen.header.generation < generation;
      if (stale) {
        print_(fmt::format("{:>10}  not part of the log: {}", geometry.offset(next),
                           to_string(Validity::kStale)));
        ++stale_;
      }
      generation = std::max(generation, seen.header.generation);
      VMFS_TRY(record(seen.header, geometry.offset(next)));
      next += seen.header.type == RecordType::kPad ? seen.header.extent
                                                   : record_size(seen.header.payload_size);
      if (seen.header.type == RecordType::kSeal) break;
    }
    print_sums();
    return {};
  }

 private:
  Result<> record(const RecordHeader& header, std::uint64_t offset) {
    Sum& sum = sums_[header.type];
    ++sum.count;
    sum.bytes += header.payload_size;
    if (header.wall_ns != 0) {
      if (first_ns_ == 0) first_ns_ = header.wall_ns;
      last_ns_ = header.wall_ns;
    }
    if (!options_.records && !options_.payloads) return {};
    VMFS_ASSIGN(ByteView payload, window_.view(offset + sizeof header, header.payload_size));
    print_(line_of(header, payload, offset));
    if (options_.payloads && !payload.empty()) print_(line_of_payload(payload));
    return {};
  }

  void print_sums() {
    std::uint64_t count = 0;
    for (const auto& [type, sum] : sums_) {
      print_(fmt::format("{:>10}  {:<14} {}", sum.count, name_of(type), human_size(sum.bytes)));
      count += sum.count;
    }
    if (first_ns_ != 0)
      print_(fmt::format("from {} to {}", human_time(first_ns_), human_time(last_ns_)));
    print_(fmt::format("{} records{}", count,
                       stale_ != 0 ? fmt::format(", {} of them left over", stale_) : ""));
  }

  // Says what is at the place, and finds the next whole record behind it.
  Result<std::optional<Lsn>> next_whole(Lsn from, Validity why) {
    const Geometry& geometry = identity_.geometry;
    const std::uint64_t bad = geometry.offset(from - 8);
    std::uint64_t offset = geometry.offset(from);
    constexpr std::size_t kStep = 1u << 20;
    while (offset != 0 && offset + sizeof(RecordHeader) <= geometry.segment_size) {
      VMFS_ASSIGN(ByteView bytes, window_.view(offset, kStep));
      if (bytes.size() < sizeof(RecordHeader)) break;
      // A record that does not end in the view is looked at again at the start of the next one.
      std::size_t at = 0;
      for (; at + sizeof(RecordHeader) <= bytes.size(); at += 8) {
        RecordHeader header;
        std::memcpy(&header, bytes.data() + at, sizeof header);
        Lsn lsn = geometry.start(identity_.number) + offset + at;
        if (header.magic != kRecordMagic ||
            check_header(header, identity_.incarnation, lsn,
                         geometry.segment_size - offset - at) != Validity::kValid)
          continue;
        print_(fmt::format("{:>10}  {}; the next whole record is {} bytes further", bad,
                           to_string(why), offset + at - bad));
        return lsn;
      }
      offset += at;
    }
    print_(fmt::format("{:>10}  {}; nothing whole behind it", bad, to_string(why)));
    return std::nullopt;
  }

  struct Sum {
    std::uint64_t count = 0, bytes = 0;  // bytes: of payloads
  };

  const InspectOptions options_;
  const std::function<void(std::string_view)>& print_;
  const SegmentIdentity identity_;
  FileWindow window_;
  std::map<RecordType, Sum> sums_;
  std::uint64_t stale_ = 0;
  std::int64_t first_ns_ = 0, last_ns_ = 0;
};

}  // namespace

bool looks_like_segment(ByteView first_bytes) {
  std::uint32_t magic = 0;
  if (first_bytes.size() < sizeof magic) return false;
  std::memcpy(&magic, first_bytes.data(), sizeof magic);
  return magic == kSegmentMagic;
}

Result<> inspect_segment(File& file, const InspectOptions& options,
                         const std::function<void(std::string_view line)>& print) {
  VMFS_ASSIGN(FileStat stat, file.stat("inspect"));
  SegmentHeader header;
  VMFS_ASSIGN(std::size_t got,
              file.read({reinterpret_cast<std::byte*>(&header), sizeof header}, 0, "inspect"));
  if (got < sizeof header) {
    print(fmt::format("no journal segment: the file has {} bytes", stat.size));
    return {};
  }
  if (header.magic == 0 && header.hash == 0) {
    print("a segment prepared ahead of use");
    return {};
  }
  if (header.magic != kSegmentMagic) {
    print("no journal segment, or its header is damaged: the magic number is missing");
    return {};
  }
  VolumeId volume;
  std::memcpy(volume.data(), header.volume, sizeof header.volume);
  bool whole = hash_of(header) == header.hash;
  print(fmt::format("journal segment {:016x}  version {}  volume {}  node {:016x}  {} bytes  "
                    "incarnation {:016x}  header {}",
                    header.number, header.version, to_string(volume), header.node, header.size,
                    header.incarnation, whole ? "valid" : "DAMAGED: its checksum does not hold"));
  if (header.version != kJournalVersion) {
    print(fmt::format("this vmfs reads version {} only", kJournalVersion));
    return {};
  }
  // From here on the header's numbers are used, so they must be possible, damaged or not.
  if (!std::has_single_bit(header.size) || header.size < kSegmentSizeMin ||
      header.size > kSegmentSizeMax || header.number > (~std::uint64_t{0} / header.size) - 1) {
    print("its sizes cannot be: nothing more can be said");
    return {};
  }
  if (stat.size != header.size)
    print(fmt::format("the file has {} bytes, not {}", stat.size, header.size));
  return Inspection(file, stat.size, header, options, print).records();
}

}  // namespace vmfs
