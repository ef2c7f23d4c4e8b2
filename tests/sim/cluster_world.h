// Two nodes and what is known of them: the actions and checks that the cluster's scenarios are made of.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/cluster_image.h"
#include "tests/sim/cluster_names.h"
#include "tests/sim/cluster_node.h"
#include "tests/sim/lib/scenario.h"
#include "tests/sim/lib/seeded_ids.h"

namespace vmfs::sim {

inline constexpr std::uint64_t kCells = 256;  // of an image: 64 KiB

struct ClusterPlan {
  std::optional<ReplicationMode> mode;          // else by the seed
  std::optional<OnPeerLoss> on_peer_loss;       // likewise
  std::optional<PathOptions> path;              // likewise
  std::size_t images = 0;                       // likewise
  bool orphans_go = true;       // in the end nothing that was unlinked is left
  bool resolve_splits = false;  // while converging, a person settles what is split for the writer's side
};

class ClusterWorld {
 public:
  ClusterWorld(std::uint64_t seed, const ClusterPlan& plan);

  ClusterNode& node(std::size_t index) { return *nodes_[index]; }
  ClusterNode& other(std::size_t index) { return *nodes_[1 - index]; }

  // --- Time --------------------------------------------------------------------------------------

  // After every event: a node whose disk came to its planned end is dead.
  bool run_until(const std::function<bool()>& done, std::int64_t limit_ns);
  void pass_time(std::int64_t ns) {
    run_until([] { return false; }, ns);
  }
  // Makes a change on a node, as a request of the kernel, and waits for its answer while the cluster's
  // time goes on. If only the daemon dies under it, the next one may be sent the request again, after
  // `resent` was called (the change may have been made before). Nothing: the node died and the kernel's
  // connection with it. kWouldWait: no answer in time, and it will not be done any more.
  template <class T, class F>
  std::optional<Result<T>> wait(std::size_t index, F change, std::int64_t limit_ns = 15 * kSecond,
                                const std::function<void()>& resent = {});
  // A command to a node, and its answer; nothing: the node died meanwhile.
  std::optional<Result<std::string>> command(std::size_t index, std::function<void(Node::Done)> give);

  // --- What happens to the nodes -------------------------------------------------------------------

  void die(std::size_t index, bool power);
  std::size_t index_of(const ClusterNode& node) const;
  void start(std::size_t index) {
    if (!nodes_[index]->up()) 
      // A journal that failed may have lost what the guests saw: their connection does not go on.
      nodes_[index]->start({&other(index)}, !nodes_[index]->troubled && random_.one_in(2));
  }
  // After the death of the daemon alone, now and then: the holder starts the next one at once. False:
  // the node is down.
  bool resume(std::size_t index);
  // What a person asks for. Without force: whoever owns then has all that was acknowledged.
  void promote(std::size_t index);
  void demote(std::size_t index);
  void unmount(std::size_t index);
  // The node is gone for good: it is removed from the volume, and another one joins. False: the one that stays died.
  bool replace(std::size_t index);
  // By force: the owner is lost. False: the node died under it.
  bool promote_by_force(std::size_t index);
  void fail_disk(std::size_t index);
  void mend_disks();

  // --- What the client does, and learns --------------------------------------------------------------

  ObjectId pick_image();
  bool write(std::size_t index, ObjectId object);  // or zeros, or a truncation. True: acknowledged
  void flush(std::size_t index, std::optional<GroupId> group = {});
  void change_names(std::size_t index);
  void unlink_while_open(std::size_t index);
  // True: acknowledged. The image stays known, for what is kept of it, until forget_image().
  bool remove_image(std::size_t index, ObjectId object);
  void forget_image(ObjectId object);
  // Whoever reads on a secondary sees a moment of the primary's past.
  void look(std::size_t index);
  // What is there after a crash? forced: the node took it without the previous owner.
  void settle(ClusterNode& node, ObjectId object, bool forced);
  void settle_names(ClusterNode& node, bool forced);
  void settle_all(ClusterNode& node, bool forced);
  // Nothing: the image is not there (yet), or the node is at its end.
  std::optional<std::vector<ChangeNumber>> read(ClusterNode& node, ObjectId object);
  std::optional<ClusterNames::State> names_of(ClusterNode& node);

  // --- How it must end ----------------------------------------------------------------------------------

  void converge(const char* when);
  // Everything is mended: both must come to hold the same, and what was promised.
  void heal();
  // 6: where both have one position of an image that is at rest, their stores are the same.
  void compare_stores();
  // 7: what was given up of the image on that node is kept there.
  void check_kept(ClusterNode& from, ObjectId object);
  void check_kept_names(ClusterNode& from, const ClusterNames& left);
  bool freezes() const {
    return shared_.settings.on_peer_loss == OnPeerLoss::kFreeze &&
           shared_.settings.mode != ReplicationMode::kAsync;
  }
  bool full_copies();  // one is under way, or a node thinks that one is needed
  std::vector<GroupId> split_groups(ClusterNode& node);
  void list(ClusterNode& node, const std::string& path, std::map<std::string, std::string>& out);

  SeededIds ids_;
  ClusterShared shared_;
  Random random_;
  const ClusterPlan plan_;
  std::vector<std::unique_ptr<ClusterNode>> nodes_;
  std::vector<std::unique_ptr<ClusterNode>> replaced_;  // what is still planned for them finds them
  std::map<ObjectId, ClusterImage> images_;
  ClusterNames names_;
  std::size_t writer_ = 0;  // who writes mostly
  bool crashed_ = false;    // since what is there was last looked at
  std::int64_t alone_since_[2] = {0, 0};  // how long each node has had no peer; -1: it has one
  ChangeNumber next_ = 1;
  std::uint32_t next_permissions_ = 0;

 private:
  void end_split_brains();
  void apply_all(ClusterNode& node);
  void note_alone(std::size_t index);
  void check_not_alone(std::size_t index);
};

template <class T, class F>
std::optional<Result<T>> ClusterWorld::wait(std::size_t index, F change, std::int64_t limit_ns,
                                            const std::function<void()>& resent) {
  ClusterNode& node = *nodes_[index];
  struct Attempt {
    std::optional<Result<T>> answer;
    bool given_up = false;
  };
  Caller caller{.request = node.ask()};
  for (;;) {
    auto attempt = std::make_shared<Attempt>();
    auto retry = std::make_shared<std::function<void()>>();
    *retry = [attempt, change, caller, &node, again = std::weak_ptr(retry)] {
      if (attempt->given_up) return;
      Result<T> result = change(caller);
      if (result || result.error().kind != ErrorKind::kWouldWait)
        attempt->answer = std::move(result);
      else
        node.volume->park(kNameSpace, [self = again.lock()] { (*self)(); });
    };
    const std::uint64_t life = node.life;
    (*retry)();
    run_until([&] { return attempt->answer || node.life != life; }, limit_ns);
    attempt->given_up = true;
    if (node.life == life && !node.disk.stopped()) {
      node.answered(caller.request);
      return attempt->answer
                 ? std::move(attempt->answer)
                 : std::optional<Result<T>>(fail(ErrorKind::kWouldWait, EAGAIN, "parked"));
    }
    // The disk's end is the daemon's: what it found out after that reaches nobody.
    run_until([&] { return node.life != life; }, kSecond);
    if (!resent || !resume(index)) return std::nullopt;
    resent();
    caller.resent = true;
  }
}

}  // namespace vmfs::sim
