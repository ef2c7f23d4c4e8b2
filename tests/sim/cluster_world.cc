#include "tests/sim/cluster_world.h"

#include <algorithm>

namespace vmfs::sim {

ClusterWorld::ClusterWorld(std::uint64_t seed, const ClusterPlan& plan)
    : ids_(seed), shared_(seed), random_(shared_.random.fork()), plan_(plan) {
  shared_.volume = new_volume_id();
  static constexpr ReplicationMode kModes[] = {ReplicationMode::kSync, ReplicationMode::kSync,
                                               ReplicationMode::kSemisync, ReplicationMode::kAsync};
  shared_.settings.mode = plan.mode.value_or(kModes[random_.below(4)]);
  if (plan.on_peer_loss.value_or(random_.one_in(3) ? OnPeerLoss::kFreeze : OnPeerLoss::kContinue) ==
      OnPeerLoss::kFreeze)
    shared_.settings.on_peer_loss = OnPeerLoss::kFreeze;
  // Now and then less than the images' cells need.
  shared_.memory_max = random_.one_in(3) ? random_.between(1, 16) << 10 : 256u << 20;
  say("mode {}{}, memory {}", to_string(shared_.settings.mode), freezes() ? ", freeze" : "", shared_.memory_max);
  PathOptions path;
  path.delay_ns = static_cast<std::int64_t>(random_.between(50'000, 20'000'000));
  path.jitter_ns = path.delay_ns / 4;
  path.bytes_per_second = random_.between(1u << 20, 1u << 30);
  shared_.network.set_path("a", "b", plan.path.value_or(path));
  for (const char* name : {"a", "b"}) {
    nodes_.push_back(std::make_unique<ClusterNode>(shared_, name));
    nodes_.back()->create(nodes_.size() == 2);
  }
  nodes_[0]->start({});
  nodes_[1]->start({nodes_[0].get()});
  converge("at the beginning");
  const std::size_t images = plan.images != 0 ? plan.images : random_.between(1, 4);
  for (std::size_t i = 0; i < images; ++i) {
    const std::string name = fmt::format("image{}", i);
    auto made = wait<ObjectId>(0, [&](const Caller& caller) -> Result<ObjectId> {
      auto created = nodes_[0]->volume->create(caller, kRootObject, name, 0600);
      if (!created) return pass(std::move(created.error()));
      return created->object;
    });
    SIM_CHECK(made && *made, "create: {}", made ? made->error().message : "no answer");
    images_.emplace(**made, ClusterImage(name));
    shared_.images.push_back(name);
  }
  converge("with its images");
}

bool ClusterWorld::run_until(const std::function<bool()>& done, std::int64_t limit_ns) {
  return shared_.scheduler.run_until(
      [&] {
        for (std::size_t i = 0; i < nodes_.size(); ++i) {
          if (nodes_[i]->must_die())
            die(i, random_.one_in(2));
          else if (nodes_[i]->journal_dead())
            // As the holder does: another daemon takes over, or a person looks at the machine.
            die(i, random_.one_in(4));
        }
        for (std::size_t i = 0; i < nodes_.size(); ++i) note_alone(i);
        return done();
      },
      shared_.scheduler.now() + limit_ns);
}

std::optional<Result<std::string>> ClusterWorld::command(std::size_t index,
                                                         std::function<void(Node::Done)> give) {
  ClusterNode& node = *nodes_[index];
  const std::uint64_t life = node.life;
  auto answer = std::make_shared<std::optional<Result<std::string>>>();
  give([answer](Result<std::string> result) { *answer = std::move(result); });
  run_until([&] { return answer->has_value() || node.life != life; }, 30 * kSecond);
  if (node.life != life || node.disk.stopped()) return std::nullopt;
  SIM_CHECK(answer->has_value(), "a command to {} is not answered", node.name);
  return std::move(**answer);
}

// --- What happens to the nodes -----------------------------------------------------------------------

std::size_t ClusterWorld::index_of(const ClusterNode& node) const {
  std::size_t index = 0;
  while (nodes_[index].get() != &node) ++index;
  return index;
}

void ClusterWorld::die(std::size_t index, bool power) {
  ClusterNode& node = *nodes_[index];
  // The death of the process takes nothing that was acknowledged, but for what a failed write or sync
  // has left in the cache only. The loss of power takes what no sync had confirmed.
  if (power || node.journal_failed) {
    const Lsn durable = node.journal_failed ? 0 : node.volume->journal().durable_lsn();
    for (auto& [object, image] : images_) image.lost_memory(index, durable);
  }
  node.die(power);
  crashed_ = true;
}

bool ClusterWorld::resume(std::size_t index) {
  ClusterNode& node = *nodes_[index];
  for (int attempt = 0; attempt < 3 && node.connection_lives() && !node.troubled; ++attempt) {
    if (random_.one_in(2)) return false;
    if (random_.one_in(4)) pass_time(static_cast<std::int64_t>(random_.below(3 * kSecond)));
    if (node.start({&other(index)}, true)) return true;
  }
  return false;
}

void ClusterWorld::fail_disk(std::size_t index) {
  ClusterNode& node = *nodes_[index];
  if (!node.up()) return;
  static constexpr const char* kLabels[] = {"journal.sync", "journal.append", "store.checkpoint",
                                            "store.sync_names", "state.write", "store.apply"};
  const std::uint64_t what = random_.below(8);
  if (what >= 6) {
    say("{}'s disk fills up", node.name);
    node.disk.set_capacity(node.disk.used() + (random_.below(3) << 19));
  } else {
    say("{}'s disk fails at {}", node.name, kLabels[what]);
    // A failing sync or write, now and then all of them until the disk is mended.
    node.disk.fail_calls(kLabels[what],
                         what == 1 ? std::optional(Operation::kWrite) : std::nullopt,
                         random_.between(1, 6), random_.one_in(3) ? ENOSPC : EIO,
                         random_.one_in(5));
    node.journal_failed |= what <= 1;
  }
  node.troubled = true;
}

void ClusterWorld::mend_disks() {
  for (auto& node : nodes_) {
    node->disk.heal();
    node->disk.set_capacity(1ull << 40);
    node->disk.stop_at_change(0);
  }
}

// --- The client ------------------------------------------------------------------------------------------

ObjectId ClusterWorld::pick_image() {
  auto image = images_.begin();
  std::advance(image, random_.below(images_.size()));
  return image->first;
}

std::optional<std::vector<ChangeNumber>> ClusterWorld::read(ClusterNode& node, ObjectId object) {
  auto image = node.volume->open_image(object, false);
  if (!image && (node.disk.stopped() || image.error().kind == ErrorKind::kNotFound)) return {};
  SIM_CHECK(image.has_value(), "open on {}: {}", node.name, image.error().message);
  Bytes bytes(kCells * kCell);
  auto size = node.volume->read(**image, 0, bytes);
  if (node.disk.stopped()) return {};
  SIM_CHECK(size.has_value(), "read on {}: {}", node.name, size.error().message);
  node.volume->close_image(*image);
  std::vector<ChangeNumber> cells(*size / kCell);
  for (std::uint64_t i = 0; i < cells.size(); ++i) {
    auto mark = read_mark(bytes.data() + i * kCell, i);
    SIM_CHECK(mark, "{} on {} cell {} holds bytes that were never written",
              images_.at(object).name(), node.name, i);
    cells[i] = *mark;
  }
  return cells;
}

std::optional<ClusterNames::State> ClusterWorld::names_of(ClusterNode& node) {
  auto entries = node.volume->list(kRootObject);
  if (!entries || node.disk.stopped()) return {};
  ClusterNames::State names;
  for (const ListedEntry& entry : *entries) {
    if (entry.name == ".snapshots" || entry.name.starts_with("open") || images_.contains(entry.object))
      continue;
    auto attributes = node.volume->attributes(entry.object);
    SIM_CHECK(attributes.has_value(), "{} has {} and no attributes of it", node.name, entry.name);
    names[entry.name] = attributes->stat.permissions;
  }
  return names;
}

void ClusterWorld::settle(ClusterNode& node, ObjectId object, bool forced) {
  const auto cells = read(node, object);
  if (!cells) return;
  const std::string wrong = images_.at(object).settle(*cells, forced, index_of(node),
                                                       node.volume->journal().written_lsn());
  SIM_CHECK(wrong.empty(), "invariant {} on {}: {}", forced ? "5, taken by force" : "7, primary", node.name, wrong);
}

void ClusterWorld::settle_names(ClusterNode& node, bool forced) {
  const auto names = names_of(node);
  if (!names) return;
  const std::string wrong = names_.settle(*names, forced);
  SIM_CHECK(wrong.empty(), "invariant {} on {}: {}", forced ? "5, taken by force" : "7, primary", node.name, wrong);
}

void ClusterWorld::settle_all(ClusterNode& node, bool forced) {
  for (auto& [each, known] : images_)
    if (node.volume->gate(each) == Gate::kOpen) settle(node, each, forced);
  if (node.volume->gate(kNameSpace) == Gate::kOpen) settle_names(node, forced);
}

bool ClusterWorld::remove_image(std::size_t index, ObjectId object) {
  const std::string name = images_.at(object).name();
  auto done = wait<void>(index, [&](const Caller& caller) {
    return nodes_[index]->volume->unlink(caller, kRootObject, name);
  });
  say("{} removes {}: {}", nodes_[index]->name, name, !done ? "no answer" : *done ? "done" : done->error().message);
  return done && *done;
}

void ClusterWorld::forget_image(ObjectId object) {
  for (auto& node : nodes_)
    SIM_CHECK(!node->up() || node->disk.stopped() || !node->volume->group(object),
              "{} was removed, and {} has it still", images_.at(object).name(), node->name);
  std::erase(shared_.images, images_.at(object).name());
  images_.erase(object);
}

bool ClusterWorld::write(std::size_t index, ObjectId object) {
  ClusterNode& node = *nodes_[index];
  ClusterImage& image = images_.at(object);
  // A handle outlives the daemon: the next one opens it again.
  struct Handle {
    ObjectRef image;
    std::uint64_t life = 0;
  } handle;
  auto open = [&]() -> Result<ObjectRef> {
    if (handle.image && handle.life == node.life) return handle.image;
    VMFS_ASSIGN(handle.image, node.volume->open_image(object, true, handle.image != nullptr));
    handle.life = node.life;
    return handle.image;
  };
  if (!open()) return false;
  ClusterWrite write;
  write.number = next_++;
  write.first = random_.below(kCells);
  write.count = 1 + random_.below(std::min<std::uint64_t>(kCells - write.first, 64));
  if (random_.one_in(8))
    write.kind = random_.one_in(2) ? ClusterWrite::Kind::kZero : ClusterWrite::Kind::kTruncate;
  Bytes bytes(write.count * kCell);
  for (std::uint64_t i = 0; i < write.count; ++i)
    mark_cell(bytes.data() + i * kCell, write.number, write.first + i);
  auto change = [&](const Caller& caller) -> Result<> {
    // Before the first change after a crash: what is there now?
    if (node.volume->gate(object) == Gate::kOpen && crashed_) settle_all(node, false);
    const std::uint64_t offset = write.first * kCell;
    VMFS_ASSIGN(ObjectRef opened, open());
    if (write.kind == ClusterWrite::Kind::kZero)
      return node.volume->zero(*opened, caller, offset, bytes.size(), true, true);
    if (write.kind == ClusterWrite::Kind::kTruncate) {
      auto set = node.volume->set_attributes(caller, object, {.set = {}, .size = offset});
      return set ? Result<>() : pass(std::move(set.error()));
    }
    return node.volume->write(*opened, caller, offset, bytes);
  };
  write.in_doubt = true;
  auto done = wait<void>(index, change, 15 * kSecond, [&] { image.may_have(write); });
  const bool unknown = !done || (!*done && done->error().kind == ErrorKind::kIo && node.troubled);
  if (unknown) {
    image.may_have(write);
    // It may yet happen: only a restart tells.
    if (node.up()) die(index, random_.one_in(4));
    return false;
  }
  if (node.up() && handle.life == node.life)
    node.volume->close_image(handle.image);
  say("write {} of {} on {}: {}", write.number, image.name(), node.name,
      *done ? "ok" : done->error().message);
  if (*done) check_not_alone(index);
  write.in_doubt = false;
  write.node = index;
  write.end = node.volume ? node.volume->journal().written_lsn() : 0;
  *done ? image.wrote(write) : image.has_not(write.number);
  return done->has_value();
}

void ClusterWorld::flush(std::size_t index, std::optional<GroupId> group) {
  ClusterNode& node = *nodes_[index];
  const bool names = group ? *group == kNameSpace : random_.one_in(4);
  const ObjectId object = group ? *group : names ? kNameSpace : pick_image();
  // Where nothing may be changed a flush promises nothing, and leaves no trace either.
  const bool open = node.volume->gate(object) == Gate::kOpen;
  // It promises what is there now: not what a crash may have taken before.
  if (crashed_ && open) names ? settle_names(node, false) : settle(node, object, false);
  ObjectRef image;
  if (!names) {
    auto opened = node.volume->open_image(object, true);
    if (!opened) return;
    image = *opened;
  }
  const bool before = shared_.settings.mode != ReplicationMode::kAsync && node.in_sync();
  const std::size_t changes = names ? names_.changes().size() : images_.at(object).writes().size();
  auto answer = std::make_shared<std::optional<Result<>>>();
  const std::uint64_t life = node.life;
  auto done = [answer](Result<> result) { *answer = std::move(result); };
  names ? node.volume->flush_names({}, done) : node.volume->flush(*image, {}, done);
  run_until([&] { return answer->has_value() || node.life != life; }, 30 * kSecond);
  if (node.life != life || node.disk.stopped()) return;
  if (image) node.volume->close_image(image);
  if (!answer->has_value() || !**answer || !open) return;
  // Who freezes acknowledges nothing that the peer does not have.
  const bool with_peer = freezes() || (before && node.in_sync());
  const bool on_both = with_peer && shared_.settings.mode == ReplicationMode::kSync;
  say("flush of {} on {}: {}", names ? "names" : images_.at(object).name(), node.name,
      on_both ? "both" : with_peer ? "the peer has received it" : "alone");
  if (!names) {
    images_.at(object).flushed(changes, on_both);
    if (with_peer) images_.at(object).held(changes, 1 - index);
  } else if (on_both) {
    names_.flushed_on_both(changes);
  }
}

void ClusterWorld::change_names(std::size_t index) {
  ClusterNode& node = *nodes_[index];
  const auto now = names_.now();
  ClusterNameChange change;
  change.name = std::string(1, static_cast<char>('p' + random_.below(6)));
  change.to = std::string(1, static_cast<char>('p' + random_.below(6)));
  if (!now.contains(change.name)) {
    change.kind = ClusterNameChange::Kind::kCreate;
    change.permissions = next_permissions_++ % 512;
  } else {
    change.kind = random_.one_in(2) && change.to != change.name ? ClusterNameChange::Kind::kRename
                                                                : ClusterNameChange::Kind::kRemove;
  }
  auto make = [&](const Caller& caller) -> Result<> {
    if (node.volume->gate(kNameSpace) == Gate::kOpen && crashed_) settle_all(node, false);
    switch (change.kind) {
      case ClusterNameChange::Kind::kCreate: {
        auto made = node.volume->create(caller, kRootObject, change.name, change.permissions);
        return made ? Result<>() : pass(std::move(made.error()));
      }
      case ClusterNameChange::Kind::kRemove:
        return node.volume->unlink(caller, kRootObject, change.name);
      case ClusterNameChange::Kind::kRename:
        return node.volume->rename(caller, kRootObject, change.name, kRootObject, change.to, false);
    }
    return {};
  };
  // Whether what it is made of is there: another node's names may be those of a moment ago.
  const bool certain = !crashed_ && node.volume->gate(kNameSpace) == Gate::kOpen;
  change.number = next_++;
  change.in_doubt = true;
  auto done = wait<void>(index, make, 15 * kSecond, [&] { names_.may_have(change); });
  if (done && !*done) {
    const ErrorKind kind = done->error().kind;
    say("names on {}: {} {}: {}", node.name, static_cast<int>(change.kind), change.name,
        done->error().message);
    if (kind != ErrorKind::kIo && kind != ErrorKind::kNoSpace) {
      SIM_CHECK(!certain || (kind != ErrorKind::kExists && kind != ErrorKind::kNotFound),
                "a change of names on {} meets one that nobody made: {}", node.name,
                done->error().message);
      return names_.has_not(change.number);
    }
    SIM_CHECK(node.troubled, "a change of names fails without a reason: {}", done->error().message);
  } else if (done) {
    say("names on {}: {} {} {}", node.name, static_cast<int>(change.kind), change.name, change.to);
  }
  change.in_doubt = !done || !*done;
  if (!change.in_doubt) return names_.changed(change);
  names_.may_have(change);
  if (node.up()) die(index, random_.one_in(4));
}

// Its bytes stay for whoever has it open, and only for them.
void ClusterWorld::unlink_while_open(std::size_t index) {
  ClusterNode& node = *nodes_[index];
  const std::string name = fmt::format("open{}", next_++);
  auto made = wait<ObjectId>(index, [&](const Caller& caller) -> Result<ObjectId> {
    auto created = node.volume->create(caller, kRootObject, name, 0600);
    if (!created) return pass(std::move(created.error()));
    return created->object;
  });
  if (!made || !*made) return;
  const std::uint64_t life = node.life;
  auto image = node.volume->open_image(**made, true);
  if (!image) return;
  const std::string text(20'000, static_cast<char>('a' + next_ % 26));
  auto written = wait<void>(
      index, [&](const Caller& caller) { return node.volume->write(**image, caller, 0, as_bytes(text)); });
  std::optional<Result<>> gone;
  if (written && *written)
    gone = wait<void>(index, [&](const Caller& caller) {
      return node.volume->unlink(caller, kRootObject, name);
    });
  if (gone && *gone) {
    pass_time(static_cast<std::int64_t>(random_.below(8 * kSecond)));
    if (node.life != life || node.disk.stopped()) return;
    std::string found(text.size(), '?');
    auto got = node.volume->read(**image, 0, std::as_writable_bytes(std::span(found)));
    if (node.disk.stopped()) return;
    SIM_CHECK(got && found == text, "an image that was unlinked while open on {}: {}", node.name,
              got ? "other bytes" : got.error().message);
  }
  if (node.life == life && node.up()) node.volume->close_image(*image);
}

void ClusterWorld::look(std::size_t index) {
  ClusterNode& node = *nodes_[index];
  if (!node.up() || crashed_) return;
  const ObjectId object = pick_image();
  const Gate gate = node.volume->gate(object);
  if (gate != Gate::kSecondary && gate != Gate::kOpen) return;
  const auto cells = read(node, object);
  if (!cells) return;
  const std::string wrong = images_.at(object).check_some_moment(*cells);
  SIM_CHECK(wrong.empty(), "invariant 4: on {}: {}", node.name, wrong);
}

// --- The end -------------------------------------------------------------------------------------------------

bool ClusterWorld::full_copies() {
  for (auto& node : nodes_) {
    if (!node->up()) continue;
    for (const PeerStatus& peer : node->node->status().peers)
      if (peer.sync == PeerSync::kFullCopy) return true;
    for (const GroupState& group : node->volume->groups())
      if (group.inconsistent) return true;
  }
  return false;
}

std::vector<GroupId> ClusterWorld::split_groups(ClusterNode& node) {
  std::vector<GroupId> groups;
  for (const ImageStatus& image : node.node->status().images)
    if (image.role == Role::kSplit) groups.push_back(image.group);
  return groups;
}

void ClusterWorld::converge(const char* when) {
  shared_.network.mend("a", "b");
  for (int attempt = 0; attempt < 20; ++attempt) {
    mend_disks();
    for (std::size_t i : {0, 1})
      if (nodes_.size() == 2 && !nodes_[i]->up()) start(i);
    if (run_until([&] { return nodes_[0]->settled() && nodes_[1]->settled(); }, 15 * kSecond)) {
      for (auto& node : nodes_) node->troubled = node->journal_failed = false;
      return;
    }
    if (plan_.resolve_splits) end_split_brains();
  }
  std::string why;
  for (auto& node : nodes_) {
    if (!node->up()) continue;
    const NodeStatus status = node->node->status();
    why += fmt::format(" {}: {}", node->name, status.ready ? "ready" : status.ready_reason);
    for (const PeerStatus& peer : status.peers)
      why += fmt::format(", {} {}", to_string(peer.link), to_string(peer.sync));
    for (const ImageStatus& image : status.images)
      why += fmt::format(", \"{}\" {}", image.path, to_string(image.role));
    for (const std::string& problem : node->volume->problems()) why += "; " + problem;
  }
  fail_scenario("no convergence {}:{}", when, why);
}

// The failed primary may have begun an epoch that nobody else knew, before it died: then a person
// has to choose, and chooses the side that went on.
void ClusterWorld::end_split_brains() {
  ClusterNode& node = *nodes_[writer_];
  if (!node.up()) return;
  std::vector<GroupId> groups = split_groups(node);
  if (groups.empty()) return;
  say("{} groups are split: {} is kept", groups.size(), node.name);
  node.node->resolve(groups, true, [](Result<std::string>) {});
}

}  // namespace vmfs::sim
