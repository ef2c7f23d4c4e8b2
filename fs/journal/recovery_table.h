// What recovery decides, as two tables of labelled rows, without any I/O: for each segment what its
// file is to be taken for, and what the place is where the log cannot be read on. Exactly one row
// matches any facts, which is asserted; the row's label is logged and is its test's name.
#pragma once

#include <span>

#include "fs/journal/record_check.h"

namespace vmfs {

enum class SegmentRole : std::uint8_t {
  kBelow,       // below the place where replay begins: only peers may still want it
  kStart,       // replay begins in it
  kContinued,   // the segment before it is complete: the log goes on here
  kBeyond,      // behind the log's end
};

struct SegmentFacts {
  SegmentRole role = SegmentRole::kBeyond;
  bool present = false;
  HeaderValidity header = HeaderValidity::kDamaged;  // if present
  bool later_present = false;  // there is a segment with a higher number
};

enum class SegmentAction : std::uint8_t {
  kUse,        // its records are part of the log
  kForget,     // it, and what is below it, is not part of the log any more
  kEnd,        // there is none, and the log ends in front of it
  kPrepared,   // nothing in it: to be used next
  kMakeAgain,  // nothing in it that counts; its file serves as a spare
  kRefuse,     // the journal is not opened
};

struct SegmentRow {
  const char* label;
  SegmentAction action;
  bool (*matches)(const SegmentFacts&);
};
std::span<const SegmentRow> segment_table();
const SegmentRow& decide(const SegmentFacts& facts);

// Where the log cannot be read on.
struct EndFacts {
  Lsn start = 0;              // all below was durable, by the last checkpoint
  Lsn end = 0;                // first byte after the last valid record
  bool sealed = false;        // it ends with a complete segment
  Validity reason = Validity::kNothing;  // what is at `end` (if not sealed)
  Lsn later_claim = 0;  // the highest durable LSN that a valid record behind the end claims, of this
                        // generation or a later one
};

enum class EndAction : std::uint8_t {
  kEndHere,
  kRefuse,
};

struct EndRow {
  const char* label;
  EndAction action;
  bool (*matches)(const EndFacts&);
};
std::span<const EndRow> end_table();
const EndRow& decide(const EndFacts& facts);

}  // namespace vmfs
