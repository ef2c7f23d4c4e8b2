#include "fs/journal/recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fs/base/log.h"
#include "fs/journal/segment.h"

namespace vmfs {

Result<JournalFiles> find_files(Disk& disk, const JournalOptions& options) {
  JournalFiles files;
  VMFS_ASSIGN(auto entries, disk.list("", "journal.open"));
  for (const DirectoryEntry& entry : entries) {
    if (entry.type != FileType::kRegular) continue;
    if (entry.name == kSyncFailedMarker) files.sync_failed_marker = true;
    if (entry.name == kPrepareFile || entry.name == kRewriteFile)
      files.unfinished.push_back(entry.name);
    if (is_spare_name(entry.name)) files.spares.push_back(entry.name);
    auto number = parse_segment_name(entry.name);
    if (!number) continue;
    FoundSegment found;
    VMFS_ASSIGN(found.file, disk.open(entry.name, OpenMode::kReadWrite, "journal.open"));
    VMFS_ASSIGN(FileStat stat, found.file->stat("journal.open"));
    SegmentHeader header;
    VMFS_ASSIGN(std::size_t got, found.file->read({reinterpret_cast<std::byte*>(&header),
                                                   sizeof header}, 0, "journal.open"));
    if (got == sizeof header) {
      found.header = check_segment_header(
          header, {options.volume, options.node, options.segment_size, *number});
      found.evidence = to_string(found.header);
      if (found.header == HeaderValidity::kNewerVersion)
        found.evidence += fmt::format(" (version {}, this one knows {})", header.version,
                                      kJournalVersion);
      if (found.header == HeaderValidity::kOtherSize)
        found.evidence += fmt::format(" ({} bytes, not {})", header.size, options.segment_size);
    }
    if (found.header == HeaderValidity::kValid && stat.size != options.segment_size)
      found.header = HeaderValidity::kDamaged;
    if (got != sizeof header || stat.size != options.segment_size)
      found.evidence += fmt::format("{}the file has {} bytes, not {}",
                                    found.evidence.empty() ? "" : "; ", stat.size,
                                    options.segment_size);
    found.incarnation = header.incarnation;
    files.segments.emplace(*number, std::move(found));
  }
  std::sort(files.spares.begin(), files.spares.end());
  return files;
}

namespace {

// One search for the log's end; its members are the state of the search.
class LogSearch {
 public:
  LogSearch(Disk& disk, const JournalOptions& options, JournalFiles& files, Lsn start, bool quick)
      : disk_(disk), files_(files), geometry_{options.segment_size}, quick_(quick) {
    log_.start = start;
  }

  Result<FoundLog> run() {
    if (files_.segments.empty()) {
      refuse(ErrorKind::kNotFound,
             fmt::format("{} holds no journal segment", disk_.display("")));
      return std::move(log_);
    }
    for (const auto& [number, found] : files_.segments) {
      // Whatever a file's place would be: one that is not ours, or from the future, stops us.
      const SegmentRow& row = decide(SegmentFacts{SegmentRole::kBeyond, true, found.header, false});
      if (row.action == SegmentAction::kRefuse) {
        refuse_segment(number, row);
        return std::move(log_);
      }
    }
    std::uint64_t first = first_number();
    find_oldest(first);
    VMFS_TRY(walk_from(first));
    if (!log_.refusal.empty()) return std::move(log_);
    VMFS_TRY(look_behind());
    decide_end();
    return std::move(log_);
  }

 private:
  SegmentFacts facts(std::uint64_t number, SegmentRole role) const {
    auto found = files_.segments.find(number);
    bool later = files_.segments.upper_bound(number) != files_.segments.end();
    if (found == files_.segments.end()) return {role, false, HeaderValidity::kDamaged, later};
    return {role, true, found->second.header, later};
  }
  SegmentIdentity identity(std::uint64_t number) const {
    return {geometry_, number, files_.segments.at(number).incarnation};
  }
  FileWindow window(std::uint64_t number, std::size_t chunk = 1u << 20) const {
    return {*files_.segments.at(number).file, geometry_.segment_size, "journal.open", chunk};
  }
  std::string shown(std::uint64_t number) const { return disk_.display(segment_name(number)); }

