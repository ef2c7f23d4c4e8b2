#include "net/wire/messages.h"

namespace vmfs {
namespace {

Bytes begin(MessageType type) {
  Bytes out;
  Writer(out).put(type).put(std::uint8_t{0}).put(std::uint16_t{0});
  return out;
}

void put(Writer& out, bool value) { out.put(static_cast<std::uint8_t>(value)); }

void put(Writer& out, const PeerInfo& peer) {
  out.put(peer.id).text(peer.name).text(peer.address);
}

void put(Writer& out, const Position& position) { out.put(position.epoch).put(position.seq); }

void put(Writer& out, const GroupPosition& group) {
  out.put(group.group).put(group.owner).put(group.taker);
  out.put(static_cast<std::uint8_t>((group.inconsistent ? 1 : 0) | (group.split ? 2 : 0) |
                                    (group.open_writer ? 4 : 0)));
  out.put(group.seq).put(static_cast<std::uint32_t>(group.history.size()));
  for (const EpochEntry& entry : group.history) vmfs::put(out, entry);
}

struct Encoder {
  Bytes operator()(const Hello& m) const {
    Bytes bytes = begin(MessageType::kHello);
    Writer out(bytes);
    out.put(kHelloMagic).put(m.version_oldest).put(m.version).put(m.features);
    out.bytes(m.volume).put(m.life).put(m.payload_max);
    put(out, m.joining);
    put(out, m.self);
    return bytes;
  }
  Bytes operator()(const Welcome& m) const {
    Bytes bytes = begin(MessageType::kWelcome);
    Writer(bytes).put(m.version);
    return bytes;
  }
  Bytes operator()(const HelloRefused& m) const {
    Bytes bytes = begin(MessageType::kRefusal);
    Writer(bytes).put(m.reason).text(m.text);
    return bytes;
  }
  Bytes operator()(const Positions& m) const {
    Bytes bytes = begin(MessageType::kPositions);
    Writer out(bytes);
    put(out, m.update);
    put(out, m.last);
    out.put(static_cast<std::uint32_t>(m.groups.size()));
    for (const GroupPosition& group : m.groups) put(out, group);
    return bytes;
  }
  Bytes operator()(const Ack& m) const {
    Bytes bytes = begin(MessageType::kAck);
    Writer out(bytes);
    out.put(m.received).put(m.durable).put(m.applied);
    put(out, m.full);
    return bytes;
  }
  Bytes operator()(const FlushRequest& m) const {
    Bytes bytes = begin(MessageType::kFlushRequest);
    Writer(bytes).put(m.number);
    return bytes;
  }
  Bytes operator()(const Want& m) const {
    Bytes bytes = begin(MessageType::kWant);
    Writer out(bytes);
    out.put(m.group);
    put(out, m.force);
    return bytes;
  }
  Bytes operator()(const WantRefused& m) const {
    Bytes bytes = begin(MessageType::kWantRefused);
    Writer(bytes).put(m.group).put(m.reason).text(m.text);
    return bytes;
  }
  Bytes operator()(const Heartbeat& m) const {
    Bytes bytes = begin(MessageType::kHeartbeat);
    Writer(bytes).put(m.sent_ns).put(m.wall_ns);
    return bytes;
  }
  Bytes operator()(const BaseRequest& m) const {
    Bytes bytes = begin(MessageType::kBaseRequest);
    Writer out(bytes);
    out.put(m.group);
    put(out, m.whole);
    put(out, m.common);
    out.put(static_cast<std::uint32_t>(m.ranges.size()));
    for (const BaseRange& range : m.ranges) out.put(range.offset).put(range.length);
    return bytes;
  }
  Bytes operator()(const Resolve& m) const {
    Bytes bytes = begin(MessageType::kResolve);
    Writer(bytes).put(m.group).put(m.winner);
    return bytes;
  }
  Bytes operator()(const VolumeSettings& m) const {
    Bytes bytes = begin(MessageType::kSettings);
    Writer out(bytes);
    out.put(m.mode).put(m.on_peer_loss);
    put(out, m.compression.has_value());
    out.put(m.compression.value_or(0)).put(m.changed_wall_ns);
    return bytes;
  }
  Bytes operator()(const Peers& m) const {
    Bytes bytes = begin(MessageType::kPeers);
    Writer out(bytes);
    out.put(static_cast<std::uint32_t>(m.peers.size()));
    for (const PeerInfo& peer : m.peers) put(out, peer);
    return bytes;
  }
  Bytes operator()(const PeerRemoved& m) const {
    Bytes bytes = begin(MessageType::kPeerRemoved);
    Writer(bytes).put(m.peer);
    return bytes;
  }
  Bytes operator()(const Bye& m) const {
    Bytes bytes = begin(MessageType::kBye);
    Writer(bytes).text(m.reason);
    return bytes;
  }
  Bytes operator()(const Standing& m) const {
    Bytes bytes = begin(MessageType::kStanding);
    Writer out(bytes);
    put(out, m.caught_up);
    put(out, m.copying);
    put(out, m.given);
    return bytes;
  }
};

// Reads fields and remembers the first thing that cannot be.
class Decoder {
 public:
  explicit Decoder(ByteView in) : in_(in) {}

