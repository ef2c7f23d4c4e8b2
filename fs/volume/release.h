// Which journal space may be freed: a decision without I/O, clock or locks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "fs/base/ids.h"

namespace vmfs {

// A peer's claim on this node's journal.
struct PeerClaim {
  Lsn confirmed = 0;     // it needs nothing below
  bool present = false;  // it takes records now: its share is never freed, and writers wait for it instead
};

struct JournalFacts {
  Lsn oldest = 0;   // where the journal begins
  Lsn written = 0;  // where it ends
  std::uint64_t segment_size = 0;
  std::uint64_t bytes_max = 0;
  std::uint64_t kept_for_absent = 0;  // bytes that a peer that is away may hold back
};

// More than three quarters are in use: writers may soon have to wait.
bool nearly_full(const JournalFacts& journal);

// The last of `places` (ascending) below which the journal may be freed; nothing: at none of them.
// - nothing that is not in the store (below `applied`), and nothing that a present peer has not confirmed;
// - for a peer that is away, what it has not confirmed is kept as far as kept_for_absent reaches;
// - when the journal is nearly full and that frees no segment, the first place that does: an absent peer
//   then loses its share and is copied whole, but no writer waits for it.
std::optional<Lsn> choose_release(const JournalFacts& journal, Lsn applied,
                                  std::span<const PeerClaim> peers, std::span<const Lsn> places);

// How far writers may go before they wait for the present peers: a peer that is cut off at that moment
// still has a quarter of kept_for_absent before it. Beyond all: no peer is present.
Lsn write_limit(const JournalFacts& journal, std::span<const PeerClaim> peers);

}  // namespace vmfs
