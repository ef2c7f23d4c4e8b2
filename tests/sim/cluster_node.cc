#include "tests/sim/cluster_node.h"

#include <algorithm>

#include "tests/sim/lib/scenario.h"

namespace vmfs::sim {

ClusterNode::ClusterNode(ClusterShared& shared, std::string name_in)
    : name(std::move(name_in)),
      id(new_node_id()),
      disk({.name = name,
            .clones = shared.random.one_in(2),
            .metadata_order =
                shared.random.one_in(2) ? MetadataOrder::kGlobal : MetadataOrder::kPerDirectory},
           shared.random.next(), &shared.clock),
      shared_(shared),
      peer_journal_max_(shared.random.one_in(2) ? 0 : 1u << 20) {
  if (!disk.make_directory("journal", "sim")) fail_scenario("the journal's directory");
  journal_disk_ = disk.subdirectory("journal");
  disk.set_hook([this](const DiskCall& call) -> std::optional<int> {
    watch(call);
    return std::nullopt;
  });
}

ClusterNode::~ClusterNode() {
  disk.stop();
  if (up()) end_process();
}

VolumeOptions ClusterNode::options() const {
  VolumeOptions options;
  options.journal.volume = shared_.volume;
  options.journal.node = id;
  options.journal.segment_size = 1u << 20;
  options.journal.size_max = 6u << 20;
  options.peer_journal_max = peer_journal_max_;
  options.memory_max = shared_.memory_max;
  options.has_peers = !known_peers_.empty();
  options.joining = joining_;
  return options;
}

void ClusterNode::create(bool joining) {
  joining_ = joining;
  auto made = Volume::create(disk, *journal_disk_, shared_.clock, options());
  SIM_CHECK(made.has_value(), "create {}: {}", name, made.error().message);
}

RequestId ClusterNode::ask() {
  const RequestId request{connection_, next_unique_++};
  unanswered_.insert(request.unique);
  return request;
}

bool ClusterNode::start(const std::vector<ClusterNode*>& peers, bool resume) {
  for (ClusterNode* peer : peers)
    if (std::none_of(known_peers_.begin(), known_peers_.end(),
                     [&](const PeerInfo& known) { return known.address == peer->name; }))
      known_peers_.push_back({joining_ ? NodeId{} : peer->id, peer->name, peer->name});
  resume = resume && connection_lives_;
  connection_lives_ = resume;
  Volume::OpenArguments arguments;
  if (resume) {
    arguments.connection = connection_;
    arguments.unanswered = {unanswered_.begin(), unanswered_.end()};
  } else {
    connection_ = new_connection_id();
    unanswered_.clear();
  }
  arguments.unanswered_now = [this] { return std::vector(unanswered_.begin(), unanswered_.end()); };
  auto opened = Volume::open(disk, *journal_disk_, shared_.clock, options(), arguments);
  if (!opened || disk.stopped()) {
    SIM_CHECK(disk.stopped() || troubled, "open {}: {}", name, opened.error().message);
    if (opened) opened->reset();
    disk.restart();
    return false;
  }
  volume = std::move(*opened);
  shell =
      std::make_unique<SimShell>(shared_.scheduler, shared_.network, name, shared_.random.next());
  NodeOptions node_options;
  node_options.volume = shared_.volume;
  node_options.node = id;
  node_options.node_name = name;
  node_options.address = name;
  node_options.joining = joining_;
  node_options.settings = shared_.settings;
  node_options.seed = shared_.random.next() | 1;
  node_options.peers = known_peers_;
  node_options.removed = removed_;
  NodeCallbacks callbacks;
  callbacks.admitted = [this] { joining_ = false; };
  callbacks.settings_changed = [this](const VolumeSettings& settings) { shared_.settings = settings; };
  callbacks.peer_removed = [this](NodeId id) {
    std::erase_if(known_peers_, [id](const PeerInfo& known) { return known.id == id; });
    removed_.push_back(id);
  };
  callbacks.peer_changed = [this](const PeerInfo& info) {
    for (PeerInfo& known : known_peers_)
      if (known.address == info.address) {
        known = info;
        return;
      }
    known_peers_.push_back(info);
  };
  node = std::make_unique<Node>(*volume, *shell, shared_.clock, node_options, callbacks);
  volume->set_hooks(node.get());
  shell->set_tick([this] { node->tick(); });
  shell->listen(*node, [this](std::unique_ptr<Link> link) { node->link_opened(std::move(link)); });
  node->start();
  invariants_ = std::make_unique<VolumeInvariants>(
      *volume, shared_.names,
      [this](const RecordHeader& header, ByteView payload, Lsn end) { note(header, payload, end); });
  background(++life);
  say("{} {}", name, resume ? "goes on" : "starts");
  if (resume) check_goes_on();
  connection_lives_ = true;
  return true;
}

// The guests never noticed: what was theirs to write is.
void ClusterNode::check_goes_on() {
  for (GroupId group : open_groups_) {
    if (!volume->group(group)) continue;
    const Gate gate = volume->gate(group);
    SIM_CHECK(gate == Gate::kOpen || gate == Gate::kFrozen,
              "{}: group {} was open before the daemon died, and its gate is {} after it", name, group,
              static_cast<int>(gate));
  }
}

void ClusterNode::background(std::uint64_t of_life) {
  shared_.scheduler.after(10 * kMillisecond, [this, of_life] {
    if (life != of_life || !up()) return;
    // A disk that fails is asked again after a second, as the workers do.
    auto unless_failed = [this](std::int64_t& failed_ns, auto work) {
      const std::int64_t now = shared_.scheduler.now();
      if (failed_ns != 0 && now - failed_ns < kSecond) return;
      failed_ns = work() ? 0 : now;
    };
    unless_failed(prepare_failed_ns_, [this] { return volume->journal().prepare_segments().has_value(); });
    unless_failed(sync_failed_ns_, [this] { return volume->sync_if_due().has_value(); });
    unless_failed(apply_failed_ns_, [this] { return volume->apply_some(false).has_value(); });
    volume->run_parked();
    background(of_life);
  });
}

void ClusterNode::end_process() {
  ++life;
  shell->kill();
  volume->set_hooks(nullptr);
  invariants_.reset();
  node.reset();
  volume.reset();
  shell.reset();
}

void ClusterNode::die(bool power) {
  say("{} {}", name, power ? "loses its power" : "is killed");
  power ? shared_.network.power_lost(name) : shared_.network.process_died(name);
  connection_lives_ = !power;
  // What no sync had confirmed may be gone, and its place in the journal be another's.
  if (power && !troubled)
    std::erase_if(ends_, [durable = volume->journal().durable_lsn()](const auto& entry) {
      return entry.second > durable;
    });
  // That a group is settled is on disk a moment later; before that, it may have to be settled again.
  open_groups_.clear();
  for (const auto& [group, since] : open_since_)
    if (volume->gate(group) == Gate::kOpen && shared_.scheduler.now() - since >= kSecond)
      open_groups_.push_back(group);
  open_since_.clear();
  disk.stop();
  end_process();
  power ? disk.lose_power() : disk.restart();
}

bool ClusterNode::unmount() {
  shared_.network.process_died(name);
  connection_lives_ = false;
  open_groups_.clear();
  open_since_.clear();
  ++life;
  volume->set_hooks(nullptr);
  node.reset();
  auto closed = volume->close();
  SIM_CHECK(closed || troubled || disk.stopped(), "{} cannot be closed: {}", name, closed.error().message);
  say("{} is {}", name, closed ? "closed" : closed.error().message);
  invariants_.reset();
  shell->kill();
  volume.reset();
  shell.reset();
  const bool whole = closed && !disk.stopped();
  disk.restart();
  return whole;
}

bool ClusterNode::in_sync() {
  const NodeStatus status = node->status();
  return !status.peers.empty() &&
         std::all_of(status.peers.begin(), status.peers.end(),
                     [](const PeerStatus& peer) { return peer.sync == PeerSync::kInSync; });
}

bool ClusterNode::settled() {
  if (!up() || !in_sync()) return false;
  const NodeStatus status = node->status();
  return status.ready &&
         std::all_of(status.images.begin(), status.images.end(), [](const ImageStatus& image) {
           return image.role == Role::kPrimary || image.role == Role::kSecondary;
         });
}

void ClusterNode::note(const RecordHeader& header, ByteView payload, Lsn end) {
  const bool data = header.type == RecordType::kWrite ||
                    (header.type == RecordType::kBaseData && header.group != raw(kNameSpace));
  if (!data) return;
  const std::uint64_t skipped = (kCell - header.offset % kCell) % kCell;
  for (std::uint64_t at = skipped; at + kCell <= payload.size(); at += kCell) {
    auto mark = read_mark(payload.data() + at, (header.offset + at) / kCell);
    if (!mark || *mark == 0) continue;
    auto [entry, first] = ends_.try_emplace(*mark, end);
    if (!first) entry->second = std::min(entry->second, end);
  }
}

void ClusterNode::check_store() {
  const Lsn durable = volume->journal().durable_lsn();
  for (const std::string& image : shared_.images) {
    auto content = read_whole_file(disk, "images/" + image, "sim.check");
    if (!content) continue;  // a rename is being redone, or the disk has come to its end
    for (std::uint64_t i = 0; (i + 1) * kCell <= content->size(); ++i) {
      auto mark = read_mark(content->data() + i * kCell, i);
      SIM_CHECK(mark, "invariant 1: the store of {} has bytes in {} cell {} that nobody wrote", name, image, i);
      if (*mark == 0) continue;
      auto end = ends_.find(*mark);
      SIM_CHECK(end != ends_.end(), "invariant 1: the store of {} has change {} in {}, which its journal never had",
                name, *mark, image);
      SIM_CHECK(end->second <= durable,
                "invariant 2: the store of {} has change {} in {}, which ends at {} and is not durable (the "
                "journal is up to {})",
                name, *mark, image, end->second, durable);
    }
  }
}

// Between two writes to the store, after the last of them, and before journal space is freed.
void ClusterNode::watch(const DiskCall& call) {
  if (!invariants_ || watching_ || !wrong_.empty() || disk.stopped()) return;
  const std::string_view label(call.label);
  const bool applying = label == "store.apply" && call.operation == Operation::kWrite;
  if (!applying && label != "store.checkpoint" && label != "state.write") return;
  if (label != "state.write" && !shared_.random.one_in(applying ? 8 : 2)) return;
  watching_ = true;
  try {
    invariants_->check_new_records();
    check_store();
  } catch (const SimFailure& failure) {
    if (!disk.stopped()) wrong_ = failure.what;
  }
  watching_ = false;
}

void ClusterNode::check() {
  if (!wrong_.empty()) throw SimFailure{wrong_};
  if (!up() || disk.stopped()) return;
  for (const GroupState& group : volume->groups()) {
    if (volume->gate(group.id) == Gate::kOpen)
      open_since_.try_emplace(group.id, shared_.scheduler.now());
    else
      open_since_.erase(group.id);
  }
  invariants_->check_new_records();
  invariants_->check_journal();
  invariants_->check_histories();
  if (shared_.random.one_in(8)) check_store();
}

}  // namespace vmfs::sim
