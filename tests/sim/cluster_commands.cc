// What a person asks of the nodes of a cluster, and what must hold when they answer.
#include "tests/sim/cluster_world.h"

namespace vmfs::sim {

void ClusterWorld::promote(std::size_t index) {
  ClusterNode& node = *nodes_[index];
  std::vector<GroupId> groups;
  if (random_.one_in(2)) groups.push_back(pick_image());
  auto answer = command(index, [&](Node::Done done) { node.node->promote(groups, false, std::move(done)); });
  say("promote {} on {}: {}", groups.empty() ? "all" : images_.at(groups.front()).name(), node.name,
      !answer ? "no answer" : *answer ? **answer : answer->error().message);
  if (!answer || !*answer) return;
  if (groups.empty())
    for (const GroupState& state : node.volume->groups()) groups.push_back(state.id);
  for (GroupId group : groups) {
    const Gate gate = node.volume->gate(group);
    // The peer may have been lost since.
    SIM_CHECK(gate == Gate::kOpen || gate == Gate::kFrozen, "{} was promoted, and the gate of {} is {}", node.name, group,
              static_cast<int>(gate));
    if (group == kNameSpace)
      settle_names(node, false);
    else if (images_.contains(group))
      settle(node, group, false);
  }
  writer_ = index;
}

void ClusterWorld::demote(std::size_t index) {
  ClusterNode& node = *nodes_[index];
  const bool force = random_.one_in(2);
  // What was acknowledged and is lost by a crash is found out by the owner only.
  if (crashed_) settle_all(node, false);
  std::vector<GroupId> owned;  // later ones may still come, from whoever gives them
  for (const GroupState& state : node.volume->groups())
    if (state.owner == node.id) owned.push_back(state.id);
  auto answer = command(index, [&](Node::Done done) { node.node->demote({}, force, std::move(done)); });
  say("demote{} on {}: {}", force ? " --force" : "", node.name,
      !answer ? "no answer" : *answer ? **answer : answer->error().message);
  if (!answer || !*answer) return;
  for (GroupId group : owned)
    SIM_CHECK(!node.volume->group(group) || node.volume->gate(group) != Gate::kOpen, "{} was demoted, and owns {} still",
              node.name, group);
}

void ClusterWorld::unmount(std::size_t index) {
  ClusterNode& node = *nodes_[index];
  if (crashed_) settle_all(node, false);
  auto handed = command(index, [&](Node::Done done) {
    node.node->hand_over_all(shared_.scheduler.now() + 5 * kSecond, std::move(done));
  });
  if (!handed) return;
  const std::uint64_t life = node.life;
  node.node->stop();
  run_until([&] { return node.life != life || node.node->idle(); }, 30 * kSecond);
  if (node.life != life) return;
  say("{} is unmounted: {}", node.name, *handed ? **handed : handed->error().message);
  // What a disk that fails has not taken is in the journal, or was never promised.
  const bool journal_failed = node.journal_failed;
  if (!node.unmount()) {
    if (journal_failed)
      for (auto& [object, image] : images_) image.lost_memory(index, 0);
    crashed_ = true;
  } else if (random_.one_in(2)) {
    // Nothing is left to be lost.
    say("{} loses its power while it is off", node.name);
    node.disk.lose_power();
  }
}

bool ClusterWorld::replace(std::size_t index) {
  ClusterNode& stays = *nodes_[1 - index];
  ClusterNode& gone = *nodes_[index];
  if (gone.up()) die(index, true);
  auto removed = command(1 - index, [&](Node::Done done) { stays.node->remove_peer(gone.id, std::move(done)); });
  if (!removed) return false;
  SIM_CHECK(removed->has_value(), "{} cannot be removed: {}", gone.name, removed->error().message);
  say("{} is removed", gone.name);
  shared_.network.mend("a", "b");
  if (random_.one_in(2) && gone.start({&stays})) {
    // It was repaired after all, and nobody has told it.
    pass_time(static_cast<std::int64_t>(random_.below(20 * kSecond)));
    if (!stays.up()) return false;
    SIM_CHECK(stays.node->status().peers.empty(), "{} was removed, and is a peer again", gone.name);
    if (gone.up()) {
      for (const GroupState& state : gone.volume->groups())
        SIM_CHECK(gone.volume->gate(state.id) != Gate::kOpen, "{} was removed, and group {} is open there", gone.name,
                  state.id);
      die(index, true);
    }
  }
  const std::string name = gone.name;
  replaced_.push_back(std::move(nodes_[index]));
  nodes_[index] = std::make_unique<ClusterNode>(shared_, name);
  nodes_[index]->create(true);
  for (auto& [object, image] : images_) {
    image.lost_memory(index, 0);
    image.forget_left();
  }
  nodes_[index]->start({&stays});
  return true;
}

bool ClusterWorld::promote_by_force(std::size_t index) {
  ClusterNode& node = *nodes_[index];
  // The first attempt may find out that the owner is lost; a person asks again then.
  for (int attempt = 0;; ++attempt) {
    auto answer = command(index, [&](Node::Done done) { node.node->promote({}, true, std::move(done)); });
    if (!answer) return false;
    if (*answer) break;
    SIM_CHECK(attempt < 2, "promote --force on {}: {}", node.name, answer->error().message);
  }
  say("{} is promoted by force", node.name);
  return true;
}

}  // namespace vmfs::sim