  template <class T>
  T get() {
    return in_.get<T>();
  }
  std::string text() { return in_.text(kTextMax); }
  bool flag(const char* name) {
    auto value = in_.get<std::uint8_t>();
    if (value > 1) wrong(name);
    return value == 1;
  }
  template <class Enum>
  Enum one_of(const char* name, Enum first, Enum last) {
    auto value = in_.get<Enum>();
    if (value < first || value > last) {
      wrong(name);
      return first;
    }
    return value;
  }
  // How many follow; no more than fit in what is left, if each takes at least `least` bytes.
  std::size_t count(const char* name, std::size_t most, std::size_t least) {
    auto value = in_.get<std::uint32_t>();
    if (value > most || value > in_.remaining() / least) {
      wrong(name);
      return 0;
    }
    return value;
  }
  PeerInfo peer() {
    PeerInfo peer;
    peer.id = get<NodeId>();
    peer.name = text();
    peer.address = text();
    return peer;
  }
  Position position() {
    Position position;
    position.epoch = get<EpochId>();
    position.seq = get<std::uint64_t>();
    return position;
  }
  GroupPosition group() {
    GroupPosition group;
    group.group = get<GroupId>();
    group.owner = get<NodeId>();
    group.taker = get<NodeId>();
    auto flags = get<std::uint8_t>();
    if (flags > 7) wrong("group flags");
    group.inconsistent = flags & 1;
    group.split = flags & 2;
    group.open_writer = flags & 4;
    group.seq = get<std::uint64_t>();
    std::size_t epochs = count("epochs", kHistoryMax, 32);
    group.history.reserve(epochs);
    for (std::size_t i = 0; i < epochs && fine(); ++i) group.history.push_back(entry());
    return group;
  }
  EpochEntry entry() {
    EpochEntry entry = get_epoch_entry(in_);
    if (in_.ok() && (entry.cause < EpochCause::kCreated || entry.cause > EpochCause::kResolved))
      wrong("epoch cause");
    return entry;
  }
  Reader& raw_reader() { return in_; }
  void wrong(const char* name) {
    if (wrong_ == nullptr) wrong_ = name;
  }
  bool fine() const { return wrong_ == nullptr && in_.ok(); }

  // The finished message, or why it is none.
  template <class T>
  Result<Message> finish(T message) {
    if (wrong_ != nullptr)
      return fail(ErrorKind::kProtocol, EPROTO, fmt::format("message with an impossible {}", wrong_));
    if (!in_.ok()) return fail(ErrorKind::kProtocol, EPROTO, "message ends too early");
    if (!in_.at_end())
      return fail(ErrorKind::kProtocol, EPROTO,
                  fmt::format("message with {} bytes left over", in_.remaining()));
    return Message(std::move(message));
  }

