// The front's life: INIT, restart, threads, drain, end; and what it asks of the kernel unasked.
#include <signal.h>
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

constexpr std::uint32_t kWriteMax = 1u << 20;  // bytes; what the kernel's 256 pages hold
static_assert(kWriteMax <= kPayloadMax, "a write becomes one record");
constexpr int kWakeSignal = SIGUSR1;

void wake(int) {}

// Which no request is answered by.
bool is_notification(const iovec* pieces, int count) {
  fuse_out_header header{};
  if (count < 1 || pieces[0].iov_len < sizeof header) return false;
  std::memcpy(&header, pieces[0].iov_base, sizeof header);
  return header.unique == 0;
}

// libfuse writes every answer with this: to where the request came from.
ssize_t write_answer(int descriptor, iovec* pieces, int count, void* core) {
  kernel_order::before_answer();
  RequestContext* context = current_request();
  if (context == nullptr) {
    Notifier* const notifier = static_cast<Core*>(core)->notifier();
    if (notifier != nullptr && is_notification(pieces, count)) {
      const ssize_t written = notifier->write({pieces, static_cast<std::size_t>(count)});
      if (written >= 0 || !notifier->lost()) return written;
    }
    return ::writev(descriptor, pieces, count);
  }
  if (context->captured_reply == nullptr) return ::writev(context->descriptor, pieces, count);
  ssize_t total = 0;
  for (const iovec& piece : std::span(pieces, static_cast<std::size_t>(count))) {
    const auto* start = static_cast<const std::byte*>(piece.iov_base);
    context->captured_reply->insert(context->captured_reply->end(), start, start + piece.iov_len);
    total += static_cast<ssize_t>(piece.iov_len);
  }
  return total;
}

ssize_t read_request(int descriptor, void* buffer, std::size_t size, void*) {
  return ::read(descriptor, buffer, size);
}

}  // namespace

Core::Core(Volume& volume, const ConnectionParts& parts, const FrontOptions& options)
    : volume_(volume),
      parts_(parts),
      options_(options),
      memory_(*parts.memory),
      write_max_(kWriteMax),
      slots_(memory_),
      opens_(memory_),
      directories_(memory_.header().starts.load()) {}

Core::~Core() {
  CHECK_INVARIANT(closed_.load() || session_ == nullptr, "the front must be closed first");
  if (session_ != nullptr) fuse_session_destroy(session_);
}

Result<> Core::start() {
  struct sigaction action {};
  action.sa_handler = wake;  // without SA_RESTART: it ends a read
  sigemptyset(&action.sa_mask);
  ::sigaction(kWakeSignal, &action, nullptr);

  VMFS_TRY(make_session());
  invalidator_ = std::make_unique<Invalidator>(*this, parked_);
  const bool goes_on = !memory_.init_request().empty();
  if (goes_on) {
    VMFS_TRY(replay_init());
    opens_.restore(volume_);
  }
  if (memory_.header().starts.load() > 1) VMFS_TRY(ask_for_resend());
  if (!goes_on) VMFS_TRY(answer_init());
  {
    std::lock_guard lock(life_mutex_);
    start_workers();
  }
  if (goes_on) forget_what_others_own();
  return {};
}

// The daemon before may have died between giving a token away, or showing what a peer had changed, and
// telling the kernel.
void Core::forget_what_others_own() {
  if (!owned(kNameSpace)) invalidator_->names();
  for (ObjectId image : opens_.cached())
    if (!owned(image)) invalidator_->image(image);
}

Result<> Core::make_session() {
  char name[] = "vmfs";
  char* arguments[] = {name, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, arguments);
  const fuse_lowlevel_ops operations = front_operations();
  session_ = fuse_session_new(&args, &operations, sizeof operations, this);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) return fail(ErrorKind::kIo, EINVAL, "libfuse refused its arguments");
  fuse_custom_io io{};
  io.writev = write_answer;
  io.read = read_request;
  // The session closes the descriptor that it is given.
  const int own = ::dup(parts_.descriptor);
  if (own < 0 || fuse_session_custom_io(session_, &io, own) != 0) {
    const int number = errno;
    return fail(ErrorKind::kIo, number,
                fmt::format("cannot hand the connection to libfuse: {}", strerror(number)));
  }
  return {};
}