  void refuse(ErrorKind kind, std::string why) {
    log_.refusal = std::move(why);
    log_.refusal_kind = kind;
  }
  void refuse_segment(std::uint64_t number, const SegmentRow& row) {
    SegmentFacts what = facts(number, SegmentRole::kStart);
    bool damage = !what.present || what.header == HeaderValidity::kDamaged ||
                  what.header == HeaderValidity::kOtherNumber;
    std::string why = what.present ? files_.segments.at(number).evidence : "the file is missing";
    refuse(damage ? ErrorKind::kCorrupt : ErrorKind::kRefused,
           fmt::format("journal segment {}: {} (rule: {})", shown(number), why, row.label));
    if (damage) log_.refusal += ways_out(std::max(log_.start, geometry_.first_record(number)));
  }
  std::string ways_out(Lsn until) const {
    return fmt::format(
        "\nways out:\n"
        "1. everything comes from the peer, if it has everything. There:\n"
        "     vmfs promote MOUNTPOINT --force               if this node owned images\n"
        "     vmfs peer remove MOUNTPOINT THIS-NODE\n"
        "     vmfs token STORE                              prints TOKEN\n"
        "   and here, the journal too if it is not in STORE:\n"
        "     mv STORE STORE.damaged\n"
        "     vmfs join STORE TOKEN\n"
        "     vmfs mount STORE MOUNTPOINT\n"
        "2. without a peer, go on with what is whole; the rest is kept in cut-<time>/ beside the journal:\n"
        "     vmfs recover STORE --until {}",
        until);
  }

  std::uint64_t first_number() {
    if (log_.start == 0) {
      // The oldest of the unbroken row that the newest belongs to: older ones beside it are segments
      // whose recycling a crash has undone.
      auto at = std::prev(files_.segments.end());
      while (at != files_.segments.begin() && std::prev(at)->first + 1 == at->first) --at;
      log_.start = geometry_.first_record(at->first);
      return at->first;
    }
    std::uint64_t number = geometry_.number(log_.start);
    // A pass of the applier may end between two segments.
    log_.start = std::max(log_.start, geometry_.first_record(number));
    // All is in the store, up to the end of a complete segment whose successor is not ready.
    if (!files_.segments.contains(number) && log_.start == geometry_.first_record(number) &&
        number > 0 && files_.segments.contains(number - 1))
      return number - 1;
    return number;
  }

  void find_oldest(std::uint64_t first) {
    log_.oldest = first;
    while (log_.oldest > 0) {
      const SegmentRow& row = decide(facts(log_.oldest - 1, SegmentRole::kBelow));
      if (row.action != SegmentAction::kUse) break;
      --log_.oldest;
    }
    for (const auto& [number, found] : files_.segments)
      if (number < log_.oldest) log_.not_needed.push_back(number);
  }

  // A generation that had no room in this segment begins the next one, and says where.
  Result<Lsn> end_by_next(std::uint64_t number) const {
    SegmentFacts next = facts(number + 1, SegmentRole::kBeyond);
    if (!next.present || next.header != HeaderValidity::kValid) return ~Lsn{0};
    FileWindow next_window = window(number + 1, kBlock);
    VMFS_ASSIGN(SeenRecord seen, look_at(next_window, identity(number + 1),
                                         geometry_.first_record(number + 1), false));
    if (seen.validity == Validity::kValid && seen.header.type == RecordType::kPad &&
        (seen.header.flags & kGenerationStart) != 0 &&
        geometry_.number(seen.header.offset) == number)
      return seen.header.offset;
    return ~Lsn{0};
  }

