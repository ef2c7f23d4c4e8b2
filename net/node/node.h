// One node of a volume: sessions with its peers, replication both ways, and ownership of the groups.
// Wires the pure parts (net/session, net/replication, net/ownership, net/history) to the volume and
// to the seams (Shell, Link, Clock).
//
// Threads: everything here runs on the node's thread (the one on which Shell runs posted functions),
// except the ReplicationHooks, which the volume calls on any thread. The constructor and destructor
// run while no other thread uses the node or its volume.
//
// Wiring, in this order: open the Volume, make the Node, volume.set_hooks(&node), start the front,
// node.start() on the node's thread. At the end: hand_over_all(), stop(), stop the shell's thread,
// volume.set_hooks(nullptr), destroy the node, close the volume.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fs/seam/clock.h"
#include "fs/volume/volume.h"
#include "net/node/settings.h"
#include "net/node/status.h"
#include "net/seam/link.h"
#include "net/seam/shell.h"

namespace vmfs {

// What the node asks of whoever wires it. Called on the node's thread; all may be empty.
struct NodeCallbacks {
  // Whether a handle that has written the image holds a write lock on it (/proc/locks).
  std::function<bool(GroupId)> holds_lock;
  // Drop what the kernel caches of the group (an image's pages and attributes; entries for the name
  // space), in a thread that serves no request, then call `done` (any thread). Called when this node
  // loses a token, and again before it gains one.
  std::function<void(GroupId, std::function<void()> done)> invalidate_caches;
  // This node gave the image's token away, or gives up its branch and follows: handles that were
  // opened for writing before must fail from now on, until they are reopened.
  std::function<void(GroupId)> expire_write_handles;
  // To be made durable in vmfs.toml: a peer was admitted, or its id, name or address became known.
  std::function<void(const PeerInfo&)> peer_changed;
  std::function<void(NodeId)> peer_removed;
  std::function<void(const VolumeSettings&)> settings_changed;
  // This node, which was joining, is known to a peer now.
  std::function<void()> admitted;
};

// What one can wait for.
enum class Condition : std::uint8_t {
  kConnected,  // a link to every peer
  kInSync,     // every peer is in sync, this node lacks nothing that they have, and no group is in split brain
  kReady,      // ownership of every group is settled (resumed here, or another's), and what the peers had is here
  kPrimary,    // this node may change the given groups
};

class Node final : public ReplicationHooks, public LinkEvents {
 public:
  // A command's outcome: text for a person (may be empty), or an error whose message names the
  // evidence and the next command.
  using Done = std::function<void(Result<std::string>)>;

  // All outlive the node. `volume` has no hooks yet.
  Node(Volume& volume, Shell& shell, Clock& clock, NodeOptions options, NodeCallbacks callbacks);
  ~Node() override;

  // Begins to dial peers and to settle ownership.
  void start();
  // Says goodbye to the peers and closes all links; waiting commands and flushes fail. Blocking work
  // that was given to the shell may still be running: run the shell until idle() before destroying.
  void stop();
  bool idle() const;

  // A peer dialled; its link is authenticated. The link's events go to `*this`.
  void link_opened(std::unique_ptr<Link> incoming);
  // The shell's timer (Shell::wake_at).
  void tick();

  // --- Commands -----------------------------------------------------------------------------------

  // Takes the groups (all of the volume's if empty): asks the owner for the token; with `force`, also
  // without it. `done` is called once, when all are owned or one cannot be.
  void promote(std::vector<GroupId> groups, bool force, Done done);
  // Gives the groups (all that are owned here, if empty) to a peer in sync.
  void demote(std::vector<GroupId> groups, bool force, Done done);
  // Settles the split brain of those of the groups (empty: of all) that are in one: the side that is not kept is put
  // under .snapshots/ and copied anew. All are begun, or none; kInvalid: none of those named is in split brain.
  void resolve(std::vector<GroupId> groups, bool keep_local, Done done);
  void remove_peer(NodeId peer, Done done);
  void set_settings(VolumeSettings settings, Done done);
  const VolumeSettings& settings() const;  // as they are in force
  // For a clean unmount, after the front has stopped: gives all owned groups to a peer in sync and
  // returns when it has confirmed; by the deadline (Clock::monotonic_ns) at the latest.
  void hand_over_all(std::int64_t deadline_ns, Done done);

  // Calls `done` once the condition holds for these groups (empty: for the whole volume; links and what peers lack are
  // the volume's in any case), maybe at once. The number cancels it.
  std::uint64_t wait(Condition condition, std::vector<GroupId> groups, Done done);
  void cancel_wait(std::uint64_t number);

  // `groups`: which images to list; empty: all.
  NodeStatus status(const std::vector<GroupId>& groups = {});
  std::vector<PeerInfo> peers() const;

  // --- ReplicationHooks (any thread) ----------------------------------------------------------------

  Error may_not_change(GroupId group, Gate gate) override;
  void written(Lsn lsn) override;
  void await_peers(GroupId group, Lsn lsn, std::function<void(Result<>)> done) override;
  bool backlog_full() override;

  // --- LinkEvents -----------------------------------------------------------------------------------

  void frame(Link& link, ByteView body) override;
  void progress(Link& link) override;
  void writable(Link& link) override;
  void closed(Link& link, const Error& why) override;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmfs
