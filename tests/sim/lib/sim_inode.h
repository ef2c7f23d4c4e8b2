// Private to the simulated disk: what it keeps of one file, directory or symlink, once as running
// programs see it ("live": the page cache) and once as the medium has it ("durable").
#pragma once

#include <array>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fs/seam/disk.h"

namespace vmfs::sim {

inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint64_t kSector = 512;

using Page = std::array<std::byte, kPage>;
using PageRef = std::shared_ptr<const Page>;

// The content of a file. A page that is named but null is allocated and reads as zeros.
class Pages {
 public:
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  void write(std::uint64_t offset, ByteView bytes);
  // Zeros, and gives whole pages back.
  void punch(std::uint64_t offset, std::uint64_t end);
  void allocate(std::uint64_t offset, std::uint64_t end);
  std::size_t count() const { return pages_.size(); }
  // How many pages a write of that range would add.
  std::size_t missing(std::uint64_t offset, std::uint64_t end) const;
  void copy_page(const Pages& from, std::uint64_t page);
  std::map<std::uint64_t, PageRef>& map() { return pages_; }
  const std::map<std::uint64_t, PageRef>& map() const { return pages_; }

 private:
  std::map<std::uint64_t, PageRef> pages_;
};

struct Inode;
using InodeRef = std::shared_ptr<Inode>;

struct InodeState {
  FileStat stat;  // size included; `allocated` is made up when asked
  std::map<std::string, Bytes, std::less<>> tags;
  Pages pages;
  std::map<std::string, InodeRef> entries;  // of a directory
};

// A write that no sync has confirmed, widened to whole sectors as the cache held them at that
// moment (a sector reaches the disk whole or not at all).
struct PendingWrite {
  std::uint64_t order = 0;  // among all changes of the disk
  std::uint64_t offset = 0;
  std::uint64_t size_after = 0;  // the end of what was asked for: the file grows to here
  Bytes bytes;
};

struct Inode {
  std::uint64_t number = 0;
  FileType type = FileType::kRegular;
  std::string target;  // of a symlink
  InodeState live, durable;
  std::vector<PendingWrite> pending;
  std::set<std::uint64_t> dirty;  // pages that the next sync writes
  // Pages whose writing has failed: clean for the system, newer in the cache than on the medium.
  // Only a further write makes them dirty again.
  std::set<std::uint64_t> stale;
};

}  // namespace vmfs::sim
