// Which journal space is freed, and when writers wait instead.
#include "fs/volume/release.h"

#include <doctest/doctest.h>

#include <vector>

namespace vmfs {
namespace {

constexpr std::uint64_t kMiB = 1u << 20;

// A journal of 16 segments of 1 MiB that begins at 100 MiB; places at each half segment.
struct World {
  JournalFacts journal{.oldest = 100 * kMiB,
                       .written = 104 * kMiB,
                       .segment_size = kMiB,
                       .bytes_max = 16 * kMiB,
                       .kept_for_absent = 8 * kMiB};
  Lsn applied = 104 * kMiB;
  std::vector<PeerClaim> peers;

  std::optional<Lsn> choose() const {
    std::vector<Lsn> places;
    for (Lsn at = journal.oldest; at <= journal.written; at += kMiB / 2) places.push_back(at);
    return choose_release(journal, applied, peers, places);
  }
};

TEST_SUITE("release") {
  TEST_CASE("without peers everything that is in the store is freed, and nothing else") {
    World world;
    CHECK(world.choose() == 104 * kMiB);
    world.applied = 102 * kMiB + 1;
    CHECK(world.choose() == 102 * kMiB);
    world.applied = 100 * kMiB - 1;
    CHECK(world.choose() == std::nullopt);
  }

  TEST_CASE("a present peer's share is never freed, however full the journal is") {
    World world;
    world.peers = {{.confirmed = 101 * kMiB, .present = true}};
    for (std::uint64_t used = 2; used <= 16; ++used) {
      world.journal.written = world.applied = (100 + used) * kMiB;
      CHECK(world.choose() == 101 * kMiB);
    }
    world.peers[0].confirmed = 99 * kMiB;
    CHECK(world.choose() == std::nullopt);
  }

  TEST_CASE("an absent peer's share is kept up to the limit") {
    World world;
    world.peers = {{.confirmed = 101 * kMiB, .present = false}};
    world.journal.written = world.applied = 108 * kMiB;
    CHECK(world.choose() == 101 * kMiB);
    world.journal.written = world.applied = 110 * kMiB;  // 9 MiB held back, 8 are kept
    CHECK(world.choose() == 102 * kMiB);
  }

  TEST_CASE("a nearly full journal takes of an absent peer what it must, and no more") {
    World world;
    world.journal.kept_for_absent = 15 * kMiB;
    world.peers = {{.confirmed = 100 * kMiB, .present = false}};
    world.journal.written = 112 * kMiB;
    world.applied = 111 * kMiB;
    CHECK(world.choose() == 100 * kMiB);  // three quarters: not yet
    world.journal.written = 112 * kMiB + 8;
    CHECK(world.choose() == 101 * kMiB);  // one segment
    world.applied = 100 * kMiB + kMiB / 2;
    CHECK(world.choose() == 100 * kMiB + kMiB / 2);  // frees nothing yet: what is not applied stays
  }

  TEST_CASE("a present peer protects its share also when an absent one has lost its own") {
    World world;
    world.journal.written = world.applied = 115 * kMiB;
    world.peers = {{.confirmed = 100 * kMiB, .present = false}, {.confirmed = 103 * kMiB, .present = true}};
    CHECK(world.choose() == 103 * kMiB);
    world.peers[1].confirmed = 100 * kMiB;
    CHECK(world.choose() == 100 * kMiB);
  }

  TEST_CASE("writers wait for the slowest peer that is present, and for none that is away") {
    World world;
    CHECK(write_limit(world.journal, world.peers) == ~Lsn{0});
    world.peers = {{.confirmed = 100 * kMiB, .present = false}};
    CHECK(write_limit(world.journal, world.peers) == ~Lsn{0});
    world.peers.push_back({.confirmed = 103 * kMiB, .present = true});
    CHECK(write_limit(world.journal, world.peers) == 109 * kMiB);
    world.peers.push_back({.confirmed = 101 * kMiB, .present = true});
    CHECK(write_limit(world.journal, world.peers) == 107 * kMiB);
    world.journal.kept_for_absent = 16 * kMiB;  // the applier's room is not given away
    CHECK(write_limit(world.journal, world.peers) == 111 * kMiB);
  }
}

}  // namespace
}  // namespace vmfs
