#include "fs/journal/record_check.h"

#include <fmt/format.h>

#include <cstring>

#include "fs/base/hash.h"

namespace vmfs {
namespace {

template <class Struct>
ByteView bytes_of(const Struct& value) {
  return {reinterpret_cast<const std::byte*>(&value), sizeof value};
}

// A pad's length comes from `extent`; it ends on the same 8 bytes as every record.
bool possible_size(const RecordHeader& header, std::uint64_t room) {
  if (header.type == RecordType::kPad)
    return header.payload_size == 0 && header.extent >= sizeof(RecordHeader) &&
           header.extent <= room && header.extent % 8 == 0;
  if (header.type != RecordType::kSeal && header.payload_size > kPayloadMax) return false;
  return record_size(header.payload_size) <= room;
}

}  // namespace

std::uint64_t hash_of(const SegmentHeader& header) {
  SegmentHeader copy = header;
  copy.hash = 0;
  return hash64(bytes_of(copy));
}

std::uint64_t hash_of(const RecordHeader& header, std::uint64_t incarnation) {
  RecordHeader copy = header;
  copy.header_hash = 0;
  return hash64(bytes_of(copy), incarnation);
}

std::string name_of(RecordType type) {
  switch (type) {
    case RecordType::kNone: return "none";
    case RecordType::kPad: return "pad";
    case RecordType::kSeal: return "seal";
    case RecordType::kWrite: return "write";
    case RecordType::kZero: return "zero";
    case RecordType::kTruncate: return "truncate";
    case RecordType::kAllocate: return "allocate";
    case RecordType::kSetAttributes: return "set-attributes";
    case RecordType::kCreate: return "create";
    case RecordType::kLink: return "link";
    case RecordType::kUnlink: return "unlink";
    case RecordType::kRename: return "rename";
    case RecordType::kDeleteObject: return "delete-object";
    case RecordType::kFlush: return "flush";
    case RecordType::kOpen: return "open";
    case RecordType::kClose: return "close";
    case RecordType::kEpoch: return "epoch";
    case RecordType::kReleased: return "released";
    case RecordType::kTaken: return "taken";
    case RecordType::kBaseBegin: return "base-begin";
    case RecordType::kBaseData: return "base-data";
    case RecordType::kBaseEnd: return "base-end";
    case RecordType::kSnapshot: return "snapshot";
    case RecordType::kMark: return "mark";
  }
  return fmt::format("type {}", static_cast<unsigned>(type));
}

const char* to_string(Validity validity) {
  switch (validity) {
    case Validity::kValid: return "valid";
    case Validity::kNothing: return "nothing written";
    case Validity::kNoHeader: return "no record of this use of the segment";
    case Validity::kMisplaced: return "a header of another place or of an impossible size";
    case Validity::kBadHeader: return "the header fails its checksum";
    case Validity::kBadPayload: return "the payload fails its checksum";
    case Validity::kStale: return "left over from before an earlier recovery";
  }
  return "?";
}

Validity check_header(const RecordHeader& header, std::uint64_t incarnation, Lsn at,
                      std::uint64_t room) {
  if (header.magic != kRecordMagic) {
    static constexpr RecordHeader kZeros = [] {
      RecordHeader zeros;
      zeros.magic = 0;
      return zeros;
    }();
    return std::memcmp(&header, &kZeros, sizeof header) == 0 ? Validity::kNothing
                                                             : Validity::kNoHeader;
  }
  if (hash_of(header, incarnation) != header.header_hash) return Validity::kBadHeader;
  if (header.lsn != at || header.durable > at || header.type == RecordType::kNone ||
      header.reserved0 != 0 || header.reserved1 != 0 || !possible_size(header, room))
    return Validity::kMisplaced;
  return Validity::kValid;
}

const char* to_string(HeaderValidity validity) {
  switch (validity) {
    case HeaderValidity::kValid: return "valid";
    case HeaderValidity::kDamaged: return "its checksum does not hold";
    case HeaderValidity::kNewerVersion: return "it was written by a newer version of vmfs";
    case HeaderValidity::kOtherVolume: return "it belongs to another volume";
    case HeaderValidity::kOtherNode: return "it belongs to another node of the volume";
    case HeaderValidity::kOtherSize: return "its segment size is not the configured one";
    case HeaderValidity::kOtherNumber: return "its number is not the one in the file's name";
  }
  return "?";
}

HeaderValidity check_segment_header(const SegmentHeader& header,
                                    const HeaderExpectation& expected) {
  if (header.magic != kSegmentMagic) return HeaderValidity::kDamaged;
  // Another version's header may be laid out, and hashed, in another way: the version comes first.
  if (header.version > kJournalVersion) return HeaderValidity::kNewerVersion;
  if (header.version != kJournalVersion || hash_of(header) != header.hash)
    return HeaderValidity::kDamaged;
  if (std::memcmp(header.volume, expected.volume.data(), sizeof header.volume) != 0)
    return HeaderValidity::kOtherVolume;
  if (header.node != raw(expected.node)) return HeaderValidity::kOtherNode;
  if (header.size != expected.segment_size) return HeaderValidity::kOtherSize;
  if (header.number != expected.number) return HeaderValidity::kOtherNumber;
  return HeaderValidity::kValid;
}

}  // namespace vmfs
