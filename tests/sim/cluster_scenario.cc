// Two nodes: writes on either, ownership that moves, cuts, deaths and power losses of one or both,
// and takings by force. Then everything is mended, and the nodes must agree and hold what was
// promised.
#include <algorithm>
#include <map>

#include "tests/sim/cluster_image.h"
#include "tests/sim/cluster_node.h"
#include "tests/sim/lib/scenario.h"
#include "tests/sim/lib/seeded_ids.h"
#include "tests/sim/scenario_list.h"

namespace vmfs::sim {
namespace {

constexpr std::uint64_t kCells = 256;  // of an image: 64 KiB

class ClusterWorld {
 public:
  ClusterWorld(std::uint64_t seed, bool with_force)
      : ids_(seed), shared_(seed), random_(shared_.random.fork()), with_force_(with_force) {
    shared_.volume = new_volume_id();
    static constexpr ReplicationMode kModes[] = {ReplicationMode::kSync, ReplicationMode::kSync,
                                                 ReplicationMode::kSemisync,
                                                 ReplicationMode::kAsync};
    shared_.settings.mode = kModes[random_.below(4)];
    say("mode {}", to_string(shared_.settings.mode));
    PathOptions path;
    path.delay_ns = static_cast<std::int64_t>(random_.between(50'000, 20'000'000));
    path.jitter_ns = path.delay_ns / 4;
    path.bytes_per_second = random_.between(1u << 20, 1u << 30);
    shared_.network.set_path("a", "b", path);
    for (const char* name : {"a", "b"}) {
      nodes_.push_back(std::make_unique<ClusterNode>(shared_, name));
      nodes_.back()->create(nodes_.size() == 2);
    }
    nodes_[0]->start({});
    nodes_[1]->start({nodes_[0].get()});
    converge("at the beginning");
    for (const char* name : {"one", "two"}) {
      auto made = wait<ObjectId>(0, [&, name]() -> Result<ObjectId> {
        auto created = nodes_[0]->volume->create({}, kRootObject, name, 0600);
        if (!created) return pass(std::move(created.error()));
        return created->object;
      });
      SIM_CHECK(made && *made, "create: {}", made ? made->error().message : "no answer");
      images_.emplace(**made, ClusterImage(name));
    }
    converge("with two images");
  }

  void run() {
    const std::uint64_t rounds = random_.between(1, 4);
    for (std::uint64_t round = 0; round < rounds; ++round) {
      const std::uint64_t steps = random_.between(5, 60);
      for (std::uint64_t i = 0; i < steps && !undecided_; ++i) step();
      if (undecided_) return;
      heal();
    }
  }

 private:
  ClusterNode& other(std::size_t index) { return *nodes_[1 - index]; }

  // After every event: a node whose disk came to its planned end is dead.
  bool run_until(const std::function<bool()>& done, std::int64_t limit_ns) {
    return shared_.scheduler.run_until(
        [&] {
          for (auto& node : nodes_)
            if (node->must_die()) {
              node->die(random_.one_in(2));
              crashed_ = true;
            }
          return done();
        },
        shared_.scheduler.now() + limit_ns);
  }
  void pass_time(std::int64_t ns) {
    run_until([] { return false; }, ns);
  }

  // Makes a change on a node and waits for its answer while the cluster's time goes on. Nothing:
  // the node died, or there was none in time (then it will not be done any more).
  template <class T, class F>
  std::optional<Result<T>> wait(std::size_t index, F change) {
    ClusterNode& node = *nodes_[index];
    struct Attempt {
      std::optional<Result<T>> answer;
      bool given_up = false;
    };
    auto attempt = std::make_shared<Attempt>();
    auto retry = std::make_shared<std::function<void()>>();
    *retry = [attempt, change, &node, again = std::weak_ptr(retry)] {
      if (attempt->given_up) return;
      Result<T> result = change();
      if (result || result.error().kind != ErrorKind::kWouldWait)
        attempt->answer = std::move(result);
      else
        node.volume->park(kNameSpace, [self = again.lock()] { (*self)(); });
    };
    const std::uint64_t life = node.life;
    (*retry)();
    run_until([&] { return attempt->answer || node.life != life; }, 15 * kSecond);
    attempt->given_up = true;
    if (node.life != life || node.disk.stopped()) return std::nullopt;
    return attempt->answer
               ? std::move(attempt->answer)
               : std::optional<Result<T>>(fail(ErrorKind::kWouldWait, EAGAIN, "parked"));
  }

  void step() {
    pass_time(static_cast<std::int64_t>(random_.below(200 * kMillisecond)));
    const std::size_t index = random_.percent(80) ? writer_ : 1 - writer_;
    switch (random_.below(30)) {
      default:
        if (nodes_[index]->up()) write(index, pick_image());
        break;
      case 0:
      case 1:
      case 2:
      case 3:
        if (nodes_[index]->up()) flush(index);
        break;
      case 4:
        random_.one_in(2) ? shared_.network.cut("a", "b") : shared_.network.reset("a", "b");
        say("link cut or reset");
        break;
      case 5:
      case 6:
        shared_.network.mend("a", "b");
        break;
      case 7:
        if (nodes_[index]->up()) nodes_[index]->disk.stop_at_change(random_.between(1, 60));
        break;
      case 8:
        if (nodes_[index]->up() && random_.one_in(2)) die(index, random_.one_in(2));
        break;
      case 9:
        if (random_.one_in(6))
          for (std::size_t i : {0, 1})
            if (nodes_[i]->up()) die(i, true);
        break;
      case 10:
      case 11:
        for (std::size_t i : {0, 1}) start(i);
        break;
      case 12:
        writer_ = 1 - writer_;
        break;
      case 13:
        pass_time(static_cast<std::int64_t>(random_.below(15 * kSecond)));
        break;
      case 14:
        if (with_force_ && random_.one_in(2)) take_by_force();
        break;
      case 15:
        look(index);
        break;
    }
    for (auto& node : nodes_) node->check();
  }

  void die(std::size_t index, bool power) {
    nodes_[index]->die(power);
    crashed_ = true;
  }

  void start(std::size_t index) {
    if (!nodes_[index]->up()) nodes_[index]->start({&other(index)});
  }

  ObjectId pick_image() {
    auto image = images_.begin();
    std::advance(image, random_.below(images_.size()));
    return image->first;
  }

  // Nothing: the image is not there (yet), or the node is at its end.
  std::optional<std::vector<ChangeNumber>> read(ClusterNode& node, ObjectId object) {
    auto image = node.volume->open_image(object, false);
    if (!image && (node.disk.stopped() || image.error().kind == ErrorKind::kNotFound)) return {};
    SIM_CHECK(image.has_value(), "open on {}: {}", node.name, image.error().message);
    Bytes bytes(kCells * kCell);
    auto size = node.volume->read(**image, 0, bytes);
    if (node.disk.stopped()) return {};
    SIM_CHECK(size.has_value(), "read on {}: {}", node.name, size.error().message);
    node.volume->close_image(*image, false, false);
    std::vector<ChangeNumber> cells(*size / kCell);
    for (std::uint64_t i = 0; i < cells.size(); ++i) {
      auto mark = read_mark(bytes.data() + i * kCell, i);
      SIM_CHECK(mark, "{} on {} cell {} holds bytes that were never written",
                images_.at(object).name(), node.name, i);
      cells[i] = *mark;
    }
    return cells;
  }

  void settle(ClusterNode& node, ObjectId object, bool forced) {
    const auto cells = read(node, object);
    if (!cells) return;
    const std::string wrong = images_.at(object).settle(*cells, forced);
    SIM_CHECK(wrong.empty(), "on {}, {}: {}", node.name, forced ? "taken by force" : "primary",
              wrong);
  }

  // True: acknowledged.
  bool write(std::size_t index, ObjectId object) {
    ClusterNode& node = *nodes_[index];
    ClusterImage& image = images_.at(object);
    auto opened = node.volume->open_image(object, true);
    if (!opened) return false;
    ClusterWrite write;
    write.number = next_++;
    write.first = random_.below(kCells);
    write.count = 1 + random_.below(std::min<std::uint64_t>(kCells - write.first, 64));
    Bytes bytes(write.count * kCell);
    for (std::uint64_t i = 0; i < write.count; ++i)
      mark_cell(bytes.data() + i * kCell, write.number, write.first + i);
    auto done = wait<void>(index, [&] {
      if (node.volume->gate(object) == Gate::kOpen && crashed_) {
        // Before the first change after a crash: what is there now?
        for (auto& [each, known] : images_)
          if (node.volume->gate(each) == Gate::kOpen) settle(node, each, false);
      }
      return node.volume->write(**opened, {}, write.first * kCell, bytes);
    });
    if (!done) {
      write.in_doubt = true;
      image.wrote(write);
      return false;
    }
    const bool alive = node.up();
    if (alive) node.volume->close_image(*opened, true, done->has_value());
    say("write {} of {} on {}: {}", write.number, image.name(), node.name,
        *done ? "ok" : done->error().message);
    if (*done) image.wrote(write);
    return done->has_value();
  }

  void flush(std::size_t index) {
    ClusterNode& node = *nodes_[index];
    const ObjectId object = pick_image();
    ClusterImage& image = images_.at(object);
    if (node.volume->gate(object) != Gate::kOpen) return;
    // It promises what is there now: not what a crash may have taken before.
    if (crashed_) settle(node, object, false);
    auto opened = node.volume->open_image(object, true);
    if (!opened) return;
    const bool before = shared_.settings.mode == ReplicationMode::kSync && node.in_sync();
    const std::size_t writes = image.writes().size();
    auto answer = std::make_shared<std::optional<Result<>>>();
    const std::uint64_t life = node.life;
    node.volume->flush(**opened, {}, [answer](Result<> result) { *answer = std::move(result); });
    run_until([&] { return answer->has_value() || node.life != life; }, 30 * kSecond);
    if (node.life != life || node.disk.stopped()) return;
    node.volume->close_image(*opened, true, false);
    if (!answer->has_value() || !**answer) return;
    const bool on_both = before && node.in_sync();
    say("flush of {} on {}: {}", image.name(), node.name, on_both ? "both" : "alone");
    image.flushed(writes, on_both);
  }

  // Whoever reads on a secondary sees a moment of the primary's past.
  void look(std::size_t index) {
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

  // The writer's machine is gone; a person takes everything on the other one.
  void take_by_force() {
    if (!nodes_[writer_]->up() || !other(writer_).up()) return;
    if (shared_.settings.mode != ReplicationMode::kSync) return;
    converge("before the loss of a machine");
    for (auto& [object, image] : images_)
      if (nodes_[writer_]->volume->gate(object) != Gate::kOpen) return;
    for (int i = 0; i < 5 && nodes_[writer_]->up(); ++i) {
      write(writer_, pick_image());
      if (random_.one_in(2) && nodes_[writer_]->up()) flush(writer_);
    }
    // Had it gone on alone before, taking by force would make a split brain.
    if (!nodes_[writer_]->up() || !nodes_[writer_]->in_sync()) return;
    die(writer_, random_.one_in(2));
    writer_ = 1 - writer_;
    ClusterNode& node = *nodes_[writer_];
    pass_time(static_cast<std::int64_t>(random_.below(20 * kSecond)));
    if (!node.up()) return;
    const std::uint64_t life = node.life;
    // The first attempt may find out that the owner is lost; a person asks again then.
    for (int attempt = 0;; ++attempt) {
      auto answer = std::make_shared<std::optional<Result<std::string>>>();
      node.node->promote({}, true, [answer](Result<std::string> r) { *answer = std::move(r); });
      run_until([&] { return answer->has_value() || node.life != life; }, 30 * kSecond);
      if (node.life != life || node.disk.stopped()) return;
      SIM_CHECK(answer->has_value(), "promote --force on {}: no answer", node.name);
      if (**answer) break;
      SIM_CHECK(attempt < 2, "promote --force on {}: {}", node.name, (*answer)->error().message);
    }
    say("{} is promoted by force", node.name);
    for (auto& [object, image] : images_) settle(node, object, true);
    crashed_ = false;
    // A taker that changed nothing would give way to the tail that the other kept.
    for (auto& [object, image] : images_)
      if (!node.up() || !write(writer_, object)) {
        undecided_ = true;
        return;
      }
    start(1 - writer_);
    converge("after the return of a failed primary");
  }

  void converge(const char* when) {
    shared_.network.mend("a", "b");
    for (int attempt = 0; attempt < 20; ++attempt) {
      for (std::size_t i : {0, 1}) {
        nodes_[i]->disk.stop_at_change(0);
        if (nodes_.size() == 2 && !nodes_[i]->up()) start(i);
      }
      if (run_until([&] { return nodes_[0]->settled() && nodes_[1]->settled(); }, 15 * kSecond))
        return;
      if (with_force_) end_split_brains();
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
    }
    fail_scenario("no convergence {}:{}", when, why);
  }

  // The failed primary may have begun an epoch that nobody else knew, before it died: then a person
  // has to choose, and chooses the side that went on.
  void end_split_brains() {
    ClusterNode& node = *nodes_[writer_];
    if (!node.up()) return;
    std::vector<GroupId> groups;
    for (const ImageStatus& image : node.node->status().images)
      if (image.role == Role::kSplit) groups.push_back(image.group);
    if (groups.empty()) return;
    say("{} groups are split: {} is kept", groups.size(), node.name);
    node.node->resolve(groups, true, [](Result<std::string>) {});
  }

  // Everything is mended: both must come to hold the same, and what was promised.
  void heal() {
    converge("after everything was mended");
    pass_time(3 * kSecond);
    converge("three seconds later");
    std::map<std::string, std::string> stores[2];
    for (std::size_t i : {0, 1}) {
      ClusterNode& node = *nodes_[i];
      node.check();
      for (int round = 0;; ++round) {
        auto more = node.volume->apply_some(true);
        SIM_CHECK(more.has_value(), "apply on {}: {}", node.name, more.error().message);
        SIM_CHECK(round < 1000, "{} does not come to an end of applying", node.name);
        if (!*more) break;
      }
      list(node, "images", stores[i]);
    }
    for (const auto& [path, content] : stores[0])
      SIM_CHECK(stores[1].contains(path) && stores[1][path] == content,
                "invariant 6: {} is not the same on both nodes", path);
    SIM_CHECK(stores[0].size() == stores[1].size(), "invariant 6: {} files and {}",
              stores[0].size(), stores[1].size());
    for (auto& [object, image] : images_) settle(*nodes_[0], object, false);
    crashed_ = false;
    say("both nodes are equal");
  }

  void list(ClusterNode& node, const std::string& path, std::map<std::string, std::string>& out) {
    auto entries = node.disk.list(path, "sim.check");
    SIM_CHECK(entries.has_value(), "list: {}", entries.error().message);
    for (const DirectoryEntry& entry : *entries) {
      if (entry.name == ".snapshots") continue;
      const std::string full = path + "/" + entry.name;
      if (entry.type == FileType::kDirectory) {
        out[full] = "directory";
        list(node, full, out);
        continue;
      }
      auto content = read_whole_file(node.disk, full, "sim.check");
      SIM_CHECK(content.has_value(), "read: {}", content.error().message);
      out[full] = {reinterpret_cast<const char*>(content->data()), content->size()};
    }
  }

  SeededIds ids_;
  ClusterShared shared_;
  Random random_;
  const bool with_force_;
  std::vector<std::unique_ptr<ClusterNode>> nodes_;
  std::map<ObjectId, ClusterImage> images_;
  std::size_t writer_ = 0;  // who writes mostly
  bool crashed_ = false;    // since what is there was last looked at
  bool undecided_ = false;  // a taker by force died before it had changed everything
  ChangeNumber next_ = 1;
};

}  // namespace

void run_cluster_scenario(std::uint64_t seed) { ClusterWorld(seed, false).run(); }
void run_failover_scenario(std::uint64_t seed) { ClusterWorld(seed, true).run(); }

}  // namespace vmfs::sim
