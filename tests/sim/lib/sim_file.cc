#include "tests/sim/lib/sim_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "fs/base/check.h"
#include "tests/sim/lib/sim_metadata.h"

namespace vmfs::sim {

namespace {
constexpr std::uint64_t kForEver = std::numeric_limits<std::int64_t>::max();
}

std::optional<int> SimFile::before(Operation operation, Label label) {
  if (std::optional<int> number = disk_.before(operation, label, path_)) return number;
  std::lock_guard guard(disk_.mutex_);
  if (life_ != disk_.life_) return EIO;  // the process that opened it is dead
  if (!writable_ && changes_disk(operation) && operation != Operation::kSync &&
      operation != Operation::kSyncData)
    return EBADF;
  return std::nullopt;
}

#define SIM_FILE_BEFORE(operation)                          \
  if (std::optional<int> number = before(operation, label)) \
    return disk_.refuse(*number, path_, label);             \
  std::lock_guard guard(disk_.mutex_)

Result<std::size_t> SimFile::read(std::span<std::byte> buffer, std::uint64_t offset, Label label) {
  SIM_FILE_BEFORE(Operation::kRead);
  const std::uint64_t size = inode_->live.stat.size;
  if (offset >= size) return std::size_t{0};
  buffer = buffer.first(std::min<std::size_t>(buffer.size(), size - offset));
  inode_->live.pages.read(offset, buffer);
  return buffer.size();
}

// A change of the cache and the promise, so far unkept, to write it.
void SimFile::store(ByteView bytes, std::uint64_t offset) {
  if (bytes.empty()) return;
  Inode& inode = *inode_;
  const std::uint64_t end = offset + bytes.size();
  inode.live.pages.write(offset, bytes);
  inode.live.stat.size = std::max(inode.live.stat.size, end);
  inode.live.stat.mtime_ns = disk_.now();
  disk_.note_write(inode, offset, end);
}

Result<> SimFile::write_all(Bytes bytes, std::uint64_t offset, Label label) {
  if (std::optional<int> number = before(Operation::kWrite, label)) {
    std::lock_guard guard(disk_.mutex_);
    // A part may have been written before it failed, unless nobody was there to write.
    if (life_ == disk_.life_ && !disk_.stopped_ && writable_) {
      std::uint64_t end = offset + disk_.random_.below(bytes.size() + 1);
      end -= end % kSector;
      if (end > offset) store(ByteView(bytes).first(end - offset), offset);
    }
    return disk_.refuse(*number, path_, label);
  }
  std::lock_guard guard(disk_.mutex_);
  if (disk_.options_.capacity < (1ull << 40)) {
    const std::uint64_t used = disk_.used_locked();
    const std::uint64_t free = used < disk_.options_.capacity ? disk_.options_.capacity - used : 0;
    if (inode_->live.pages.missing(offset, offset + bytes.size()) * kPage > free) {
      std::size_t fits = 0;
      while (fits < bytes.size() &&
             inode_->live.pages.missing(offset, offset + fits + 1) * kPage <= free)
        fits = std::min<std::size_t>(bytes.size(), fits + kPage - (offset + fits) % kPage);
      store(ByteView(bytes).first(fits), offset);
      return disk_.refuse(ENOSPC, path_, label);
    }
  }
  store(bytes, offset);
  return {};
}

Result<> SimFile::write(ByteView bytes, std::uint64_t offset, Label label) {
  return write_all(Bytes(bytes.begin(), bytes.end()), offset, label);
}

Result<> SimFile::write_pieces(std::span<const iovec> pieces, std::uint64_t offset, Label label) {
  CHECK_COMPARE(pieces.size(), <=, kMaxPieces);
  Bytes all;
  for (const iovec& piece : pieces) {
    auto* start = static_cast<const std::byte*>(piece.iov_base);
    all.insert(all.end(), start, start + piece.iov_len);
  }
  return write_all(std::move(all), offset, label);
}

Result<> SimFile::sync_as(Operation operation, Label label) {
  if (std::optional<int> number = before(operation, label)) {
    std::lock_guard guard(disk_.mutex_);
    if (life_ == disk_.life_ && !disk_.stopped_) disk_.fail_write_back(*inode_);
    return disk_.refuse(*number, path_, label);
  }
  std::lock_guard guard(disk_.mutex_);
  disk_.commit_metadata(inode_, operation == Operation::kSync);
  disk_.write_back(*inode_);
  if (operation == Operation::kSync) {
    inode_->durable.stat.mtime_ns = inode_->live.stat.mtime_ns;
    inode_->durable.stat.ctime_ns = inode_->live.stat.ctime_ns;
  }
  return {};
}

Result<> SimFile::sync_data(Label label) { return sync_as(Operation::kSyncData, label); }
Result<> SimFile::sync(Label label) { return sync_as(Operation::kSync, label); }

void SimFile::start_writeback(std::uint64_t, std::uint64_t) {}

Result<> SimFile::truncate(std::uint64_t size, Label label) {
  SIM_FILE_BEFORE(Operation::kTruncate);
  disk_.change_content(inode_, std::min(size, inode_->live.stat.size), kForEver, size);
  return {};
}

Result<> SimFile::punch_hole(std::uint64_t offset, std::uint64_t length, Label label) {
  SIM_FILE_BEFORE(Operation::kPunchHole);
  if (length == 0) return {};
  disk_.change_content(inode_, offset, offset + length, std::nullopt);
  return {};
}

Result<> SimFile::allocate(std::uint64_t offset, std::uint64_t length, bool keep_size,
                           Label label) {
  SIM_FILE_BEFORE(Operation::kAllocate);
  if (length == 0) return {};
  const std::uint64_t end = offset + length;
  if (disk_.used_locked() + inode_->live.pages.missing(offset, end) * kPage >
      disk_.options_.capacity)
    return disk_.refuse(ENOSPC, path_, label);
  inode_->live.pages.allocate(offset, end);
  if (!keep_size) inode_->live.stat.size = std::max(inode_->live.stat.size, end);
  SimDisk::MetadataChange change;
  change.kind = SimDisk::MetadataChange::Kind::kContent;
  change.touched = {inode_};
  change.apply = [inode = inode_.get(), offset, end, keep_size] {
    inode->durable.pages.allocate(offset, end);
    if (!keep_size) inode->durable.stat.size = std::max(inode->durable.stat.size, end);
  };
  disk_.log_change(std::move(change));
  return {};
}

Result<FileStat> SimFile::stat(Label label) {
  SIM_FILE_BEFORE(Operation::kStat);
  FileStat stat = inode_->live.stat;
  stat.allocated = inode_->live.pages.count() * kPage;
  return stat;
}

Result<> SimFile::set_attributes(const FileAttributes& set, Label label) {
  if (std::optional<int> number = disk_.before(Operation::kSetAttributes, label, path_))
    return disk_.refuse(*number, path_, label);
  std::lock_guard guard(disk_.mutex_);
  if (life_ != disk_.life_) return disk_.refuse(EIO, path_, label);
  disk_.change_attributes_of(inode_, set);
  return {};
}

Result<std::optional<std::uint64_t>> SimFile::seek_data(std::uint64_t offset, Label label) {
  SIM_FILE_BEFORE(Operation::kSeek);
  const auto& pages = inode_->live.pages.map();
  for (auto entry = pages.lower_bound(offset / kPage); entry != pages.end(); ++entry) {
    if (!entry->second) continue;
    const std::uint64_t found = std::max(offset, entry->first * kPage);
    if (found >= inode_->live.stat.size) break;
    return std::optional(found);
  }
  return std::optional<std::uint64_t>();
}

Result<std::optional<std::uint64_t>> SimFile::seek_hole(std::uint64_t offset, Label label) {
  SIM_FILE_BEFORE(Operation::kSeek);
  const auto& pages = inode_->live.pages.map();
  for (std::uint64_t at = offset; at < inode_->live.stat.size; at = (at / kPage + 1) * kPage) {
    auto entry = pages.find(at / kPage);
    if (entry == pages.end() || !entry->second) return std::optional(at);
  }
  return std::optional<std::uint64_t>();
}

Result<bool> SimFile::owns_blocks(std::uint64_t offset, std::uint64_t length, Label label) {
  SIM_FILE_BEFORE(Operation::kSeek);
  const auto& pages = inode_->live.pages.map();
  for (std::uint64_t page = offset / kPage; page * kPage < offset + length; ++page)
    if (!pages.contains(page)) return false;
  return true;
}

Result<> SimFile::clone_from(File& source, Label label) {
  SIM_FILE_BEFORE(Operation::kClone);
  auto* other = dynamic_cast<SimFile*>(&source);
  CHECK_INVARIANT(other != nullptr && &other->disk_ == &disk_, "{}: clone across disks", path_);
  if (!disk_.options_.clones) return disk_.refuse(EOPNOTSUPP, path_, label);
  // As the system does it: what is dirty in the source is written first.
  disk_.commit_metadata(other->inode_, false);
  disk_.write_back(*other->inode_);
  disk_.clone_content(inode_, other->inode_);
  return {};
}

}  // namespace vmfs::sim
