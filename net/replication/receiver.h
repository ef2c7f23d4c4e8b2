// Takes the records that a peer ships: into this node's journal, made durable and visible, and
// acknowledged. Also LocalSync, the node's group commit of received records.
//
// Runs on the node's thread; syncs run elsewhere through Shell.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "fs/seam/clock.h"
#include "fs/volume/volume.h"
#include "net/replication/sender.h"
#include "net/seam/shell.h"
#include "net/wire/messages.h"
#include "net/wire/records.h"

namespace vmfs {

// Syncs the journal and publishes what was received, one run at a time: whoever asks during a run is
// served by the next one.
class LocalSync {
 public:
  LocalSync(Volume& volume, Shell& shell) : volume_(volume), shell_(shell) {}
  // `done` is called after all that is written now is durable and published; with the durable LSN. kWouldWait: it is
  // durable and cannot be shown yet, the store is full say; why is a problem that the volume tells.
  void request(std::function<void(Result<Lsn>)> done);
  bool running() const { return running_; }

 private:
  void run();

  Volume& volume_;
  Shell& shell_;
  bool running_ = false;
  std::vector<std::function<void(Result<Lsn>)>> waiting_;
};

class Receiver {
 public:
  // A replica syncs as often as a primary: nothing waits longer than this to become durable,
  // visible and acknowledged ...
  static constexpr std::int64_t kSyncInterval = 100'000'000;
  // ... nor after this much.
  static constexpr std::uint64_t kSyncBytes = 32u << 20;
  // When the journal is full, whether there is room again is looked at so often.
  static constexpr std::int64_t kFullRetry = 20'000'000;
  // When what was received cannot be shown, whether it can is looked at so often.
  static constexpr std::int64_t kShowRetry = 200'000'000;
  // A sync that takes so long will not end soon: the peer is told the same, so that nobody waits for it.
  static constexpr std::int64_t kSyncPatience = 10'000'000'000;
  // Full for so long: the peer is told, and counts this node as lost.
  static constexpr std::int64_t kFullNotice = 1'000'000'000;

  // Frames that wait for room: no more than a sender has under way, and one that began below that.
  static constexpr std::uint64_t kWaitingMax = Sender::kWindow + 2 * kFrameMax;

  struct Events {
    virtual ~Events() = default;
    virtual void send_ack(const Ack& ack) = 0;
    // Whether a copy of the group may begin: not while another peer copies it.
    virtual bool may_begin_copy(GroupId group) = 0;
    // This record came from the peer: it has it.
    virtual void received(const ReceivedRecord& record) = 0;
    // What was received up to now is durable and visible.
    virtual void published() = 0;
    // What was received is durable and cannot be shown: tick() is due at next_tick_ns().
    virtual void not_shown() = 0;
    // The next records would take these images away: they wait until go_on(). Not called from within it.
    virtual void takes_away(std::vector<Volume::Loss> losses) = 0;
    // The connection cannot go on. The receiver must outlive this call.
    virtual void failed(const Error& error) = 0;
  };

  Receiver(Volume& volume, LocalSync& sync, Clock& clock, Events& events)
      : volume_(volume), sync_(sync), clock_(clock), events_(events),
        alive_(std::make_shared<bool>(true)) {}
  ~Receiver() { *alive_ = false; }

  void records(ByteView body);
  void flush_request();
  // Records wait for images to be given up; see Events::takes_away().
  bool held() const { return held_; }
  void go_on();
  // What lies below `stored` in the local journal is in the store.
  void stored(Lsn stored);
  void tick(std::int64_t now_ns);
  std::int64_t next_tick_ns() const;
  std::uint64_t bytes_received() const { return bytes_received_; }
  bool full() const { return full_since_ns_ != 0; }

 private:
  bool take(const RecordsFrame& frame);
  void drain();
  void start_sync();
  bool shown() const { return show_again_ns_ == 0; }
  bool stuck(std::int64_t now_ns) const { return syncing_ && now_ns - sync_begun_ns_ >= kSyncPatience; }
  // Told that this node is full, the peer goes on without it: what it has under way waits here, and no more comes.
  bool refuses() const { return full_told_ && (!shown() || stuck(clock_.monotonic_ns())); }
  void synced(std::uint64_t number, Result<Lsn> durable);

  Volume& volume_;
  LocalSync& sync_;
  Clock& clock_;
  Events& events_;
  std::shared_ptr<bool> alive_;
  void keep(ByteView body);

  // Frames up to `number` end below `through` here.
  struct Unstored {
    std::uint64_t number = 0;
    Lsn from = 0, through = 0;
  };
  std::deque<Bytes> waiting_;  // frames that cannot be taken yet: at most kWaitingMax bytes
  std::uint64_t waiting_bytes_ = 0;
  std::uint64_t received_ = 0, durable_ = 0, applied_ = 0;
  std::deque<Unstored> unstored_;
  std::uint64_t sync_wanted_ = 0;   // number of the last frame that must be made durable now
  std::uint64_t unsynced_bytes_ = 0;
  std::int64_t unsynced_since_ns_ = 0;
  std::int64_t full_since_ns_ = 0;
  bool full_told_ = false;
  std::int64_t show_again_ns_ = 0;  // what was received cannot be shown; 0: it can
  bool held_ = false;
  bool syncing_ = false;
  std::int64_t sync_begun_ns_ = 0;
  std::uint64_t bytes_received_ = 0;
};

}  // namespace vmfs
