// A disk in memory that forgets as real ones do.
//
// Everything written is at once visible to all (the page cache), survives the death of the process,
// and is on the medium only after a sync. When the power goes:
// - each write since the last sync of its file is kept, lost or torn by 512-byte sectors, in any
// order;
// - changes of names, sizes, attributes and tags are kept up to some moment and lost from there on,
// as
//   journaling file systems do: one moment for the whole disk (ext4, XFS), or one per directory and
//   file (MetadataOrder::kPerDirectory, nearer to btrfs), where sync_directory() covers the entries
//   of that directory and the attributes of what was created in it, and File::sync() only that
//   file.
// A sync that fails has written some of the file's dirty pages and forgotten that the others were
// dirty: reads show them, the next sync succeeds without them.
//
// Single calls fail by rules (fail_calls) or by the hook, which sees each call before it is done.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "fs/seam/clock.h"
#include "fs/seam/disk.h"
#include "tests/sim/lib/sim_inode.h"
#include "tests/sim/lib/sim_random.h"

namespace vmfs::sim {

enum class MetadataOrder { kGlobal, kPerDirectory };

struct SimDiskOptions {
  std::string name = "disk";            // for messages
  std::uint64_t capacity = 1ull << 40;  // bytes; beyond it ENOSPC
  std::uint64_t files_max = 1ull << 20;
  std::uint64_t file_size_max = DiskSpace{}.file_size_max;
  bool clones = true;                   // FICLONE works
  MetadataOrder metadata_order = MetadataOrder::kGlobal;
};

enum class Operation {
  kOpen,
  kMakeDirectory,
  kRemoveDirectory,
  kRemove,
  kRename,
  kMakeSymlink,
  kReadSymlink,
  kList,
  kStat,
  kSetAttributes,
  kSetTag,
  kGetTag,
  kSyncDirectory,
  kSpace,
  kLock,
  kRead,
  kWrite,
  kSyncData,
  kSync,
  kTruncate,
  kAllocate,
  kPunchHole,
  kSeek,
  kClone,
};
// Whether the medium may be other afterwards: the places where stopping a node is worth it.
bool changes_disk(Operation operation);
const char* to_string(Operation operation);

struct DiskCall {
  Operation operation;
  Label label;
  std::string path;  // as opened, for files
};

// Thrown by nobody here: a hook may throw it to stop a node where it stands.
struct SimCrash {};

class SimDisk : public Disk {
 public:
  struct MetadataChange;
  SimDisk(SimDiskOptions options, std::uint64_t seed, Clock* clock = nullptr);
  ~SimDisk() override;

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode, Label) override;
  Result<> make_directory(const std::string& path, Label) override;
  Result<> remove_directory(const std::string& path, Label) override;
  Result<> remove(const std::string& path, Label) override;
  Result<> rename(const std::string& from, const std::string& to, bool replace, Label) override;
  Result<> make_symlink(const std::string& path, const std::string& target, Label) override;
  Result<std::string> read_symlink(const std::string& path, Label) override;
  Result<std::vector<DirectoryEntry>> list(const std::string& path, Label) override;
  Result<FileStat> stat(const std::string& path, Label) override;
  Result<> set_attributes(const std::string& path, const FileAttributes&, Label) override;
  Result<> set_tag(const std::string& path, std::string_view name, ByteView value, Label) override;
  Result<Bytes> get_tag(const std::string& path, std::string_view name, Label) override;
  Result<> sync_directory(const std::string& path, Label) override;
  Result<DiskSpace> space(Label) override;
  Result<std::unique_ptr<DiskLock>> lock(const std::string& path, Label) override;
  std::string display(const std::string& path) const override;

  // A directory of this disk as a Disk of its own, as STORE/journal is of STORE. It must exist
  // while it is used; this disk must outlive it.
  std::unique_ptr<Disk> subdirectory(const std::string& path);

  // --- What may happen to it -------------------------------------------------------------------

