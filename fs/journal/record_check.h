// Whether bytes are a segment's header or a record, and if not, why not. One place for it: recovery,
// readers, `vmfs inspect` and the fuzzer all ask here.
#pragma once

#include <string>

#include "fs/base/bytes.h"
#include "fs/journal/format.h"

namespace vmfs {

std::uint64_t hash_of(const SegmentHeader& header);
std::uint64_t hash_of(const RecordHeader& header, std::uint64_t incarnation);

// "write", "pad", ...; "type 77" for what this version does not know.
std::string name_of(RecordType type);

enum class Validity : std::uint8_t {
  kValid,
  kNothing,     // zeros: nothing was ever written here in this use of the segment
  kNoHeader,    // not a record's header of this segment's present use
  kMisplaced,   // a header, but of another place, or its sizes cannot be
  kBadHeader,   // the header's checksum does not hold
  kBadPayload,  // the payload's does not
  kStale,       // whole, but of a generation before that of the record in front of it
};
const char* to_string(Validity validity);

// Looks at the header alone. `at`: the LSN where it was found; room: bytes from there to the end of
// the segment. kStale is for the caller to find, who knows what came before.
Validity check_header(const RecordHeader& header, std::uint64_t incarnation, Lsn at,
                      std::uint64_t room);

enum class HeaderValidity : std::uint8_t {
  kValid,
  kDamaged,
  kNewerVersion,
  kOtherVolume,
  kOtherNode,
  kOtherSize,    // the segments have another size than the journal is opened with
  kOtherNumber,  // a whole header, of another segment than the file's name says
};
const char* to_string(HeaderValidity validity);

struct HeaderExpectation {
  VolumeId volume{};
  NodeId node{};
  std::uint64_t segment_size = 0;
  std::uint64_t number = 0;
};
HeaderValidity check_segment_header(const SegmentHeader& header, const HeaderExpectation& expected);

}  // namespace vmfs
