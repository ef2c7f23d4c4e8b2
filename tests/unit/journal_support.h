// What the journal's tests share: a directory of their own on a real disk, and records whose content
// tells where they belong.
#pragma once

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "fs/base/hash.h"
#include "fs/journal/journal.h"
#include "fs/journal/record_reader.h"
#include "fs/journal/segment.h"
#include "fs/seam/clock.h"
#include "fs/seam/disk.h"

namespace vmfs::journal_test {

class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "vmfs-journal-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    auto disk = open_posix_disk(path_.string());
    REQUIRE(disk);
    disk_ = std::move(*disk);
  }
  ~ScratchDirectory() { std::filesystem::remove_all(path_); }
  Disk& disk() { return *disk_; }
  const std::filesystem::path& path() const { return path_; }

  void flip(const std::string& name, std::uint64_t offset) {
    std::fstream file(path_ / name, std::ios::in | std::ios::out | std::ios::binary);
    REQUIRE(file);
    file.seekg(static_cast<std::streamoff>(offset));
    char byte = static_cast<char>(file.get());
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(static_cast<char>(byte ^ 0x5a));
  }
  void zero(const std::string& name, std::uint64_t offset, std::uint64_t length) {
    std::fstream file(path_ / name, std::ios::in | std::ios::out | std::ios::binary);
    REQUIRE(file);
    file.seekp(static_cast<std::streamoff>(offset));
    std::string zeros(length, '\0');
    file.write(zeros.data(), static_cast<std::streamsize>(length));
  }

 private:
  std::filesystem::path path_;
  std::unique_ptr<Disk> disk_;
};

inline JournalOptions small_options(std::uint64_t segments = 4) {
  JournalOptions options;
  options.volume[0] = std::byte{7};
  options.node = NodeId{11};
  options.segment_size = 1u << 20;
  options.size_max = segments << 20;
  return options;
}

inline std::unique_ptr<Journal> open_journal(Disk& disk, const JournalOptions& options,
                                             Lsn start = 0, bool quick = false) {
  auto journal = Journal::open(disk, system_clock(), options, {start, false, quick});
  if (!journal) FAIL(journal.error().message);
  return std::move(*journal);
}

inline std::unique_ptr<Journal> new_journal(Disk& disk, const JournalOptions& options) {
  auto created = Journal::create(disk, options);
  if (!created) FAIL(created.error().message);
  return open_journal(disk, options);
}

// Bytes that follow from the number.
inline Bytes content(std::uint64_t number, std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>((number * 131 + i * 7 + (i >> 8)) & 0xff);
  return bytes;
}

inline Draft write_draft(GroupId group, std::uint64_t number, ByteView payload) {
  Draft draft;
  draft.header.type = RecordType::kWrite;
  draft.header.group = raw(group);
  draft.header.offset = number;
  draft.header.extent = payload.size();
  draft.payload = payload;
  return draft;
}

// One writer's appends; `sizes` vary so that all alignments come up.
struct Appender {
  Journal& journal;
  SequenceCursor cursor{EpochId{5}, 0};
  GroupId group{ObjectId{21}};
  std::size_t size_of(std::uint64_t number) const { return (number * 977) % 9000; }

  Result<Journal::Reservation> append() {
    std::uint64_t number = cursor.seq + 1;
    Bytes bytes = content(number, size_of(number));
    Draft draft = write_draft(group, number, bytes);
    return journal.append(draft, &cursor);
  }
};

struct Seen {
  Lsn lsn;
  SealEntry entry;
};

inline std::vector<Seen> replayed(Journal& journal) {
  std::vector<Seen> seen;
  auto done = journal.replay([&](Lsn lsn, const SealEntry& entry) -> Result<> {
    seen.push_back({lsn, entry});
    return {};
  });
  if (!done) FAIL(done.error().message);
  return seen;
}

// All records of an Appender from `first` on, with their content, without a gap.
inline void check_sequence(Journal& journal, const std::vector<Seen>& seen, std::uint64_t first,
                           std::uint64_t count) {
  REQUIRE(seen.size() == count);
  Appender appender{journal};
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t number = first + i;
    REQUIRE(seen[i].entry.seq == number);
    REQUIRE(seen[i].entry.payload_size == appender.size_of(number));
    Bytes bytes(seen[i].entry.payload_size);
    auto read = journal.read_payload(seen[i].lsn + sizeof(RecordHeader), bytes);
    REQUIRE(read);
    REQUIRE(*read);
    REQUIRE(bytes == content(number, bytes.size()));
  }
}

}  // namespace vmfs::journal_test
