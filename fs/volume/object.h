// What the volume keeps in memory for each object: its name, its attributes, and for images the
// not-yet-applied index and the group.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "fs/index/unapplied_index.h"
#include "fs/journal/changes.h"
#include "fs/journal/journal.h"
#include "fs/seam/disk.h"
#include "fs/store/state.h"
#include "fs/volume/image_lock.h"
#include "fs/volume/volume.h"

namespace vmfs {

inline void raise_to(std::atomic<Lsn>& value, Lsn at_least) {
  Lsn old = value.load(std::memory_order_relaxed);
  while (old < at_least &&
         !value.compare_exchange_weak(old, at_least, std::memory_order_acq_rel)) {
  }
}

// One group. Its changes are made under a lock of its owner (the image's lock, or the name space's).
struct VolumeGroup {
  explicit VolumeGroup(GroupId group) : id(group) { cursor.trail = &trail; }

  const GroupId id;
  std::atomic<Gate> gate{Gate::kSecondary};
  // How many of the volume's events that demand a new epoch this group's epoch takes account of.
  std::atomic<std::uint32_t> epoch_events{0};
  // Counts what ends the right of open handles to write: see Object::revocations.
  std::atomic<std::uint32_t> revocations{0};
  SequenceCursor cursor;  // guarded by the journal's reservation lock
  Position sampled;       // likewise: what the applier noted last
  SequenceTrail trail;    // likewise: what a peer that is behind lacks

  std::atomic<Lsn> last_record{0};      // end of the group's last record in this journal
  std::atomic<Lsn> last_change{0};      // likewise of the last one made here that a flush must cover
  std::atomic<Lsn> flush_appended{0};   // all changes below have a flush record after them
  std::atomic<Lsn> flush_completed{0};  // all changes below are as safe as the mode demands
  std::atomic<Lsn> handed_over{0};      // all changes below go to who was given the group

  std::mutex mutex;  // guards what follows
  NodeId owner{};
  NodeId taker{};
  std::vector<EpochEntry> history;
  Position recycled;
  Position kept;  // a snapshot has the group as it was there
  bool inconsistent = false;
  bool split = false;

  std::atomic<bool> may_go{false};  // a part of a copy that nobody can complete: its name may be taken from it

  bool flushed() const {
    return last_change.load(std::memory_order_acquire) <=
           flush_completed.load(std::memory_order_acquire);
  }
};

// The part of an object that only images have.
struct VolumeImage {
  VolumeImage(ObjectId object, std::shared_ptr<std::atomic<std::uint64_t>> memory)
      : memory_bytes(std::move(memory)), index(*memory_bytes), group(object) {}

  static constexpr std::uint64_t kNothingVoid = ~std::uint64_t{0};

  // Of all images of the volume. A handle may outlive the volume, and the index counts to its end.
  const std::shared_ptr<std::atomic<std::uint64_t>> memory_bytes;
  ImageLock lock;
  UnappliedIndex index;
  VolumeGroup group;
  std::atomic<std::uint64_t> size{0};
  // The store's bytes from here on belong to a time before a truncation, and read as zeros. The
  // version changes with it (twice), so that a reader sees it and the index in one state.
  std::atomic<std::uint64_t> void_from{kNothingVoid};
  std::atomic<std::uint32_t> void_version{0};
  std::atomic<bool> listed{false};  // in the volume's list of images with something to apply

  // Guarded by `lock`, exclusively held (the applier and what truncates).
  Lsn void_lsn = 0;  // of the last record that made bytes void
  struct Allocation {
    std::uint64_t offset = 0, length = 0;
    bool keep_size = false;
    Lsn lsn = 0;
  };
  std::vector<Allocation> allocations;  // not yet made in the store
  std::atomic<std::uint64_t> allocating{0};  // their bytes together, for whoever has no lock
  void allocations_changed() {
    std::uint64_t bytes = 0;
    for (const Allocation& each : allocations) bytes += each.length;
    allocating.store(bytes, std::memory_order_relaxed);
  }
  std::atomic<bool> attributes_changed{false};  // size or attributes: the store's are to be set

