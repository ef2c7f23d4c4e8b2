#include "fs/fuse/connection_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fs/base/check.h"
#include "fs/holder/inherited.h"

namespace vmfs {
namespace {

static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "shared between processes");

std::size_t memory_size(std::uint32_t opens, std::uint32_t slots) {
  return kConnectionTablesStart + opens * sizeof(OpenEntry) + slots * sizeof(std::uint64_t);
}

}  // namespace

Result<ConnectionMemory> ConnectionMemory::create(ConnectionId connection) {
  ConnectionMemory memory;
  // Above the numbers at which a daemon will inherit it and others.
  const int low = ::memfd_create("vmfs connection", MFD_CLOEXEC);
  memory.descriptor_ = low < 0 ? -1 : ::fcntl(low, F_DUPFD_CLOEXEC, kFirstUninherited);
  if (low >= 0) ::close(low);
  if (memory.descriptor_ < 0) {
    return fail(ErrorKind::kIo, errno,
                fmt::format("cannot make the connection's shared memory: {}", strerror(errno)));
  }
  memory.size_ = memory_size(kOpenMax, kSlotMax);
  if (::ftruncate(memory.descriptor_, static_cast<off_t>(memory.size_)) != 0) {
    return fail(ErrorKind::kIo, errno,
                fmt::format("cannot size the connection's shared memory: {}", strerror(errno)));
  }
  void* start =
      ::mmap(nullptr, memory.size_, PROT_READ | PROT_WRITE, MAP_SHARED, memory.descriptor_, 0);
  if (start == MAP_FAILED) {
    return fail(ErrorKind::kIo, errno,
                fmt::format("cannot map the connection's shared memory: {}", strerror(errno)));
  }
  // A fresh memfd is full of zeros, and zero is what every field begins with.
  memory.header_ = static_cast<ConnectionHeader*>(start);
  memory.header_->version = kConnectionVersion;
  memory.header_->header_size = sizeof(ConnectionHeader);
  memory.header_->open_count = kOpenMax;
  memory.header_->slot_count = kSlotMax;
  memory.header_->connection = raw(connection);
  memory.header_->holder_pid = static_cast<std::uint32_t>(::getpid());
  memory.header_->magic = kConnectionMagic;
  auto* tables = static_cast<std::byte*>(start) + kConnectionTablesStart;
  memory.opens_ = reinterpret_cast<OpenEntry*>(tables);
  memory.slots_ = reinterpret_cast<std::atomic<std::uint64_t>*>(
      tables + std::size_t{kOpenMax} * sizeof(OpenEntry));
  return memory;
}

Result<ConnectionMemory> ConnectionMemory::map(int descriptor) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode) ||
      status.st_size < static_cast<off_t>(kConnectionTablesStart)) {
    return fail(ErrorKind::kRefused, EINVAL,
                "this program is started by `vmfs mount`, not by hand: there is no connection to "
                "serve");
  }
  ConnectionMemory memory;
  memory.size_ = static_cast<std::size_t>(status.st_size);
  void* start = ::mmap(nullptr, memory.size_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (start == MAP_FAILED) {
    return fail(ErrorKind::kIo, errno,
                fmt::format("cannot map the connection's shared memory: {}", strerror(errno)));
  }
  memory.header_ = static_cast<ConnectionHeader*>(start);
  const ConnectionHeader& header = *memory.header_;
  if (header.magic != kConnectionMagic || header.version != kConnectionVersion) {
    return fail(ErrorKind::kRefused, EINVAL,
                fmt::format("the connection's shared memory is of version {}, this program knows "
                            "version {}: unmount, then mount again",
                            header.version, kConnectionVersion));
  }
  if (memory_size(header.open_count, header.slot_count) != memory.size_ || header.open_count > kOpenMax ||
      header.opens_used.load() > header.open_count || header.slots_used.load() > header.slot_count) {
    return fail(ErrorKind::kCorrupt, EINVAL,
                fmt::format("the connection's shared memory is damaged ({} bytes, {} of {} open files, {} of {} "
                            "requests): unmount, then mount again",
                            memory.size_, header.opens_used.load(), header.open_count, header.slots_used.load(),
                            header.slot_count));
  }
  memory.descriptor_ = descriptor;
  auto* tables = static_cast<std::byte*>(start) + kConnectionTablesStart;
  memory.opens_ = reinterpret_cast<OpenEntry*>(tables);
  memory.slots_ = reinterpret_cast<std::atomic<std::uint64_t>*>(
      tables + std::size_t{header.open_count} * sizeof(OpenEntry));
  return memory;
}

ConnectionMemory::ConnectionMemory(ConnectionMemory&& other) noexcept { *this = std::move(other); }

ConnectionMemory& ConnectionMemory::operator=(ConnectionMemory&& other) noexcept {
  if (this == &other) return *this;
  unmap();
  descriptor_ = std::exchange(other.descriptor_, -1);
  size_ = std::exchange(other.size_, 0);
  header_ = std::exchange(other.header_, nullptr);
  opens_ = std::exchange(other.opens_, nullptr);
  slots_ = std::exchange(other.slots_, nullptr);
  return *this;
}

ConnectionMemory::~ConnectionMemory() { unmap(); }

void ConnectionMemory::unmap() {
  if (header_ != nullptr) ::munmap(header_, size_);
  if (descriptor_ >= 0) ::close(descriptor_);
  header_ = nullptr;
  descriptor_ = -1;
}

void ConnectionMemory::store_init(ByteView request, ByteView reply) {
  CHECK_COMPARE(request.size(), <=, sizeof header_->init_request);
  CHECK_COMPARE(reply.size(), <=, sizeof header_->init_reply);
  std::memcpy(header_->init_request, request.data(), request.size());
  std::memcpy(header_->init_reply, reply.data(), reply.size());
  header_->init_reply_size = static_cast<std::uint32_t>(reply.size());
  header_->init_request_size.store(static_cast<std::uint32_t>(request.size()),
                                   std::memory_order_release);
}

ByteView ConnectionMemory::init_request() const {
  return ByteView(header_->init_request)
      .first(std::min<std::size_t>(header_->init_request_size.load(std::memory_order_acquire),
                                   sizeof header_->init_request));
}

ByteView ConnectionMemory::init_reply() const {
  if (init_request().empty()) return {};
  return ByteView(header_->init_reply)
      .first(std::min<std::size_t>(header_->init_reply_size, sizeof header_->init_reply));
}

std::vector<std::uint64_t> ConnectionMemory::unanswered() const {
  std::vector<std::uint64_t> uniques;
  const std::uint32_t used = std::min(header_->slots_used.load(), header_->slot_count);
  for (std::uint32_t slot = 0; slot < used; ++slot)
    if (std::uint64_t unique = slots_[slot].load(std::memory_order_relaxed)) uniques.push_back(unique);
  std::sort(uniques.begin(), uniques.end());
  uniques.erase(std::unique(uniques.begin(), uniques.end()), uniques.end());
  return uniques;
}

bool ConnectionMemory::is_unanswered(std::uint64_t unique) const {
  const std::uint32_t used = std::min(header_->slots_used.load(), header_->slot_count);
  for (std::uint32_t slot = 0; slot < used; ++slot)
    if (slots_[slot].load(std::memory_order_acquire) == unique) return true;
  return false;
}

}  // namespace vmfs
