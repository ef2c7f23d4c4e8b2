// How much a group was changed since some record of it, and when that began: what a peer lacks that has
// confirmed so far, without a look into the journal. Pure.
//
// Exact for the last kExact changes. Beyond, marks are thinned out as they grow old, so that the memory is
// bounded: the answer is then at most about half as much again, in bytes and in age, never too low.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "fs/journal/format.h"

namespace vmfs {

// Records that change nothing that anybody could miss. (A new epoch comes with the first change in it.)
inline constexpr bool is_housekeeping(RecordType type) {
  return type == RecordType::kFlush || type == RecordType::kOpen || type == RecordType::kClose ||
         type == RecordType::kEpoch;
}

class SequenceTrail {
 public:
  static constexpr std::size_t kExact = 32;

  struct Since {
    std::uint64_t records = 0;
    std::uint64_t bytes = 0;          // of the journal
    std::int64_t oldest_wall_ns = 0;  // when the first of them was written; 0: there is none
  };

  // A record of the group. One that does not continue the sequence begins a new trail.
  void note(std::uint64_t seq, std::uint64_t bytes, std::int64_t wall_ns, bool housekeeping) {
    if (marks_.empty() || seq != last_seq_ + 1) {
      marks_.clear();
      marks_.reserve(kMost);
      marks_.push_back({seq - 1, 0, 0, 0});
    }
    last_seq_ = seq;
    if (housekeeping) return;
    Mark& before = marks_.back();
    before.next_wall_ns = wall_ns;
    if (marks_.size() == kMost) thin_out(wall_ns);
    const Mark& last = marks_.back();
    marks_.push_back({seq, last.records + 1, last.bytes + bytes, 0});
  }

  // Of the changes after `seq`; nothing: it lies before what was noted.
  std::optional<Since> since(std::uint64_t seq) const {
    auto after = std::upper_bound(marks_.begin(), marks_.end(), seq,
                                  [](std::uint64_t value, const Mark& mark) { return value < mark.seq; });
    if (after == marks_.begin()) return std::nullopt;
    const Mark& mark = *--after;
    const Mark& last = marks_.back();
    Since out{last.records - mark.records, last.bytes - mark.bytes, mark.next_wall_ns};
    // Each record has a number, so there are no more of them than numbers.
    out.records = std::min(out.records, last_seq_ - std::min(last_seq_, seq));
    return out;
  }

 private:
  static constexpr std::size_t kMost = 128;

  struct Mark {
    std::uint64_t seq = 0;               // of a change
    std::uint64_t records = 0, bytes = 0;  // changes up to it
    std::int64_t next_wall_ns = 0;       // when the change after it was written; 0: none was
  };

  // A mark goes if the one before it tells nearly the same: neither bytes nor age, seen from now, differ by more
  // than half from those of the mark after it. If nothing goes by that measure, a coarser one is taken.
  void thin_out(std::int64_t now_ns) {
    for (std::uint64_t measure = 1; marks_.size() > kMost * 3 / 4; measure *= 2) {
      const std::uint64_t end = marks_.back().bytes;
      auto close = [&](const Mark& older, const Mark& newer) {
        const std::uint64_t bytes = end - newer.bytes;
        const std::int64_t age = std::max<std::int64_t>(now_ns - newer.next_wall_ns, 1);
        return end - older.bytes <= bytes + bytes / 2 * measure &&
               now_ns - older.next_wall_ns <= age + age / 2 * static_cast<std::int64_t>(measure);
      };
      std::size_t to = marks_.size() - kExact;  // all from here on stay
      for (std::size_t from = to; from-- > 0;)
        if (from == 0 || !close(marks_[from - 1], marks_[to])) marks_[--to] = marks_[from];
      marks_.erase(marks_.begin(), marks_.begin() + static_cast<std::ptrdiff_t>(to));
    }
  }

  std::vector<Mark> marks_;  // ascending
  std::uint64_t last_seq_ = 0;
};

}  // namespace vmfs
