#include "fs/index/unapplied_index.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <time.h>
#include <map>
#include <random>
#include <thread>

using namespace vmfs;

namespace {

// What one generation holds of each 512 bytes, by brute force.
struct Cell {
  Lsn lsn = 0;
  Lsn payload = 0;  // of this cell's first byte; 0: zeros
  bool keep = false;
  friend bool operator==(const Cell&, const Cell&) = default;
};
constexpr std::uint64_t kCell = 512;

class Model {
 public:
  Model() : generations_(1) {}
  void insert(const UnappliedExtent& e) {
    for (std::uint64_t at = e.offset; at < e.offset + e.length; at += kCell) {
      Cell cell{e.lsn, e.payload == 0 ? 0 : e.payload + (at - e.offset), e.keep_allocated};
      auto [entry, added] = generations_.back().try_emplace(at, cell);
      if (!added && entry->second.lsn <= e.lsn) entry->second = cell;
    }
  }
  void cut(std::uint64_t size) {
    for (auto& cells : generations_) cells.erase(cells.lower_bound(size), cells.end());
  }
  void remove(const UnappliedExtent& e) {
    auto& cells = generations_.front();
    for (std::uint64_t at = e.offset; at < e.offset + e.length; at += kCell)
      if (auto entry = cells.find(at); entry != cells.end() && entry->second.lsn == e.lsn)
        cells.erase(entry);
  }
  void drop_drained() {
    while (generations_.size() > 1 && generations_.front().empty())
      generations_.erase(generations_.begin());
  }
  void start_generation() {
    if (!generations_.back().empty()) generations_.emplace_back();
  }
  const Cell* newest(std::uint64_t at) const {
    for (std::size_t i = generations_.size(); i-- > 0;)
      if (auto entry = generations_[i].find(at); entry != generations_[i].end())
        return &entry->second;
    return nullptr;
  }
  const std::map<std::uint64_t, Cell>& oldest() const { return generations_.front(); }
  std::size_t generations() const { return generations_.size(); }
  std::uint64_t stored_bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& cells : generations_)
      for (const auto& [at, cell] : cells) bytes += cell.payload == 0 && !cell.keep ? 0 : kCell;
    return bytes;
  }
  bool empty() const {
    return std::all_of(generations_.begin(), generations_.end(),
                       [](const auto& cells) { return cells.empty(); });
  }

 private:
  std::vector<std::map<std::uint64_t, Cell>> generations_;
};

// The pieces cover the range without gap or overlap and say what the model says.
void check_lookup(const UnappliedIndex& index, const Model& model, std::uint64_t offset,
                  std::uint64_t length) {
  std::vector<Piece> pieces;
  index.lookup(offset, length, pieces);
  std::uint64_t at = offset;
  for (const Piece& piece : pieces) {
    REQUIRE(piece.offset == at);
    REQUIRE(piece.length > 0);
    for (std::uint64_t i = 0; i < piece.length; i += kCell) {
      const Cell* cell = model.newest(at + i);
      const auto expected = !cell                ? Piece::Source::kStore
                            : cell->payload == 0 ? Piece::Source::kZero
                                                 : Piece::Source::kJournal;
      const bool right = piece.source == expected && (expected != Piece::Source::kJournal ||
                                                      piece.payload + i == cell->payload);
      if (!right)
        FAIL("wrong at ", at + i);  // a million assertions would take the time of the test
    }
    at += piece.length;
  }
  REQUIRE(at == offset + length);
}

void check_next(const UnappliedIndex& index, const Model& model, std::uint64_t offset,
                std::uint64_t end) {
  std::uint64_t expected = offset;
  while (expected < end && !model.newest(expected)) expected += kCell;
  REQUIRE(index.next_unapplied(offset, end) == std::min(expected, end));
}

// Everything of the oldest generation, ascending, exactly once.
void check_collect(const UnappliedIndex& index, const Model& model, std::uint64_t bytes_max) {
  std::map<std::uint64_t, Cell> found;
  std::vector<UnappliedExtent> out;
  std::uint64_t next = 0, last_end = 0;
  do {
    next = index.collect(next, bytes_max, out);
    for (const UnappliedExtent& e : out) {
      REQUIRE(e.offset >= last_end);
      REQUIRE(e.length > 0);
      for (std::uint64_t i = 0; i < e.length; i += kCell)
        found[e.offset + i] = {e.lsn, e.payload == 0 ? 0 : e.payload + i, e.keep_allocated};
      last_end = e.offset + e.length;
    }
    REQUIRE((next == 0 || next >= last_end));
  } while (next != 0);
  REQUIRE(found == model.oldest());
}

