// What is known of one image of a cluster: every write in the order in which it was acknowledged,
// and up to where which promise holds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/sim/lib/volume_model.h"

namespace vmfs::sim {

struct ClusterWrite {
  enum class Kind { kWrite, kZero, kTruncate };  // kTruncate: the image has `first` cells then
  ChangeNumber number = 0;
  std::uint64_t first = 0, count = 0;  // cells
  bool in_doubt = false;               // the node died under it
  Kind kind = Kind::kWrite;
};

class ClusterImage {
 public:
  explicit ClusterImage(std::string name) : name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  const std::vector<ClusterWrite>& writes() const { return writes_; }
  void wrote(ClusterWrite write) { writes_.push_back(write); }
  // A flush was acknowledged that began when so many writes were there; peers_too: in sync mode
  // with the peer in sync all the time, so that both have it durably.
  void flushed(std::size_t writes, bool peers_too);

  // The image's present content. forced: a person took it without the previous owner, so that only
  // what was flushed on both is promised. Empty: may be; then that is the present. Else what is
  // wrong.
  std::string settle(const std::vector<ChangeNumber>& cells, bool forced);
  // Whether the content is that of some moment, whichever.
  std::string check_some_moment(const std::vector<ChangeNumber>& cells) const;

 private:
  // After how many writes the content was so; the latest such moment at or above `floor`.
  std::optional<std::size_t> moment(const std::vector<ChangeNumber>& cells, std::size_t floor,
                                    std::vector<bool>* left_out) const;

  std::string name_;
  std::vector<ClusterWrite> writes_;
  std::size_t flushed_ = 0, flushed_on_both_ = 0;
};

}  // namespace vmfs::sim
