#include "fs/store/state.h"

#include <cerrno>
#include <cstring>

#include "fs/base/hash.h"

namespace vmfs {

namespace {

// The beginning of the file; the body follows and ends it.
struct StateHeader {
  std::uint32_t magic = kStateMagic;
  std::uint32_t version = kStateVersion;
  std::byte volume[16] = {};
  std::uint64_t node = 0;
  std::uint64_t body_size = 0;
  std::uint64_t hash = 0;  // of this struct with hash = 0, then, with that as seed, of the body
};
static_assert(sizeof(StateHeader) == 48);
static_assert(std::has_unique_object_representations_v<StateHeader>);

constexpr std::size_t kNameMaxBytes = 255;
constexpr std::size_t kEpochEntrySize = 41;
constexpr std::size_t kGroupSizeMin = 8 * 3 + 4 + 8 + 16 + 1;
constexpr std::size_t kPeerSizeMin = 8 + 4 + 8 + 1 + 8;
constexpr std::size_t kAnsweredSize = 8 + 8 + 4 + 8;

enum GroupFlags : std::uint8_t { kInconsistentFlag = 1, kSplitFlag = 2, kSuspendedFlag = 4, kGroupFlagsAll = 7 };

std::uint64_t hash_of(StateHeader header, ByteView body) {
  header.hash = 0;
  return hash64(body, hash64({reinterpret_cast<const std::byte*>(&header), sizeof header}));
}

void put(Writer& out, const GroupState& group) {
  out.put(group.id).put(group.owner).put(group.taker);
  out.put(static_cast<std::uint32_t>(group.history.size()));
  for (const EpochEntry& entry : group.history) vmfs::put(out, entry);
  out.put(group.seq).put(group.recycled.epoch).put(group.recycled.seq);
  out.put(static_cast<std::uint8_t>((group.inconsistent ? kInconsistentFlag : 0) |
                                    (group.split ? kSplitFlag : 0) |
                                    (group.suspended ? kSuspendedFlag : 0)));
}

// How many elements of at least that size follow. No more can be meant than there are bytes, so that
// nothing is allocated for a count that is damaged (which the checksum would have to miss).
std::optional<std::uint32_t> get_count(Reader& in, std::size_t element_size) {
  auto count = in.get<std::uint32_t>();
  if (!in.ok() || count > in.remaining() / element_size) return {};
  return count;
}

const char* parse(Reader& in, GroupState& group) {
  group.id = in.get<GroupId>();
  group.owner = in.get<NodeId>();
  group.taker = in.get<NodeId>();
  auto epochs = get_count(in, kEpochEntrySize);
  if (!epochs) return "a group's history is longer than the file";
  group.history.reserve(*epochs);
  for (std::uint32_t i = 0; i < *epochs; ++i) group.history.push_back(get_epoch_entry(in));
  group.seq = in.get<std::uint64_t>();
  group.recycled.epoch = in.get<EpochId>();
  group.recycled.seq = in.get<std::uint64_t>();
  auto flags = in.get<std::uint8_t>();
  if (flags & ~kGroupFlagsAll) return "a group has flags that are unknown";
  group.inconsistent = flags & kInconsistentFlag;
  group.split = flags & kSplitFlag;
  group.suspended = flags & kSuspendedFlag;
  return nullptr;
}

const char* parse(Reader& in, CheckpointState& state) {
  state.replay_from = in.get<Lsn>();
  auto clean = in.get<std::uint8_t>();
  if (clean > 1) return "a truth value is neither 0 nor 1";
  state.clean = clean == 1;
  state.checkpoints = in.get<std::uint64_t>();
  state.generation = in.get<std::uint32_t>();
  auto groups = get_count(in, kGroupSizeMin);
  if (!groups) return "the list of groups is longer than the file";
  state.groups.reserve(*groups);
  for (std::uint32_t i = 0; i < *groups; ++i)
    if (const char* reason = parse(in, state.groups.emplace_back())) return reason;
  auto peers = get_count(in, kPeerSizeMin);
  if (!peers) return "the list of peers is longer than the file";
  for (std::uint32_t i = 0; i < *peers; ++i) {
    PeerState& peer = state.peers.emplace_back();
    peer.id = in.get<NodeId>();
    peer.name = in.text(kNameMaxBytes);
    peer.confirmed = in.get<Lsn>();
    auto was_in_sync = in.get<std::uint8_t>();
    if (was_in_sync > 1) return "a truth value is neither 0 nor 1";
    peer.was_in_sync = was_in_sync == 1;
    peer.last_contact_wall_ns = in.get<std::int64_t>();
  }
  auto answered = get_count(in, kAnsweredSize);
  if (!answered) return "the list of answered requests is longer than the file";
  state.answered.reserve(*answered);
  for (std::uint32_t i = 0; i < *answered; ++i) {
    AnsweredRequest& answer = state.answered.emplace_back();
    answer.request.connection = in.get<ConnectionId>();
    answer.request.unique = in.get<std::uint64_t>();
    answer.error = in.get<std::int32_t>();
    answer.object = in.get<ObjectId>();
  }
  if (!in.at_end()) return "its lists do not end where the file does";
  return nullptr;
}

tl::unexpected<Error> damaged(const std::string& shown, const std::string& evidence) {
  return fail(ErrorKind::kCorrupt, EUCLEAN,
              fmt::format("{} is damaged: {}. Without it nothing says how far the images are; bring "
                          "this node back from the other one: move this store away, and `vmfs join` "
                          "an empty one.",
                          shown, evidence));
}

}  // namespace

Bytes encode_state(const CheckpointState& state) {
  Bytes body;
  Writer out(body);
  out.put(state.replay_from).put(static_cast<std::uint8_t>(state.clean));
  out.put(state.checkpoints).put(state.generation);
  out.put(static_cast<std::uint32_t>(state.groups.size()));
  for (const GroupState& group : state.groups) put(out, group);
  out.put(static_cast<std::uint32_t>(state.peers.size()));
  for (const PeerState& peer : state.peers) {
    out.put(peer.id).text(std::string_view(peer.name).substr(0, kNameMaxBytes));
    out.put(peer.confirmed).put(static_cast<std::uint8_t>(peer.was_in_sync));
    out.put(peer.last_contact_wall_ns);
  }
  out.put(static_cast<std::uint32_t>(state.answered.size()));
  for (const AnsweredRequest& answer : state.answered)
    out.put(answer.request.connection).put(answer.request.unique).put(answer.error).put(
        answer.object);

  StateHeader header;
  std::memcpy(header.volume, state.volume.data(), sizeof header.volume);
  header.node = raw(state.node);
  header.body_size = body.size();
  header.hash = hash_of(header, body);
  Bytes file;
  file.reserve(sizeof header + body.size());
  Writer(file).bytes({reinterpret_cast<const std::byte*>(&header), sizeof header}).bytes(body);
  return file;
}

Result<CheckpointState> decode_state(ByteView content, const std::string& shown) {
  StateHeader header;
  if (content.size() < sizeof header)
    return damaged(shown, fmt::format("it has {} bytes, its header alone needs {}", content.size(),
                                      sizeof header));
  std::memcpy(&header, content.data(), sizeof header);
  if (header.magic != kStateMagic)
    return damaged(shown, fmt::format("it begins with {:08x} instead of {:08x}", header.magic,
                                      kStateMagic));
  // Before the checksum: a newer version may reckon it otherwise.
  if (header.version > kStateVersion)
    return fail(ErrorKind::kRefused, EPROTONOSUPPORT,
                fmt::format("{} is of format version {}; this vmfs ({}) knows versions up to {}. Use "
                            "the vmfs that wrote it, or a later one.",
                            shown, header.version, VMFS_VERSION, kStateVersion));
  if (header.version == 0) return damaged(shown, "its format version is 0");
  ByteView body = content.subspan(sizeof header);
  if (header.body_size != body.size())
    return damaged(shown, fmt::format("{} bytes follow its header, which announces {}", body.size(),
                                      header.body_size));
  if (std::uint64_t hash = hash_of(header, body); hash != header.hash)
    return damaged(shown, fmt::format("its checksum is {:016x}, its content's {:016x}", header.hash,
                                      hash));
  CheckpointState state;
  std::memcpy(state.volume.data(), header.volume, sizeof header.volume);
  state.node = NodeId{header.node};
  Reader in(body);
  if (const char* reason = parse(in, state)) return damaged(shown, reason);
  return state;
}

Result<CheckpointState> read_state(Disk& disk, const std::optional<VolumeId>& expected) {
  VMFS_ASSIGN(Bytes content, read_whole_file(disk, kStateFile, "state.read"));
  const std::string shown = disk.display(kStateFile);
  VMFS_ASSIGN(CheckpointState state, decode_state(content, shown));
  if (expected && state.volume != *expected)
    return fail(ErrorKind::kRefused, EINVAL,
                fmt::format("{} belongs to volume {}, but this store's configuration names volume {}: "
                            "one of the two was copied from another store",
                            shown, to_string(state.volume), to_string(*expected)));
  return state;
}

Result<> write_state(Disk& disk, const CheckpointState& state) {
  return replace_file(disk, kStateFile, encode_state(state), "state.write");
}

}  // namespace vmfs