 private:
  Reader in_;
  const char* wrong_ = nullptr;
};

Result<Message> decode_hello(Decoder& in) {
  Hello m;
  if (in.get<std::uint32_t>() != kHelloMagic) in.wrong("magic: the peer is not a vmfs node");
  m.version_oldest = in.get<std::uint16_t>();
  m.version = in.get<std::uint16_t>();
  if (m.version_oldest > m.version) in.wrong("version range");
  if (in.fine() && m.version_oldest > kProtocolVersion) {
    // What follows may look different in a version that we do not speak; the range is all we need.
    return Message(m);
  }
  m.features = in.get<std::uint64_t>();
  ByteView volume = in.raw_reader().bytes(m.volume.size());
  if (volume.size() == m.volume.size()) std::copy(volume.begin(), volume.end(), m.volume.begin());
  m.life = in.get<std::uint64_t>();
  m.payload_max = in.get<std::uint32_t>();
  m.joining = in.flag("joining flag");
  m.self = in.peer();
  if (in.fine() && raw(m.self.id) == 0) in.wrong("node id");
  // A later version may append fields that we do not know.
  if (in.fine() && m.version > kProtocolVersion) return Message(std::move(m));
  return in.finish(std::move(m));
}

Result<Message> decode_positions(Decoder& in) {
  Positions m;
  m.update = in.flag("update flag");
  m.last = in.flag("last flag");
  std::size_t count = in.count("number of groups", kFrameMax, 37);
  for (std::size_t i = 0; i < count && in.fine(); ++i) m.groups.push_back(in.group());
  return in.finish(std::move(m));
}

Result<Message> decode_base_request(Decoder& in) {
  BaseRequest m;
  m.group = in.get<GroupId>();
  m.whole = in.flag("whole flag");
  m.common = in.position();
  std::size_t count = in.count("number of ranges", kRangesMax, 16);
  m.ranges.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    BaseRange range;
    range.offset = in.get<std::uint64_t>();
    range.length = in.get<std::uint64_t>();
    constexpr std::uint64_t kOffsetMax = std::uint64_t{1} << 63;
    if (range.offset >= kOffsetMax || range.length > kOffsetMax - range.offset) in.wrong("range");
    m.ranges.push_back(range);
  }
  return in.finish(std::move(m));
}

Result<Message> decode_settings(Decoder& in) {
  VolumeSettings m;
  m.mode = in.one_of("mode", ReplicationMode::kAsync, ReplicationMode::kSync);
  m.on_peer_loss = in.one_of("on-peer-loss", OnPeerLoss::kContinue, OnPeerLoss::kFreeze);
  bool given = in.flag("compression flag");
  auto level = in.get<std::int32_t>();
  if (level < -7 || level > 19) in.wrong("compression level");
  if (given) m.compression = level;
  m.changed_wall_ns = in.get<std::int64_t>();
  return in.finish(m);
}

Result<Message> decode_peers(Decoder& in) {
  Peers m;
  std::size_t count = in.count("number of peers", kPeersMax, 16);
  for (std::size_t i = 0; i < count && in.fine(); ++i) m.peers.push_back(in.peer());
  return in.finish(std::move(m));
}

}  // namespace

Bytes encode_message(const Message& message) { return std::visit(Encoder{}, message); }

MessageType message_type(ByteView body) {
  return body.empty() ? MessageType{} : static_cast<MessageType>(body[0]);
}

Result<Message> decode_message(ByteView body) {
  Decoder in(body);
  MessageType type = in.get<MessageType>();
  if (in.get<std::uint8_t>() != 0 || in.get<std::uint16_t>() != 0) in.wrong("reserved field");
  switch (type) {
    case MessageType::kHello: return decode_hello(in);
    case MessageType::kWelcome: return in.finish(Welcome{in.get<std::uint16_t>()});
    case MessageType::kRefusal: {
      HelloRefused m;
      m.reason = in.one_of("refusal", RefusalReason::kWrongVolume, RefusalReason::kSegments);
      m.text = in.text();
      return in.finish(std::move(m));
    }
    case MessageType::kPositions: return decode_positions(in);
    case MessageType::kAck: {
      Ack m;
      m.received = in.get<std::uint64_t>();
      m.durable = in.get<std::uint64_t>();
      m.applied = in.get<std::uint64_t>();
      m.full = in.flag("full flag");
      if (m.durable > m.received) in.wrong("acknowledgement: durable beyond received");
      if (m.applied > m.durable) in.wrong("acknowledgement: applied beyond durable");
      return in.finish(m);
    }
    case MessageType::kFlushRequest: return in.finish(FlushRequest{in.get<std::uint64_t>()});
    case MessageType::kWant: {
      Want m;
      m.group = in.get<GroupId>();
      m.force = in.flag("force flag");
      return in.finish(m);
    }
    case MessageType::kWantRefused: {
      WantRefused m;
      m.group = in.get<GroupId>();
      m.reason = in.one_of("refusal", WantRefusal::kActive, WantRefusal::kUnsettled);
      m.text = in.text();
      return in.finish(std::move(m));
    }
    case MessageType::kHeartbeat: {
      Heartbeat m;
      m.sent_ns = in.get<std::int64_t>();
      m.wall_ns = in.get<std::int64_t>();
      return in.finish(m);
    }
    case MessageType::kBaseRequest: return decode_base_request(in);
    case MessageType::kResolve: {
      Resolve m;
      m.group = in.get<GroupId>();
      m.winner = in.get<NodeId>();
      return in.finish(m);
    }
    case MessageType::kSettings: return decode_settings(in);
    case MessageType::kPeers: return decode_peers(in);
    case MessageType::kPeerRemoved: return in.finish(PeerRemoved{in.get<NodeId>()});
    case MessageType::kBye: return in.finish(Bye{in.text()});
    case MessageType::kStanding: {
      Standing m;
      m.caught_up = in.flag("caught-up flag");
      m.copying = in.flag("copying flag");
      m.given = in.flag("given flag");
      return in.finish(m);
    }
    case MessageType::kRecords: break;
  }
  return fail(ErrorKind::kProtocol, EPROTO,
              fmt::format("message of unknown type {}", static_cast<int>(type)));
}

}  // namespace vmfs
