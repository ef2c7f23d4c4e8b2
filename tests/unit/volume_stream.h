// One volume's journal given to another, as replication does, for the tests of fs/volume.
#pragma once

#include <array>

#include "fs/base/hash.h"
#include "fs/journal/record_reader.h"
#include "tests/unit/volume_fixture.h"

namespace vmfs::test {

inline constexpr NodeId kA{0xa}, kB{0xb};

// Reads one volume's journal and gives the records to another, as replication does.
class Stream {
 public:
  Stream(VolumeHome& from, VolumeHome& to) : from_(from), to_(to) {}
  void run() {
    auto received = receive();
    if (!received) FAIL(received.error().message);
    auto& journal = to_->journal();
    REQUIRE(journal.sync_through(journal.written_lsn()));
    auto published = to_->publish_received(journal.durable_lsn());
    if (!published) FAIL(published.error().message);
  }
  Result<> receive() {
    RecordReader reader(from_->journal(), position_);
    for (;;) {
      auto view = reader.next(from_->journal().written_lsn());
      if (!view) return pass(view.error());
      if (!*view) break;
      VMFS_TRY(to_->receive(std::array{ReceivedRecord{(*view)->header, (*view)->payload}}));
    }
    position_ = reader.position();
    return {};
  }
  void from_start() { position_ = 0; }
  void skip_to_end() { position_ = from_->journal().written_lsn(); }

 private:
  VolumeHome& from_;
  VolumeHome& to_;
  Lsn position_ = 0;
};

inline void give_base(VolumeHome& to, RecordType type, const GroupState& state, std::uint64_t offset,
               ByteView payload) {
  ReceivedRecord record;
  record.header.type = type;
  record.header.group = raw(state.id);
  record.header.epoch = raw(state.history.back().epoch);
  record.header.seq = state.seq;
  record.header.offset = offset;
  if (type == RecordType::kBaseData && state.id != kNameSpace) record.header.extent = payload.size();
  record.header.payload_size = static_cast<std::uint32_t>(payload.size());
  record.header.payload_hash = hash64(payload);
  record.payload = payload;
  auto received = to->receive({&record, 1});
  if (!received) FAIL(received.error().message);
}

inline void publish(VolumeHome& home) {
  auto& journal = home->journal();
  REQUIRE(journal.sync_through(journal.written_lsn()));
  auto published = home->publish_received(journal.durable_lsn());
  if (!published) FAIL(published.error().message);
}

// Makes `to` a copy of `from`, as a base copy does.
inline void base_copy(VolumeHome& from, VolumeHome& to, GroupId group,
               std::optional<std::vector<BaseRange>> ranges = {}) {
  auto give = [&](RecordType type, const GroupState& state, std::uint64_t offset, ByteView payload) {
    give_base(to, type, state, offset, payload);
  };
  auto base = from->base_image(group);
  REQUIRE(base);
  BaseBegin begin{.whole = !ranges, .ranges = {}, .history = base->state.history, .stat = base->stat,
                  .owner = base->state.owner, .taker = base->state.taker};
  if (ranges) begin.ranges = *ranges;
  give(RecordType::kBaseBegin, base->state, 0, encode(begin));
  if (group == kNameSpace) {
    give(RecordType::kBaseData, base->state, 0, encode(*from->base_names()));
  } else {
    std::uint64_t offset = 0;
    while (auto next = *from->base_next(group, offset, 10000)) {
      Bytes bytes(next->length);
      REQUIRE(from->base_read(group, next->offset, bytes));
      give(RecordType::kBaseData, base->state, next->offset, bytes);
      offset = next->offset + next->length;
    }
  }
  give(RecordType::kBaseEnd, base->state, 0, {});
  publish(to);
}

inline void join(VolumeHome& from, VolumeHome& to) {
  base_copy(from, to, kNameSpace);
  for (const GroupState& state : from->groups())
    if (state.id != kNameSpace) base_copy(from, to, state.id);
}

}  // namespace vmfs::test
