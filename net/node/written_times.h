// When what was written, roughly: how old the oldest record is that a peer lacks. Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>

#include "fs/base/ids.h"

namespace vmfs {

class WrittenTimes {
 public:
  // The journal was written up to `written` at that moment.
  void note(Lsn written, std::int64_t now_ns) {
    if (!seen_.empty() && seen_.back().written == written) {
      seen_.back().last_ns = now_ns;
      return;
    }
    // A moment that lies close behind the one before it adds nothing.
    if (seen_.size() >= 2 && now_ns - seen_[seen_.size() - 2].last_ns < grain_ns_)
      seen_.back() = {written, now_ns};
    else
      seen_.push_back({written, now_ns});
    if (seen_.size() > kMost) thin_out();
  }

  // Nobody lacks what lies below.
  void forget(Lsn lsn) {
    while (seen_.size() >= 2 && seen_[1].written <= lsn) seen_.pop_front();
    if (seen_.size() <= 2) grain_ns_ = kGrain;
  }

  // The age of what was written first at or above `lsn`: a little too high rather than too low.
  std::int64_t age_ns(Lsn lsn, std::int64_t now_ns) const {
    if (seen_.empty() || seen_.back().written <= lsn) return 0;
    auto after = std::upper_bound(seen_.begin(), seen_.end(), lsn,
                                  [](Lsn value, const Moment& moment) { return value < moment.written; });
    if (after != seen_.begin()) --after;
    return now_ns - after->last_ns;
  }

 private:
  static constexpr std::int64_t kGrain = 100'000'000;
  static constexpr std::size_t kMost = 4096;
  struct Moment {
    Lsn written = 0;
    std::int64_t last_ns = 0;  // nothing more was written until then
  };
  void thin_out() {
    std::deque<Moment> kept;
    for (std::size_t i = 0; i < seen_.size(); ++i)
      if (i % 2 == 0 || i + 1 == seen_.size()) kept.push_back(seen_[i]);
    seen_ = std::move(kept);
    grain_ns_ *= 2;
  }
  std::deque<Moment> seen_;
  std::int64_t grain_ns_ = kGrain;  // the longer somebody lags, the coarser
};

}  // namespace vmfs
