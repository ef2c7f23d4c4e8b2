// The open files: what the kernel's file handles mean. What must outlive the daemon is in the shared
// memory (ConnectionMemory::opens); here are the volume's objects that belong to it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "fs/base/result.h"
#include "fs/fuse/connection_memory.h"
#include "fs/volume/volume.h"

namespace vmfs {

// The lower half of the group's present epoch's id: enough to find it among the group's own.
std::uint32_t epoch_mark(const std::optional<GroupState>& group);
// Whether `self` has given away the right to write since the epoch with that mark (0: not known). The
// history is durable before the right is another's; a flag in a handle's entry comes after, and a daemon
// may die in between.
bool gave_away_since(const GroupState& group, std::uint32_t mark, NodeId self);

// The pages that the kernel holds of an image are right as long as everybody changes it through them. The
// kernel itself keeps cached users and O_DIRECT among them coherent, one write at a time; it does so no more
// for handles that it was told to lead past its cache (which lets direct writes in side by side), and what
// it is told to drop while a buffered write is under way it may read back as it was before that write. (A
// mapping of a handle that leads past the cache drops them all, too, also of one that only reads.) So on the
// owner the two kinds of handles exclude each other: the first that is opened decides, and who comes while the
// others are there is opened as they are. And pages that are wrong, since the image was changed past them, are
// dropped before the first open that uses them is answered, and every other one.
class OpenTable {
 public:
  // How many handles of an image there are, of all processes.
  struct Users {
    std::atomic<std::uint32_t> cached{0};  // reading and writing through the page cache
    // Guarded by mutex_:
    std::uint32_t direct = 0;  // past it
    enum class Drop : std::uint8_t { kNone, kDue, kUnderWay } drop = Drop::kNone;  // of the kernel's pages
    OpenEntry* drops = nullptr;  // the handle whose open it is due for: marked kOpenDrops
    std::vector<std::function<void()>> waiting;  // for the drop
  };

  struct Handle {
    ObjectRef image;  // null: the image could not be opened again after a restart
    ObjectId object{};
    OpenEntry* entry = nullptr;
    bool writable = false;
    bool direct = false;      // past the page cache, for its whole life
    std::shared_ptr<Users> users;

    // Before the first change through this handle, so that a later daemon knows of it.
    void mark_wrote() {
      if ((entry->state.load(std::memory_order_relaxed) & kOpenWrote) == 0)
        entry->state.fetch_or(kOpenWrote, std::memory_order_relaxed);
    }
    bool stale() const { return (entry->state.load(std::memory_order_relaxed) & kOpenStale) != 0; }
  };

  explicit OpenTable(ConnectionMemory& memory) : memory_(memory) {}

  // Opens again what a daemon before had open. Before any request is served.
  void restore(Volume& volume);

  // The handle that an earlier daemon gave for this request, if it got that far.
  std::optional<std::uint64_t> opened_by(std::uint64_t unique) const;

  // `image` is open in the volume; the table closes it in remove(). kNoSpace (ENFILE): table full.
  // `owned`: by this node; if not, the handle is direct, since somebody else may change the image.
  // `epoch`: epoch_mark() of its group, taken before it was opened. `made`: the image was, by this request.
  // Before the open is answered: await_drop().
  Result<std::uint64_t> add(ObjectRef image, ObjectId object, std::uint32_t flags, bool owned, bool made,
                            std::uint32_t epoch, std::uint64_t unique);
  // Whether the open of this handle cannot be answered at once.
  bool must_wait(const Handle& handle);
  // Calls `ready` when it can be. True: the caller has to drop what the kernel has of the image's pages, and
  // then to call dropped().
  bool await_drop(const Handle& handle, std::function<void()> ready);
  // False: they were not, and the front has gone. Who waits is told all the same.
  void dropped(Users& users, bool done);
  // Null if there is no such handle (any more). Lock-free. The kernel sends nothing for a handle after
  // its release, so that the result stays valid during a request.
  Handle* find(std::uint64_t handle);
  // Nothing to do if it is not there.
  void remove(Volume& volume, std::uint64_t handle);
  // Handles that may write to the image are not to change it any more.
  void expire_writers(ObjectId object);
  // Images that are open through the page cache, some maybe twice.
  std::vector<ObjectId> cached();
  std::uint64_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::uint32_t kChunk = 1024;
  using Chunk = std::array<Handle, kChunk>;

  static std::uint64_t handle_of(std::uint32_t index, const OpenEntry& entry) {
    return std::uint64_t{entry.generation} << 32 | index;
  }
  Handle& place(std::uint32_t index);  // with mutex_ held
  void count(Handle& handle);          // likewise
  std::shared_ptr<Users> users_of(ObjectId object);  // likewise

  ConnectionMemory& memory_;
  std::mutex mutex_;
  std::array<std::atomic<Chunk*>, ConnectionMemory::kOpenMax / kChunk> chunks_{};
  std::vector<std::unique_ptr<Chunk>> owned_;
  std::vector<std::uint32_t> free_;
  std::unordered_map<ObjectId, std::weak_ptr<Users>> users_;  // guarded by mutex_; of images that are open
  // Guarded by mutex_. Images that nobody has changed past the page cache since they were opened through it,
  // or made, in this life.
  std::unordered_set<ObjectId> coherent_;
  // Beyond this, images that nobody has open are forgotten: the kernel's pages of them go when they are opened.
  static constexpr std::size_t kCoherentMax = 1 << 16;
  std::unordered_map<std::uint64_t, std::uint64_t> by_request_;  // constant after restore()
  std::atomic<std::uint64_t> size_{0};
};

}  // namespace vmfs
