#include "tests/sim/cluster_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace vmfs::sim {

void ClusterImage::flushed(std::size_t writes, bool peers_too) {
  flushed_ = std::max(flushed_, writes);
  if (peers_too) flushed_on_both_ = std::max(flushed_on_both_, writes);
}

void ClusterImage::held(std::size_t writes, std::size_t node) {
  held_[node] = std::max(held_[node], writes);
}

void ClusterImage::lost_memory(std::size_t node, Lsn durable) {
  for (ClusterWrite& write : writes_)
    if (write.node == node && write.end > durable) write.at_risk = true;
  held_[node] = flushed_on_both_;
}

// What one image holds is a beginning of its sequence: whatever came before a promised write is, too.
std::size_t ClusterImage::promised() const {
  std::size_t count = writes_.size();
  while (count > flushed_ && (writes_[count - 1].in_doubt || writes_[count - 1].at_risk)) --count;
  return count;
}

std::optional<std::size_t> ClusterImage::moment(const std::vector<ChangeNumber>& cells,
                                                std::size_t floor,
                                                std::vector<bool>* left_out) const {
  return moment_of(writes_, cells, floor, left_out);
}

std::optional<std::size_t> ClusterImage::moment_of(const std::vector<ClusterWrite>& writes,
                                                   const std::vector<ChangeNumber>& cells,
                                                   std::size_t floor, std::vector<bool>* left_out) {
  // Each write in doubt may have been done or not. There are few at a time: all ways are tried.
  std::vector<std::size_t> doubts;
  for (std::size_t i = 0; i < writes.size(); ++i)
    if (writes[i].in_doubt) doubts.push_back(i);
  if (doubts.size() > 8) return std::nullopt;
  std::optional<std::size_t> latest;
  for (std::uint32_t choice = 0; choice < (1u << doubts.size()); ++choice) {
    std::vector<bool> skip(writes.size());
    for (std::size_t i = 0; i < doubts.size(); ++i) skip[doubts[i]] = (choice >> i) & 1;
    std::vector<ChangeNumber> state;
    for (std::size_t count = 0;; ++count) {
      if (count >= floor && state == cells && (!latest || count > *latest)) {
        latest = count;
        if (left_out) *left_out = skip;
      }
      if (count == writes.size()) break;
      const ClusterWrite& write = writes[count];
      if (skip[count]) continue;
      if (write.kind == ClusterWrite::Kind::kTruncate) {
        state.resize(write.first);
        continue;
      }
      state.resize(std::max<std::size_t>(state.size(), write.first + write.count));
      std::fill_n(state.begin() + static_cast<std::ptrdiff_t>(write.first), write.count,
                  write.kind == ClusterWrite::Kind::kWrite ? write.number : 0);
    }
  }
  return latest;
}

std::string ClusterImage::settle(const std::vector<ChangeNumber>& cells, bool forced,
                                 std::size_t node, Lsn written) {
  std::vector<bool> left_out;
  const std::size_t floor = forced ? std::max(flushed_on_both_, held_[node]) : promised();
  const auto count = moment(cells, floor, &left_out);
  if (!count) {
    if (auto earlier = moment(cells, 0, nullptr))
      return fmt::format("{}: {} writes of {} are there, {} were promised", name_, *earlier,
                         writes_.size(), floor);
    std::string known, found;
    for (const ClusterWrite& write : writes_)
      known += fmt::format(" {}{}", write.number, write.in_doubt ? "?" : "");
    for (ChangeNumber number : std::set<ChangeNumber>(cells.begin(), cells.end()))
      found += fmt::format(" {}", number);
    return fmt::format("{}: the content is that of no moment (known:{}; {} promised; found:{})",
                       name_, known, floor, found);
  }
  if (forced && promised() > *count) discarded_.push_back({writes_, promised()});
  std::vector<ClusterWrite> kept;
  std::size_t flushed = 0, on_both = 0;
  std::map<std::size_t, std::size_t> held;
  for (std::size_t i = 0; i < *count; ++i) {
    if (left_out[i]) continue;
    kept.push_back(writes_[i]);
    kept.back().in_doubt = false;
    // From here on this node's journal answers for it.
    kept.back().at_risk = false;
    kept.back().node = node;
    kept.back().end = written;
    if (i < flushed_) flushed = kept.size();
    if (i < flushed_on_both_) on_both = kept.size();
    for (const auto& [holder, writes] : held_)
      if (i < writes) held[holder] = kept.size();
  }
  held_ = std::move(held);
  writes_ = std::move(kept);
  flushed_ = flushed;
  flushed_on_both_ = on_both;
  return {};
}

std::string ClusterImage::check_kept(const std::vector<std::vector<ChangeNumber>>& kept) {
  for (const Discarded& lost : std::exchange(discarded_, {})) {
    const bool found = std::any_of(kept.begin(), kept.end(), [&](const auto& cells) {
      return moment_of(lost.writes, cells, lost.promised, nullptr).has_value();
    });
    if (!found)
      return fmt::format("{}: {} writes were acknowledged and {} images are kept of what was left: none has "
                         "them",
                         name_, lost.promised, kept.size());
  }
  return {};
}

std::string ClusterImage::check_some_moment(const std::vector<ChangeNumber>& cells) const {
  if (moment(cells, 0, nullptr)) return {};
  return fmt::format("{}: the content is that of no moment of {} writes", name_, writes_.size());
}

}  // namespace vmfs::sim
