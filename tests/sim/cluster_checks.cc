// What the nodes of a cluster must show together: equal stores, what was given up kept, nothing acknowledged
// without the peer where that is forbidden; and how it all must end.
#include <algorithm>
#include <sstream>

#include "tests/sim/cluster_world.h"

namespace vmfs::sim {

void ClusterWorld::apply_all(ClusterNode& node) {
  for (int round = 0;; ++round) {
    auto more = node.volume->apply_some(true);
    SIM_CHECK(more.has_value(), "apply on {}: {}", node.name, more.error().message);
    SIM_CHECK(round < 1000, "{} does not come to an end of applying", node.name);
    if (!*more) return;
  }
}

void ClusterWorld::compare_stores() {
  for (auto& node : nodes_)
    if (!node->up() || node->troubled || node->disk.stopped()) return;
  // Only what the journals have: a planned end may come in the middle.
  auto at_rest = [&](ObjectId object) -> std::optional<Position> {
    std::optional<Position> common;
    for (auto& node : nodes_) {
      const auto state = node->volume->group(object);
      if (!state || state->inconsistent || state->split || state->history.empty()) return {};
      const Position position{state->history.back().epoch, state->seq};
      if (common && !(*common == position)) return {};
      common = position;
    }
    return common;
  };
  std::map<ObjectId, Position> before;
  for (const auto& [object, image] : images_)
    if (auto position = at_rest(object)) before[object] = *position;
  for (auto& node : nodes_) {
    Journal& journal = node->volume->journal();
    auto synced = journal.sync_through(journal.written_lsn());
    // Which also shows what was received.
    auto due = node->volume->sync_if_due();
    Result<> shown = !synced ? std::move(synced) : due ? Result<>() : pass(std::move(due.error()));
    for (int round = 0; shown && round < 1000; ++round) {
      auto more = node->volume->apply_some(true);
      if (!more) shown = pass(std::move(more.error()));
      if (!more || !*more) break;
    }
    if (node->disk.stopped()) return;
    SIM_CHECK(shown.has_value(), "apply on {}: {}", node->name, shown.error().message);
  }
  for (const auto& [object, position] : before) {
    const auto after = at_rest(object);
    if (!after || !(*after == position)) continue;
    const std::string path = "images/" + images_.at(object).name();
    auto here = read_whole_file(nodes_[0]->disk, path, "sim.check");
    auto there = read_whole_file(nodes_[1]->disk, path, "sim.check");
    if (!here || !there) continue;  // its name is on its way
    SIM_CHECK(*here == *there, "invariant 6: {} is not the same on both nodes at epoch {} seq {}", path,
              position.epoch, position.seq);
  }
  say("stores compared: {} images", before.size());
}

void ClusterWorld::check_kept(ClusterNode& from, ObjectId object) {
  ClusterImage& image = images_.at(object);
  std::vector<std::vector<ChangeNumber>> kept;
  if (auto snapshots = from.disk.list("images/.snapshots", "sim.check")) {
    for (const DirectoryEntry& snapshot : *snapshots) {
      if (!snapshot.name.starts_with("left-")) continue;
      auto content = read_whole_file(from.disk, "images/.snapshots/" + snapshot.name + "/" + image.name(), "sim.check");
      if (!content) continue;
      std::vector<ChangeNumber> cells(content->size() / kCell);
      for (std::uint64_t i = 0; i < cells.size(); ++i) {
        auto mark = read_mark(content->data() + i * kCell, i);
        SIM_CHECK(mark, "{} of {} has bytes that nobody wrote", snapshot.name, image.name());
        cells[i] = *mark;
      }
      kept.push_back(std::move(cells));
    }
  }
  const std::string wrong = image.check_kept(kept);
  SIM_CHECK(wrong.empty(), "invariant 7: left on {}: {}", from.name, wrong);
}

void ClusterWorld::check_kept_names(ClusterNode& from, const ClusterNames& left) {
  std::string wrong = "there is no list";
  auto lists = from.disk.list("kept-names", "sim.check");
  SIM_CHECK(lists.has_value(), "invariant 7: names left on {}: {}", from.name, lists.error().message);
  for (const DirectoryEntry& list : *lists) {
    auto content = read_whole_file(from.disk, "kept-names/" + list.name, "sim.check");
    SIM_CHECK(content.has_value(), "read: {}", content.error().message);
    ClusterNames::State names;
    std::istringstream text(std::string(reinterpret_cast<const char*>(content->data()), content->size()));
    for (std::string line; std::getline(text, line);) {
      std::istringstream words(line);
      std::string object, type, permissions, owner, time, name;
      SIM_CHECK(words >> object >> type >> permissions >> owner >> time >> name, "{}: {}", list.name, line);
      if (name.starts_with("open") || images_.contains(ObjectId{std::stoull(object, nullptr, 16)})) continue;
      names[name] = static_cast<std::uint32_t>(std::stoul(permissions, nullptr, 8));
    }
    wrong = ClusterNames(left).settle(names, false);
    if (wrong.empty()) return;
  }
  SIM_CHECK(false, "invariant 7: names left on {}: {}", from.name, wrong);
}

// Whether the other node can be heard.
void ClusterWorld::note_alone(std::size_t index) {
  const bool alone = nodes_.size() == 2 && (!nodes_[1 - index]->up() || shared_.network.is_cut("a", "b"));
  if (!alone)
    alone_since_[index] = -1;
  else if (alone_since_[index] < 0)
    alone_since_[index] = shared_.scheduler.now();
}

void ClusterWorld::check_not_alone(std::size_t index) {
  // A peer that fell silent is noticed after five seconds.
  constexpr std::int64_t kNoticed = 7 * kSecond;
  const std::int64_t since = alone_since_[index];
  SIM_CHECK(!freezes() || since < 0 || shared_.scheduler.now() - since < kNoticed,
            "freeze: {} acknowledges, though it has had no peer for {} ms", nodes_[index]->name,
            (shared_.scheduler.now() - since) / kMillisecond);
}

// --- The end -------------------------------------------------------------------------------------------------

void ClusterWorld::heal() {
  converge("after everything was mended");
  pass_time(3 * kSecond);
  converge("three seconds later");
  std::map<std::string, std::string> stores[2];
  for (std::size_t i : {0, 1}) {
    ClusterNode& node = *nodes_[i];
    node.check();
    apply_all(node);
    node.check_store();
    list(node, "images", stores[i]);
  }
  for (const auto& [path, content] : stores[0])
    SIM_CHECK(stores[1].contains(path) && stores[1][path] == content,
              "invariant 6: {} is not the same on both nodes", path);
  SIM_CHECK(stores[0].size() == stores[1].size(), "invariant 6: {} files and {}",
            stores[0].size(), stores[1].size());
  // Nobody has an image open any more.
  std::string kept;
  auto left_over = [&] {
    kept.clear();
    for (auto& node : nodes_) {
      auto entries = node->disk.list("unlinked", "sim.check");
      SIM_CHECK(entries.has_value(), "list: {}", entries.error().message);
      for (const DirectoryEntry& entry : *entries)
        if (!entry.name.starts_with("foreign-")) kept += fmt::format(" {} on {}", entry.name, node->name);
    }
    return !kept.empty();
  };
  SIM_CHECK(!plan_.orphans_go || run_until([&] { return !left_over(); }, 30 * kSecond),
            "images that were unlinked are not deleted:{}", kept);
  for (auto& [object, image] : images_) {
    settle(*nodes_[0], object, false);
    image.flushed(image.writes().size(), true);  // both stores have been synced with it
  }
  settle_names(*nodes_[0], false);
  names_.agreed(*names_of(*nodes_[0]));
  crashed_ = false;
  say("both nodes are equal");
}

void ClusterWorld::list(ClusterNode& node, const std::string& path,
                        std::map<std::string, std::string>& out) {
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

}  // namespace vmfs::sim
