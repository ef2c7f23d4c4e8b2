// Two nodes: changes on either, ownership that moves, cuts, deaths and power losses of one or both,
// disks that fail and fill up, takings by force, slow lines. Then everything is mended,
// and the nodes must agree and hold what was promised.
#include <algorithm>
#include <set>

#include "tests/sim/cluster_world.h"
#include "tests/sim/scenario_list.h"

namespace vmfs::sim {
namespace {

// One step of the ordinary story.
void step(ClusterWorld& world) {
  Random& random = world.random_;
  world.pass_time(static_cast<std::int64_t>(random.below(200 * kMillisecond)));
  const std::size_t index = random.percent(80) ? world.writer_ : 1 - world.writer_;
  ClusterNode& node = world.node(index);
  switch (random.below(40)) {
    default:
      if (node.up()) world.write(index, world.pick_image());
      break;
    case 0:
    case 1:
    case 2:
    case 3:
      if (node.up()) world.flush(index);
      break;
    case 4:
      random.one_in(2) ? world.shared_.network.cut("a", "b") : world.shared_.network.reset("a", "b");
      say("link cut or reset");
      break;
    case 5:
    case 6:
      world.shared_.network.mend("a", "b");
      break;
    case 7:
      if (node.up()) node.disk.stop_at_change(random.between(1, 60));
      break;
    case 8:
      if (node.up() && random.one_in(2)) world.die(index, random.one_in(2));
      break;
    case 9:
      if (random.one_in(6))
        for (std::size_t i : {0, 1})
          if (world.node(i).up()) world.die(i, true);
      break;
    case 10:
    case 11:
      for (std::size_t i : {0, 1}) world.start(i);
      break;
    case 12:
      world.writer_ = 1 - world.writer_;
      break;
    case 13:
      world.pass_time(static_cast<std::int64_t>(random.below(15 * kSecond)));
      break;
    case 14:
      world.look(index);
      break;
    case 15:
    case 16:
    case 17:
      if (node.up()) world.change_names(index);
      break;
    case 18:
      if (node.up() && random.one_in(2)) world.unlink_while_open(index);
      break;
    case 19:
      if (random.one_in(2)) world.fail_disk(index);
      break;
    case 20:
      if (random.one_in(2)) world.mend_disks();
      break;
    case 21:
    case 22:
      world.compare_stores();
      break;
    case 23:
    case 24:  // the applier comes right after a write
      if (node.up() && world.write(index, world.pick_image()) && node.up())
        (void)node.volume->apply_some(true);
      break;
  }
  for (auto& each : world.nodes_) each->check();
}

// The writer's machine is gone; a person takes everything on the other one. False: the story ends here.
bool take_by_force(ClusterWorld& world) {
  const std::size_t from = world.writer_;
  if (!world.node(from).up() || !world.other(from).up()) return true;
  world.converge("before the loss of a machine");
  for (auto& [object, image] : world.images_)
    if (world.node(from).volume->gate(object) != Gate::kOpen) return true;
  if (world.node(from).volume->gate(kNameSpace) != Gate::kOpen) return true;
  if (world.crashed_) world.settle_all(world.node(from), false);
  world.crashed_ = false;
  for (int i = 0; i < 5 && world.node(from).up(); ++i) {
    if (world.random_.one_in(4))
      world.change_names(from);
    else
      world.write(from, world.pick_image());
    if (world.random_.one_in(2) && world.node(from).up()) world.flush(from);
  }
  // The last of it may reach nobody.
  const ObjectId last = world.pick_image();
  if (world.random_.one_in(2) && world.node(from).up()) {
    world.shared_.network.cut("a", "b");
    world.write(from, last);
  }
  // Had it gone on alone before, taking by force would make a split brain.
  if (!world.node(from).up() || !world.node(from).in_sync()) return true;
  world.die(from, world.random_.one_in(2));
  world.writer_ = 1 - from;
  ClusterNode& node = world.node(world.writer_);
  world.pass_time(static_cast<std::int64_t>(world.random_.below(20 * kSecond)));
  if (!node.up()) return true;
  if (!world.promote_by_force(world.writer_)) return true;
  // In async mode too: a beginning of what was acknowledged, of each image and of the names.
  for (auto& [object, image] : world.images_) world.settle(node, object, true);
  world.settle_names(node, true);
  world.crashed_ = false;
  if (world.freezes()) {
    SIM_CHECK(!world.write(world.writer_, world.pick_image()), "freeze: {} acknowledges alone", node.name);
    if (!node.up()) return true;
    VolumeSettings settings = world.shared_.settings;
    settings.on_peer_loss = OnPeerLoss::kContinue;
    auto set = world.command(world.writer_, [&](Node::Done done) {
      node.node->set_settings(settings, std::move(done));
    });
    if (!set) return true;
  }
  // A taker that changed nothing would give way to the tail that the other kept.
  for (auto& [object, image] : world.images_)
    if (!node.up() || !world.write(world.writer_, object)) return false;
  // What only the other has of an image that is removed meanwhile must be kept all the same.
  std::optional<ObjectId> removed;
  if (world.images_.size() > 1 && world.random_.one_in(2)) {
    removed = world.random_.one_in(4) ? world.pick_image() : last;
    if (!world.remove_image(world.writer_, *removed)) return false;
  }
  const std::size_t names = world.names_.changes().size();
  world.change_names(world.writer_);
  if (!node.up() || world.names_.changes().size() == names) return false;
  if (world.random_.one_in(4)) {
    if (!world.replace(from)) return false;
    world.converge("after another node has joined");
    if (removed) world.forget_image(*removed);
    return true;
  }
  world.start(from);
  world.converge("after the return of a failed primary");
  for (auto& [object, image] : world.images_) world.check_kept(world.node(from), object);
  if (removed) world.forget_image(*removed);
  return true;
}

// A node is away for longer than the journal keeps records for it.
void overflow(ClusterWorld& world) {
  const std::size_t index = world.writer_;
  if (!world.node(index).up() || world.freezes()) return;
  if (world.other(index).up()) world.die(1 - index, world.random_.one_in(2));
  const std::uint64_t writes = world.random_.between(100, 400);
  for (std::uint64_t i = 0; i < writes && world.node(index).up(); ++i) {
    const ObjectId image = world.pick_image();
    if (world.node(index).volume->gate(image) == Gate::kOpen && !world.write(index, image)) return;
    if (world.random_.one_in(20) && world.node(index).up()) world.flush(index);
    if (world.random_.one_in(10)) world.pass_time(static_cast<std::int64_t>(world.random_.below(kSecond)));
  }
  world.start(1 - index);
}

// A person's part of the story.
void administer(ClusterWorld& world) {
  const std::size_t index = world.random_.below(2);
  if (!world.node(index).up()) return world.start(index);
  switch (world.random_.below(8)) {
    case 0:
    case 1:
    case 2: return world.promote(index);
    case 3:
    case 4: return world.demote(index);
    case 5:
    case 6: return world.unmount(index);
    default: return overflow(world);
  }
}

// Both sides are alive, cannot hear each other, and go on; then a person chooses. False: the story ends here.
bool split_brain(ClusterWorld& world) {
  world.converge("before the split");
  const std::size_t owner = world.writer_;
  auto owns_all = [&](std::size_t index) {
    ClusterNode& node = world.node(index);
    for (auto& [object, image] : world.images_)
      if (node.volume->gate(object) != Gate::kOpen) return false;
    return node.volume->gate(kNameSpace) == Gate::kOpen;
  };
  if (!owns_all(owner)) {
    world.promote(owner);
    world.pass_time(kSecond);  // the other hears of it
    if (!world.node(owner).up() || !owns_all(owner)) return true;
  }
  if (world.crashed_) world.settle_all(world.node(owner), false);
  world.crashed_ = false;
  // A peer that fell silent is noticed after five seconds.
  constexpr std::int64_t kSurelyNoticed = 8 * kSecond;
  world.shared_.network.cut("a", "b");
  bool noticed = world.random_.one_in(2);
  if (noticed) world.pass_time(kSurelyNoticed);
  // From here on each node has its own truth.
  std::map<ObjectId, ClusterImage> branches[2] = {world.images_, world.images_};
  ClusterNames names[2] = {world.names_, world.names_};
  auto side = [&](std::size_t index, auto act) {
    std::swap(world.images_, branches[index]);
    std::swap(world.names_, names[index]);
    act();
    std::swap(world.images_, branches[index]);
    std::swap(world.names_, names[index]);
  };
  std::set<GroupId> wrote[2], knowing;  // of the owner: changed when it knew that it was alone
  // False: a node died under it.
  auto write_some = [&](std::size_t index) {
    bool all = true;
    std::set<GroupId> changed;
    side(index, [&] {
      for (auto& [object, image] : world.images_) {
        if (world.random_.one_in(4)) continue;
        changed.insert(object);
        for (std::uint64_t i = world.random_.between(1, 3); i != 0 && all; --i) all = world.write(index, object);
      }
      const std::size_t changes = world.names_.changes().size();
      if (all && !world.random_.one_in(4)) {
        world.change_names(index);
        changed.insert(kNameSpace);
        all = world.node(index).up() && world.names_.changes().size() > changes;
      }
      if (index == owner && noticed) knowing = changed;
      if (all && world.random_.one_in(2) && !changed.empty()) {
        auto group = changed.begin();
        std::advance(group, world.random_.below(changed.size()));
        world.flush(index, *group);
        // Which is answered when it is clear that nobody will hear of it.
        if (index == owner && world.shared_.settings.mode != ReplicationMode::kAsync) knowing.insert(*group);
      }
      all = all && world.node(index).up();
    });
    wrote[index].merge(changed);
    return all;
  };
  const bool before = world.random_.one_in(2);
  if (before && !write_some(owner)) return false;
  if (!world.promote_by_force(1 - owner)) return false;
  side(1 - owner, [&] { world.settle_all(world.node(1 - owner), true); });
  // What has not reached the other is the owner's, too.
  for (auto& [object, image] : branches[owner])
    if (branches[1 - owner].at(object).writes().size() < image.writes().size()) wrote[owner].insert(object);
  if (names[1 - owner].changes().size() < names[owner].changes().size()) wrote[owner].insert(kNameSpace);
  if (!write_some(1 - owner)) return false;
  if (!before || world.random_.one_in(2)) {
    world.pass_time(kSurelyNoticed);
    noticed = true;
    const std::set<GroupId> earlier = knowing;
    if (!write_some(owner)) return false;
    knowing.insert(earlier.begin(), earlier.end());
  }
  // Not by power: what only one of them has is to be there when they meet.
  for (std::size_t index : {0, 1})
    if (world.random_.one_in(4)) side(index, [&] { world.die(index, false); });
  const std::size_t winner = world.random_.below(2);
  say("{} is to survive", world.node(winner).name);
  world.shared_.network.mend("a", "b");
  for (std::size_t index : {0, 1}) world.start(index);
  // An owner that never noticed that it was alone has no side: it follows. That is found out group by group.
  std::set<GroupId> split;
  for (int attempt = 0;; ++attempt) {
    SIM_CHECK(attempt < 60, "the split brain cannot be ended");
    for (std::size_t index : {0, 1})
      if (!world.node(index).up()) world.start(index);
    const bool told = world.run_until(
        [&] {
          return world.node(0).up() && world.node(1).up() && !world.split_groups(world.node(0)).empty() &&
                 !world.split_groups(world.node(1)).empty();
        },
        20 * kSecond);
    if (!told) break;
    const std::size_t at = world.random_.below(2);
    const std::vector<GroupId> groups = world.split_groups(world.node(at));
    split.insert(groups.begin(), groups.end());
    auto answer = world.command(at, [&](Node::Done done) {
      world.node(at).node->resolve(groups, at == winner, std::move(done));
    });
    say("resolve on {}: {}", world.node(at).name, !answer ? "no answer" : *answer ? **answer : answer->error().message);
    world.pass_time(static_cast<std::int64_t>(world.random_.below(2 * kSecond)));
    if (world.random_.one_in(6)) world.shared_.network.reset("a", "b");
    const std::size_t dies = world.random_.below(2);
    if (world.random_.one_in(8) && world.node(dies).up()) side(dies, [&] { world.die(dies, false); });
  }
  for (GroupId group : knowing)
    SIM_CHECK(!wrote[1 - owner].contains(group) || split.contains(group),
              "both sides of group {} have gone on, and that is no split brain", group);
  world.converge("after the split");
  // Where it was no split brain one side has followed: of two that have written the owner, which did not know; and nobody
  // who had gone on knowingly. An owner that did not know and a taker that wrote nothing: either.
  const auto survivor = [&](GroupId group) -> std::size_t {
    if (split.contains(group)) return winner;
    if (!wrote[owner].contains(group) || wrote[1 - owner].contains(group)) return 1 - owner;
    if (knowing.contains(group)) return owner;
    if (group == kNameSpace) {
      const auto found = world.names_of(world.node(0));
      return found && ClusterNames(names[owner]).settle(*found, false).empty() ? owner : 1 - owner;
    }
    const auto cells = world.read(world.node(0), group);
    return cells && ClusterImage(branches[owner].at(group)).settle(*cells, false, 0, 0).empty() ? owner : 1 - owner;
  };
  const std::size_t names_of = survivor(kNameSpace);
  world.names_ = names[names_of];
  if (wrote[1 - names_of].contains(kNameSpace)) world.check_kept_names(world.node(1 - names_of), names[1 - names_of]);
  world.writer_ = winner;
  for (auto& [object, image] : world.images_) {
    const std::size_t stays = survivor(object);
    image = branches[stays].at(object);
    if (!wrote[1 - stays].contains(object)) continue;
    image.replaces(branches[1 - stays].at(object));
    world.check_kept(world.node(1 - stays), object);
  }
  world.heal();
  return true;
}

void run_story(std::uint64_t seed, bool with_force) {
  ClusterPlan plan;
  plan.resolve_splits = with_force;
  plan.orphans_go = !with_force;
  ClusterWorld world(seed, plan);
  const std::uint64_t rounds = world.random_.between(1, 4);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const std::uint64_t steps = world.random_.between(5, 60);
    for (std::uint64_t i = 0; i < steps; ++i) {
      if (with_force && world.random_.one_in(40) && !take_by_force(world)) return;
      step(world);
    }
    world.heal();
  }
}

}  // namespace

