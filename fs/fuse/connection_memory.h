// What outlives a daemon: a memfd that the holder keeps and every daemon maps. It says what the kernel
// was told at INIT, which handles are open, and which requests were read and may be unanswered.
//
// Nothing here needs a lock between processes: one daemon lives at a time, and each field is written
// so that a kill between any two stores leaves either the old or the new meaning. The layout is an
// interface between versions of the program (a newer daemon continues an older one's connection):
// fields are only ever added at the end of the header, and `version` says which there are.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "fs/base/bytes.h"
#include "fs/base/ids.h"
#include "fs/base/result.h"

namespace vmfs {

// One open file. The kernel's file handle is (generation << 32) | index, so that a release that comes
// a second time never closes another open that took the same place.
struct OpenEntry {
  std::atomic<std::uint64_t> object;  // 0: free. Written last when opened, first when closed
  std::uint64_t opened_by;            // unique of the request: a repeat of it gets the same handle
  std::uint32_t generation;
  std::uint32_t flags;                // of open(2)
  std::atomic<std::uint32_t> state;   // kOpen* bits
  std::uint32_t epoch;                // lower half of the id of the group's epoch when it was opened; 0: not known
};
static_assert(sizeof(OpenEntry) == 32);

inline constexpr std::uint32_t kOpenWrote = 1;      // this handle has changed the image
inline constexpr std::uint32_t kOpenDirect = 2;     // FOPEN_DIRECT_IO was answered
inline constexpr std::uint32_t kOpenStale = 4;      // may no longer write: its token was given away
inline constexpr std::uint32_t kOpenDrops = 8;      // its open has yet to drop the kernel's pages of the image

struct ConnectionHeader {
  std::uint64_t magic;  // kConnectionMagic
  std::uint32_t version;
  std::uint32_t header_size;   // bytes, of this struct as its writer knew it
  std::uint32_t open_count;    // places in the table of opens
  std::uint32_t slot_count;    // places for unanswered requests
  std::uint64_t connection;    // ConnectionId
  std::uint32_t holder_pid;
  std::uint32_t device_major, device_minor;  // of the mount
  std::uint32_t clone_count;
  std::atomic<std::uint32_t> slots_used;  // slots at and above it have always been free
  std::atomic<std::uint32_t> opens_used;  // the same for the table of opens
  std::atomic<std::uint64_t> starts;      // daemons so far
  std::uint64_t reserved;
  std::atomic<std::uint32_t> init_request_size;  // 0: the kernel's INIT has not been answered yet
  std::uint32_t init_reply_size;
  std::byte init_request[256];
  std::byte init_reply[256];
  char mountpoint[4096];
};
inline constexpr std::uint64_t kConnectionMagic = 0x4d454d53464d5631;  // "1VMFSMEM" in memory
inline constexpr std::uint32_t kConnectionVersion = 1;
// Where the table of opens begins, and behind it the slots: a page boundary, with room for the header to grow.
inline constexpr std::size_t kConnectionTablesStart = 16384;
static_assert(sizeof(ConnectionHeader) <= kConnectionTablesStart);

class ConnectionMemory {
 public:
  static constexpr std::uint32_t kOpenMax = 1u << 18;  // files open at once; sparse, 32 bytes each
  static constexpr std::uint32_t kSlotMax = 1u << 16;  // requests at once; sparse, 8 bytes each

  // By the holder: a new memfd, its header filled in but for the mount's fields.
  static Result<ConnectionMemory> create(ConnectionId connection);
  // By the daemon: kRefused if it is not one, or of a version that this program does not know; kCorrupt if what it
  // says of itself cannot be, so that nothing would be where it should.
  static Result<ConnectionMemory> map(int descriptor);
  ConnectionMemory(ConnectionMemory&& other) noexcept;
  ConnectionMemory& operator=(ConnectionMemory&& other) noexcept;
  ~ConnectionMemory();

  int descriptor() const { return descriptor_; }
  ConnectionHeader& header() { return *header_; }
  const ConnectionHeader& header() const { return *header_; }
  std::span<OpenEntry> opens() { return {opens_, header_->open_count}; }
  std::span<std::atomic<std::uint64_t>> slots() { return {slots_, header_->slot_count}; }

  // The INIT exchange; request() is empty if it has not taken place. Stored once, whole: the size that
  // says so is written last.
  void store_init(ByteView request, ByteView reply);
  ByteView init_request() const;
  ByteView init_reply() const;

  // The uniques in the slots, sorted, each once.
  std::vector<std::uint64_t> unanswered() const;
  bool is_unanswered(std::uint64_t unique) const;

 private:
  ConnectionMemory() = default;
  void unmap();
  int descriptor_ = -1;
  std::size_t size_ = 0;
  ConnectionHeader* header_ = nullptr;
  OpenEntry* opens_ = nullptr;
  std::atomic<std::uint64_t>* slots_ = nullptr;
};

}  // namespace vmfs
