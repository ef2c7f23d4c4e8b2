// What is known of one image of a cluster: every write in the order in which it was acknowledged,
// and up to where which promise holds.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "tests/sim/lib/volume_model.h"

namespace vmfs::sim {

struct ClusterWrite {
  enum class Kind { kWrite, kZero, kTruncate };  // kTruncate: the image has `first` cells then
  ChangeNumber number = 0;
  std::uint64_t first = 0, count = 0;  // cells
  bool in_doubt = false;               // the node died under it
  Kind kind = Kind::kWrite;
  // Where it was acknowledged, and up to where that node's journal was written then.
  std::size_t node = 0;
  Lsn end = 0;
  bool at_risk = false;  // that node has lost its power, or its journal was in trouble, before it was durable
};

class ClusterImage {
 public:
  explicit ClusterImage(std::string name) : name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  const std::vector<ClusterWrite>& writes() const { return writes_; }
  void wrote(const ClusterWrite& write) {
    has_not(write.number);  // it was in doubt before
    writes_.push_back(write);
  }
  // Its answer did not come; the last write at the time.
  void may_have(const ClusterWrite& write) { wrote(write); }
  void has_not(ChangeNumber number) {
    if (!writes_.empty() && writes_.back().number == number) writes_.pop_back();
  }
  // A flush was acknowledged that began when so many writes were there; peers_too: in sync mode
  // with the peer in sync all the time, so that both have it durably.
  void flushed(std::size_t writes, bool peers_too);
  // The same in semisync mode: that node has them, if only in its memory.
  void held(std::size_t writes, std::size_t node);
  // The node's journal kept only what was durable: what it alone was asked to remember may be gone.
  void lost_memory(std::size_t node, Lsn durable);

  // The image's present content, on a node whose journal is written up to `written`. forced: a person
  // took it without the previous owner, so that only what was flushed on both is promised. Otherwise
  // all that was acknowledged is, but for what a power loss may have taken. Empty: may be; then that is
  // the present. Else what is wrong.
  std::string settle(const std::vector<ChangeNumber>& cells, bool forced, std::size_t node, Lsn written);
  // Whether the content is that of some moment, whichever.
  std::string check_some_moment(const std::vector<ChangeNumber>& cells) const;
  // What the settling by force has left out was the only copy of something: one of these, kept on the
  // node that was left, must have it. Forgets it.
  std::string check_kept(const std::vector<std::vector<ChangeNumber>>& kept);
  // The node that was left is gone for good, with what it alone had.
  void forget_left() { discarded_.clear(); }
  // Both have gone on from one state, and this one survives: what the other has must be kept.
  void replaces(const ClusterImage& other) { discarded_ = {{other.writes_, other.promised()}}; }

 private:
  // So many writes are promised on the node that stays or becomes primary in the ordinary way.
  std::size_t promised() const;
  // After how many writes the content was so; the latest such moment at or above `floor`.
  std::optional<std::size_t> moment(const std::vector<ChangeNumber>& cells, std::size_t floor,
                                    std::vector<bool>* left_out) const;
  static std::optional<std::size_t> moment_of(const std::vector<ClusterWrite>& writes,
                                              const std::vector<ChangeNumber>& cells,
                                              std::size_t floor, std::vector<bool>* left_out);

  std::string name_;
  std::vector<ClusterWrite> writes_;
  std::size_t flushed_ = 0, flushed_on_both_ = 0;
  std::map<std::size_t, std::size_t> held_;  // by node: so many writes are in its journal
  struct Discarded {
    std::vector<ClusterWrite> writes;
    std::size_t promised;
  };
  std::vector<Discarded> discarded_;
};

}  // namespace vmfs::sim
