#include "fs/journal/inspect.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <ctime>
#include <optional>

#include "fs/journal/segment_scan.h"

namespace vmfs {
namespace {

std::string time_of(std::int64_t wall_ns) {
  if (wall_ns == 0) return "-";
  std::time_t seconds = wall_ns / 1'000'000'000;
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03d}Z", fmt::gmtime(seconds),
                     wall_ns / 1'000'000 % 1000);
}

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

std::string line_of(const RecordHeader& header, std::uint64_t offset) {
  std::string line = fmt::format("{:>10}  lsn {}  gen {}  durable {}  {}{}", offset, header.lsn,
                                 header.generation, header.durable, name_of(header.type),
                                 flags_of(header));
  if (header.type == RecordType::kPad) {
    line += fmt::format("  {} bytes", header.extent);
    if (header.flags & kGenerationStart) line += fmt::format("  after the log's end at {}", header.offset);
    return line;
  }
  if (header.type == RecordType::kSeal)
    return line + fmt::format("  table of {} records",
                              (header.payload_size - sizeof(SealTrailer)) / sizeof(SealEntry));
  return line + fmt::format("  group {:016x}  epoch {:016x}  seq {}  at {} +{}  payload {}  {}",
                            header.group, header.epoch, header.seq, header.offset, header.extent,
                            header.payload_size, time_of(header.wall_ns));
}

class Inspection {
 public:
  Inspection(File& file, std::uint64_t file_size, const SegmentHeader& header,
             const std::function<void(std::string_view)>& print)
      : print_(print),
        identity_{{header.size}, header.number, header.incarnation},
        window_(file, std::min(file_size, header.size), "inspect") {}

  Result<> records() {
    const Geometry& geometry = identity_.geometry;
    const Lsn end = geometry.start(identity_.number + 1);
    Lsn next = geometry.first_record(identity_.number);
    std::uint32_t generation = 0;
    std::uint64_t count = 0, stale = 0;
    while (next < end) {
      VMFS_ASSIGN(SeenRecord seen, look_at(window_, identity_, next, true));
      if (seen.validity == Validity::kValid && seen.header.generation < generation) {
        print_(fmt::format("{:>10}  not part of the log: {}", geometry.offset(next),
                           to_string(Validity::kStale)));
        ++stale;
      }
      if (seen.validity != Validity::kValid) {
        VMFS_ASSIGN(std::optional<Lsn> found, next_whole(next + 8, seen.validity));
        if (!found) break;
        next = *found;
        continue;
      }
      generation = std::max(generation, seen.header.generation);
      print_(line_of(seen.header, geometry.offset(next)));
      ++count;
      next += seen.header.type == RecordType::kPad ? seen.header.extent
                                                   : record_size(seen.header.payload_size);
      if (seen.header.type == RecordType::kSeal) break;
    }
    print_(fmt::format("{} records{}", count,
                       stale ? fmt::format(", {} of them left over", stale) : ""));
    return {};
  }

 private:
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

  const std::function<void(std::string_view)>& print_;
  const SegmentIdentity identity_;
  FileWindow window_;
};

}  // namespace

bool looks_like_segment(ByteView first_bytes) {
  std::uint32_t magic = 0;
  if (first_bytes.size() < sizeof magic) return false;
  std::memcpy(&magic, first_bytes.data(), sizeof magic);
  return magic == kSegmentMagic;
}

Result<> inspect_segment(File& file, const std::function<void(std::string_view line)>& print) {
  VMFS_ASSIGN(FileStat stat, file.stat("inspect"));
  SegmentHeader header;
  VMFS_ASSIGN(std::size_t got,
              file.read({reinterpret_cast<std::byte*>(&header), sizeof header}, 0, "inspect"));
  if (got < sizeof header) {
    print(fmt::format("no journal segment: the file has {} bytes", stat.size));
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
  return Inspection(file, stat.size, header, print).records();
}

}  // namespace vmfs
