// The payloads of records that are not plain data, and how they are encoded (little-endian, see
// fs/base/bytes.h). The same bytes stand in the journal and on the wire.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/base/bytes.h"
#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "fs/seam/disk.h"

namespace vmfs {

inline constexpr std::size_t kNameMax = 255;
inline constexpr std::size_t kSymlinkMax = 4095;       // in a record
inline constexpr std::size_t kSymlinkStoreMax = 1023;  // what every store can hold: XFS has the least
inline constexpr std::size_t kHistoryMax = 4096;  // epochs of one group that a peer may name
// Epochs of an image that the record of its removal names: more than a peer can have missed whose histories
// were compared now and then, and no more than a small record holds.
inline constexpr std::size_t kFinalEpochsMax = 256;

// Why no file of a volume can have that name; null if one can.
const char* why_invalid_name(std::string_view name);

// kCreate: object comes to be, named. An image's group begins with it, in `first_epoch`, seq 0, owned
// by the node that created it.
struct Create {
  ObjectId object{};
  ObjectId parent{};
  std::string name;
  FileType type = FileType::kRegular;
  std::uint32_t permissions = 0, uid = 0, gid = 0;
  std::int64_t time_ns = 0;
  std::string target;       // of a symlink
  EpochId first_epoch{};    // of an image
  NodeId creator{};
};

enum class EpochCause : std::uint8_t {
  kCreated = 1,
  kTaken = 2,         // handed over by the previous owner
  kForced = 3,        // taken without the previous owner: promote --force and what acts in its stead
  kPeerLost = 4,      // the owner goes on without a peer
  kUncleanStop = 5,   // the owner's machine stopped without warning; its tail may be lost
  kResolved = 6,      // a person settled a split brain in favour of this side
};

// One epoch of a group's history. `parent` is where it leaves the epoch before it: the last record
// of that epoch which belongs to this history.
struct EpochEntry {
  EpochId epoch{};
  NodeId node{};  // the owner
  Position parent;
  EpochCause cause = EpochCause::kCreated;
  std::int64_t wall_ns = 0;
  friend bool operator==(const EpochEntry&, const EpochEntry&) = default;
};

// Of an image that loses its name or is deleted: what whoever did that had of it. Another node that has more
// keeps that before the image goes. Empty: it is no image, or the record is older than this field; then nothing
// of it is encoded.
struct FinalHistory {
  std::vector<EpochEntry> epochs;  // oldest first, the newest kFinalEpochsMax
  std::uint64_t seq = 0;           // in the last of them
};

// kUnlink: the name goes (for a directory: it was empty). A regular file's object lives on until
// kDeleteObject; directories and symlinks go with their name.
struct Unlink {
  ObjectId object{};
  ObjectId parent{};
  std::string name;
  std::int64_t time_ns = 0;
  FinalHistory had{};
};

// kRename: `object` is now `to_name` in `to_parent`; what was there (`replaced`, or none) lost its
// name as by kUnlink.
struct Rename {
  ObjectId object{};
  ObjectId from_parent{};
  std::string from_name;
  ObjectId to_parent{};
  std::string to_name;
  ObjectId replaced{};
  std::int64_t time_ns = 0;
  FinalHistory had{};  // of `replaced`
};

struct DeleteObject {
  ObjectId object{};
  FinalHistory had{};
};

// kSetAttributes. For an image in its own group, for directories and symlinks in the name space's.
struct AttributeChange {
  ObjectId object{};
  FileAttributes set;
  std::int64_t time_ns = 0;  // becomes ctime
};

// kEpoch, kTaken.
struct EpochChange {
  EpochEntry entry;
};

// kReleased.
struct Release {
  NodeId taker{};
};

// kFlush: what each peer had confirmed durable of this node's journal.
struct PeerConfirmation {
  NodeId peer{};
  Lsn confirmed = 0;
};
using PeerConfirmations = std::vector<PeerConfirmation>;

// kBaseBegin: what follows replaces the group's content.
// For an image: its attributes and size; base data follow only for what is not a hole, within
// `ranges` if `whole` is false (then all else of the target's content stands).
// For the name space: the whole tree, parents before children; what the target has beside it loses
// its name.
struct BaseRange {
  std::uint64_t offset = 0, length = 0;
};
struct BaseObject {
  ObjectId object{};
  ObjectId parent{};  // 0: unlinked but open
  std::string name;
  FileType type = FileType::kRegular;
  FileStat stat;  // size of an image is in its own group's base
  std::string target;
};
struct BaseBegin {
  bool whole = true;
  std::vector<BaseRange> ranges;
  std::vector<EpochEntry> history;  // of the source, up to the position in the record's header
  FileStat stat;
  // At that position: a group may have been released and not yet taken.
  NodeId owner{}, taker{};
};
// kBaseData in the name space's group carries a list of BaseObject.

Bytes encode(const Create&);
Bytes encode(const Unlink&);
Bytes encode(const Rename&);
Bytes encode(const DeleteObject&);
Bytes encode(const AttributeChange&);
Bytes encode(const EpochChange&);
Bytes encode(const Release&);
Bytes encode(const PeerConfirmations&);
Bytes encode(const BaseBegin&);
Bytes encode(const std::vector<BaseObject>&);

// kCorrupt with the reason, if the bytes cannot be one: every length and value is checked before
// anything is allocated from it; nothing may be left over.
template <class Change>
Result<Change> decode(ByteView bytes);

// For other encoders that contain them.
void put(Writer& out, const EpochEntry& entry);
EpochEntry get_epoch_entry(Reader& in);

}  // namespace vmfs
