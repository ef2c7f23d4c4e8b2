#include "tests/sim/cluster_names.h"

#include <fmt/format.h>

#include <algorithm>

namespace vmfs::sim {

void ClusterNames::apply(State& state, const ClusterNameChange& change) {
  switch (change.kind) {
    case ClusterNameChange::Kind::kCreate:
      state[change.name] = change.permissions;
      return;
    case ClusterNameChange::Kind::kRemove:
      state.erase(change.name);
      return;
    case ClusterNameChange::Kind::kRename:
      if (auto found = state.extract(change.name)) {
        state[change.to] = found.mapped();
      }
      return;
  }
}

ClusterNames::State ClusterNames::now() const {
  State state = base_;
  for (const ClusterNameChange& change : changes_) apply(state, change);
  return state;
}

int ClusterNames::moment(const State& found, std::size_t floor,
                         std::vector<bool>* left_out) const {
  std::vector<std::size_t> doubts;
  for (std::size_t i = 0; i < changes_.size(); ++i)
    if (changes_[i].in_doubt) doubts.push_back(i);
  if (doubts.size() > 8) return -1;
  int latest = -1;
  for (std::uint32_t choice = 0; choice < (1u << doubts.size()); ++choice) {
    std::vector<bool> skip(changes_.size());
    for (std::size_t i = 0; i < doubts.size(); ++i) skip[doubts[i]] = (choice >> i) & 1;
    State state = base_;
    for (std::size_t count = 0;; ++count) {
      if (count >= floor && state == found && static_cast<int>(count) > latest) {
        latest = static_cast<int>(count);
        if (left_out) *left_out = skip;
      }
      if (count == changes_.size()) break;
      if (!skip[count]) apply(state, changes_[count]);
    }
  }
  return latest;
}

std::string ClusterNames::settle(const State& found, bool forced) {
  // Whoever was answered has the change durably on the owner, but for those in doubt.
  std::size_t floor = changes_.size();
  while (floor > 0 && changes_[floor - 1].in_doubt) --floor;
  if (forced) floor = flushed_on_both_;
  std::vector<bool> left_out;
  const int count = moment(found, floor, &left_out);
  if (count < 0) {
    std::string names;
    for (const auto& [name, permissions] : found) names += fmt::format(" {}:{:o}", name, permissions);
    std::string known;
    for (const ClusterNameChange& change : changes_)
      known += fmt::format(" {}{}{}{}", static_cast<int>(change.kind), change.name, change.to,
                           change.in_doubt ? "?" : "");
    return fmt::format("the names are those of no moment: found{}, changes{}, {} promised", names,
                       known, floor);
  }
  std::vector<ClusterNameChange> kept;
  std::size_t on_both = 0;
  for (int i = 0; i < count; ++i) {
    if (left_out[static_cast<std::size_t>(i)]) continue;
    kept.push_back(changes_[static_cast<std::size_t>(i)]);
    kept.back().in_doubt = false;
    if (static_cast<std::size_t>(i) < flushed_on_both_) on_both = kept.size();
  }
  changes_ = std::move(kept);
  flushed_on_both_ = on_both;
  return {};
}

void ClusterNames::agreed(const State& found) {
  base_ = found;
  changes_.clear();
  flushed_on_both_ = 0;
}

std::string ClusterNames::check_some_moment(const State& found) const {
  return moment(found, 0, nullptr) >= 0 ? "" : "the names are those of no moment";
}

}  // namespace vmfs::sim
