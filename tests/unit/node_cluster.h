// Two or more whole nodes in one process and in virtual time: real volumes on simulated disks, real
// Nodes over simulated links. For the tests of net/node.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fs/volume/volume.h"
#include "net/node/node.h"
#include "tests/sim/lib/sim_disk.h"
#include "tests/sim/lib/sim_network.h"
#include "tests/sim/lib/sim_shell.h"

namespace vmfs::sim {

inline constexpr std::int64_t kMillisecond = 1'000'000;
inline constexpr std::int64_t kSecond = 1'000'000'000;

class Cluster;

// One machine: its disks outlive its process.
class Member {
 public:
  Member(Cluster& cluster, std::string name, std::uint64_t id);

  void create(bool joining);
  // Starts the process. peers: names of members that it is configured with.
  // resume: only the daemon died, and the FUSE connection goes on.
  void start(std::vector<std::string> peers, bool resume = false);
  void kill();        // the process
  void power_loss();  // the machine
  void clean_stop();  // hands over, closes
  bool up() const { return node != nullptr; }

  // Runs a change of the volume until it is not told to wait any more; the cluster's time goes on.
  template <class F>
  auto change(F f) -> decltype(f());
  Result<ObjectId> make(const std::string& name);
  Result<> write(const std::string& name, std::uint64_t offset, const std::string& text);
  Result<> flush(const std::string& name);
  std::string read(const std::string& name, std::uint64_t offset, std::size_t size);
  GroupId group(const std::string& name);
  Result<std::string> command(std::function<void(Node::Done)> give);
  Result<std::string> promote(const std::string& name, bool force);
  NodeStatus status() { return node->status(); }
  PeerSync sync_of(std::size_t peer = 0) { return node->status().peers.at(peer).sync; }
  // The images as plain files, after everything was applied: path -> content.
  std::map<std::string, std::string> stored();

  Cluster& cluster;
  const std::string name;
  const NodeId id;
  VolumeSettings settings;
  bool joining = false;
  std::int64_t start_alone_after_ns = 0;
  std::uint64_t kept_for_absent = 0;  // 0: half of the journal
  std::vector<std::string> peer_names;
  std::vector<NodeId> removed;
  NodeCallbacks callbacks;  // of every process from here on, beside what this class needs itself
  std::uint64_t journal_size = 12u << 20;
  std::unique_ptr<SimDisk> store, journal;
  std::unique_ptr<Volume> volume;
  std::unique_ptr<SimShell> shell;
  std::unique_ptr<Node> node;
  Caller caller;
  std::uint64_t life = 0;

 private:
  void background(std::uint64_t life);
  void end_process();
  VolumeOptions volume_options() const;
  void list(const std::string& path, std::map<std::string, std::string>& out);
};

class Cluster {
 public:
  explicit Cluster(std::uint64_t seed) : network(scheduler, seed), random(seed) {}
  Member& add(const std::string& name, bool joining, std::uint64_t journal_size = 12u << 20) {
    members.push_back(std::make_unique<Member>(*this, name, members.size() + 1));
    members.back()->journal_size = journal_size;
    members.back()->create(joining);
    return *members.back();
  }
  Member& member(const std::string& name) {
    for (auto& each : members)
      if (each->name == name) return *each;
    FAIL("no such member");
    return *members.front();
  }
  void run(std::int64_t ns) { scheduler.run_until(scheduler.now() + ns); }
  bool until(const std::function<bool()>& done, std::int64_t limit_ns = 60 * kSecond) {
    return scheduler.run_until(done, scheduler.now() + limit_ns);
  }
  bool in_sync() {
    for (auto& each : members) {
      if (!each->up()) continue;
      for (const PeerStatus& peer : each->status().peers)
        if (peer.sync != PeerSync::kInSync) return false;
    }
    return true;
  }

