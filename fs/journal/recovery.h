// Finding the log in the files that are there. Reads only: what is to be changed is left to
// Journal::open(), so that a refusal leaves everything as it was.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fs/journal/journal.h"
#include "fs/journal/recovery_table.h"
#include "fs/journal/segment_scan.h"

namespace vmfs {

struct FoundSegment {
  std::unique_ptr<File> file;
  HeaderValidity header = HeaderValidity::kDamaged;
  std::string evidence;  // what is wrong with it
  std::uint64_t incarnation = 0;
};

// What the directory holds.
struct JournalFiles {
  std::map<std::uint64_t, FoundSegment> segments;
  std::vector<std::string> spares;
  std::vector<std::string> unfinished;  // left by a crash; of no use
  bool sync_failed_marker = false;
};
Result<JournalFiles> find_files(Disk& disk, const JournalOptions& options);

struct LogSegment {
  std::uint64_t number = 0;
  Lsn end = 0;          // of its last record
  bool sealed = false;
};

// The log as it can be read, and what stands behind it.
struct FoundLog {
  Lsn start = 0;                    // where replay begins
  std::uint64_t oldest = 0;         // number of the oldest segment that is kept
  std::vector<LogSegment> walked;   // from the one with `start` on, ascending
  // The segment in which the log goes on, and the lines of its table so far. It may have no file.
  std::uint64_t last = 0;
  std::vector<SealEntry> last_entries;
  Lsn end = 0;
  std::uint32_t generation = 0;     // of the last record
  std::uint32_t generation_max = 0;  // of any record there is, also behind the end
  Lsn claimed_durable = 0;
  EndFacts end_facts;
  const EndRow* row = nullptr;
  std::string refusal;               // why the journal cannot be opened; empty: it can
  ErrorKind refusal_kind = ErrorKind::kCorrupt;
  std::vector<std::uint64_t> prepared;    // numbers, directly behind the last
  std::vector<std::uint64_t> not_needed;  // numbers of files that count for nothing
};
// An error is one of the disk; damage is in `refusal`.
Result<FoundLog> find_log(Disk& disk, const JournalOptions& options, JournalFiles& files, Lsn start,
                          bool quick);

}  // namespace vmfs