void random_run(std::uint64_t seed, bool with_generations) {
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  auto below = [&](std::uint64_t n) { return random() % n; };
  std::atomic<std::uint64_t> memory{0};
  {
    UnappliedIndex index(memory);
    Model model;
    const std::uint64_t image = (2 + below(14)) * kChunk;
    Lsn next_lsn = 200'000'000;
    std::vector<UnappliedExtent> collected;
    for (int step = 0; step < 300; ++step) {
      // No two records have the same LSN.
      auto lateness = [&] {
        return below(3) != 0 ? 0 : below(20) * 5'000'000 + 1 + static_cast<std::uint64_t>(step);
      };
      const std::uint64_t offset = below(image / kCell) * kCell;
      const bool small = below(4) != 0;
      std::uint64_t length = (1 + below(small ? 16 : image / kCell)) * kCell;
      length = std::min(length, image - offset);
      switch (below(with_generations ? 13 : 12)) {
        default: {
          UnappliedExtent e{offset, std::min(length, kChunk), 0, 0, false};
          // Some arrive later than records that came after them.
          e.lsn = next_lsn - lateness();
          e.payload = e.lsn + 120;
          next_lsn += 5'000'000;
          index.insert(e);
          model.insert(e);
          break;
        }
        case 1: {
          UnappliedExtent e{offset, length, next_lsn, 0, below(2) == 0};
          e.lsn -= lateness();
          next_lsn += 5'000'000;
          index.insert(e);
          model.insert(e);
          break;
        }
        case 2:
          if (below(4) != 0) break;
          index.cut(offset);
          model.cut(offset);
          collected.clear();
          break;
        case 3:
        case 4: {
          index.collect(below(2) == 0 ? 0 : offset, below(kChunk), collected);
          break;
        }
        case 5:
        case 6:
          index.remove(collected);
          for (const UnappliedExtent& e : collected) model.remove(e);
          model.drop_drained();
          collected.clear();
          break;
        case 7:
          if (below(20) != 0) break;
          index.clear();
          model = Model();
          collected.clear();
          break;
        case 12:
          index.start_generation();
          model.start_generation();
          break;
      }
      check_lookup(index, model, offset, length);
      check_next(index, model, offset, image);
      REQUIRE(index.empty() == model.empty());
      if (step % 16 == 0) {
        check_lookup(index, model, 0, image);
        check_collect(index, model, 1 + below(image));
        REQUIRE(index.bytes() == model.stored_bytes());
        REQUIRE(index.generations() == model.generations());
      }
    }
    REQUIRE((model.empty() || memory > 0));
  }
  REQUIRE(memory == 0);
}

// Of processor time: what else the machine does meanwhile does not count.
double nanoseconds_each(std::size_t count, auto&& f) {
  auto now = [] {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
  };
  const double start = now();
  for (std::size_t i = 0; i < count; ++i) f(i);
  return (now() - start) / static_cast<double>(count);
}

}  // namespace

