// What the journal costs beside the bare system calls that it cannot do without.
//
//   journal_bench [DIRECTORY [SECONDS]]
//
// Appends of 4 KiB by one and by eight threads; an append and a sync each, beside a bare pwrite of
// 4 KiB and fdatasync on a preallocated, already written file in the same directory; opening a
// journal full of sealed segments. Medians of rounds taken in turn.
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <thread>
#include <vector>

#include "fs/base/log.h"
#include "fs/journal/journal.h"

namespace {

using namespace vmfs;
using Seconds = std::chrono::duration<double>;

double now() { return Seconds(std::chrono::steady_clock::now().time_since_epoch()).count(); }

[[noreturn]] void give_up(const std::string& why) {
  fmt::print(stderr, "journal_bench: {}\n", why);
  std::exit(1);
}

template <class T>
T must(Result<T> result) {
  if (!result) give_up(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

struct Setup {
  std::unique_ptr<Disk> disk;
  JournalOptions options;
  std::unique_ptr<Journal> journal;
  explicit Setup(const std::filesystem::path& directory) : disk(must(open_posix_disk(directory))) {
    options.node = NodeId{1};
    options.segment_size = 64u << 20;
    options.size_max = 512u << 20;
    options.whole_at_creation = true;
    must(Journal::create(*disk, options));
    journal = must(Journal::open(*disk, system_clock(), options, {}));
  }
  // What an applier would have done: all space is free again.
  void empty() {
    must(journal->sync_through(journal->reserved_lsn()));
    must(journal->release_through(journal->durable_lsn()));
    while (must(journal->prepare_segments())) {
    }
  }
};

// Operations a second of `threads` threads that each run `one` until the time is over.
double rate(int threads, double seconds, const std::function<bool(int)>& one) {
  std::atomic<std::uint64_t> total{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> running;
  double begin = now();
  for (int t = 0; t < threads; ++t)
    running.emplace_back([&, t] {
      std::uint64_t count = 0;
      while (!stop.load(std::memory_order_relaxed) && one(t)) {
        ++count;
        if (count % 16 == 0 && now() - begin > seconds) break;
      }
      stop = true;
      total += count;
    });
  for (auto& thread : running) thread.join();
  return static_cast<double>(total) / (now() - begin);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  std::filesystem::path base = argc > 1 ? argv[1] : std::filesystem::temp_directory_path();
  const double seconds = argc > 2 ? std::atof(argv[2]) : 0.5;
  std::string pattern = (base / "journal-bench-XXXXXX").string();
  if (!::mkdtemp(pattern.data())) give_up("cannot make a directory in " + base.string());
  const std::filesystem::path directory = pattern;
  set_log_maximum(Priority::kWarning);
  {
    Setup setup(directory);
    Journal& journal = *setup.journal;
    const std::uint64_t bare_size = 256u << 20;
    int bare = ::open((directory / "bare").c_str(), O_CREAT | O_RDWR, 0600);
    if (bare < 0) give_up("cannot make a file");
    std::vector<std::byte> page(4096, std::byte{0x5b}), chunk(1u << 20);
    for (std::uint64_t at = 0; at < bare_size; at += chunk.size())
      if (::pwrite(bare, chunk.data(), chunk.size(), static_cast<off_t>(at)) < 0) give_up("write");
    ::fsync(bare);
    std::uint64_t bare_at = 0;
    auto bare_write = [&](int) {
      bare_at = bare_at + 8192 > bare_size ? 0 : bare_at;
      std::byte header[120] = {};
      iovec pieces[2] = {{header, sizeof header}, {page.data(), page.size()}};
      bool done = ::pwritev(bare, pieces, 2, static_cast<off_t>(bare_at)) == 4216;
      bare_at += 4216;
      return done;
    };
    auto bare_sync = [&](int) {
      bare_at = bare_at + 4096 > bare_size ? 0 : bare_at & ~std::uint64_t{4095};
      bool done = ::pwrite(bare, page.data(), page.size(), static_cast<off_t>(bare_at)) == 4096 &&
                  ::fdatasync(bare) == 0;
      bare_at += 4096;
      return done;
    };
    std::vector<SequenceCursor> cursors(8, SequenceCursor{EpochId{1}, 0});
    auto append = [&](int thread) {
      Draft draft;
      draft.header.type = RecordType::kWrite;
      draft.header.group = static_cast<std::uint64_t>(thread) + 2;
      draft.header.extent = page.size();
      draft.payload = page;
      return journal.append(draft, &cursors[static_cast<std::size_t>(thread)]).has_value();
    };
    auto append_sync = [&](int thread) {
      Draft draft;
      draft.header.type = RecordType::kWrite;
      draft.header.group = static_cast<std::uint64_t>(thread) + 2;
      draft.header.extent = page.size();
      draft.payload = page;
      auto reservation = journal.append(draft, &cursors[static_cast<std::size_t>(thread)]);
      return reservation && journal.sync_through(reservation->end);
    };
    struct Row {
      const char* name;
      int threads;
      std::function<bool(int)> one;
      std::vector<double> rates;
    };
    std::vector<Row> rows{{"bare pwritev of 4 KiB + header", 1, bare_write, {}},
                          {"append 4 KiB, 1 thread", 1, append, {}},
                          {"append 4 KiB, 8 threads", 8, append, {}},
                          {"bare pwrite 4 KiB + fdatasync", 1, bare_sync, {}},
                          {"append + sync, 1 thread", 1, append_sync, {}},
                          {"append + sync, 8 threads", 8, append_sync, {}}};
    for (int round = 0; round < 5; ++round)
      for (Row& row : rows) {
        setup.empty();
        row.rates.push_back(rate(row.threads, seconds, row.one));
      }
    double base_rate = 0;
    for (Row& row : rows) {
      double value = median(row.rates);
      if (std::string_view(row.name).starts_with("bare")) base_rate = value;
      fmt::print("{:34} {:9.0f} /s  {:8.2f} us  {:5.2f} of bare\n", row.name, value, 1e6 / value,
                 value / base_rate);
    }
    ::close(bare);
    setup.empty();
    while (append(0)) {
    }
    must(journal.sync_through(journal.reserved_lsn()));
    const Lsn start = journal.oldest_lsn();
    setup.journal.reset();
    for (bool quick : {true, false}) {
      double begin = now();
      auto opened = must(Journal::open(*setup.disk, system_clock(), setup.options,
                                       {start, false, quick}));
      std::uint64_t records = 0;
      must(opened->replay([&](Lsn, const SealEntry&) -> Result<> {
        ++records;
        return {};
      }));
      fmt::print("open and replay {} MiB, {}: {:.3f} s ({} records)\n", opened->bytes_used() >> 20,
                 quick ? "quick" : "verified", now() - begin, records);
    }
  }
  std::filesystem::remove_all(directory);
}
