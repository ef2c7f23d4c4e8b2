// The format: the golden file holds it; `vmfs inspect` shows it.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "fs/journal/inspect.h"
#include "fs/journal/segment_scan.h"
#include "tests/unit/journal_support.h"

namespace vmfs {
namespace {

using namespace journal_test;

constexpr std::uint64_t kIncarnation = 0x0123456789abcdef;
constexpr std::uint64_t kNumber = 5;
constexpr Geometry kGeometry{1u << 20};

void put(Bytes& bytes, std::uint64_t at, RecordHeader header, ByteView payload = {}) {
  header.lsn = kGeometry.start(kNumber) + at;
  header.generation = header.generation ? header.generation : 1;
  header.payload_size = static_cast<std::uint32_t>(payload.size());
  header.payload_hash = hash64(payload);
  header.header_hash = hash_of(header, kIncarnation);
  std::memcpy(bytes.data() + at, &header, sizeof header);
  std::copy(payload.begin(), payload.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at + sizeof header));
}

// The first blocks of a segment: three records, a pad, and the start of a generation.
Bytes first_blocks() {
  Bytes bytes(3 * kBlock);
  SegmentHeader segment;
  for (std::size_t i = 0; i < sizeof segment.volume; ++i) segment.volume[i] = std::byte(i + 1);
  segment.node = 0x1122334455667788;
  segment.number = kNumber;
  segment.size = kGeometry.segment_size;
  segment.incarnation = kIncarnation;
  segment.hash = hash_of(segment);
  std::memcpy(bytes.data(), &segment, sizeof segment);

  RecordHeader write;
  write.type = RecordType::kWrite;
  write.group = 0x4242;
  write.epoch = 0x77;
  write.seq = 9;
  write.wall_ns = 1'700'000'000'123'456'789;
  write.offset = 65536;
  write.extent = 21;
  write.connection = 3;
  write.unique = 4;
  put(bytes, kBlock, write, as_bytes("twenty-one bytes here"));
  RecordHeader zero = write;
  zero.type = RecordType::kZero;
  zero.flags = kKeepAllocated | kBatchEnd;
  zero.seq = 10;
  zero.extent = 1u << 20;
  put(bytes, kBlock + 144, zero);
  RecordHeader flush = write;
  flush.type = RecordType::kFlush;
  flush.seq = 11;
  flush.offset = flush.extent = 0;
  put(bytes, kBlock + 264, flush);
  RecordHeader pad;
  pad.type = RecordType::kPad;
  pad.extent = kBlock - 384;
  put(bytes, kBlock + 384, pad);
  RecordHeader start;
  start.type = RecordType::kPad;
  start.flags = kGenerationStart;
  start.generation = 2;
  start.extent = kBlock;
  start.offset = start.durable = kGeometry.start(kNumber) + 2 * kBlock;
  put(bytes, 2 * kBlock, start);
  return bytes;
}

TEST_SUITE("journal format") {
  TEST_CASE("version 1 is what the golden file holds") {
    std::ifstream file(VMFS_SOURCE_DIR "/tests/golden/journal-v1.seg", std::ios::binary);
    REQUIRE(file);
    std::string text((std::istreambuf_iterator<char>(file)), {});
    Bytes golden(as_bytes(text).begin(), as_bytes(text).end());
    CHECK(golden == first_blocks());

    FileWindow window(
        [&](std::span<std::byte> out, std::uint64_t offset) -> Result<std::size_t> {
          std::size_t size = std::min<std::size_t>(out.size(), golden.size() - offset);
          std::memcpy(out.data(), golden.data() + offset, size);
          return size;
        },
        golden.size());
    std::vector<RecordHeader> seen;
    auto walk = walk_segment(window, {kGeometry, kNumber, kIncarnation}, {},
                             [&](const RecordHeader& header, ByteView payload) -> Result<> {
                               if (header.type == RecordType::kWrite)
                                 CHECK(Bytes(payload.begin(), payload.end()) ==
                                       Bytes(as_bytes("twenty-one bytes here").begin(),
                                             as_bytes("twenty-one bytes here").end()));
                               seen.push_back(header);
                               return {};
                             });
    REQUIRE(walk);
    CHECK(walk->end == kGeometry.start(kNumber) + 3 * kBlock);
    CHECK(walk->generation == 2);
    REQUIRE(seen.size() == 5);
    CHECK(seen[0].seq == 9);
    CHECK(seen[1].type == RecordType::kZero);
    CHECK(seen[1].flags == (kKeepAllocated | kBatchEnd));
    CHECK(seen[2].type == RecordType::kFlush);
    CHECK(seen[4].flags == kGenerationStart);
  }

  TEST_CASE("inspect prints every record, and goes on past damage") {
    ScratchDirectory scratch;
    JournalOptions options = small_options();
    Journal::Reservation bad;
    {
      auto journal = new_journal(scratch.disk(), options);
      Appender appender{*journal};
      while (journal->written_lsn() < 2 * options.segment_size) {
        auto reservation = appender.append();
        REQUIRE(reservation);
        if (appender.cursor.seq == 4) bad = *reservation;
      }
    }
    auto lines = [&](InspectOptions shown = {.records = true}) {
      auto file = scratch.disk().open(segment_name(1), OpenMode::kRead, "test");
      REQUIRE(file);
      std::vector<std::string> out;
      REQUIRE(inspect_segment(**file, shown,
                              [&](std::string_view line) { out.emplace_back(line); }));
      return out;
    };
    auto whole = lines();
    CHECK(whole.front().find("header valid") != std::string::npos);
    auto among = [](const std::vector<std::string>& some, std::string_view part) {
      return std::any_of(some.begin(), some.end(),
                         [&](const std::string& line) { return line.find(part) != line.npos; });
    };
    CHECK(among(whole, "seal  table of"));
    CHECK(whole.back().ends_with(" records"));
    const auto sums = lines({});
    CHECK(!among(sums, "table of"));
    CHECK(sums.front() == whole.front());
    CHECK(sums.back() == whole.back());
    const auto payloads = lines({.payloads = true});
    CHECK(payloads.size() > whole.size());
    const std::uint64_t offset = bad.lsn % options.segment_size;
    scratch.flip(segment_name(1), offset + 40);
    auto damaged = lines();
    REQUIRE(damaged.size() == whole.size());
    bool said = false;
    for (const std::string& line : damaged)
      said = said || (line.find(std::to_string(offset)) != std::string::npos &&
                      line.find("fails its checksum; the next whole record is") !=
                          std::string::npos);
    CHECK(said);
    scratch.flip(segment_name(1), 20);
    CHECK(lines().front().find("DAMAGED") != std::string::npos);
    scratch.flip(segment_name(1), 0);
    CHECK(lines().size() == 1);
  }

  TEST_CASE("a sealed segment's table may be empty") {
    const std::uint64_t at = kGeometry.segment_size - seal_size(0);
    SealTrailer trailer;
    trailer.seal_offset = at;
    Bytes segment(kGeometry.segment_size);
    RecordHeader seal;
    seal.type = RecordType::kSeal;
    put(segment, at, seal, std::as_bytes(std::span(&trailer, 1)));
    ScratchDirectory scratch;
    auto file = scratch.disk().open("segment", OpenMode::kCreate, "test");
    REQUIRE(file);
    REQUIRE((*file)->write(segment, 0, "test"));
    auto table = read_seal(**file, {kGeometry, kNumber, kIncarnation}, "test");
    REQUIRE(table);
    REQUIRE(*table);
    CHECK((*table)->entries.empty());
    segment.back() ^= std::byte{1};
    REQUIRE((*file)->write(segment, 0, "test"));
    table = read_seal(**file, {kGeometry, kNumber, kIncarnation}, "test");
    REQUIRE(table);
    CHECK_FALSE(*table);
  }
}

}  // namespace
}  // namespace vmfs
