#include "fs/volume/release.h"

#include <algorithm>

namespace vmfs {

bool nearly_full(const JournalFacts& journal) {
  return journal.written - std::min(journal.written, journal.oldest) > journal.bytes_max / 4 * 3;
}

std::optional<Lsn> choose_release(const JournalFacts& journal, Lsn applied,
                                  std::span<const PeerClaim> peers, std::span<const Lsn> places) {
  const Lsn kept_from =
      journal.written > journal.kept_for_absent ? journal.written - journal.kept_for_absent : 0;
  Lsn allowed = applied, wanted = applied;
  for (const PeerClaim& peer : peers) {
    if (peer.present) allowed = std::min(allowed, peer.confirmed);
    wanted = std::min(wanted, peer.present ? peer.confirmed : std::max(peer.confirmed, kept_from));
  }
  wanted = std::min(wanted, allowed);
  const Lsn frees_one = journal.oldest + journal.segment_size;
  std::optional<Lsn> chosen;
  for (Lsn place : places) {
    if (place > allowed) break;
    const bool enough = chosen && *chosen >= frees_one;
    if (place > wanted && (enough || !nearly_full(journal))) break;
    chosen = place;
  }
  return chosen;
}

Lsn write_limit(const JournalFacts& journal, std::span<const PeerClaim> peers) {
  Lsn least = ~Lsn{0};
  for (const PeerClaim& peer : peers)
    if (peer.present) least = std::min(least, peer.confirmed);
  if (least == ~Lsn{0}) return least;
  // The applier needs room too, whatever is configured.
  return least + std::min(journal.kept_for_absent / 4 * 3, journal.bytes_max / 8 * 5);
}

}  // namespace vmfs