  // From now on every call fails and changes nothing, until restart(): the process is being killed.
  void stop();
  // The n-th changing call from now (1: the next) is not done, and everything stops there.
  void stop_at_change(std::uint64_t n);
  bool stopped() const;
  // The process is dead: its locks and open files are gone; what it wrote is there. May throw clean
  // cached pages away. Ends stop().
  void restart();
  // The machine lost its power: see above. Then as restart().
  void lose_power();

  // Calls whose label begins with `label`: the n-th from now (1: the next), once or from then on,
  // fails with that errno. A failing write may have written a part; a failing sync loses what it
  // had to write.
  void fail_calls(std::string label, std::optional<Operation> operation, std::uint64_t n,
                  int number, bool always);
  void heal();  // forgets all such rules
  // Called before each call, with no lock held; an errno it returns is the call's result.
  void set_hook(std::function<std::optional<int>(const DiskCall&)> hook);
  void set_capacity(std::uint64_t bytes);
  void set_files(std::uint64_t files_max, std::uint64_t file_size_max);
  // The medium rots, and nobody has it cached. False: no such file or byte.
  bool flip_bit(const std::string& path, std::uint64_t offset, unsigned bit);
  // Clean pages are thrown out of the cache; those that a failed sync left behind turn old again.
  void evict();

  // --- Looking at it ---------------------------------------------------------------------------

  std::uint64_t calls() const;  // so far
  std::uint64_t changing_calls() const;
  std::uint64_t failures() const;  // calls that a rule or the hook made fail
  std::uint64_t used() const;      // bytes; clones are counted as if they shared nothing
  // What a reader would find after a power loss now that keeps nothing unsynced.
  Result<Bytes> durable_content(const std::string& path);

 private:
  friend class SimFile;
  struct FailRule;
  class Lock;

  // Counts the call; the error it is to fail with, if any. Takes and releases the lock by itself.
  std::optional<int> before(Operation operation, Label label, const std::string& path);
  tl::unexpected<Error> refuse(int number, const std::string& path, Label label) const;
  Result<InodeRef> find(const std::string& path, Label label) const;
  struct Place {
    InodeRef directory;
    std::string name;
  };
  Result<Place> find_place(const std::string& path, Label label) const;
  InodeRef make_inode(FileType type);
  std::int64_t now() const;
  std::uint64_t used_locked() const;
  void change_attributes_of(const InodeRef& inode, const FileAttributes& set);

  // Metadata (sim_crash.cc).
  void log_change(MetadataChange change);
  void link(const InodeRef& directory, const std::string& name, const InodeRef& inode,
            bool created);
  // Makes durable what a sync of this inode covers.
  // attributes: as fsync does, else as fdatasync.
  void commit_metadata(const InodeRef& inode, bool attributes);
  void commit_where(const std::function<bool(const MetadataChange&)>& chosen);
  // Some of the file's pending writes up to `order` reach the medium.
  void write_back_some(Inode& inode, std::uint64_t order, unsigned percent_kept);
  void write_back(Inode& inode);  // all: what a successful sync does
  void fail_write_back(Inode& inode);
  void forget_process();
  void note_write(Inode& inode, std::uint64_t offset, std::uint64_t end);
  // [from, to) becomes a hole, and the size another, if given.
  void change_content(const InodeRef& inode, std::uint64_t from, std::uint64_t to,
                      std::optional<std::uint64_t> size);
  void clone_content(const InodeRef& target, const InodeRef& source);

  mutable std::mutex mutex_;
  SimDiskOptions options_;
  Random random_;
  Clock* clock_;
  InodeRef root_;
  std::vector<std::weak_ptr<Inode>> inodes_;
  std::vector<MetadataChange> log_;  // changes that no sync has confirmed, in order
  std::uint64_t next_inode_ = 1, next_order_ = 1;
  std::uint64_t life_ = 1;  // of the process: handles of an earlier one are dead
  bool stopped_ = false;
  std::uint64_t stop_in_ = 0;
  std::vector<FailRule> rules_;
  std::function<std::optional<int>(const DiskCall&)> hook_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> locks_;  // inode number, life
  std::uint64_t calls_ = 0, changing_calls_ = 0, failures_ = 0;
};

}  // namespace vmfs::sim
