#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <thread>

#include "fs/volume/workers.h"
#include "tests/unit/volume_fixture.h"

namespace vmfs {
namespace {

TEST_SUITE_BEGIN("volume threads");

TEST_CASE("threads write, read, flush and truncate while the journal wraps and is applied") {
  char pattern[] = "/tmp/vmfs-volume-test-XXXXXX";
  REQUIRE(::mkdtemp(pattern) != nullptr);
  const std::filesystem::path path = pattern;
  std::filesystem::create_directory(path / "journal");
  {
    auto store = open_posix_disk(path).value();
    auto journal = open_posix_disk(path / "journal").value();
    VolumeOptions options;
    options.journal.node = NodeId{3};
    options.journal.segment_size = 1u << 20;
    options.journal.size_max = 8u << 20;
    options.apply_after_ns = 20'000'000;
    options.sync_interval_ns = 10'000'000;
    REQUIRE(Volume::create(*store, *journal, system_clock(), options));
    constexpr std::uint64_t kBlockSize = 4096, kBlocks = 64;
    constexpr int kThreads = 4, kRounds = 1500;
    std::vector<std::vector<std::uint64_t>> model(kThreads, std::vector<std::uint64_t>(kBlocks));
    for (int life = 0; life < 2; ++life) {
      auto opened = Volume::open(*store, *journal, system_clock(), options, {});
      if (!opened) FAIL(opened.error().message);
      Volume& volume = **opened;
      std::atomic<int> wrong{0};
      std::mutex failures_mutex;
      std::string failures;
      auto look_at = [&](const char* what, const Result<>& result) {
        if (result) return;
        std::lock_guard lock(failures_mutex);
        failures += fmt::format("{}: errno {} {}\n", what, result.error().number, result.error().message);
      };
      {
        VolumeWorkers workers(volume);
        ObjectId id = life == 0 ? volume.create({}, kRootObject, "a", 0600)->object
                                : volume.resolve("a")->object;
        ObjectId other = volume.create({}, kRootObject, "b" + std::to_string(life), 0600)->object;
        std::vector<std::thread> threads;
        for (int t = 0; t < kThreads; ++t) {
          threads.emplace_back([&, t] {
            sim::Random random(static_cast<std::uint64_t>(10 * life + t));
            auto image = *volume.open_image(id, true);
            auto shrinking = *volume.open_image(other, true);
            Bytes block(kBlockSize);
            for (int round = 0; round < kRounds; ++round) {
              // Each thread has blocks of its own: what it reads there is what it wrote last.
              std::uint64_t mine = random.below(kBlocks);
              std::uint64_t offset = (mine * kThreads + static_cast<std::uint64_t>(t)) * kBlockSize;
              std::uint64_t& value = model[static_cast<std::size_t>(t)][mine];
              if (random.one_in(3)) {
                auto got = volume.read(*image, offset, block);
                std::uint64_t found = 0;
                if (got && *got == kBlockSize) std::memcpy(&found, block.data() + 4088, 8);
                if (!got || found != value) ++wrong;
              } else {
                std::uint64_t next = random.next();
                std::memcpy(block.data() + 4088, &next, 8);
                Result<> written;
                do {
                  written = volume.write(*image, {}, offset, block);
                } while (!written && written.error().kind == ErrorKind::kWouldWait);
                look_at("write", written);
                value = next;
              }
              if (random.one_in(100))
                volume.flush(*image, {}, [&](Result<> result) { look_at("flush", result); });
              if (random.one_in(50))
                (void)volume.set_attributes({}, other, {.set = {}, .size = random.below(100'000)});
              if (random.one_in(20)) (void)volume.write(*shrinking, {}, random.below(90'000), block);
            }
            volume.close_image(image);
            volume.close_image(shrinking);
          });
        }
        for (std::thread& thread : threads) thread.join();
      }
      CHECK(wrong == 0);
      CHECK(failures == "");
      CHECK(volume.problems().empty());
      if (life == 1) REQUIRE(volume.close());
    }
    auto content = read_whole_file(*store, "images/a", "test");
    REQUIRE(content);
    int wrong = 0;
    for (std::size_t t = 0; t < kThreads; ++t)
      for (std::size_t b = 0; b < kBlocks; ++b) {
        std::uint64_t offset = (b * kThreads + t) * kBlockSize + 4088, found = 0;
        if (offset + 8 <= content->size()) std::memcpy(&found, content->data() + offset, 8);
        wrong += found != model[t][b];
      }
    CHECK(wrong == 0);
  }
  std::filesystem::remove_all(path);
}

TEST_CASE("group commit: flushes that come while the journal is synced share the next sync") {
  constexpr std::size_t kGuests = 8;
  test::VolumeHome home;
  std::vector<ObjectId> ids;
  std::vector<ObjectRef> guests;
  for (std::size_t i = 0; i < kGuests; ++i) {
    ids.push_back(home.create("guest" + std::to_string(i)));
    guests.push_back(home.open_image(ids.back()));
  }
  home.apply_all();
  std::atomic<int> syncs{0};
  std::promise<void> first, go_on;
  home.disk.set_hook([&](const sim::DiskCall& call) -> std::optional<int> {
    if (std::string_view(call.label) != "journal.sync") return {};
    if (++syncs == 1) {
      first.set_value();
      go_on.get_future().wait();
    }
    return {};
  });
  std::atomic<int> flushed{0};
  auto work = [&](std::size_t i) {
    if (!home->write(*guests[i], {}, 0, as_bytes("text"))) return;
    home->flush(*guests[i], {}, [&](Result<> result) { flushed += result ? 1 : 0; });
  };
  std::vector<std::thread> threads;
  threads.emplace_back(work, 0);
  first.get_future().wait();
  for (std::size_t i = 1; i < kGuests; ++i) threads.emplace_back(work, i);
  // Until each has its flush in the journal.
  const std::uint64_t with_flush = home->group(ids[0])->seq;
  for (std::size_t i = 1; i < kGuests; ++i)
    while (home->group(ids[i])->seq < with_flush) std::this_thread::yield();
  go_on.set_value();
  for (std::thread& thread : threads) thread.join();
  home.disk.set_hook({});
  CHECK(flushed == kGuests);
  CHECK(syncs == 2);
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