void run_cluster_scenario(std::uint64_t seed) { run_story(seed, false); }
void run_failover_scenario(std::uint64_t seed) { run_story(seed, true); }

// Persons promote, demote, unmount, and leave a node off for long.
void run_administration_scenario(std::uint64_t seed) {
  ClusterPlan plan;
  plan.orphans_go = false;
  ClusterWorld world(seed, plan);
  const std::uint64_t rounds = world.random_.between(1, 3);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const std::uint64_t steps = world.random_.between(5, 40);
    for (std::uint64_t i = 0; i < steps; ++i) {
      world.random_.one_in(5) ? administer(world) : step(world);
      for (auto& node : world.nodes_) node->check();
    }
    world.heal();
  }
}

void run_split_scenario(std::uint64_t seed) {
  ClusterPlan plan;
  plan.on_peer_loss = OnPeerLoss::kContinue;
  plan.orphans_go = false;
  ClusterWorld world(seed, plan);
  const std::uint64_t rounds = world.random_.between(1, 2);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const std::uint64_t steps = world.random_.between(5, 20);
    for (std::uint64_t i = 0; i < steps; ++i) step(world);
    if (!split_brain(world)) return;
  }
}

// A writer that is faster than the line, in async mode: it is slowed down, and the peer, which stays
// connected, never loses its share of the journal.
void run_slow_line_scenario(std::uint64_t seed) {
  ClusterPlan plan;
  plan.mode = ReplicationMode::kAsync;
  plan.images = 1;
  PathOptions path;
  path.delay_ns = static_cast<std::int64_t>(Random(seed).between(1, 50)) * kMillisecond;
  path.jitter_ns = path.delay_ns / 4;
  path.bytes_per_second = Random(seed + 1).between(150'000, 4'000'000);
  plan.path = path;
  ClusterWorld world(seed, plan);
  const std::uint64_t writes = world.random_.between(300, 1500);
  const ObjectId image = world.images_.begin()->first;
  auto opened = world.node(0).volume->open_image(image, true);
  SIM_CHECK(opened.has_value(), "open: {}", opened.error().message);
  // What no line carries compressed.
  Bytes bytes(64 * kCell);
  for (std::uint64_t i = 0; i < writes; ++i) {
    const ChangeNumber number = world.next_++;
    const std::uint64_t first = world.random_.below(kCells - 64);
    for (std::uint64_t cell = 0; cell < 64; ++cell)
      mark_cell(bytes.data() + cell * kCell, number, first + cell);
    auto done = world.wait<void>(
        0, [&](const Caller& caller) { return world.node(0).volume->write(**opened, caller, first * kCell, bytes); },
        60 * kSecond);
    SIM_CHECK(done && *done, "write {} of {} is not taken within a minute: {}", i, writes,
              done ? done->error().message : "no answer");
    ClusterWrite write{number, first, 64, false, ClusterWrite::Kind::kWrite};
    write.end = world.node(0).volume->journal().written_lsn();
    world.images_.at(image).wrote(write);
    if (i % 16 == 0) world.pass_time(kMillisecond);
    SIM_CHECK(!world.full_copies(), "a peer that was connected all the time is copied whole");
    if (i % 64 == 0)
      for (auto& node : world.nodes_) node->check();
  }
  world.node(0).volume->close_image(*opened);
  const bool caught_up = world.run_until(
      [&] {
        SIM_CHECK(!world.full_copies(), "a peer that was connected all the time is copied whole");
        return world.node(0).settled() && world.node(1).settled();
      },
      300 * kSecond);
  SIM_CHECK(caught_up, "the peer does not catch up");
  world.heal();
}

}  // namespace vmfs::sim