  SimClock clock;
  Scheduler scheduler{clock};
  SimNetwork network;
  Random random;
  VolumeId volume_id{std::byte{7}};
  std::vector<std::unique_ptr<Member>> members;
};

inline Member::Member(Cluster& cluster, std::string name_in, std::uint64_t number)
    : cluster(cluster), name(std::move(name_in)), id{NodeId{number}} {
  store = std::make_unique<SimDisk>(SimDiskOptions{.name = name + "-store"}, number * 7,
                                    &cluster.clock);
  journal = std::make_unique<SimDisk>(SimDiskOptions{.name = name + "-journal"}, number * 11,
                                      &cluster.clock);
}

inline VolumeOptions Member::volume_options() const {
  VolumeOptions options;
  options.journal.volume = cluster.volume_id;
  options.journal.node = id;
  options.journal.segment_size = 1u << 20;
  options.journal.size_max = journal_size;
  options.peer_journal_max = kept_for_absent;
  options.has_peers = !peer_names.empty();
  options.joining = joining;
  return options;
}

inline void Member::create(bool joins) {
  joining = joins;
  auto made = Volume::create(*store, *journal, cluster.clock, volume_options());
  REQUIRE_MESSAGE(made, (made ? "" : made.error().message));
}

inline void Member::start(std::vector<std::string> peers, bool resume) {
  REQUIRE_FALSE(up());
  peer_names = std::move(peers);
  Volume::OpenArguments arguments;
  if (resume) arguments.connection = ConnectionId{raw(id)};
  auto opened = Volume::open(*store, *journal, cluster.clock, volume_options(), arguments);
  REQUIRE_MESSAGE(opened, (opened ? "" : opened.error().message));
  volume = std::move(*opened);
  shell = std::make_unique<SimShell>(cluster.scheduler, cluster.network, name, cluster.random.next());
  NodeOptions options;
  options.volume = cluster.volume_id;
  options.node = id;
  options.node_name = name;
  options.address = name;
  options.joining = joining;
  options.settings = settings;
  options.start_alone_after_ns = start_alone_after_ns;
  options.removed = removed;
  options.seed = cluster.random.next() | 1;
  for (const std::string& peer : peer_names)
    options.peers.push_back({joining ? NodeId{} : cluster.member(peer).id, peer, peer});
  NodeCallbacks process = callbacks;
  process.admitted = [this] { joining = false; };
  process.peer_changed = [this](const PeerInfo& info) {
    for (const std::string& known : peer_names)
      if (known == info.address) return;
    peer_names.push_back(info.address);
  };
  node = std::make_unique<Node>(*volume, *shell, cluster.clock, options, process);
  volume->set_hooks(node.get());
  shell->set_tick([this] { node->tick(); });
  shell->listen(*node, [this](std::unique_ptr<Link> link) { node->link_opened(std::move(link)); });
  node->start();
  background(++life);
}

// What VolumeWorkers do in production.
inline void Member::background(std::uint64_t of_life) {
  cluster.scheduler.after(10 * kMillisecond, [this, of_life] {
    if (life != of_life || !up()) return;
    (void)volume->journal().prepare_segments();
    (void)volume->sync_if_due();
    (void)volume->apply_some(false);
    volume->run_parked();
    background(of_life);
  });
}

inline void Member::end_process() {
  ++life;
  shell->kill();
  volume->set_hooks(nullptr);
  node.reset();
  volume.reset();
  shell.reset();
}

inline void Member::kill() {
  cluster.network.process_died(name);
  store->stop();
  journal->stop();
  end_process();
  store->restart();
  journal->restart();
}

inline void Member::power_loss() {
  cluster.network.power_lost(name);
  store->stop();
  journal->stop();
  end_process();
  store->lose_power();
  journal->lose_power();
}

inline void Member::clean_stop() {
  auto result = command([&](Node::Done done) {
    node->hand_over_all(cluster.scheduler.now() + 5 * kSecond, std::move(done));
  });
  INFO((result ? *result : result.error().message));
  node->stop();
  cluster.until([&] { return node->idle(); });
  ++life;
  cluster.network.process_died(name);
  volume->set_hooks(nullptr);
  node.reset();
  auto closed = volume->close();
  REQUIRE_MESSAGE(closed, (closed ? "" : closed.error().message));
  volume.reset();
  shell.reset();
  store->restart();
  journal->restart();
}

template <class F>
auto Member::change(F f) -> decltype(f()) {
  using Outcome = decltype(f());
  // A parked request is retried from the volume's queue; waiting again, it parks itself again there,
  // as the front does.
  auto outcome = std::make_shared<std::optional<Outcome>>();
  auto attempt = std::make_shared<std::function<void()>>();
  *attempt = [this, outcome, f, again = std::weak_ptr(attempt)] {
    Outcome result = f();
    if (result || result.error().kind != ErrorKind::kWouldWait)
      *outcome = std::move(result);
    else
      volume->park(kNameSpace, [attempt = again.lock()] { (*attempt)(); });
  };
  (*attempt)();
  std::uint64_t of_life = life;
  cluster.until([&] { return outcome->has_value() || life != of_life; }, 30 * kSecond);
  if (!outcome->has_value()) return fail(ErrorKind::kWouldWait, EAGAIN, "parked for ever");
  return std::move(**outcome);
}

inline Result<ObjectId> Member::make(const std::string& file) {
  auto made = change([&] { return volume->create(caller, kRootObject, file, 0644); });
  if (!made) return pass(made.error());
  return made->object;
}

inline GroupId Member::group(const std::string& file) {
  auto found = volume->lookup(kRootObject, file);
  REQUIRE_MESSAGE(found, file);
  return found->object;
}

inline Result<> Member::write(const std::string& file, std::uint64_t offset, const std::string& text) {
  auto image = volume->open_image(group(file), true);
  if (!image) return pass(image.error());
  auto written =
      change([&] { return volume->write(**image, caller, offset, as_bytes(text)); });
  if (volume) volume->close_image(*image);
  return written;
}

inline Result<> Member::flush(const std::string& file) {
  auto image = volume->open_image(group(file), true);
  if (!image) return pass(image.error());
  auto outcome = std::make_shared<std::optional<Result<>>>();
  volume->flush(**image, caller, [outcome](Result<> result) { *outcome = std::move(result); });
  std::uint64_t of_life = life;
  cluster.until([&] { return outcome->has_value() || life != of_life; }, 30 * kSecond);
  if (volume) volume->close_image(*image);
  if (!outcome->has_value()) return fail(ErrorKind::kWouldWait, EAGAIN, "never flushed");
  return std::move(**outcome);
}

inline std::string Member::read(const std::string& file, std::uint64_t offset, std::size_t size) {
  auto image = volume->open_image(group(file), false);
  REQUIRE(image);
  std::string out(size, '\0');
  auto got = volume->read(**image, offset, std::as_writable_bytes(std::span(out)));
  REQUIRE(got);
  out.resize(*got);
  volume->close_image(*image);
  return out;
}

inline Result<std::string> Member::command(std::function<void(Node::Done)> give) {
  auto outcome = std::make_shared<std::optional<Result<std::string>>>();
  give([outcome](Result<std::string> result) { *outcome = std::move(result); });
  REQUIRE(cluster.until([&] { return outcome->has_value(); }));
  return std::move(**outcome);
}

inline Result<std::string> Member::promote(const std::string& file, bool force) {
  std::vector<GroupId> groups;
  if (!file.empty()) groups.push_back(group(file));
  return command([&](Node::Done done) { node->promote(groups, force, std::move(done)); });
}

inline std::map<std::string, std::string> Member::stored() {
  for (int i = 0; i < 1000; ++i) {
    auto more = volume->apply_some(true);
    REQUIRE_MESSAGE(more, (more ? "" : more.error().message));
    if (!*more) break;
  }
  std::map<std::string, std::string> out;
  list("images", out);
  return out;
}

inline void Member::list(const std::string& path, std::map<std::string, std::string>& out) {
  auto entries = store->list(path, "test.list");
  REQUIRE(entries);
  for (const DirectoryEntry& entry : *entries) {
    if (entry.name == ".snapshots") continue;
    std::string full = path + "/" + entry.name;
    if (entry.type == FileType::kDirectory) {
      out[full] = "directory";
      list(full, out);
    } else if (entry.type == FileType::kRegular) {
      auto content = read_whole_file(*store, full, "test.read");
      REQUIRE(content);
      out[full] = std::string(reinterpret_cast<const char*>(content->data()), content->size());
    }
  }
}

}  // namespace vmfs::sim
