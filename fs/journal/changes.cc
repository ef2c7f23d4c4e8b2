#include "fs/journal/changes.h"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <string_view>

namespace vmfs {

const char* why_invalid_name(std::string_view name) {
  if (name.empty()) return "a name is empty";
  if (name.size() > kNameMax) return "a name is longer than 255 bytes";
  if (name == "." || name == "..") return "a name is \".\" or \"..\"";
  if (name.find('/') != name.npos || name.find('\0') != name.npos)
    return "a name contains '/' or a zero byte";
  return nullptr;
}

namespace {

// More peers than anybody has; a limit checked before a list is allocated.
constexpr std::uint32_t kPeersMax = 256;

constexpr std::uint64_t kOffsetMax = std::numeric_limits<std::int64_t>::max();

// Which of FileAttributes' fields follow.
enum AttributeBits : std::uint8_t {
  kHasPermissions = 1,
  kHasUid = 2,
  kHasGid = 4,
  kHasAccessTime = 8,
  kHasModifyTime = 16,
  kAttributeBitsAll = 31,
};

// --- Reasons why a value cannot be right; null when it can. --------------------------------------

const char* why_invalid_object(ObjectId object) {
  if (raw(object) == 0) return "it names no object";
  if (raw(object) >> 63) return "an object id has bit 63 set";
  return nullptr;
}

const char* why_invalid_kind(FileType type, std::string_view target) {
  if (type != FileType::kRegular && type != FileType::kDirectory && type != FileType::kSymlink)
    return "the file's type is none that a volume holds";
  if ((type == FileType::kSymlink) != !target.empty())
    return "a symlink has no target, or something else has one";
  if (target.size() > kSymlinkMax) return "a symlink's target is longer than 4095 bytes";
  if (target.find('\0') != target.npos) return "a symlink's target contains a zero byte";
  return nullptr;
}

const char* why_invalid_permissions(std::uint32_t permissions) {
  return permissions > 07777 ? "permissions have more than 12 bits" : nullptr;
}

const char* why_invalid_entry(const EpochEntry& entry) {
  if (raw(entry.epoch) == 0) return "an epoch is 0";
  if (entry.cause < EpochCause::kCreated || entry.cause > EpochCause::kResolved)
    return "an epoch's cause is unknown";
  return nullptr;
}

// The first reason of several.
const char* first(std::initializer_list<const char*> reasons) {
  for (const char* reason : reasons)
    if (reason) return reason;
  return nullptr;
}

// --- The parts ---------------------------------------------------------------------------------

void put(Writer& out, const FileStat& stat) {
  out.put(stat.type).put(stat.permissions).put(stat.uid).put(stat.gid).put(stat.links);
  out.put(stat.size).put(stat.allocated).put(stat.atime_ns).put(stat.mtime_ns).put(stat.ctime_ns);
}

void get(Reader& in, FileStat& stat) {
  stat.type = in.get<FileType>();
  stat.permissions = in.get<std::uint32_t>();
  stat.uid = in.get<std::uint32_t>();
  stat.gid = in.get<std::uint32_t>();
  stat.links = in.get<std::uint32_t>();
  stat.size = in.get<std::uint64_t>();
  stat.allocated = in.get<std::uint64_t>();
  stat.atime_ns = in.get<std::int64_t>();
  stat.mtime_ns = in.get<std::int64_t>();
  stat.ctime_ns = in.get<std::int64_t>();
}

const char* why_invalid_stat(const FileStat& stat) {
  if (stat.type < FileType::kRegular || stat.type > FileType::kOther)
    return "a file's type is unknown";
  if (stat.size > kOffsetMax) return "a file's size is beyond 2^63";
  return why_invalid_permissions(stat.permissions);
}

void put(Writer& out, const FileAttributes& set) {
  out.put(static_cast<std::uint8_t>(
      (set.permissions ? kHasPermissions : 0) | (set.uid ? kHasUid : 0) | (set.gid ? kHasGid : 0) |
      (set.atime_ns ? kHasAccessTime : 0) | (set.mtime_ns ? kHasModifyTime : 0)));
  if (set.permissions) out.put(*set.permissions);
  if (set.uid) out.put(*set.uid);
  if (set.gid) out.put(*set.gid);
  if (set.atime_ns) out.put(*set.atime_ns);
  if (set.mtime_ns) out.put(*set.mtime_ns);
}

// False if bits are set that mean nothing.
bool get(Reader& in, FileAttributes& set) {
  auto bits = in.get<std::uint8_t>();
  if (bits & kHasPermissions) set.permissions = in.get<std::uint32_t>();
  if (bits & kHasUid) set.uid = in.get<std::uint32_t>();
  if (bits & kHasGid) set.gid = in.get<std::uint32_t>();
  if (bits & kHasAccessTime) set.atime_ns = in.get<std::int64_t>();
  if (bits & kHasModifyTime) set.mtime_ns = in.get<std::int64_t>();
  return (bits & ~kAttributeBitsAll) == 0;
}

// The number of elements that follow, each at least `element_size` bytes long; nothing if so many
// cannot follow. So that no more is allocated than what has arrived.
std::optional<std::uint32_t> get_count(Reader& in, std::size_t element_size, std::size_t most) {
  auto count = in.get<std::uint32_t>();
  if (!in.ok() || count > most || count > in.remaining() / element_size) return {};
  return count;
}

constexpr const char* kBadCount = "a list is longer than its limit or than the payload";
constexpr std::size_t kEpochEntrySize = 8 + 8 + 8 + 8 + 1 + 8;
constexpr std::size_t kBaseRangeSize = 8 + 8;
constexpr std::size_t kPeerConfirmationSize = 8 + 8;
constexpr std::size_t kFileStatSize = 1 + 4 * 4 + 5 * 8;
constexpr std::size_t kBaseObjectSizeMin = 8 + 8 + 4 + 1 + kFileStatSize + 4;
// A list travels in one record, so its elements are bounded by the payload; this is a bound that no
// payload of kPayloadMax reaches.
constexpr std::size_t kListMax = 1u << 17;

// --- The changes: parse() returns why it cannot be one, or null. ----------------------------------

const char* parse(Reader& in, Create& change) {
  change.object = in.get<ObjectId>();
  change.parent = in.get<ObjectId>();
  change.name = in.text(kNameMax);
  change.type = in.get<FileType>();
  change.permissions = in.get<std::uint32_t>();
  change.uid = in.get<std::uint32_t>();
  change.gid = in.get<std::uint32_t>();
  change.time_ns = in.get<std::int64_t>();
  change.target = in.text(kSymlinkMax);
  change.first_epoch = in.get<EpochId>();
  change.creator = in.get<NodeId>();
  if (!in.ok()) return nullptr;
  if (change.object == kRootObject) return "it creates the root directory";
  if (change.type == FileType::kRegular && raw(change.first_epoch) == 0)
    return "an image begins without an epoch";
  return first({why_invalid_object(change.object), why_invalid_object(change.parent),
                why_invalid_name(change.name), why_invalid_kind(change.type, change.target),
                why_invalid_permissions(change.permissions)});
}

// Left out of records that name no image's end, and of those that were made before it was told.
const char* parse(Reader& in, FinalHistory& had) {
  if (in.at_end()) return nullptr;
  auto epochs = get_count(in, kEpochEntrySize, kFinalEpochsMax);
  if (!epochs || *epochs == 0) return kBadCount;
  had.epochs.reserve(*epochs);
  for (std::uint32_t i = 0; i < *epochs; ++i) {
    had.epochs.push_back(get_epoch_entry(in));
    if (const char* reason = why_invalid_entry(had.epochs.back())) return reason;
  }
  had.seq = in.get<std::uint64_t>();
  return nullptr;
}

const char* parse(Reader& in, Unlink& change) {
  change.object = in.get<ObjectId>();
  change.parent = in.get<ObjectId>();
  change.name = in.text(kNameMax);
  change.time_ns = in.get<std::int64_t>();
  const char* bad_history = parse(in, change.had);
  if (!in.ok()) return nullptr;
  if (change.object == kRootObject) return "it removes the root directory";
  return first({why_invalid_object(change.object), why_invalid_object(change.parent),
                why_invalid_name(change.name), bad_history});
}

const char* parse(Reader& in, Rename& change) {
  change.object = in.get<ObjectId>();
  change.from_parent = in.get<ObjectId>();
  change.from_name = in.text(kNameMax);
  change.to_parent = in.get<ObjectId>();
  change.to_name = in.text(kNameMax);
  change.replaced = in.get<ObjectId>();
  change.time_ns = in.get<std::int64_t>();
  const char* bad_history = parse(in, change.had);
  if (!in.ok()) return nullptr;
  if (change.object == kRootObject || change.replaced == kRootObject)
    return "it moves or replaces the root directory";
  if (change.replaced == change.object) return "it replaces an object by itself";
  if (raw(change.replaced) >> 63) return "an object id has bit 63 set";
  return first({why_invalid_object(change.object), why_invalid_object(change.from_parent),
                why_invalid_name(change.from_name), why_invalid_object(change.to_parent),
                why_invalid_name(change.to_name), bad_history});
}

const char* parse(Reader& in, DeleteObject& change) {
  change.object = in.get<ObjectId>();
  const char* bad_history = parse(in, change.had);
  if (!in.ok()) return nullptr;
  if (change.object == kRootObject) return "it deletes the root directory";
  return first({why_invalid_object(change.object), bad_history});
}

const char* parse(Reader& in, AttributeChange& change) {
  change.object = in.get<ObjectId>();
  if (!get(in, change.set)) return "it sets attributes that are unknown";
  change.time_ns = in.get<std::int64_t>();
  if (!in.ok()) return nullptr;
  return first({why_invalid_object(change.object),
                why_invalid_permissions(change.set.permissions.value_or(0))});
}

const char* parse(Reader& in, EpochChange& change) {
  change.entry = get_epoch_entry(in);
  return in.ok() ? why_invalid_entry(change.entry) : nullptr;
}

const char* parse(Reader& in, Release& change) {
  change.taker = in.get<NodeId>();
  return nullptr;
}

const char* parse(Reader& in, PeerConfirmations& change) {
  auto count = get_count(in, kPeerConfirmationSize, kPeersMax);
  if (!count) return kBadCount;
  change.reserve(*count);
  for (std::uint32_t i = 0; i < *count; ++i) {
    PeerConfirmation peer;
    peer.peer = in.get<NodeId>();
    peer.confirmed = in.get<Lsn>();
    if (raw(peer.peer) == 0) return "a peer's id is 0";
    change.push_back(peer);
  }
  return nullptr;
}

const char* parse(Reader& in, BaseBegin& change) {
  auto whole = in.get<std::uint8_t>();
  if (whole > 1) return "a truth value is neither 0 nor 1";
  change.whole = whole == 1;
  auto ranges = get_count(in, kBaseRangeSize, kListMax);
  if (!ranges) return kBadCount;
  if (change.whole && *ranges > 0) return "a whole copy names ranges";
  change.ranges.reserve(*ranges);
  for (std::uint32_t i = 0; i < *ranges; ++i) {
    BaseRange range;
    range.offset = in.get<std::uint64_t>();
    range.length = in.get<std::uint64_t>();
    if (range.length == 0 || range.offset > kOffsetMax || range.length > kOffsetMax - range.offset)
      return "a range is empty or ends beyond 2^63";
    change.ranges.push_back(range);
  }
  auto epochs = get_count(in, kEpochEntrySize, kHistoryMax);
  if (!epochs) return kBadCount;
  change.history.reserve(*epochs);
  for (std::uint32_t i = 0; i < *epochs; ++i) {
    change.history.push_back(get_epoch_entry(in));
    if (const char* reason = why_invalid_entry(change.history.back())) return reason;
  }
  get(in, change.stat);
  change.owner = in.get<NodeId>();
  change.taker = in.get<NodeId>();
  return in.ok() ? why_invalid_stat(change.stat) : nullptr;
}

const char* parse(Reader& in, BaseObject& object) {
  object.object = in.get<ObjectId>();
  object.parent = in.get<ObjectId>();
  object.name = in.text(kNameMax);
  object.type = in.get<FileType>();
  get(in, object.stat);
  object.target = in.text(kSymlinkMax);
  if (!in.ok()) return nullptr;
  if (raw(object.parent) >> 63) return "an object id has bit 63 set";
  // The root, and images that are unlinked but open, have neither parent nor name.
  bool nameless = raw(object.parent) == 0 && object.name.empty();
  return first({why_invalid_object(object.object),
                nameless ? nullptr : why_invalid_object(object.parent),
                nameless ? nullptr : why_invalid_name(object.name),
                why_invalid_kind(object.type, object.target), why_invalid_stat(object.stat)});
}

const char* parse(Reader& in, std::vector<BaseObject>& list) {
  auto count = get_count(in, kBaseObjectSizeMin, kListMax);
  if (!count) return kBadCount;
  list.reserve(*count);
  for (std::uint32_t i = 0; i < *count && in.ok(); ++i)
    if (const char* reason = parse(in, list.emplace_back())) return reason;
  return nullptr;
}

template <class Change>
constexpr const char* kWhat = nullptr;
template <>
constexpr const char* kWhat<Create> = "create";
template <>
constexpr const char* kWhat<Unlink> = "unlink";
template <>
constexpr const char* kWhat<Rename> = "rename";
template <>
constexpr const char* kWhat<DeleteObject> = "delete-object";
template <>
constexpr const char* kWhat<AttributeChange> = "set-attributes";
template <>
constexpr const char* kWhat<EpochChange> = "epoch";
template <>
constexpr const char* kWhat<Release> = "released";
template <>
constexpr const char* kWhat<PeerConfirmations> = "flush";
template <>
constexpr const char* kWhat<BaseBegin> = "base-begin";
template <>
constexpr const char* kWhat<std::vector<BaseObject>> = "list of base objects";

}  // namespace

void put(Writer& out, const EpochEntry& entry) {
  out.put(entry.epoch).put(entry.node).put(entry.parent.epoch).put(entry.parent.seq);
  out.put(entry.cause).put(entry.wall_ns);
}

namespace {
void put(Writer& out, const FinalHistory& had) {
  if (had.epochs.empty()) return;
  const std::size_t told = std::min(had.epochs.size(), kFinalEpochsMax);
  out.put(static_cast<std::uint32_t>(told));
  for (auto entry = had.epochs.end() - static_cast<std::ptrdiff_t>(told); entry != had.epochs.end(); ++entry)
    put(out, *entry);
  out.put(had.seq);
}
}  // namespace

EpochEntry get_epoch_entry(Reader& in) {
  EpochEntry entry;
  entry.epoch = in.get<EpochId>();
  entry.node = in.get<NodeId>();
  entry.parent.epoch = in.get<EpochId>();
  entry.parent.seq = in.get<std::uint64_t>();
  entry.cause = in.get<EpochCause>();
  entry.wall_ns = in.get<std::int64_t>();
  return entry;
}

Bytes encode(const Create& change) {
  Bytes bytes;
  Writer(bytes)
      .put(change.object)
      .put(change.parent)
      .text(change.name)
      .put(change.type)
      .put(change.permissions)
      .put(change.uid)
      .put(change.gid)
      .put(change.time_ns)
      .text(change.target)
      .put(change.first_epoch)
      .put(change.creator);
  return bytes;
}

Bytes encode(const Unlink& change) {
  Bytes bytes;
  Writer out(bytes);
  out.put(change.object).put(change.parent).text(change.name).put(change.time_ns);
  put(out, change.had);
  return bytes;
}

Bytes encode(const Rename& change) {
  Bytes bytes;
  Writer out(bytes);
  out.put(change.object)
      .put(change.from_parent)
      .text(change.from_name)
      .put(change.to_parent)
      .text(change.to_name)
      .put(change.replaced)
      .put(change.time_ns);
  put(out, change.had);
  return bytes;
}

Bytes encode(const DeleteObject& change) {
  Bytes bytes;
  Writer out(bytes);
  out.put(change.object);
  put(out, change.had);
  return bytes;
}

Bytes encode(const AttributeChange& change) {
  Bytes bytes;
  Writer out(bytes);
  out.put(change.object);
  put(out, change.set);
  out.put(change.time_ns);
  return bytes;
}

Bytes encode(const EpochChange& change) {
  Bytes bytes;
  Writer out(bytes);
  put(out, change.entry);
  return bytes;
}

Bytes encode(const Release& change) {
  Bytes bytes;
  Writer(bytes).put(change.taker);
  return bytes;
}

Bytes encode(const PeerConfirmations& change) {
  Bytes bytes;
  Writer out(bytes);
  out.put(static_cast<std::uint32_t>(change.size()));
  for (const PeerConfirmation& peer : change) out.put(peer.peer).put(peer.confirmed);
  return bytes;
}

Bytes encode(const BaseBegin& change) {
  Bytes bytes;
  Writer out(bytes);
  out.put(static_cast<std::uint8_t>(change.whole));
  out.put(static_cast<std::uint32_t>(change.ranges.size()));
  for (const BaseRange& range : change.ranges) out.put(range.offset).put(range.length);
  out.put(static_cast<std::uint32_t>(change.history.size()));
  for (const EpochEntry& entry : change.history) put(out, entry);
  put(out, change.stat);
  out.put(change.owner).put(change.taker);
  return bytes;
}

Bytes encode(const std::vector<BaseObject>& list) {
  Bytes bytes;
  Writer out(bytes);
  out.put(static_cast<std::uint32_t>(list.size()));
  for (const BaseObject& object : list) {
    out.put(object.object).put(object.parent).text(object.name).put(object.type);
    put(out, object.stat);
    out.text(object.target);
  }
  return bytes;
}

template <class Change>
Result<Change> decode(ByteView bytes) {
  Reader in(bytes);
  Change change;
  const char* reason = parse(in, change);
  if (!reason && !in.ok()) reason = "it ends too early, or a text in it is too long";
  if (!reason && !in.at_end()) reason = "bytes are left over";
  if (reason)
    return fail(ErrorKind::kCorrupt, EBADMSG,
                fmt::format("the payload ({} bytes) of a record of type {} cannot be right: {}",
                            bytes.size(), kWhat<Change>, reason));
  return change;
}

template Result<Create> decode(ByteView);
template Result<Unlink> decode(ByteView);
template Result<Rename> decode(ByteView);
template Result<DeleteObject> decode(ByteView);
template Result<AttributeChange> decode(ByteView);
template Result<EpochChange> decode(ByteView);
template Result<Release> decode(ByteView);
template Result<PeerConfirmations> decode(ByteView);
template Result<BaseBegin> decode(ByteView);
template Result<std::vector<BaseObject>> decode(ByteView);

}  // namespace vmfs
