// Follows this node's journal for one peer and ships, in journal order, the records that the peer
// lacks; keeps count of what the peer has acknowledged.
//
// Runs on the node's thread; reads the journal (page cache) and hands frames to `send`.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "fs/journal/record_reader.h"
#include "fs/seam/clock.h"
#include "fs/volume/volume.h"
#include "net/replication/stream_position.h"
#include "net/wire/messages.h"
#include "net/wire/records.h"

namespace vmfs {

class Sender {
 public:
  // Shipped and not yet received by the peer: enough to keep a fast line busy through a round trip,
  // little enough that a flush does not wait long behind it.
  static constexpr std::uint64_t kWindow = 16u << 20;

  struct Events {
    virtual ~Events() = default;
    virtual void send_frame(Bytes frame) = 0;
    // Bytes queued at the link: nothing is read from the journal above kLinkQueue.
    virtual std::size_t unsent_bytes() = 0;
    // The journal does not hold what the peer lacks of the group: it needs a copy.
    virtual void needs_copy(GroupId group, const char* why) = 0;
  };
  static constexpr std::size_t kLinkQueue = 2u << 20;

  // from: a hint where the peer's needs begin (PeerState::confirmed), checked while reading. What the peer holds is said
  // by positions(); groups that are stopped there are known to it and do not flow.
  Sender(Volume& volume, Clock& clock, Events& events, Lsn from);

  StreamPosition& positions() { return positions_; }
  // Once positions() are filled: groups whose missing records were recycled are reported by
  // needs_copy() and stopped.
  void begin();
  // The group's copy is on its way or about to be: whatever the peer confirms of it, it has no state of it
  // before the copy's end.
  void incomplete(GroupId group) {
    incomplete_.insert(group);
    durable_positions_.erase(group);
  }

  // Ships what lies below `limit`, as far as window and link allow. sync_now: somebody waits for the
  // peer's disk. An error means that the journal cannot be read (its message names the place).
  Result<> pump(Lsn limit, bool sync_now, int compression);

  // False: it confirms what was never sent.
  bool acknowledged(const Ack& ack);
  // Everything below is dealt with: shipped, or not needed by the peer.
  Lsn position() const { return position_; }
  // ... and acknowledged.
  Lsn received() const { return received_; }
  Lsn durable() const { return durable_; }
  // ... and in the peer's store.
  Lsn applied() const { return applied_; }
  // Frames that were sent, and those of them that the peer has durable, by number.
  std::uint64_t last_number() const { return last_number_; }
  std::uint64_t durable_number() const {
    return in_flight_frames_.empty() ? last_number_ : in_flight_frames_.front().number - 1;
  }
  bool has_room() const;
  // The group's last record that the peer has durable, as far as shipped on this connection.
  std::optional<Position> durable_position(GroupId group) const;
  const std::unordered_map<GroupId, Position>& all_durable() const { return durable_positions_; }
  void note_durable(GroupId group, Position position) { durable_positions_[group] = position; }

  // While held, pump() ships nothing: a base block is being read, and what is shipped before it must
  // have been written before it was read.
  void hold(bool held) { held_ = held; }
  // A group flows again whose records from `from` on may have been passed over while it was stopped.
  void look_back(Lsn from);
  // Puts a base record into the stream, at its present position.
  void inject(const RecordHeader& header, ByteView payload, int compression);

  // How long ago the oldest record that is on its way was sent; 0: none is.
  std::int64_t lag_ns(std::int64_t now_ns) const;
  std::uint64_t bytes_sent() const { return bytes_sent_; }
  std::uint64_t in_flight() const { return in_flight_; }

 private:
  struct InFlight {
    std::uint64_t number = 0;
    Lsn through = 0;  // the journal was dealt with below this when it was sent
    std::uint64_t bytes = 0;
    std::int64_t sent_ns = 0;
    bool received = false;
    std::vector<std::pair<GroupId, Position>> last;  // of each group, in this frame
    GroupId copied{};                                // its copy ends in this frame; 0: none
  };
  // Durable at the peer up to there, once its frames up to `number` are.
  struct Unapplied {
    std::uint64_t number = 0;
    Lsn from = 0, through = 0;
  };
  void ship_frame(bool sync_now, int compression);
  void settle();
  void note_unapplied(std::uint64_t number, Lsn through);
  void gap(GroupId group);
  void rescan();
  void go_back(Lsn to);

  Volume& volume_;
  Clock& clock_;
  Events& events_;
  std::unique_ptr<RecordReader> reader_;
  StreamPosition positions_;
  RecordsEncoder encoder_;
  std::vector<std::pair<GroupId, Position>> encoder_last_;
  std::deque<InFlight> in_flight_frames_;
  std::uint64_t in_flight_ = 0;
  std::unordered_map<GroupId, Position> durable_positions_;
  std::unordered_set<GroupId> incomplete_;
  std::deque<Unapplied> unapplied_;
  Lsn position_ = 0, received_ = 0, durable_ = 0, applied_ = 0;
  bool rescanned_ = false;
  bool held_ = false;
  std::uint64_t bytes_sent_ = 0;
  int incompressible_ = 0;
  std::uint64_t last_number_ = 0;            // of the last frame
  std::uint64_t sync_requested_number_ = 0;  // the last frame whose sync was asked for
};

}  // namespace vmfs
