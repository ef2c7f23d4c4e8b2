// What the engine costs without FUSE: `volume_bench DIRECTORY [SECONDS]`. Makes a volume in a fresh directory
// below DIRECTORY, prints operations per second of 4 KiB random writes and reads and of creations, one thread
// and eight, and removes it.
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "fs/base/log.h"
#include "fs/volume/workers.h"

namespace vmfs {
namespace {

constexpr std::uint64_t kImageSize = 256u << 20, kBlockSize = 4096;

using Work = std::function<bool(std::uint64_t random)>;

// Of all threads, the workers' too: what an operation costs even when others use the machine.
double processor_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void measure(const char* name, int threads, double seconds, const Work& work) {
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> done{0}, waits{0};
  double processor = processor_seconds();
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t)
    running.emplace_back([&, t] {
      std::uint64_t state = static_cast<std::uint64_t>(t) * 7919 + 1, mine = 0, waited = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        if (work(state >> 20))
          ++mine;
        else
          ++waited;
      }
      done += mine;
      waits += waited;
    });
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop = true;
  for (std::thread& thread : running) thread.join();
  processor = processor_seconds() - processor;
  fmt::print("{:<24} {} thread(s): {:>8.0f} per second, {:>6.2f} us of processor each, {} told to wait\n",
             name, threads, static_cast<double>(done) / seconds,
             1e6 * processor / static_cast<double>(std::max<std::uint64_t>(1, done)), waits.load());
}

int run(const std::string& directory, double seconds) {
  std::string path = directory + "/volume-bench-XXXXXX";
  if (!::mkdtemp(path.data())) return 1;
  std::filesystem::create_directory(path + "/journal");
  auto store = open_posix_disk(path).value();
  auto journal = open_posix_disk(path + "/journal").value();
  VolumeOptions options;
  options.journal.node = NodeId{1};
  {
    auto created = Volume::create(*store, *journal, system_clock(), options);
    if (!created) {
      fmt::print("{}\n", created.error().message);
      return 1;
    }
    auto volume = Volume::open(*store, *journal, system_clock(), options, {}).value();
    auto workers = std::make_unique<VolumeWorkers>(*volume);
    auto image = *volume->open_image(volume->create({}, kRootObject, "image", 0600)->object, true);
    Bytes block(kBlockSize, std::byte{7});
    auto place = [](std::uint64_t random) { return random % (kImageSize / kBlockSize) * kBlockSize; };
    auto write = [&](std::uint64_t random) {
      return volume->write(*image, {}, place(random), block).has_value();
    };
    auto read = [&](std::uint64_t random) {
      thread_local Bytes buffer(kBlockSize);
      return volume->read(*image, place(random), buffer).has_value();
    };
    for (int threads : {1, 8}) measure("random write", threads, seconds, write);
    for (int threads : {1, 8}) measure("random read, applying", threads, seconds, read);
    std::this_thread::sleep_for(std::chrono::seconds(4));
    for (int threads : {1, 8}) measure("random read, at rest", threads, seconds, read);
    measure("random write + flush", 1, seconds, [&](std::uint64_t random) {
      bool written = write(random);
      volume->flush(*image, {}, [](Result<>) {});
      return written;
    });
    std::atomic<std::uint64_t> names{0};
    for (int threads : {1, 8})
      measure("create", threads, seconds, [&](std::uint64_t) {
        return volume->create({}, kRootObject, fmt::format("file{}", names.fetch_add(1)), 0600)
            .has_value();
      });
    volume->close_image(image);
    image.reset();
    workers.reset();
    auto began = std::chrono::steady_clock::now();
    volume.reset();
    volume = Volume::open(*store, *journal, system_clock(), options,
                          {.connection = ConnectionId{1}}).value();
    fmt::print("recovery after the daemon's death: {:.3f} s, {} MiB not yet applied\n",
               std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(),
               volume->usage().unapplied_bytes >> 20);
  }
  std::filesystem::remove_all(path);
  return 0;
}

}  // namespace
}  // namespace vmfs

int main(int count, char** arguments) {
  vmfs::set_log_maximum(vmfs::Priority::kWarning);
  if (count < 2) {
    fmt::print("usage: volume_bench DIRECTORY [SECONDS]\n");
    return 2;
  }
  return vmfs::run(arguments[1], count > 2 ? std::stod(arguments[2]) : 2);
}
