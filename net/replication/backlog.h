// How far writers may be ahead of a peer that flushes wait for.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fs/base/ids.h"

namespace vmfs {

// About a second of what the link to one peer carries, in bytes of the journal, so that a flush stays short. What it
// carries shows only while the peer is behind; a link that keeps up is merely not less. Not thread-safe.
class Backlog {
 public:
  static constexpr std::uint64_t kStart = 8u << 20, kLeast = 1u << 20, kMost = 256u << 20;

  explicit Backlog(Lsn confirmed) : confirmed_(confirmed) {}

  // Once a second, with what the peer has received and what is written.
  void second(Lsn confirmed, Lsn written) {
    const std::uint64_t carried = confirmed - std::min(confirmed_, confirmed);
    const bool behind = written - std::min(confirmed, written) >= std::min(bytes_max_ / 4, kLeast / 2);
    const std::uint64_t seen = behind && behind_ ? (bytes_max_ + carried) / 2 : std::max(bytes_max_, carried);
    bytes_max_ = std::clamp(seen, kLeast, kMost);
    behind_ = behind;
    confirmed_ = confirmed;
  }
  std::uint64_t bytes_max() const { return bytes_max_; }

 private:
  std::uint64_t bytes_max_ = kStart;
  Lsn confirmed_;
  bool behind_ = false;
};

}  // namespace vmfs