TEST_SUITE("unapplied index") {
  TEST_CASE("what is not in the index is in the store") {
    std::atomic<std::uint64_t> memory{0};
    UnappliedIndex index(memory);
    std::vector<Piece> pieces;
    index.lookup(100, 200, pieces);
    REQUIRE(pieces.size() == 1);
    CHECK(pieces[0].source == Piece::Source::kStore);
    CHECK(pieces[0].length == 200);
    CHECK(index.next_unapplied(0, 1000) == 1000);
    std::vector<UnappliedExtent> out;
    CHECK(index.collect(0, 1000, out) == 0);
    CHECK(out.empty());
  }

  TEST_CASE("the higher LSN wins in whatever order they come") {
    std::atomic<std::uint64_t> memory{0};
    UnappliedIndex index(memory);
    index.insert({0, 8192, 200, 320, false});
    index.insert({4096, 8192, 100, 220, false});
    std::vector<Piece> pieces;
    index.lookup(0, 12288, pieces);
    REQUIRE(pieces.size() == 2);
    CHECK(pieces[0].payload == 320);
    CHECK(pieces[0].length == 8192);
    CHECK(pieces[1].payload == 220 + 4096);
    CHECK(pieces[1].length == 4096);
  }

  TEST_CASE("a zero range of a terabyte is few entries, and a write into it survives it") {
    std::atomic<std::uint64_t> memory{0};
    UnappliedIndex index(memory);
    constexpr std::uint64_t kTerabyte = 1ull << 40;
    index.insert({kTerabyte / 2 + 4096, 4096, 50, 170, false});  // older: goes
    index.insert({1, kTerabyte, 100, 0, false});
    index.insert({kTerabyte / 4, 4096, 90, 210, false});   // older: does not come
    index.insert({kTerabyte / 4, 4096, 110, 230, false});  // newer
    CHECK(index.entries() < 10);
    CHECK(memory < 16384);
    std::vector<UnappliedExtent> out;
    CHECK(index.collect(0, ~0ull, out) == 0);
    REQUIRE(out.size() == 3);
    CHECK(out[0].offset == 1);
    CHECK(out[0].length == kTerabyte / 4 - 1);
    CHECK(out[1].lsn == 110);
    CHECK(out[2].offset + out[2].length == kTerabyte + 1);
    index.remove({out[0], out[2]});
    std::vector<Piece> pieces;
    index.lookup(kTerabyte / 4 - 4096, 12288, pieces);
    REQUIRE(pieces.size() == 3);
    CHECK(pieces[1].payload == 230);
    index.remove({out[1]});
    CHECK(index.empty());
  }

  TEST_CASE("what was written again while it was being applied stays") {
    std::atomic<std::uint64_t> memory{0};
    UnappliedIndex index(memory);
    index.insert({0, 8192, 100, 220, false});
    std::vector<UnappliedExtent> out;
    index.collect(0, 1 << 20, out);
    index.insert({4096, 4096, 200, 320, false});
    index.remove(out);
    std::vector<Piece> pieces;
    index.lookup(0, 8192, pieces);
    REQUIRE(pieces.size() == 2);
    CHECK(pieces[0].source == Piece::Source::kStore);
    CHECK(pieces[1].payload == 320);
  }

  TEST_CASE("an older generation is drained while the newer one is seen") {
    std::atomic<std::uint64_t> memory{0};
    UnappliedIndex index(memory);
    index.insert({0, 8192, 100, 220, false});
    index.start_generation();
    index.insert({0, 4096, 200, 320, false});
    CHECK(index.generations() == 2);
    std::vector<UnappliedExtent> out;
    CHECK(index.collect(0, 1 << 20, out) == 0);
    REQUIRE(out.size() == 1);
    CHECK(out[0].length == 8192);
    std::vector<Piece> pieces;
    index.lookup(0, 8192, pieces);
    REQUIRE(pieces.size() == 2);
    CHECK(pieces[0].payload == 320);
    CHECK(pieces[1].payload == 220 + 4096);
    index.remove(out);
    CHECK(index.generations() == 1);
    CHECK(index.bytes() == 4096);
  }

  TEST_CASE("any sequence of operations agrees with a reference that keeps every sector" *
            doctest::test_suite("unapplied index, one thread")) {
    for (std::uint64_t seed = 0; seed < 60; ++seed) random_run(seed, seed % 2 == 1);
  }

  TEST_CASE("inserts, lookups and the applier beside each other") {
    std::atomic<std::uint64_t> memory{0};
    UnappliedIndex index(memory);
    constexpr std::uint64_t kBlocks = 4096;  // of 4 KiB, 16 chunks
    std::atomic<std::uint64_t> lsn{1};
    std::vector<std::atomic<Lsn>> newest(kBlocks);
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> wrong{0};
    auto writer = [&](std::uint64_t seed) {
      std::mt19937_64 random(seed);
      std::vector<Piece> pieces;
      for (int i = 0; i < 20000; ++i) {
        // Each writer has blocks of its own, so that it knows what it must read.
        std::uint64_t block = random() % (kBlocks / 2) * 2 + seed;
        Lsn mine = lsn.fetch_add(1);
        newest[block] = mine;
        index.insert({block * 4096, 4096, mine, mine * 8192, false});
        index.lookup(block * 4096, 4096, pieces);
        if (pieces.size() != 1 ||
            (pieces[0].source != Piece::Source::kStore && pieces[0].payload != mine * 8192))
          ++wrong;
      }
    };
    std::map<std::uint64_t, Lsn> store;
    std::thread applier([&] {
      std::vector<UnappliedExtent> out;
      while (!stop || !index.empty()) {
        std::uint64_t next = 0;
        do {
          next = index.collect(next, 64 * 4096, out);
          for (const auto& e : out) {
            if (store[e.offset / 4096] > e.lsn) ++wrong;
            store[e.offset / 4096] = e.lsn;
          }
          index.remove(out);
        } while (next != 0);
      }
    });
    std::thread one(writer, 0), two(writer, 1);
    one.join();
    two.join();
    stop = true;
    applier.join();
    CHECK(wrong == 0);
    CHECK(index.empty());
    CHECK(index.bytes() == 0);
    for (std::uint64_t block = 0; block < kBlocks; ++block)
      if (newest[block] != 0 && store[block] != newest[block]) ++wrong;
    CHECK(wrong == 0);
  }

  TEST_CASE("speed of 200,000 random blocks in 8 GiB") {
    std::atomic<std::uint64_t> memory{0};
    UnappliedIndex index(memory);
    constexpr std::size_t kCount = 200'000;
    std::mt19937_64 random(1);
    std::vector<std::uint64_t> offsets(kCount);
    for (auto& offset : offsets) offset = random() % (8ull << 18) * 4096;
    std::vector<Piece> pieces;
    double insert = nanoseconds_each(kCount, [&](std::size_t i) {
      index.insert({offsets[i], 4096, (i + 1) * 4216, (i + 1) * 4216 + 120, false});
    });
    double lookup =
        nanoseconds_each(kCount, [&](std::size_t i) { index.lookup(offsets[i], 4096, pieces); });
    double again = nanoseconds_each(kCount, [&](std::size_t i) {
      index.insert({offsets[i], 4096, (i + kCount + 1) * 4216, (i + 1) * 4216 + 120, false});
    });
    MESSAGE("insert ", insert, " ns, again ", again, " ns, lookup ", lookup, " ns, memory ",
            memory.load() / kCount, " bytes an entry");
    CHECK(insert < 10'000);  // generous: it must hold under sanitizers and a busy machine too
    CHECK(lookup < 10'000);
  }
}
