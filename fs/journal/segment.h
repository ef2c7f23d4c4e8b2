// The journal's files: their names, how they come to be, and which file is which segment now.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "fs/journal/journal.h"

namespace vmfs {

inline constexpr const char* kSyncFailedMarker = "sync-failed";
// Files that are being made; what a crash leaves of them is removed by the next recovery.
inline constexpr const char* kPrepareFile = "prepare.tmp";
inline constexpr const char* kRewriteFile = "rewrite.tmp";

std::string segment_name(std::uint64_t number);
std::optional<std::uint64_t> parse_segment_name(std::string_view name);
std::string spare_name(std::uint64_t number);
bool is_spare_name(std::string_view name);

// A file of `size` bytes, all written and synced, so that later writes into it allocate nothing and a
// sync has no metadata to carry. Replaces what is there.
Result<std::unique_ptr<File>> make_zero_file(Disk& disk, const std::string& name,
                                             std::uint64_t size, Label label);
// The first block. Not synced.
Result<> write_segment_header(File& file, const JournalOptions& options, std::uint64_t number,
                              std::uint64_t incarnation, Label label);

// A file that may be written over: its name is not a segment's any more.
struct FreeFile {
  std::string name;
  std::unique_ptr<File> file;
};

// Changes are serialised inside; file(), incarnation() and reads need no lock. A File that has been
// handed out stays open as long as the set lives or, if it was replaced, until no read uses it.
class SegmentSet {
 public:
  // `found`: how many segments are alive already: more than the limit allows, if it was lowered.
  SegmentSet(Disk& disk, const JournalOptions& options, std::uint64_t found = 0);

  const Geometry& geometry() const { return geometry_; }
  // How many segments the size limit allows.
  std::uint64_t count_max() const { return count_max_; }

  // What recovery found.
  void adopt(std::uint64_t number, std::unique_ptr<File> file, std::uint64_t incarnation);
  void adopt_spare(std::string name, std::unique_ptr<File> file);

  // Makes the file of segment `number` ready for records: an old file with a new header, or, if there
  // is none and `may_create`, a new one. Durable, name and header, on return. kNoSpace: none.
  Result<> make_ready(std::uint64_t number, bool may_create);
  // The segment's content is not needed any more; its file waits as a spare, or goes if there are too many.
  Result<> retire(std::uint64_t number);
  // Puts another file, which already bears the segment's name on disk, in the place of the old one.
  void replace(std::uint64_t number, std::unique_ptr<File> file, std::uint64_t incarnation);
  // A spare, to be written over; without a file if there is none. It is not counted any more.
  Result<FreeFile> take_spare();
  // A spare made ahead, zero-filled. Durable on return.
  Result<> make_spare();

  bool has(std::uint64_t number) const;
  // Only of a segment that is alive, and by whoever is the journal's writer: who is not may find its file
  // replaced and closed. The others read() and sync().
  File& file(std::uint64_t number) const { return *slot(number).file.load(std::memory_order_acquire); }
  std::uint64_t incarnation(std::uint64_t number) const {
    return slot(number).incarnation.load(std::memory_order_acquire);
  }
  // Reads from the segment's present file. The caller checks afterwards that the segment is still
  // alive: a recycled one reads as whatever its file has become.
  Result<std::size_t> read(std::uint64_t number, std::uint64_t offset, std::span<std::byte> out,
                           Label label) const;

  // Makes durable what is in the segment's present file.
  Result<> sync(std::uint64_t number, Label label) const;

  std::size_t spares() const;
  std::size_t files() const;
  Disk& disk() const { return disk_; }
  const JournalOptions& options() const { return options_; }

 private:
  struct Slot {
    std::atomic<File*> file{nullptr};
    std::atomic<std::uint64_t> incarnation{0};
  };
  Result<FreeFile> take_spare_locked();
  void drop_file_locked(std::unique_ptr<File> file);  // once no read uses it
  Slot& slot(std::uint64_t number) const { return ring_[number % ring_size_]; }

  // Constant after construction.
  Disk& disk_;
  const JournalOptions options_;
  const Geometry geometry_;
  const std::uint64_t count_max_;
  const std::size_t ring_size_;
  const std::unique_ptr<Slot[]> ring_;

  mutable std::atomic<std::uint32_t> readers_{0};  // that use a file which may be replaced

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::map<std::uint64_t, std::unique_ptr<File>> owned_;
  std::vector<FreeFile> spares_;
  std::vector<std::unique_ptr<File>> replaced_;
  std::uint64_t spare_names_ = 0;
  bool names_unsynced_ = false;  // a retired segment's old name may still come back after a crash
};

}  // namespace vmfs
