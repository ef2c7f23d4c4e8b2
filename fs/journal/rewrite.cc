#include "fs/journal/rewrite.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "fs/base/log.h"

namespace vmfs {

namespace {

// Synced on return; not yet in the segment's place.
Result<RewrittenSegment> copy_segment(Disk& disk, const JournalOptions& options,
                                      const SegmentIdentity& identity, File& file, Lsn until,
                                      Label label, FreeFile& into) {
  RewrittenSegment copy;
  if (!into.file) {
    into.name = kRewriteFile;
    VMFS_ASSIGN(into.file, make_zero_file(disk, into.name, options.segment_size, label));
  }
  copy.file = std::move(into.file);
  copy.incarnation = random_u64();
  VMFS_TRY(write_segment_header(*copy.file, options, identity.number, copy.incarnation, label));
  FileWindow window(file, options.segment_size, label);
  WalkLimits limits;
  limits.stop_at = until;
  VMFS_ASSIGN(WalkEnd walk,
              walk_segment(window, identity, limits,
                           [&](const RecordHeader& header, ByteView payload) -> Result<> {
                             RecordHeader again = header;
                             again.header_hash = hash_of(header, copy.incarnation);
                             std::array<iovec, 2> pieces{
                                 iovec{&again, sizeof again},
                                 iovec{const_cast<std::byte*>(payload.data()), payload.size()}};
                             return copy.file->write_pieces(
                                 std::span(pieces).first(payload.empty() ? 1 : 2),
                                 identity.geometry.offset(header.lsn), label);
                           }));
  if (walk.end < until)
    return fail(ErrorKind::kCorrupt, EIO,
                fmt::format("{} cannot be written again: at offset {}, {}; the log went on to {}",
                            disk.display(segment_name(identity.number)),
                            identity.geometry.offset(walk.end), to_string(walk.reason),
                            identity.geometry.offset(until)));
  VMFS_TRY(copy.file->sync(label));
  return copy;
}

}  // namespace

Result<RewrittenSegment> rewrite_segment(Disk& disk, const JournalOptions& options,
                                         const SegmentIdentity& identity, File& file, Lsn until,
                                         Label label, FreeFile into) {
  auto copy = copy_segment(disk, options, identity, file, until, label, into);
  if (copy)
    if (auto named = disk.rename(into.name, segment_name(identity.number), true, label); !named)
      copy = pass(std::move(named.error()));
  if (!copy) {
    (void)disk.remove(into.name, label);
    return copy;
  }
  VMFS_TRY(disk.sync_directory("", label));
  return copy;
}

Result<> write_in_place_again(File& file, std::uint64_t from, std::uint64_t to, Label label) {
  Bytes buffer(std::min<std::uint64_t>(1u << 20, to > from ? to - from : 0));
  while (from < to) {
    std::span<std::byte> piece = std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), to - from));
    VMFS_ASSIGN(std::size_t got, file.read(piece, from, label));
    if (got == 0) break;
    VMFS_TRY(file.write(piece.first(got), from, label));
    from += got;
  }
  return {};
}

void set_sync_failed_marker(Disk& disk) {
  auto attempt = [&]() -> Result<> {
    VMFS_ASSIGN(auto file, disk.open(kSyncFailedMarker, OpenMode::kCreateOrOpen, "journal.marker"));
    VMFS_TRY(file->sync("journal.marker"));
    return disk.sync_directory("", "journal.marker");
  };
  if (auto done = attempt(); !done)
    log_warning("journal: the failed sync could not be noted on disk either: {}",
                done.error().message);
}

Result<> clear_sync_failed_marker(Disk& disk) {
  if (auto removed = disk.remove(kSyncFailedMarker, "journal.marker");
      !removed && removed.error().kind != ErrorKind::kNotFound)
    return removed;
  return disk.sync_directory("", "journal.marker");
}

}  // namespace vmfs
