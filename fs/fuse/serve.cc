// Requests: from the kernel to libfuse's handlers, now or later.
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/log.h"
#include "fs/fuse/core.h"
#include "fs/fuse/kernel_order.h"

namespace vmfs {
namespace {

constexpr std::size_t kPage = 4096;
// A write's payload begins after these; the buffer is placed so that it begins on a page.
constexpr std::size_t kWritePrefix = sizeof(fuse_in_header) + sizeof(fuse_write_in);

// Page-aligned, and given back to the system when it goes.
class Pages {
 public:
  enum class Present { kOnUse, kAlways };
  explicit Pages(std::size_t size, Present present = Present::kOnUse)
      : size_((size + kPage - 1) / kPage * kPage) {
    const int populate = present == Present::kAlways ? MAP_POPULATE : 0;
    void* start = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | populate, -1, 0);
    CHECK_INVARIANT(start != MAP_FAILED, "no memory for a request buffer of {} bytes", size_);
    start_ = static_cast<std::byte*>(start);
    // Where locking is not allowed, only swapping can still take them away.
    if (present == Present::kAlways) (void)::mlock(start_, size_);
  }
  ~Pages() { ::munmap(start_, size_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  std::span<std::byte> all() { return {start_, size_}; }

 private:
  std::byte* start_ = nullptr;
  std::size_t size_;
};

}  // namespace

std::size_t Core::largest_message() const { return write_max_ + kPage; }

void Core::serve(Worker& worker) {
  // The message lies so that a write's payload begins on a page.
  const std::size_t before = kPage - kWritePrefix;
  const std::size_t largest = largest_message();
  // Always there: a request that the kernel is copying out while this process is killed must not meet a
  // missing page. To a dying process it gives none, and then fails the request with EIO instead of
  // keeping it for the next daemon.
  Pages incoming(before + largest, Pages::Present::kAlways);
  Pages scratch(std::max<std::size_t>(write_max_, 1u << 20));
  std::byte* const message = incoming.all().data() + before;

  RequestContext context;
  context.descriptor = worker.descriptor;
  context.slot = slots_.acquire();
  context.scratch = scratch.all();
  bool broken = false, gone = false;
  while (!stop_reading_.load(std::memory_order_relaxed)) {
    const ssize_t got = ::read(worker.descriptor, message, largest);
    kernel_order::after_request();
    if (got < 0) {
      // ENOENT: the request was given up while it was being read.
      if (errno == EINTR || errno == EAGAIN || errno == ENOENT) continue;
      gone = errno == ENODEV;
      broken = !gone;
      if (broken) log_error("cannot read requests from the kernel: {}", strerror(errno));
      break;
    }
    if (static_cast<std::size_t>(got) < sizeof(fuse_in_header)) {
      // A socket's end, in a test; /dev/fuse never gives less than a header.
      gone = got == 0;
      broken = !gone;
      break;
    }
    handle({message, static_cast<std::size_t>(got)}, context);
  }
  slots_.release(context.slot);

  std::lock_guard lock(life_mutex_);
  worker.serving.store(false);
  if (broken) end_ = Front::End::kFailed;
  if (--serving_ == 0 && (broken || gone || !stop_reading_)) ended_ = true;
  life_changed_.notify_all();
}

void Core::handle(std::span<std::byte> message, RequestContext& context) {
  fuse_in_header header;
  std::memcpy(&header, message.data(), sizeof header);
  switch (header.opcode) {
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
      return;  // node ids are the objects' own: nothing is counted
    case FUSE_INTERRUPT: {
      fuse_interrupt_in body{};
      if (message.size() < sizeof header + sizeof body) return;
      std::memcpy(&body, message.data() + sizeof header, sizeof body);
      interrupt(body.unique & ~kUniqueResend);
      return;
    }
    case FUSE_INIT: {
      // Comes again if a daemon died between noting its answer and giving it.
      const ByteView reply = memory_.init_reply();
      fuse_out_header answer{};
      answer.unique = header.unique;
      answer.len = static_cast<std::uint32_t>(sizeof answer + reply.size());
      iovec pieces[2] = {{&answer, sizeof answer},
                         {const_cast<std::byte*>(reply.data()), reply.size()}};
      if (::writev(context.descriptor, pieces, 2) < 0)
        log_error("cannot answer the kernel's INIT: {}", strerror(errno));
      return;
    }
    default:
      break;
  }

  context.unique = header.unique & ~kUniqueResend;
  context.resent = (header.unique & kUniqueResend) != 0;
  context.detached = false;
  context.parked_on = {};
  context.message = message;
  slots_.note(context.slot, context.unique);
  if (context.resent) [[unlikely]]
    slots_.release(slots_.claim_left(context.unique));

  {
    RequestScope scope(context);
    fuse_buf buffer{};
    buffer.mem = message.data();
    buffer.size = message.size();
    fuse_session_process_buf(session_, &buffer);
  }
  if (context.parked()) [[unlikely]]
    park(message, context);
  else if (!context.detached)
    slots_.answered(context.slot);
}

std::shared_ptr<Core::Later> Core::detach(fuse_req_t request) {
  RequestContext& context = *current_request();
  auto later = std::make_shared<Later>();
  fuse_in_header header;
  std::memcpy(&header, context.message.data(), sizeof header);
  later->unique = context.unique;
  later->process = header.pid;
  later->core = shared_from_this();
  later->request = request;
  later->descriptor = context.descriptor;
  later->slot = context.slot;
  later->parked = context.retried;
  later_.fetch_add(1);
  context.detached = true;
  context.slot = slots_.acquire();
  return later;
}

void Core::one_less_later() {
  if (later_.fetch_sub(1) == 1 && stop_reading_.load()) {
    std::lock_guard lock(life_mutex_);
    life_changed_.notify_all();
  }
}

// --- Parking ---------------------------------------------------------------------------------------

void Core::park_current(fuse_req_t request, GroupId group) {
  current_request()->parked_on = group;
  fuse_reply_none(request);  // libfuse's part of it; it is made anew from the message
}

void Core::park(std::span<const std::byte> message, RequestContext& context) {
  auto request = std::make_shared<ParkedRequest>();
  request->message.assign(message.begin(), message.end());
  request->context = context;
  request->context.scratch = {};
  request->context.message = request->message;
  context.slot = slots_.acquire();  // the request keeps the one it has
  later_.fetch_add(1);

  fuse_in_header header;
  std::memcpy(&header, message.data(), sizeof header);
  bool direct = false;
  if (header.opcode == FUSE_WRITE) {
    fuse_write_in body{};
    std::memcpy(&body, message.data() + sizeof header, sizeof body);
    const OpenTable::Handle* handle = opens_.find(body.fh);
    direct = handle != nullptr && handle->direct;
  }
  describe_locks(*request, direct, [&](std::uint64_t parent, std::string_view name) -> std::uint64_t {
    auto found = volume_.lookup(ObjectId{parent}, name);
    return found && found->stat.type == FileType::kDirectory ? raw(found->object) : 0;
  });
  parked_.add(request);
  invalidator_->was_parked(*request);
  bool interrupted = false;
  {
    std::lock_guard lock(watch_mutex_);
    interrupted = std::erase(early_interrupts_, request->context.unique) != 0;
  }
  register_parked(request);
  if (interrupted) was_interrupted(request);
}

void Core::register_parked(const std::shared_ptr<ParkedRequest>& request) {
  volume_.park(request->context.parked_on,
               [core = shared_from_this(), request] { core->retry(request); });
}

void Core::retry(const std::shared_ptr<ParkedRequest>& request) {
  Entered entered(*this);
  if (!entered) return;
  auto expected = ParkedRequest::State::kWaiting;
  if (!request->state.compare_exchange_strong(expected, ParkedRequest::State::kRunning)) return;

  Pages scratch(std::max<std::size_t>(write_max_, 1u << 20));
  RequestContext context = request->context;
  context.parked_on = {};
  context.detached = false;
  context.scratch = scratch.all();
  context.retried = request;
  {
    RequestScope scope(context);
    fuse_buf buffer{};
    buffer.mem = request->message.data();
    buffer.size = request->message.size();
    fuse_session_process_buf(session_, &buffer);
  }
  if (context.parked()) {
    request->context.parked_on = context.parked_on;
    request->state.store(ParkedRequest::State::kWaiting);
    register_parked(request);
    return;
  }
  request->state.store(ParkedRequest::State::kAnswered);
  if (!context.detached) return finish_parked(request, context.slot);
  slots_.release(context.slot);
  if (request->interrupted.load()) interrupt(context.unique);
  one_less_later();
}

void Core::finish_parked(const std::shared_ptr<ParkedRequest>& request, std::uint32_t slot) {
  slots_.release(slot);
  unlock(*request);
  one_less_later();
}

void Core::unlock(const ParkedRequest& request) {
  parked_.remove(request);
  invalidator_->was_answered(request);
}

}  // namespace vmfs