  Result<> walk_from(std::uint64_t first) {
    WalkLimits limits;
    limits.verify_from = log_.start;
    for (std::uint64_t number = first;; ++number) {
      SegmentRole role = number == first ? SegmentRole::kStart : SegmentRole::kContinued;
      const SegmentRow& row = decide(facts(number, role));
      log_.last = number;
      log_.last_entries.clear();
      log_.end = geometry_.first_record(number);
      if (row.action == SegmentAction::kRefuse) {
        refuse_segment(number, row);
        return {};
      }
      if (row.action == SegmentAction::kEnd) {
        log_.end_facts.sealed = true;
        return {};
      }
      SegmentIdentity id = identity(number);
      File& file = *files_.segments.at(number).file;
      VMFS_ASSIGN(limits.stop_at, end_by_next(number));
      // A seal is no seal if a later recovery found that the log ended before it.
      if (quick_ && limits.stop_at == ~Lsn{0}) {
        VMFS_ASSIGN(auto table, read_seal(file, id, "journal.open"));
        if (table) {
          log_.walked.push_back({number, geometry_.start(number + 1), true});
          log_.claimed_durable = std::max(log_.claimed_durable, table->header.durable);
          limits.generation = log_.generation = table->header.generation;
          limits.expected_end = 0;
          continue;
        }
      }
      FileWindow content = window(number);
      VMFS_ASSIGN(WalkEnd walk,
                  walk_segment(content, id, limits,
                               [&](const RecordHeader& header, ByteView) -> Result<> {
                                 if (header.type != RecordType::kPad &&
                                     header.type != RecordType::kSeal)
                                   log_.last_entries.push_back(seal_entry(
                                       header,
                                       static_cast<std::uint32_t>(geometry_.offset(header.lsn))));
                                 return {};
                               }));
      log_.walked.push_back({number, walk.end, walk.sealed});
      log_.end = walk.end;
      log_.claimed_durable = std::max(log_.claimed_durable, walk.claimed_durable);
      limits.generation = log_.generation = walk.generation;
      limits.expected_end = 0;
      if (walk.sealed) continue;
      if (walk.end == limits.stop_at) {
        limits.expected_end = walk.end;
        continue;
      }
      log_.end_facts.reason = walk.reason;
      return {};
    }
  }

  Result<> look_behind() {
    log_.generation_max = log_.generation;
    LaterRecords later;
    if (files_.segments.contains(log_.last)) {
      FileWindow content = window(log_.last);
      VMFS_TRY(find_later_records(content, identity(log_.last), log_.end, log_.generation, later));
    }
    bool unbroken = files_.segments.contains(log_.last);
    for (auto& [number, found] : files_.segments) {
      if (number <= log_.last) continue;
      const SegmentRow& row = decide(facts(number, SegmentRole::kBeyond));
      bool used = row.action != SegmentAction::kPrepared;
      if (!used) {
        LaterRecords here;
        FileWindow content = window(number);
        if (quick_) {
          // Nothing is lost when only the process died: a segment with records has a first one.
          VMFS_ASSIGN(SeenRecord seen, look_at(content, identity(number),
                                               geometry_.first_record(number), false));
          if (seen.validity == Validity::kValid)
            here = {true, seen.header.generation, seen.header.durable, seen.header.lsn};
          if (here.any && here.generation_max < log_.generation) here.claimed_durable = 0;
        } else {
          VMFS_TRY(find_later_records(content, identity(number), geometry_.first_record(number),
                                      log_.generation, here));
        }
        used = here.any;
        later.generation_max = std::max(later.generation_max, here.generation_max);
        if (here.claimed_durable > later.claimed_durable) {
          later.claimed_durable = here.claimed_durable;
          later.claimed_at = here.claimed_at;
        }
      }
      unbroken = unbroken && number == log_.last + 1 + log_.prepared.size();
      if (used || !unbroken)
        log_.not_needed.push_back(number);
      else
        log_.prepared.push_back(number);
    }
    log_.generation_max = std::max(log_.generation_max, later.generation_max);
    log_.end_facts.later_claim = later.claimed_durable;
    later_at_ = later.claimed_at;
    return {};
  }

  void decide_end() {
    log_.end_facts.start = log_.start;
    log_.end_facts.end = log_.end;
    log_.row = &decide(log_.end_facts);
    if (log_.row->action == EndAction::kEndHere) {
      log_.claimed_durable = std::max(log_.claimed_durable, log_.start);
      return;
    }
    std::uint64_t number = geometry_.number(log_.end);
    std::string evidence =
        log_.end < log_.start
            ? fmt::format("the last checkpoint says that it was durable up to LSN {}", log_.start)
            : fmt::format("a record at LSN {} says that it was durable up to LSN {}", later_at_,
                          log_.end_facts.later_claim);
    refuse(ErrorKind::kCorrupt,
           fmt::format("journal segment {} is damaged at offset {} (LSN {}): {}, and {} (rule: {}){}",
                       shown(number), geometry_.offset(log_.end), log_.end,
                       to_string(log_.end_facts.reason), evidence, log_.row->label,
                       ways_out(log_.end)));
  }

  Disk& disk_;
  JournalFiles& files_;
  const Geometry geometry_;
  const bool quick_;
  FoundLog log_;
  Lsn later_at_ = 0;
};

}  // namespace

Result<FoundLog> find_log(Disk& disk, const JournalOptions& options, JournalFiles& files, Lsn start,
                          bool quick) {
  return LogSearch(disk, options, files, start, quick).run();
}

}  // namespace vmfs
