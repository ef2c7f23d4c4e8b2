// Open directories. A listing is taken when reading begins and stays as it is, so that entries which
// come and go meanwhile neither hide nor repeat others.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "fs/base/result.h"
#include "fs/volume/volume.h"

namespace vmfs {

// Entries in the order of a hash of their names, which is also where a reader stands: the position of
// an entry is the same in every listing that has it, so that reading goes on where it was in a listing
// that was taken anew, after a restart.
class Listing {
 public:
  struct Entry {
    std::uint64_t position = 0;  // what a reader passes to get what comes after this entry
    std::string name;
    ObjectId object{};
    FileType type{};
  };
  explicit Listing(std::vector<ListedEntry> entries);
  // The first entry after `position`; entries().size() if none.
  std::size_t after(std::uint64_t position) const;
  const std::vector<Entry>& entries() const { return entries_; }

  // "." and ".." come first, at these positions.
  static constexpr std::uint64_t kSelf = 1, kParent = 2;
  static std::uint64_t position_of(std::string_view name);

 private:
  std::vector<Entry> entries_;
};

class DirectoryTable {
 public:
  // `life`: how many daemons there have been, so that handles of an earlier one never mean another's.
  explicit DirectoryTable(std::uint64_t life) : next_(life << 40) {}
  std::uint64_t open();
  void close(std::uint64_t handle);
  // The listing of this handle: taken anew if reading begins, or if the handle has none.
  Result<std::shared_ptr<const Listing>> listing(Volume& volume, ObjectId directory,
                                                 std::uint64_t handle, bool begins);

 private:
  std::mutex mutex_;
  std::uint64_t next_;
  std::unordered_map<std::uint64_t, std::shared_ptr<const Listing>> open_;
};

}  // namespace vmfs
