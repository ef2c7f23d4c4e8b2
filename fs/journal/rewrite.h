// Writing a segment's valid content again into another file, when the one that it is in cannot be
// trusted any more.
#pragma once

#include <memory>

#include "fs/journal/segment.h"
#include "fs/journal/segment_scan.h"

namespace vmfs {

struct RewrittenSegment {
  std::unique_ptr<File> file;
  std::uint64_t incarnation = 0;
};

// Copies the records of `file` below `until` (each verified, each hashed for the new incarnation) into
// `into`, or into a new file if there is none, and puts that in the segment's place. Durable on return.
// kCorrupt: the records are not all there, so what was only in the page cache is lost. After an error
// the segment is as it was, and the other file is gone.
Result<RewrittenSegment> rewrite_segment(Disk& disk, const JournalOptions& options,
                                         const SegmentIdentity& identity, File& file, Lsn until,
                                         Label label, FreeFile into = {});

// Writes the bytes that `file` holds in [from, to) in their place again; not synced on return. After a sync that
// failed, pages that were not written look clean and still read back well: this makes them dirty. Harmless for
// what is on disk already: a torn write puts there what is there.
Result<> write_in_place_again(File& file, std::uint64_t from, std::uint64_t to, Label label);

// The marker that a failed sync leaves until it is healed. Setting it is an attempt: the disk is
// failing already.
void set_sync_failed_marker(Disk& disk);
Result<> clear_sync_failed_marker(Disk& disk);

}  // namespace vmfs
