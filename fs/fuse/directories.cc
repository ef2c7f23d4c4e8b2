#include "fs/fuse/directories.h"

#include <algorithm>

#include "fs/base/bytes.h"
#include "fs/base/hash.h"

namespace vmfs {

std::uint64_t Listing::position_of(std::string_view name) {
  // Positive as an off_t, and never one of the first.
  constexpr std::uint64_t kFirst = 16;
  return std::max(hash64(as_bytes(name)) >> 2, kFirst);
}

Listing::Listing(std::vector<ListedEntry> entries) {
  entries_.reserve(entries.size());
  for (ListedEntry& entry : entries) {
    const std::uint64_t position = position_of(entry.name);
    entries_.push_back({position, std::move(entry.name), entry.object, entry.type});
  }
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return a.position != b.position ? a.position < b.position : a.name < b.name;
  });
  // Two names with one hash are hardly to be met; the second moves up to stay reachable.
  for (std::size_t i = 1; i < entries_.size(); ++i)
    entries_[i].position = std::max(entries_[i].position, entries_[i - 1].position + 1);
}

std::size_t Listing::after(std::uint64_t position) const {
  auto found = std::upper_bound(
      entries_.begin(), entries_.end(), position,
      [](std::uint64_t value, const Entry& entry) { return value < entry.position; });
  return static_cast<std::size_t>(found - entries_.begin());
}

std::uint64_t DirectoryTable::open() {
  std::lock_guard lock(mutex_);
  return ++next_;
}

void DirectoryTable::close(std::uint64_t handle) {
  std::lock_guard lock(mutex_);
  open_.erase(handle);
}

Result<std::shared_ptr<const Listing>> DirectoryTable::listing(Volume& volume, ObjectId directory,
                                                               std::uint64_t handle, bool begins) {
  if (!begins) {
    std::lock_guard lock(mutex_);
    if (auto found = open_.find(handle); found != open_.end()) return found->second;
  }
  VMFS_ASSIGN(auto entries, volume.list(directory));
  auto listing = std::make_shared<const Listing>(std::move(entries));
  std::lock_guard lock(mutex_);
  open_[handle] = listing;
  return listing;
}

}  // namespace vmfs