  // Guarded by the applier's mutex: changed in the store since its last sync. The file stays open until then, because the
  // kernel tells a failed write only to who had it open.
  bool touched = false;
  std::shared_ptr<File> touched_file;

  // Guarded by open_mutex. `file` stays while the image is open, so that readers use it unlocked.
  std::mutex open_mutex;
  std::uint32_t opens = 0;
  std::atomic<std::uint32_t> writers{0};  // open handles that have written
  std::shared_ptr<File> file;

  // Odd while void_from changes: see read_pieces().
  void make_void(std::uint64_t from, Lsn lsn) {
    void_lsn = lsn;
    if (from < void_from.load(std::memory_order_relaxed)) set_void(from);
  }
  void nothing_void() { set_void(kNothingVoid); }

 private:
  void set_void(std::uint64_t from) {
    void_version.fetch_add(1, std::memory_order_acq_rel);
    void_from.store(from, std::memory_order_release);
    void_version.fetch_add(1, std::memory_order_acq_rel);
  }
};

// A file, directory or symlink. Names and children are guarded by the volume's names mutex.
struct Inode : std::enable_shared_from_this<Inode> {
  Inode(ObjectId object, FileType file_type) : id(object), type(file_type) {}

  const ObjectId id;
  const FileType type;
  std::atomic<bool> deleted{false};
  std::atomic<bool> dropped{false};  // not in the name space that was copied here: needs no record to go

  Inode* parent = nullptr;  // null: the root, or without a name
  std::string name;
  std::map<std::string, std::shared_ptr<Inode>, std::less<>> children;
  std::uint32_t subdirectories = 0;
  std::string target;      // of a symlink
  bool local = false;      // .snapshots and below: read-only, has no records, peers have others

  std::unique_ptr<VolumeImage> image;  // of a regular file that is replicated

  // All but the size, which images keep apart. `times_lsn`: the record that the times come from.
  SpinLock attributes_lock;
  FileStat stat;
  Lsn times_lsn = 0;

  bool is_directory() const { return type == FileType::kDirectory; }

  // A change of the content by the record at `lsn`; the image grows to `end` if it is shorter.
  void content_changed(Lsn lsn, std::int64_t wall_ns, std::uint64_t end) {
    std::lock_guard guard(attributes_lock);
    if (lsn >= times_lsn) {
      times_lsn = lsn;
      stat.mtime_ns = stat.ctime_ns = wall_ns;
    }
    if (end > image->size.load(std::memory_order_relaxed))
      image->size.store(end, std::memory_order_release);
  }
  void set_attributes(const FileAttributes& set, Lsn lsn, std::int64_t time_ns) {
    std::lock_guard guard(attributes_lock);
    if (set.permissions) stat.permissions = *set.permissions;
    if (set.uid) stat.uid = *set.uid;
    if (set.gid) stat.gid = *set.gid;
    if (set.atime_ns) stat.atime_ns = *set.atime_ns;
    if (set.mtime_ns) stat.mtime_ns = *set.mtime_ns;
    stat.ctime_ns = time_ns;
    times_lsn = std::max(times_lsn, lsn);
  }
  FileStat attributes() {
    std::lock_guard guard(attributes_lock);
    FileStat now = stat;
    if (image) now.size = image->size.load(std::memory_order_acquire);
    if (is_directory()) now.links = 2 + subdirectories;
    return now;
  }
};

// An open: what the front holds for each handle.
class Object {
 public:
  std::shared_ptr<Inode> inode;
  std::uint32_t revocations = 0;   // the group's, at the time: a later one ends this handle's writes
  std::atomic<bool> wrote{false};
  std::shared_ptr<File> local_file;  // of a file under .snapshots
};

}  // namespace vmfs
