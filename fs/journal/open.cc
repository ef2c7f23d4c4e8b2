// Creating a journal; opening one, which is the writing part of recovery (recovery.cc is the reading
// part); replaying what was found.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <functional>

#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "fs/base/log.h"
#include "fs/journal/journal_impl.h"
#include "fs/journal/recovery.h"
#include "fs/journal/rewrite.h"

namespace vmfs {
namespace {

Result<> check_options(const JournalOptions& options) {
  if (!std::has_single_bit(options.segment_size) || options.segment_size < kSegmentSizeMin ||
      options.segment_size > kSegmentSizeMax)
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("a journal's segment size must be a power of two from {} to {} bytes, "
                            "not {}",
                            kSegmentSizeMin, kSegmentSizeMax, options.segment_size));
  if (options.size_max < 4 * options.segment_size)
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("a journal of {} bytes is too small: at least four segments of {} bytes",
                            options.size_max, options.segment_size));
  return {};
}

}  // namespace

Result<> Journal::create(Disk& disk, const JournalOptions& options) {
  VMFS_TRY(check_options(options));
  VMFS_ASSIGN(JournalFiles files, find_files(disk, options));
  if (!files.segments.empty())
    return fail(ErrorKind::kExists, EEXIST,
                fmt::format("{} already holds a journal ({})", disk.display(""),
                            segment_name(files.segments.begin()->first)));
  // Spares of an attempt that was broken off; they may be of another size.
  for (const std::string& name : files.spares) VMFS_TRY(disk.remove(name, "journal.create"));
  for (const std::string& name : files.unfinished) VMFS_TRY(disk.remove(name, "journal.create"));
  SegmentSet segments(disk, options);
  // Spares first: as long as there is no segment, there is no journal.
  if (options.whole_at_creation)
    for (std::uint64_t n = 0; n < segments.count_max(); ++n) VMFS_TRY(segments.make_spare());
  // LSN 0 means "none", so the log begins with segment 1; with two segments there is always one to
  // go on in when the other is released.
  for (std::uint64_t number : {1, 2}) VMFS_TRY(segments.make_ready(number, true));
  return clear_sync_failed_marker(disk);
}

Result<std::unique_ptr<Journal>> Journal::open(Disk& disk, Clock& clock,
                                               const JournalOptions& options,
                                               const OpenArguments& arguments) {
  VMFS_TRY(check_options(options));
  VMFS_ASSIGN(JournalFiles files, find_files(disk, options));
  VMFS_ASSIGN(FoundLog log, find_log(disk, options, files, arguments.start, arguments.quick));
  if (!log.refusal.empty()) return fail(log.refusal_kind, EIO, log.refusal);
  log.generation_max = std::max(log.generation_max, arguments.generation);
  log_info("journal: segments {} to {}, replay from LSN {} to {} ({}), generation {}", log.oldest,
           log.last, log.start, log.end, log.row->label, log.generation_max + 1);

  auto impl = std::make_unique<Impl>(disk, clock, options, files.segments.size());
  VMFS_TRY(impl->adopt(files, log));
  VMFS_TRY(impl->begin_generation(log));
  if (files.sync_failed_marker) VMFS_TRY(clear_sync_failed_marker(disk));
  return std::unique_ptr<Journal>(new Journal(std::move(impl)));
}

// Takes the files over, and makes durable what was found.
Result<> Journal::Impl::adopt(JournalFiles& files, FoundLog& log) {
  // First, because rewriting needs one of their names.
  for (const std::string& name : files.unfinished) VMFS_TRY(disk.remove(name, "journal.open"));
  // The disk may have no room for another file.
  auto take_spare = [&]() -> Result<FreeFile> {
    // What a spare was before is gone for good before it is overwritten: see SegmentSet::take_spare_locked().
    if (!files.spares.empty()) VMFS_TRY(disk.sync_directory("", "journal.open"));
    while (!files.spares.empty()) {
      FreeFile spare{std::move(files.spares.back()), nullptr};
      files.spares.pop_back();
      VMFS_ASSIGN(spare.file, disk.open(spare.name, OpenMode::kReadWrite, "journal.open"));
      VMFS_ASSIGN(FileStat stat, spare.file->stat("journal.open"));
      if (stat.size == options.segment_size) return spare;
      VMFS_TRY(disk.remove(spare.name, "journal.open"));
    }
    return FreeFile{};
  };
  // What reads back well may be in memory only: a sync has failed, and neither that nor anything else could
  // be written down. Then another sync would succeed without it, so all that nobody claimed to be durable
  // is written again first.
  auto make_durable = [&](const LogSegment& part) -> Result<> {
    FoundSegment& found = files.segments.at(part.number);
    if (!files.sync_failed_marker) {
      const Lsn first = geometry.start(part.number);
      const std::uint64_t from = log.claimed_durable > first ? geometry.offset(log.claimed_durable) : 0;
      auto done = write_in_place_again(*found.file, from, align_to_block(part.end) - first, "journal.recover");
      // That it is no seal is part of what was found.
      if (done && !part.sealed)
        done = write_in_place_again(*found.file, options.segment_size - kBlock, options.segment_size,
                                    "journal.recover");
      if (done) done = found.file->sync_data("journal.recover");
      if (done) return {};
      log_error("journal: {}", done.error().message);
      set_sync_failed_marker(disk);
      files.sync_failed_marker = true;
    }
    VMFS_ASSIGN(FreeFile spare, take_spare());
    VMFS_ASSIGN(RewrittenSegment again,
                rewrite_segment(disk, options, {geometry, part.number, found.incarnation},
                                *found.file, part.end, "journal.heal", std::move(spare)));
    found.file = std::move(again.file);
    found.incarnation = again.incarnation;
    return {};
  };
  for (const LogSegment& part : log.walked)
    if (geometry.start(part.number + 1) > log.claimed_durable) VMFS_TRY(make_durable(part));

  auto take = [&](std::uint64_t number) {
    FoundSegment& found = files.segments.at(number);
    segments.adopt(number, std::move(found.file), found.incarnation);
  };
  for (std::uint64_t number = log.oldest; number <= log.last; ++number)
    if (files.segments.contains(number)) take(number);
  for (std::uint64_t number : log.prepared) take(number);
  // Files that count for nothing become spares, as far as the limit allows. The newest first: a crash in
  // between must not leave a gap, behind which a log of its own would seem to begin.
  std::sort(log.not_needed.begin(), log.not_needed.end(), std::greater<>());
  for (std::uint64_t number : log.not_needed) {
    std::string name = spare_name(number);
    VMFS_TRY(disk.rename(segment_name(number), name, true, "journal.open"));
    std::erase(files.spares, name);
    files.spares.push_back(std::move(name));
  }
  for (const std::string& name : files.spares) {
    VMFS_ASSIGN(auto file, disk.open(name, OpenMode::kReadWrite, "journal.open"));
    VMFS_ASSIGN(FileStat stat, file->stat("journal.open"));
    if (stat.size == options.segment_size && segments.files() < segments.count_max())
      segments.adopt_spare(name, std::move(file));
    else
      VMFS_TRY(disk.remove(name, "journal.open"));
  }
  VMFS_TRY(disk.sync_directory("", "journal.open"));

  oldest = geometry.start(log.oldest);
  next_to_retire = log.oldest;
  current = log.last;
  ready_through = log.last - (segments.has(log.last) ? 0 : 1) + log.prepared.size();
  replay_start = log.start;
  replay_segments = std::move(log.walked);
  return {};
}