namespace {

// Lets libfuse answer an INIT message, and returns what it answered (with header).
Bytes let_answer(fuse_session* session, std::span<std::byte> message) {
  Bytes answer;
  RequestContext context;
  context.captured_reply = &answer;
  RequestScope scope(context);
  fuse_buf buffer{};
  buffer.mem = message.data();
  buffer.size = message.size();
  fuse_session_process_buf(session, &buffer);
  return answer;
}

// What libfuse 3.14 does not know how to ask for.
void extend_init_answer(Bytes& answer, std::uint64_t offered) {
  fuse_out_header header;
  std::memcpy(&header, answer.data(), sizeof header);
  if (header.error != 0 || answer.size() < sizeof header + sizeof(fuse_init_out)) return;
  fuse_init_out body;
  std::memcpy(&body, answer.data() + sizeof header, sizeof body);
  const std::uint64_t wanted = offered & (kInitDirectIoAllowMmap | kInitHasResend);
  if (wanted == 0 || (offered & kInitExtended) == 0) return;
  body.flags |= static_cast<std::uint32_t>(kInitExtended);
  body.flags2 |= static_cast<std::uint32_t>(wanted >> 32);
  std::memcpy(answer.data() + sizeof header, &body, sizeof body);
}

}  // namespace

Result<> Core::answer_init() {
  Bytes message(largest_message());
  fuse_in_header header{};
  for (;;) {
    const ssize_t got = ::read(parts_.descriptor, message.data(), message.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
    if (got < static_cast<ssize_t>(sizeof header)) {
      const int number = got < 0 ? errno : ENODEV;
      return fail(ErrorKind::kIo, number,
                  fmt::format("the kernel did not begin the connection: {}", strerror(number)));
    }
    std::memcpy(&header, message.data(), sizeof header);
    if (header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET) continue;
    message.resize(static_cast<std::size_t>(got));
    break;
  }
  if (header.opcode != FUSE_INIT) {
    return fail(ErrorKind::kIo, EPROTO,
                fmt::format("the kernel began the connection with operation {} and not with INIT",
                            header.opcode));
  }
  Bytes answer = let_answer(session_, message);
  const std::uint64_t offered = init_flags(message.data(), message.size());
  if (answer.size() < sizeof(fuse_out_header))
    return fail(ErrorKind::kIo, EPROTO, "libfuse did not answer the kernel's INIT");
  extend_init_answer(answer, offered);
  can_resend_ = (offered & kInitHasResend) != 0 && !options_.pretend_no_resend;
  // Noted first: an INIT that the kernel has the answer to never comes again.
  memory_.store_init(message, ByteView(answer).subspan(sizeof(fuse_out_header)));
  if (::write(parts_.descriptor, answer.data(), answer.size()) < 0) {
    return fail(ErrorKind::kIo, errno,
                fmt::format("cannot answer the kernel's INIT: {}", strerror(errno)));
  }
  if (fuse_session_exited(session_) != 0)
    return fail(ErrorKind::kIo, EPROTO, "this kernel's FUSE protocol is not one that libfuse speaks");
  return {};
}

Result<> Core::replay_init() {
  const ByteView stored = memory_.init_request();
  Bytes message(stored.begin(), stored.end());
  const Bytes answer = let_answer(session_, message);
  if (answer.size() < sizeof(fuse_out_header) || fuse_session_exited(session_) != 0)
    return fail(ErrorKind::kIo, EPROTO, "libfuse does not accept the INIT that it accepted before");
  can_resend_ =
      (init_flags(message.data(), message.size()) & kInitHasResend) != 0 && !options_.pretend_no_resend;
  // The kernel goes by what it was told then, which may have been another version of this program.
  fuse_init_out told{};
  const ByteView reply = memory_.init_reply();
  std::memcpy(&told, reply.data(), std::min(reply.size(), sizeof told));
  write_max_ = std::max(kWriteMax, told.max_write);
  return {};
}

Result<> Core::ask_for_resend() {
  fuse_out_header notify{};
  notify.len = sizeof notify;
  notify.error = kNotifyResend;
  if (::write(parts_.descriptor, &notify, sizeof notify) < 0) {
    // After a drain nothing is unanswered, and a kernel that cannot do it needs not.
    const int number = errno;
    const bool unmounted = number == ENODEV;
    if (!unmounted && !memory_.unanswered().empty()) {
      return fail(ErrorKind::kIo, number,
                  fmt::format("the kernel does not send unanswered requests again: {}",
                              strerror(number)));
    }
  }
  return {};
}

void Core::start_workers() {
  for (auto& worker : workers_)
    if (worker->thread.joinable()) worker->thread.join();
  workers_.clear();
  const std::size_t count =
      std::min<std::size_t>(std::max(options_.threads, 1u), parts_.clones.size());
  serving_ = static_cast<unsigned>(count);
  for (std::size_t i = 0; i < count; ++i) {
    auto worker = std::make_unique<Worker>();
    worker->descriptor = parts_.clones[i];
    worker->serving.store(true);
    Worker& reference = *worker;
    worker->thread = std::thread([this, &reference] { serve(reference); });
    workers_.push_back(std::move(worker));
  }
}

Front::End Core::wait() {
  std::unique_lock lock(life_mutex_);
  life_changed_.wait(lock, [&] { return ended_ && serving_ == 0; });
  auto workers = std::move(workers_);
  workers_.clear();
  lock.unlock();
  for (auto& worker : workers)
    if (worker->thread.joinable()) worker->thread.join();
  lock.lock();
  return end_;
}

Result<> Core::drain(std::int64_t patience_ns) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::nanoseconds(patience_ns);
  std::unique_lock lock(life_mutex_);
  if (ended_ || stop_reading_.exchange(true))
    return fail(ErrorKind::kBusy, EBUSY, "the daemon is already ending");
  while (serving_ > 0) {
    // A signal that comes just before the read does not end it: again until all have seen the flag.
    for (auto& worker : workers_)
      if (worker->serving.load()) ::pthread_kill(worker->thread.native_handle(), kWakeSignal);
    life_changed_.wait_for(lock, std::chrono::milliseconds(5));
  }
  if (ended_) return {};  // unmounted meanwhile
  const bool all = life_changed_.wait_until(lock, deadline, [&] { return later_.load() == 0; });
  if (!all && !can_resend_) {
    stop_reading_.store(false);
    start_workers();
    return fail(ErrorKind::kBusy, EBUSY,
                fmt::format("{} requests still wait (for a peer, or for space), and this kernel "
                            "cannot send them again to the next daemon: try again when they are done",
                            later_.load()));
  }
  end_ = Front::End::kDrained;
  ended_ = true;
  life_changed_.notify_all();
  return {};
}

