// Cutting the log off at an LSN, by hand, when its middle is damaged. What is cut off is kept.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cerrno>
#include <ctime>

#include "fs/base/hash.h"
#include "fs/base/log.h"
#include "fs/journal/recovery.h"
#include "fs/journal/rewrite.h"

namespace vmfs {
namespace {

Result<> copy_file(Disk& disk, File& from, std::uint64_t size, const std::string& to) {
  VMFS_ASSIGN(auto file, disk.open(to, OpenMode::kCreateOrOpen, "journal.cut"));
  VMFS_TRY(file->truncate(0, "journal.cut"));
  Bytes buffer(1u << 20);
  for (std::uint64_t at = 0; at < size;) {
    VMFS_ASSIGN(std::size_t got, from.read(buffer, at, "journal.cut"));
    if (got == 0) break;
    VMFS_TRY(file->write(ByteView(buffer).first(got), at, "journal.cut"));
    at += got;
  }
  return file->sync("journal.cut");
}

// A name of its own, even if a cut was interrupted a moment ago: nothing kept is ever overwritten.
Result<std::string> make_cut_directory(Disk& disk, Clock& clock) {
  std::time_t seconds = clock.wall_ns() / 1'000'000'000;
  const std::string base = fmt::format("cut-{:%Y%m%dT%H%M%S}", fmt::gmtime(seconds));
  std::string name = base;
  for (int n = 2;; ++n) {
    auto made = disk.make_directory(name, "journal.cut");
    if (made) break;
    if (made.error().kind != ErrorKind::kExists) return pass(std::move(made.error()));
    name = fmt::format("{}-{}", base, n);
  }
  VMFS_TRY(disk.sync_directory("", "journal.cut"));
  return name;
}

// The end of the last record that ends at or below `until`.
Result<Lsn> last_end(FoundSegment& found, const SegmentIdentity& identity, Lsn until) {
  Lsn end = identity.geometry.first_record(identity.number);
  FileWindow window(*found.file, identity.geometry.segment_size, "journal.cut");
  WalkLimits limits;
  limits.verify_from = ~Lsn{0};
  limits.stop_at = until;
  VMFS_TRY(walk_segment(window, identity, limits,
                        [&](const RecordHeader& header, ByteView) -> Result<> {
                          Lsn next = header.lsn + (header.type == RecordType::kPad
                                                       ? header.extent
                                                       : record_size(header.payload_size));
                          if (next <= until) end = next;
                          return {};
                        }));
  return end;
}

// The segment with the start of replay cannot be read at all, but the store has what was below: an
// empty one takes its place, whose log begins no earlier.
Result<> make_empty_segment(Disk& disk, const JournalOptions& options, Lsn start) {
  SegmentSet segments(disk, options);
  const Geometry& geometry = segments.geometry();
  const std::uint64_t number = geometry.number(start);
  VMFS_TRY(segments.make_ready(number, true));
  RecordHeader pad;
  pad.type = RecordType::kPad;
  pad.lsn = geometry.first_record(number);
  pad.generation = 1;
  if (start <= pad.lsn) return {};
  pad.extent = align_to_block(start) - pad.lsn;
  pad.payload_hash = hash64({});
  pad.header_hash = hash_of(pad, segments.incarnation(number));
  File& file = segments.file(number);
  VMFS_TRY(file.write({reinterpret_cast<const std::byte*>(&pad), sizeof pad}, kBlock, "journal.cut"));
  return file.sync_data("journal.cut");
}

}  // namespace

Result<std::string> Journal::cut(Disk& disk, Clock& clock, const JournalOptions& options, Lsn start,
                                 Lsn until) {
  const Geometry geometry{options.segment_size};
  auto refused = [&](const std::string& why) {
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("the journal cannot be cut at LSN {}: {}", until, why));
  };
  if (until < start)
    return refused(fmt::format("the store already has everything up to LSN {}", start));
  VMFS_ASSIGN(JournalFiles files, find_files(disk, options));
  // The damage that is the reason for the cut is no reason to refuse it: all that counts is what can
  // be read below it.
  VMFS_ASSIGN(FoundLog log, find_log(disk, options, files, start, false));
  if (log.refusal_kind == ErrorKind::kRefused) return fail(ErrorKind::kRefused, EIO, log.refusal);
  const bool nothing_readable = log.walked.empty();
  if (nothing_readable && until != start)
    return refused(fmt::format("nothing can be read from LSN {} on: {}", start, log.refusal));
  if (!nothing_readable && until > log.end)
    return refused(fmt::format("the journal is whole only up to LSN {}", log.end));
  if (!nothing_readable && log.end < start)
    return refused(fmt::format("it can be read up to LSN {} only, and the store has everything up "
                               "to LSN {}; join again from the peer", log.end, start));

  VMFS_ASSIGN(const std::string directory, make_cut_directory(disk, clock));
  // First everything is kept that goes, then the segment of the cut is replaced, at once: whenever
  // this is interrupted, it can be done again.
  const LogSegment* split = nullptr;
  for (const LogSegment& part : log.walked)
    if (part.number == geometry.number(until)) split = &part;
  if (split)
    VMFS_TRY(copy_file(disk, *files.segments.at(split->number).file, options.segment_size,
                       directory + "/" + segment_name(split->number)));
  for (auto at = files.segments.rbegin(); at != files.segments.rend(); ++at) {
    const std::uint64_t number = at->first;
    if (number < geometry.number(until) || (split && number == split->number)) continue;
    VMFS_TRY(disk.rename(segment_name(number), directory + "/" + segment_name(number), true,
                         "journal.cut"));
  }
  VMFS_TRY(disk.sync_directory(directory, "journal.cut"));
  VMFS_TRY(disk.sync_directory("", "journal.cut"));
  if (split) {
    FoundSegment& found = files.segments.at(split->number);
    const SegmentIdentity identity{geometry, split->number, found.incarnation};
    VMFS_ASSIGN(Lsn end, last_end(found, identity, until));
    VMFS_TRY(rewrite_segment(disk, options, identity, *found.file, end, "journal.cut"));
  } else if (nothing_readable) {
    VMFS_TRY(make_empty_segment(disk, options, start));
  }
  log_notice("journal: cut at LSN {}; what came after it is kept in {}", until,
             disk.display(directory));
  return directory;
}

}  // namespace vmfs
