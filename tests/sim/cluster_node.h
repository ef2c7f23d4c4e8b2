// One machine of a simulated cluster: its disk outlives its process, and its process can end at any
// disk call.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fs/volume/volume.h"
#include "net/node/node.h"
#include "tests/sim/lib/invariants.h"
#include "tests/sim/lib/sim_disk.h"
#include "tests/sim/lib/sim_network.h"
#include "tests/sim/lib/sim_shell.h"
#include "tests/sim/lib/volume_model.h"

namespace vmfs::sim {

inline constexpr std::int64_t kMillisecond = 1'000'000;
inline constexpr std::int64_t kSecond = 1'000'000'000;

// What all machines of a run share.
struct ClusterShared {
  explicit ClusterShared(std::uint64_t seed)
      : random(seed), scheduler(clock), network(scheduler, random.next()) {}
  Random random;
  SimClock clock;
  Scheduler scheduler;
  SimNetwork network;
  VolumeId volume{};
  VolumeSettings settings;
  std::uint64_t memory_max = 0;  // of the not-yet-applied index
  RecordNames names;
  std::vector<std::string> images;  // their names in the root
};

class ClusterNode {
 public:
  ClusterNode(ClusterShared& shared, std::string name);
  ~ClusterNode();

  void create(bool joining);
  // Starts the process; false: it died while starting (the disk's planned stop), which is a process
  // death. resume: the holder lives, and so do the kernel's connection and its unanswered requests; as a
  // remount if it does not.
  bool start(const std::vector<ClusterNode*>& peers, bool resume = false);
  // Ends the process, or the machine with what no sync has confirmed.
  void die(bool power);
  // Ends the process as an unmount does, after the hand-over. False: the disk's planned end came, or its failure.
  bool unmount();
  bool up() const { return node != nullptr; }
  // Only the process died: the kernel still waits for what it has asked.
  bool connection_lives() const { return !up() && connection_lives_; }
  // A request of the kernel, until it has its answer.
  RequestId ask();
  void answered(const RequestId& request) { unanswered_.erase(request.unique); }
  // Whether the machine's planned end has come: the caller lets it die.
  bool must_die() const { return up() && disk.stopped(); }
  // The journal takes nothing more until it is opened again.
  bool journal_dead() const { return up() && volume->journal().state().dead; }

  // In sync with every peer, and ownership settled.
  bool settled();
  bool in_sync();
  void check();  // the invariants that one node shows
  // 1 and 2: what the store's images hold are bytes of records that are durable in the journal here.
  void check_store();

  const std::string name;
  const NodeId id;
  SimDisk disk;
  std::unique_ptr<Volume> volume;
  std::unique_ptr<SimShell> shell;
  std::unique_ptr<Node> node;
  std::uint64_t life = 0;
  bool troubled = false;  // its disk has failed or was full: errors have a reason
  bool journal_failed = false;  // it failed under the journal: what was written there is not sure to be

 private:
  VolumeOptions options() const;
  void background(std::uint64_t of_life);
  void end_process();
  void check_goes_on();
  void watch(const DiskCall& call);
  void note(const RecordHeader& header, ByteView payload, Lsn end);

  ClusterShared& shared_;
  const std::uint64_t peer_journal_max_;  // 0: half of the journal
  std::unique_ptr<Disk> journal_disk_;
  std::unique_ptr<VolumeInvariants> invariants_;
  std::vector<PeerInfo> known_peers_;
  std::vector<NodeId> removed_;
  bool joining_ = false;
  ConnectionId connection_{};
  std::set<std::uint64_t> unanswered_;
  std::uint64_t next_unique_ = 1;
  std::int64_t prepare_failed_ns_ = 0, sync_failed_ns_ = 0, apply_failed_ns_ = 0;  // 0: the last one has not
  bool connection_lives_ = false;
  std::map<GroupId, std::int64_t> open_since_;  // as check() saw it
  std::vector<GroupId> open_groups_;  // when the process died
  // Of each change that this node's journal has ever held: where the first record with it ends.
  std::map<ChangeNumber, Lsn> ends_;
  std::string wrong_;  // found from within a call of the volume: told later
  bool watching_ = false;
};

}  // namespace vmfs::sim
