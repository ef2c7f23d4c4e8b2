// Whatever an authenticated peer sends as records, well formed or not: this node refuses it or takes it,
// and what it took and showed survives a restart. The input chooses records that mostly continue their
// groups, with single fields or whole payloads from the fuzzer.
#include <cerrno>
#include <cstdint>
#include <map>
#include <string>

#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "fs/base/log.h"
#include "fs/volume/volume.h"
#include "tests/sim/lib/seeded_ids.h"
#include "tests/sim/lib/sim_clock.h"
#include "tests/sim/lib/sim_disk.h"

namespace {

using namespace vmfs;

// Zeros when the input has ended.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : reader_({reinterpret_cast<const std::byte*>(data), size}) {}
  bool more() const { return reader_.ok() && reader_.remaining() > 0; }
  template <class T>
  T get() {
    return reader_.get<T>();
  }
  unsigned below(unsigned limit) { return get<std::uint8_t>() % limit; }
  bool rarely() { return below(16) == 1; }
  ByteView bytes(std::size_t most) {
    return reader_.bytes(std::min<std::size_t>(get<std::uint8_t>() % (most + 1), reader_.remaining()));
  }

 private:
  Reader reader_;
};

class Target {
 public:
  explicit Target(bool joining) : disk_({.name = "store"}, 1, &clock_) {
    options_.journal.volume[0] = std::byte{1};
    options_.journal.node = NodeId{7};
    options_.journal.segment_size = kSegmentSizeMin;
    options_.journal.size_max = 8 * kSegmentSizeMin;
    options_.joining = joining;
    options_.has_peers = true;
    CHECK_INVARIANT(disk_.make_directory("journal", "fuzz").has_value());
    journal_ = disk_.subdirectory("journal");
    CHECK_INVARIANT(Volume::create(disk_, *journal_, system_clock(), options_).has_value());
    open();
  }
  void open() {
    auto opened = Volume::open(disk_, *journal_, clock_, options_, {});
    CHECK_INVARIANT(opened.has_value(), "{}", opened.error().message);
    volume_ = std::move(*opened);
    if (auto names = volume_->group(kNameSpace); names && !names->history.empty())
      at_[kNameSpace] = {names->history.back().epoch, names->seq};
  }

  void record(Input& input) {
    static constexpr RecordType kTypes[] = {
        RecordType::kWrite,    RecordType::kZero,          RecordType::kTruncate, RecordType::kAllocate,
        RecordType::kCreate,   RecordType::kUnlink,        RecordType::kRename,   RecordType::kDeleteObject,
        RecordType::kSetAttributes, RecordType::kFlush,    RecordType::kEpoch,    RecordType::kTaken,
        RecordType::kReleased, RecordType::kBaseBegin,     RecordType::kBaseData, RecordType::kBaseEnd};
    RecordHeader header;
    header.type = kTypes[input.below(std::size(kTypes))];
    const bool of_names = header.type >= RecordType::kCreate && header.type <= RecordType::kDeleteObject;
    const GroupId group = of_names && !input.rarely() ? kNameSpace : object(input);
    header.group = raw(group);
    Position& at = at_[group];
    Position next{at.epoch, at.seq + 1};
    if (header.type >= RecordType::kBaseBegin) next.seq = at.seq;
    if (header.type == RecordType::kEpoch || header.type == RecordType::kTaken ||
        (header.type == RecordType::kBaseBegin && (raw(at.epoch) == 0 || input.rarely())))
      next.epoch = EpochId{100u + input.below(8)};
    if (input.rarely()) next.seq = input.get<std::uint64_t>();
    header.epoch = raw(next.epoch);
    header.seq = next.seq;
    header.offset = input.rarely() ? input.get<std::uint64_t>() : 512u * input.below(64);
    header.extent = input.rarely() ? input.get<std::uint64_t>() : 512u * input.below(16);
    header.flags = input.get<std::uint8_t>() & (kKeepAllocated | kKeepSize | kBatchEnd);
    header.wall_ns = input.below(2) == 0 ? 1 : input.get<std::int64_t>();
    Bytes payload = payload_of(header, next, at, input);
    if (header.type == RecordType::kWrite || (header.type == RecordType::kBaseData && group != kNameSpace))
      if (!input.rarely()) header.extent = payload.size();
    header.payload_size = static_cast<std::uint32_t>(payload.size());
    header.payload_hash = hash64(payload);
    const ReceivedRecord received{header, payload};
    if (auto taken = volume_->receive({&received, 1})) {
      at = next;
      if (header.type == RecordType::kCreate)
        if (auto change = decode<Create>(payload)) at_[change->object] = {change->first_epoch, 0};
    } else {
      CHECK_INVARIANT(taken.error().kind != ErrorKind::kIo, "{}", taken.error().message);
    }
  }