// What is behind the end can never come alive after this.
Result<> Journal::Impl::begin_generation(const FoundLog& log) {
  generation = log.generation_max + 1;
  Lsn at = align_to_block(log.end);
  for (const SealEntry& entry : log.last_entries) table->add(entry);
  // A log that ends in the segment's last block (a seal was torn) has no whole block left there.
  bool here = segments.has(log.last) && geometry.number(at) == log.last &&
              fits(at, table->entries, kBlock);
  if (!here) {
    if (segments.has(log.last)) {
      ++current;
      table->entries = 0;
    }
    at = geometry.first_record(current);
    if (!segments.has(current)) {
      // Even above the limit: without this step nothing could ever be released.
      VMFS_TRY(segments.make_ready(current, true));
      ready_through = current;
    }
  }
  RecordHeader start;
  start.type = RecordType::kPad;
  start.flags = kGenerationStart;
  start.lsn = at;
  start.durable = log.end;
  start.generation = generation;
  start.offset = log.end;
  start.extent = kBlock;
  start.payload_hash = hash64({});
  start.header_hash = hash_of(start, segments.incarnation(current));
  Bytes block(kBlock);
  std::memcpy(block.data(), &start, sizeof start);
  File& file = segments.file(current);
  // A lost life may have got as far as sealing this segment, and of what it wrote the seal alone may have
  // reached the disk. By that the segment would be taken at the next start, with records that are gone.
  const std::uint64_t trailer = options.segment_size - sizeof(SealTrailer);
  CHECK_COMPARE(geometry.offset(at) + kBlock, <=, trailer);
  VMFS_TRY(file.write(Bytes(sizeof(SealTrailer)), trailer, "journal.generation"));
  VMFS_TRY(file.write(block, geometry.offset(at), "journal.generation"));
  if (auto synced = file.sync_data("journal.generation"); !synced) {
    set_sync_failed_marker(disk);
    return synced;
  }
  next_lsn = at + kBlock;
  reserved = written = durable = next_lsn;
  return {};
}

Result<> Journal::Impl::replay(
    const std::function<Result<>(Lsn lsn, const SealEntry& record)>& visit) {
  for (const LogSegment& part : replay_segments) {
    SegmentIdentity identity{geometry, part.number, segments.incarnation(part.number)};
    File& file = segments.file(part.number);
    auto pass_on = [&](const SealEntry& entry) -> Result<> {
      Lsn lsn = geometry.start(part.number) + entry.offset_in_segment;
      return lsn < replay_start ? Result<>{} : visit(lsn, entry);
    };
    if (part.sealed) {
      VMFS_ASSIGN(auto sealed, read_seal(file, identity, "journal.replay"));
      if (sealed) {
        for (const SealEntry& entry : sealed->entries) VMFS_TRY(pass_on(entry));
        continue;
      }
    }
    FileWindow window(file, options.segment_size, "journal.replay");
    WalkLimits limits;
    limits.verify_from = ~Lsn{0};  // recovery has
    limits.stop_at = part.end;
    VMFS_ASSIGN(
        WalkEnd walk,
        walk_segment(window, identity, limits,
                     [&](const RecordHeader& header, ByteView) -> Result<> {
                       if (header.type == RecordType::kPad || header.type == RecordType::kSeal)
                         return {};
                       return pass_on(seal_entry(
                           header, static_cast<std::uint32_t>(geometry.offset(header.lsn))));
                     }));
    if (walk.end < part.end)
      return fail(ErrorKind::kCorrupt, EIO,
                  fmt::format("{} changed while it was being replayed, at offset {}",
                              disk.display(segment_name(part.number)), geometry.offset(walk.end)));
  }
  return {};
}

}  // namespace vmfs
