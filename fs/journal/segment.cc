#include "fs/journal/segment.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/digits.h"
#include "fs/journal/record_check.h"

namespace vmfs {
namespace {

constexpr std::string_view kSegmentSuffix = ".seg";
constexpr std::string_view kSparePrefix = "spare-";
constexpr std::size_t kDigits = 16;
constexpr std::size_t kZeroChunk = 1u << 20;

std::optional<std::uint64_t> number_in(std::string_view text) {
  std::uint64_t number = 0;
  if (text.size() != kDigits || !parse_digits(text, number, 16)) return std::nullopt;
  // Only the spelling that we write: another one would be a second file of the same number.
  if (fmt::format("{:016x}", number) != text) return std::nullopt;
  return number;
}

}  // namespace

std::string segment_name(std::uint64_t number) {
  return fmt::format("{:016x}{}", number, kSegmentSuffix);
}

std::optional<std::uint64_t> parse_segment_name(std::string_view name) {
  if (!name.ends_with(kSegmentSuffix)) return std::nullopt;
  name.remove_suffix(kSegmentSuffix.size());
  return number_in(name);
}

std::string spare_name(std::uint64_t number) {
  return fmt::format("{}{:016x}", kSparePrefix, number);
}

bool is_spare_name(std::string_view name) {
  if (!name.starts_with(kSparePrefix)) return false;
  name.remove_prefix(kSparePrefix.size());
  return number_in(name).has_value();
}

Result<std::unique_ptr<File>> make_zero_file(Disk& disk, const std::string& name,
                                             std::uint64_t size, Label label) {
  VMFS_ASSIGN(auto file, disk.open(name, OpenMode::kCreateOrOpen, label));
  VMFS_TRY(file->truncate(0, label));
  // One request for all blocks, so that they lie together; then zeros, because blocks that are only
  // reserved would cost a metadata change at each first sync. Not every file system can reserve.
  if (auto reserved = file->allocate(0, size, false, label);
      !reserved && reserved.error().kind == ErrorKind::kNoSpace)
    return pass(std::move(reserved.error()));
  Bytes zeros(static_cast<std::size_t>(std::min<std::uint64_t>(size, kZeroChunk)));
  for (std::uint64_t at = 0; at < size; at += zeros.size()) {
    VMFS_TRY(file->write(zeros, at, label));
    file->start_writeback(at, zeros.size());
  }
  VMFS_TRY(file->sync(label));
  return file;
}

Result<> write_segment_header(File& file, const JournalOptions& options, std::uint64_t number,
                              std::uint64_t incarnation, Label label) {
  SegmentHeader header;
  std::memcpy(header.volume, options.volume.data(), sizeof header.volume);
  header.node = raw(options.node);
  header.number = number;
  header.size = options.segment_size;
  header.incarnation = incarnation;
  header.hash = hash_of(header);
  Bytes block(kBlock);
  std::memcpy(block.data(), &header, sizeof header);
  return file.write(block, 0, label);
}

SegmentSet::SegmentSet(Disk& disk, const JournalOptions& options, std::uint64_t found)
    : disk_(disk),
      options_(options),
      geometry_{options.segment_size},
      count_max_(options.size_max / options.segment_size),
      // Recovery may need one segment above the limit to begin a generation.
      ring_size_(static_cast<std::size_t>(std::max(count_max_, found) * 2 + 64)),
      ring_(std::make_unique<Slot[]>(ring_size_)) {}

void SegmentSet::adopt(std::uint64_t number, std::unique_ptr<File> file,
                       std::uint64_t incarnation) {
  std::lock_guard lock(mutex_);
  CHECK_COMPARE(owned_.size(), <, ring_size_);
  slot(number).incarnation.store(incarnation, std::memory_order_release);
  slot(number).file.store(file.get(), std::memory_order_release);
  owned_[number] = std::move(file);
}

void SegmentSet::adopt_spare(std::string name, std::unique_ptr<File> file) {
  std::lock_guard lock(mutex_);
  spares_.push_back({std::move(name), std::move(file)});
}

Result<> SegmentSet::make_ready(std::uint64_t number, bool may_create) {
  std::lock_guard lock(mutex_);
  CHECK_INVARIANT(!owned_.contains(number), "segment {} exists", number);
  VMFS_ASSIGN(FreeFile spare, take_spare_locked());
  if (!spare.file) {
    if (!may_create) return fail(ErrorKind::kNoSpace, ENOSPC, "no segment is free");
    auto made = make_zero_file(disk_, kPrepareFile, options_.segment_size, "journal.prepare");
    if (!made) {
      (void)disk_.remove(kPrepareFile, "journal.prepare");  // gives the space back
      return pass(std::move(made.error()));
    }
    spare = {kPrepareFile, std::move(*made)};
  }
  auto finish = [&]() -> Result<> {
    std::uint64_t incarnation = random_u64();
    VMFS_TRY(write_segment_header(*spare.file, options_, number, incarnation, "journal.header"));
    VMFS_TRY(spare.file->sync_data("journal.header"));
    VMFS_TRY(disk_.rename(spare.name, segment_name(number), true, "journal.prepare"));
    spare.name = segment_name(number);
    VMFS_TRY(disk_.sync_directory("", "journal.prepare"));
    slot(number).incarnation.store(incarnation, std::memory_order_release);
    slot(number).file.store(spare.file.get(), std::memory_order_release);
    return {};
  };
  if (auto finished = finish(); !finished) {
    // The file's state is unknown (a header's sync may have failed): it is not used again.
    (void)disk_.remove(spare.name, "journal.prepare");
    replaced_.push_back(std::move(spare.file));
    return finished;
  }
  owned_[number] = std::move(spare.file);
  return {};
}

// Before the first byte of an old segment's file is overwritten, its old name must be gone for good:
// otherwise a crash could show a live number with a header of another.
Result<FreeFile> SegmentSet::take_spare_locked() {
  if (spares_.empty()) return FreeFile{};
  if (names_unsynced_) {
    VMFS_TRY(disk_.sync_directory("", "journal.prepare"));
    names_unsynced_ = false;
  }
  FreeFile spare = std::move(spares_.back());
  spares_.pop_back();
  return spare;
}

Result<FreeFile> SegmentSet::take_spare() {
  std::lock_guard lock(mutex_);
  return take_spare_locked();
}

Result<> SegmentSet::retire(std::uint64_t number) {
  std::lock_guard lock(mutex_);
  auto found = owned_.find(number);
  CHECK_INVARIANT(found != owned_.end(), "segment {} is not there", number);
  if (spares_.size() + owned_.size() > count_max_) {
    // The limit was lowered since this one was made.
    VMFS_TRY(disk_.remove(segment_name(number), "journal.release"));
    slot(number).file.store(nullptr, std::memory_order_seq_cst);
    drop_file_locked(std::move(found->second));
    owned_.erase(found);
    return {};
  }
  std::string name = spare_name(number);
  // One that was prepared for this number and never used may have that name still.
  while (std::any_of(spares_.begin(), spares_.end(), [&](const FreeFile& spare) { return spare.name == name; }))
    name = spare_name(spare_names_++ | (std::uint64_t{1} << 63));
  VMFS_TRY(disk_.rename(segment_name(number), name, true, "journal.release"));
  names_unsynced_ = true;
  spares_.push_back({std::move(name), std::move(found->second)});
  owned_.erase(found);
  return {};
}

void SegmentSet::replace(std::uint64_t number, std::unique_ptr<File> file,
                         std::uint64_t incarnation) {
  std::lock_guard lock(mutex_);
  auto& owner = owned_.at(number);
  slot(number).incarnation.store(incarnation, std::memory_order_release);
  slot(number).file.store(file.get(), std::memory_order_seq_cst);
  drop_file_locked(std::move(owner));
  owner = std::move(file);
}

void SegmentSet::drop_file_locked(std::unique_ptr<File> file) {
  replaced_.push_back(std::move(file));
  // Who starts to read from now on sees what has taken its place: once nobody reads, nobody uses an old one.
  if (readers_.load(std::memory_order_seq_cst) == 0) replaced_.clear();
}

Result<> SegmentSet::make_spare() {
  std::lock_guard lock(mutex_);
  VMFS_ASSIGN(auto file, make_zero_file(disk_, kPrepareFile, options_.segment_size,
                                        "journal.prepare"));
  // Names of files that never were a segment: no number comes near them.
  std::string name;
  do {
    name = spare_name(spare_names_++ | (std::uint64_t{1} << 63));
  } while (std::any_of(spares_.begin(), spares_.end(),
                       [&](const FreeFile& spare) { return spare.name == name; }));
  VMFS_TRY(disk_.rename(kPrepareFile, name, true, "journal.prepare"));
  VMFS_TRY(disk_.sync_directory("", "journal.prepare"));
  spares_.push_back({std::move(name), std::move(file)});
  return {};
}

Result<std::size_t> SegmentSet::read(std::uint64_t number, std::uint64_t offset,
                                     std::span<std::byte> out, Label label) const {
  readers_.fetch_add(1, std::memory_order_seq_cst);
  File* file = slot(number).file.load(std::memory_order_seq_cst);
  Result<std::size_t> done = file ? file->read(out, offset, label) : Result<std::size_t>{0};
  readers_.fetch_sub(1, std::memory_order_release);
  return done;
}

Result<> SegmentSet::sync(std::uint64_t number, Label label) const {
  readers_.fetch_add(1, std::memory_order_seq_cst);
  File* file = slot(number).file.load(std::memory_order_seq_cst);
  // None: it was released, and everything in it was durable before.
  Result<> done = file ? file->sync_data(label) : Result<>{};
  readers_.fetch_sub(1, std::memory_order_release);
  return done;
}

bool SegmentSet::has(std::uint64_t number) const {
  std::lock_guard lock(mutex_);
  return owned_.contains(number);
}

std::size_t SegmentSet::spares() const {
  std::lock_guard lock(mutex_);
  return spares_.size();
}

std::size_t SegmentSet::files() const {
  std::lock_guard lock(mutex_);
  return spares_.size() + owned_.size();
}

}  // namespace vmfs