  // False: what was received cannot be shown, which stays a problem that the status names.
  bool publish() {
    const Lsn end = volume_->journal().written_lsn();
    CHECK_INVARIANT(volume_->journal().sync_through(end).has_value());
    return volume_->publish_received(end).has_value();
  }
  bool apply() {
    for (;;) {
      auto more = volume_->apply_some(true);
      if (!more) return false;
      if (!*more) return true;
    }
  }
  void read(Input& input) {
    std::byte bytes[4096];
    if (auto image = volume_->open_image(object(input), false)) {
      (void)volume_->read(**image, 512u * input.below(64), bytes);
      (void)volume_->seek(**image, 512u * input.below(64), input.below(2) == 0);
      volume_->close_image(*image);
    }
    if (auto listed = volume_->list(object(input)))
      for (const ListedEntry& entry : *listed) (void)volume_->attributes(entry.object);
  }
  void restart() {
    volume_.reset();
    disk_.restart();
    open();
  }
  void lose_power() {
    volume_.reset();
    disk_.lose_power();
    open();
  }

 private:
  ObjectId object(Input& input) { return ObjectId{1u + input.below(6)}; }

  Bytes payload_of(const RecordHeader& header, Position next, Position at, Input& input) {
    if (input.rarely()) {
      const ByteView any = input.bytes(255);
      return {any.begin(), any.end()};
    }
    const std::string name = input.rarely() ? std::string(input.below(255), 'n')
                                            : std::string(1, static_cast<char>('a' + input.below(4)));
    const FileType type = static_cast<FileType>(1 + input.below(3));
    switch (header.type) {
      case RecordType::kWrite:
        return Bytes(512u * (1 + input.below(16)), std::byte{input.get<std::uint8_t>()});
      case RecordType::kCreate: {
        Create change;
        change.object = object(input);
        change.parent = object(input);
        change.name = name;
        change.type = type;
        change.creator = NodeId{8};
        change.first_epoch = EpochId{200u + input.below(4)};
        change.target = type == FileType::kSymlink ? "target" : "";
        return encode(change);
      }
      case RecordType::kUnlink: {
        Unlink change;
        change.object = object(input);
        change.parent = object(input);
        change.name = name;
        return encode(change);
      }
      case RecordType::kRename: {
        Rename change;
        change.object = object(input);
        change.from_parent = object(input);
        change.from_name = name;
        change.to_parent = object(input);
        change.to_name = std::string(1, static_cast<char>('a' + input.below(4)));
        change.replaced = input.below(2) == 0 ? ObjectId{} : object(input);
        return encode(change);
      }
      case RecordType::kDeleteObject:
        return encode(DeleteObject{object(input)});
      case RecordType::kSetAttributes: {
        AttributeChange change;
        change.object = input.rarely() ? object(input) : ObjectId{header.group};
        change.set.permissions = input.get<std::uint16_t>();
        change.set.mtime_ns = input.get<std::int64_t>();
        return encode(change);
      }
      case RecordType::kEpoch:
      case RecordType::kTaken: {
        EpochChange change;
        change.entry = {next.epoch, NodeId{8}, at, EpochCause::kTaken, 1};
        if (input.rarely()) change.entry.parent.seq = input.get<std::uint64_t>();
        return encode(change);
      }
      case RecordType::kReleased:
        return encode(Release{NodeId{input.below(2) == 0 ? 7u : 9u}});
      case RecordType::kBaseBegin: {
        BaseBegin begin;
        begin.whole = input.below(4) != 0;
        if (!begin.whole) begin.ranges = {{512u * input.below(64), 512u * (1u + input.below(16))}};
        begin.history = {{next.epoch, NodeId{8}, {}, EpochCause::kCreated, 1}};
        begin.stat.size = input.rarely() ? input.get<std::uint64_t>() : 512u * input.below(128);
        begin.stat.type = header.group == raw(kNameSpace) ? FileType::kDirectory : FileType::kRegular;
        begin.stat.permissions = 0640;
        return encode(begin);
      }
      case RecordType::kBaseData: {
        if (header.group != raw(kNameSpace))
          return Bytes(512u * (1 + input.below(16)), std::byte{input.get<std::uint8_t>()});
        std::vector<BaseObject> objects(input.below(4));
        for (BaseObject& one : objects) {
          one.object = object(input);
          one.parent = input.rarely() ? ObjectId{} : object(input);
          one.name = raw(one.parent) == 0 ? "" : std::string(1, static_cast<char>('a' + input.below(4)));
          one.type = static_cast<FileType>(1 + input.below(3));
          one.stat.type = one.type;
          one.stat.permissions = 0700;
          one.target = one.type == FileType::kSymlink ? "target" : "";
        }
        return encode(objects);
      }
      default:
        return {};
    }
  }

  sim::SimClock clock_;
  sim::SimDisk disk_;
  std::unique_ptr<Disk> journal_;
  VolumeOptions options_;
  std::unique_ptr<Volume> volume_;
  std::map<GroupId, Position> at_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  set_log_maximum(Priority::kError);
  sim::SeededIds ids(1);
  Input input(data, size);
  Target target(input.below(2) == 0);
  bool shown = true;
  while (input.more() && shown) {
    switch (input.below(12)) {
      case 0: shown = target.publish(); break;
      case 1: shown = target.publish() && target.apply(); break;
      case 2: target.read(input); break;
      case 3:
        shown = target.publish();
        if (shown) target.restart();
        break;
      case 4:
        shown = target.publish();
        if (shown) target.lose_power();
        break;
      default: target.record(input);
    }
  }
  return 0;
}