void Core::answer_no_more() {
  closed_.store(true);
  for (std::uint32_t entered = entered_.load(); entered != 0; entered = entered_.load())
    entered_.wait(entered);
}

void Core::close() {
  {
    std::lock_guard lock(watch_mutex_);
    watch_stopped_ = true;
    watch_changed_.notify_all();
  }
  if (watcher_.joinable()) watcher_.join();
  answer_no_more();
  {
    std::lock_guard lock(watch_mutex_);
    later_watched_.clear();  // they hold this object
  }
  // On a connection that goes on, the kernel may wait for something that only the next daemon's answers release.
  if (parts_.notifier != nullptr) parts_.notifier->stop();
  invalidator_.reset();
}

FrontStatistics Core::statistics() const {
  FrontStatistics statistics;
  statistics.parked = parked_.size();
  statistics.open_handles = opens_.size();
  return statistics;
}

// --- What the kernel is told unasked -----------------------------------------------------------------

void Core::forget_pages(ObjectId image, PageRange range) {
  fuse_lowlevel_notify_inval_inode(session_, raw(image), static_cast<off_t>(range.offset),
                                   static_cast<off_t>(range.length));
}

void Core::forget_attributes(ObjectId object) {
  fuse_lowlevel_notify_inval_inode(session_, raw(object), -1, 0);
}

void Core::forget_name(ObjectId parent, const std::string& name) {
  if (name.empty()) return;  // the directory itself has changed: see names_in()
  // Expiring is enough, and spares what is mounted or open below the name.
  if (fuse_lowlevel_notify_expire_entry(session_, raw(parent), name.c_str(), name.size(),
                                        FUSE_LL_EXPIRE_ONLY) == -ENOSYS) {
    fuse_lowlevel_notify_inval_entry(session_, raw(parent), name.c_str(), name.size());
  }
}

void Core::each_directory(
    const std::function<void(ObjectId, const std::vector<std::string>&)>& visit) {
  std::vector<ObjectId> directories{kRootObject};
  while (!directories.empty()) {
    const ObjectId directory = directories.back();
    directories.pop_back();
    auto entries = volume_.list(directory);
    if (!entries) continue;  // removed meanwhile
    std::vector<std::string> names;
    for (const ListedEntry& entry : *entries) {
      names.push_back(entry.name);
      if (entry.type == FileType::kDirectory) directories.push_back(entry.object);
    }
    visit(directory, names);
  }
}

}  // namespace vmfs
