// The memory for what is not yet applied is bounded, on the writer and on the replica.
#include <doctest/doctest.h>

#include "tests/unit/volume_stream.h"

using namespace vmfs;
using namespace vmfs::test;

namespace {

constexpr std::uint64_t kBound = 16u << 20;
// One record more than the bound may have been let in before it is looked at; pages of the index.
constexpr std::uint64_t kSlack = 64u << 10;

void bound_memory(VolumeHome& home) {
  home.options.memory_max = kBound;
  home.options.journal.size_max = 96u << 20;
  home.kill_and_open();
}

}  // namespace

TEST_SUITE("volume") {
  TEST_CASE("16 MiB of memory: writers wait, the replica waits, and both go on" *
            doctest::test_suite("volume, one thread")) {
    VolumeHome a(1, kA), b(2, kB, true);
    bound_memory(a);
    bound_memory(b);
    const ObjectId image = a.create("image");
    join(a, b);
    ObjectRef handle = a.open_image(image);

    Stream(a, b).run();
    RecordReader reader(a->journal(), a->journal().written_lsn());
    constexpr int kWrites = 400'000;
    int writer_waited = 0, replica_waited = 0;
    std::optional<ReceivedRecord> held;
    Bytes held_payload;
    std::uint64_t most = 0;  // of memory, on either
    auto look = [&](VolumeHome& home) { most = std::max(most, home->usage().index_memory); };
    // The replica takes what there is until it is told to wait.
    auto replicate = [&] {
      for (;;) {
        if (!held) {
          auto view = reader.next(a->journal().written_lsn());
          if (!view) FAIL(view.error().message);
          if (!*view) return;
          held_payload.assign((*view)->payload.begin(), (*view)->payload.end());
          held = ReceivedRecord{(*view)->header, held_payload};
        }
        auto received = b->receive({&*held, 1});
        if (!received) {
          REQUIRE(received.error().kind == ErrorKind::kWouldWait);
          ++replica_waited;
          // What a node does then: its sync shows what came, and its applier makes room.
          publish(b);
          look(b);
          REQUIRE(b->apply_some(false));
          continue;
        }
        held.reset();
      }
    };
    for (int i = 0; i < kWrites;) {
      auto written = a->write(*handle, {}, static_cast<std::uint64_t>(i) * 256, as_bytes("12345678"));
      if (written) {
        ++i;
        continue;
      }
      REQUIRE(written.error().kind == ErrorKind::kWouldWait);
      ++writer_waited;
      look(a);
      replicate();
      REQUIRE(a->apply_some(false));
    }
    CHECK(writer_waited > 0);
    replicate();
    CHECK(replica_waited > 0);
    publish(b);
    look(b);
    CHECK(most <= kBound + kSlack);
    a.apply_all();
    b.apply_all();
    CHECK((a.stored("image") == b.stored("image")));
  }

  TEST_CASE("what many images at rest keep is not what a writer waits for") {
    VolumeHome a;
    bound_memory(a);
    for (int i = 0; i < 130; ++i) {
      ObjectRef image = a.open_image(a.create("image" + std::to_string(i)));
      for (std::uint64_t page = 0; page < 64; ++page) a.write(*image, page << 26, "x");
      if (i % 40 == 39) a.apply_all();
    }
    a.apply_all();
    CHECK(a->usage().index_memory <= kBound / 2);
    a.write(*a.open_path("image0"), 0, "goes on");
  }
}
