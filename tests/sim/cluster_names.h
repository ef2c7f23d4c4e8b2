// What is known of the names in a cluster's root directory: every change in the order in which it was
// acknowledged. A file is told from others by its permissions, which its creation chose.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace vmfs::sim {

struct ClusterNameChange {
  enum class Kind { kCreate, kRemove, kRename };
  Kind kind{};
  std::string name, to;
  std::uint32_t permissions = 0;
  std::uint32_t number = 0;
  bool in_doubt = false;
};

class ClusterNames {
 public:
  using State = std::map<std::string, std::uint32_t>;

  const std::vector<ClusterNameChange>& changes() const { return changes_; }
  void changed(ClusterNameChange change) {
    has_not(change.number);  // it was in doubt before
    changes_.push_back(std::move(change));
  }
  // Its answer did not come; the last change at the time.
  void may_have(const ClusterNameChange& change) { changed(change); }
  void has_not(std::uint32_t number) {
    if (!changes_.empty() && changes_.back().number == number) changes_.pop_back();
  }
  // A flush that began after so many changes was acknowledged with the peer in sync, in sync mode.
  void flushed_on_both(std::size_t changes) { flushed_on_both_ = std::max(flushed_on_both_, changes); }

  // The names as a node has them. forced: it took them without the previous owner. Empty: may be; then
  // they are the present. Else what is wrong.
  std::string settle(const State& found, bool forced);
  // All nodes have these and nothing else.
  void agreed(const State& found);
  std::string check_some_moment(const State& found) const;
  // As they are if every change in doubt was made.
  State now() const;

 private:
  static void apply(State& state, const ClusterNameChange& change);
  // After how many changes the names were so, the latest such moment at or above `floor`; -1: never.
  int moment(const State& found, std::size_t floor, std::vector<bool>* left_out) const;

  State base_;  // before changes_
  std::vector<ClusterNameChange> changes_;
  std::size_t flushed_on_both_ = 0;
};

}  // namespace vmfs::sim
