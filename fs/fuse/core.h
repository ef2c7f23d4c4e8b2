// What the parts of the front share. Private to fs/fuse.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "fs/fuse/directories.h"
#include "fs/fuse/front.h"
#include "fs/fuse/invalidator.h"
#include "fs/fuse/kernel.h"
#include "fs/fuse/notifier.h"
#include "fs/fuse/open_table.h"
#include "fs/fuse/parked.h"
#include "fs/fuse/request.h"

namespace vmfs {

// A thread that serves requests.
struct Worker {
  int descriptor = -1;  // its clone of /dev/fuse
  std::thread thread;
  std::atomic<bool> serving{false};
};

// What serves a connection, whoever keeps it: a holder in production, a socket pair in a test.
struct ConnectionParts {
  ConnectionMemory* memory = nullptr;
  int descriptor = -1;      // INIT, and notifications if there is no notifier
  Notifier* notifier = nullptr;
  std::vector<int> clones;  // one for each worker
  unsigned device_major = 0, device_minor = 0;
};

// Shared by the front, the workers and whoever answers a request later: an answer may come after the
// front has gone, and must find that out.
class Core : public std::enable_shared_from_this<Core>, public Invalidator::Kernel {
 public:
  Core(Volume& volume, const ConnectionParts& parts, const FrontOptions& options);
  ~Core() override;

  // Held by a thread that is not a worker while it answers or retries; false once close() was called.
  class Entered {
   public:
    explicit Entered(Core& core) : core_(core) { core_.entered_.fetch_add(1); }
    ~Entered() {
      if (core_.entered_.fetch_sub(1) == 1 && core_.closed_.load()) core_.entered_.notify_all();
    }
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;
    explicit operator bool() const { return !core_.closed_.load(); }

   private:
    Core& core_;
  };

  // --- Life (life.cc) ----------------------------------------------------------------------------
  Result<> start();
  Front::End wait();
  Result<> drain(std::int64_t patience_ns);
  // No answer leaves after this: what is unanswered is the next daemon's to answer.
  void answer_no_more();
  // Nor is the volume called after this.
  void close();
  bool can_resend() const { return can_resend_; }

  // --- Requests (serve.cc) -----------------------------------------------------------------------
  // One message from the kernel. `context`: descriptor, slot and scratch filled in; on return its slot
  // may be another one.
  void handle(std::span<std::byte> message, RequestContext& context);
  // Makes the request that this thread works on be handled again when the group may be changed,
  // instead of being answered now. (If the call that failed waits for another group, the volume knows:
  // the call must be the last that this thread made.)
  void park_current(fuse_req_t request, GroupId group);
  // What detach() gives to whoever answers later.
  struct Later {
    std::shared_ptr<Core> core;
    fuse_req_t request = nullptr;
    int descriptor = -1;
    std::uint32_t slot = 0;
    std::uint64_t unique = 0;
    std::uint32_t process = 0;  // whose request it is
    std::shared_ptr<ParkedRequest> parked;  // if it was: what it locks stays locked until it is answered
    std::atomic<bool> answered{false}, watched{false};
    // On any thread: runs `reply(request)` so that it reaches the kernel, and marks the request as answered.
    // Only the first call does so. If the front has gone, nothing is answered.
    template <class Reply>
    void answer(Reply&& reply) {
      if (answered.exchange(true)) return;
      Entered entered(*core);
      if (!entered) {
        fuse_reply_none(request);
        return;
      }
      RequestContext context;
      context.descriptor = descriptor;
      RequestScope scope(context);
      reply(request);
      core->slots_.release(slot);
      if (parked) core->unlock(*parked);
      if (watched.load()) core->unwatch(unique);
      core->one_less_later();
    }
  };
  std::shared_ptr<Later> detach(fuse_req_t request);
  // If it is not answered yet: should its process be killed, it is given up.
  void watch(const std::shared_ptr<Later>& later);
  void interrupt(std::uint64_t unique);

  // --- Lifetimes in the kernel's caches -------------------------------------------------------------
  bool owned(GroupId group) {
    const Gate gate = volume_.gate(group);
    return gate == Gate::kOpen || gate == Gate::kFrozen;
  }
  // How much of an image is allocated changes by itself, when changes are applied; and asking is cheap.
  static constexpr double kImageSeconds = 1;
  double name_seconds() { return owned(kNameSpace) ? options_.cache_seconds : 0; }
  double attribute_seconds(const Attributes& attributes) {
    const bool image = attributes.stat.type == FileType::kRegular;
    if (!owned(image ? attributes.object : kNameSpace)) return 0;
    return image ? std::min(options_.cache_seconds, kImageSeconds) : options_.cache_seconds;
  }

  Volume& volume() { return volume_; }
  OpenTable& opens() { return opens_; }
  DirectoryTable& directories() { return directories_; }
  Notifier* notifier() const { return parts_.notifier; }  // null: notifications are written here
  Invalidator& invalidator() { return *invalidator_; }  // for workers, and for who has entered
  // Any thread: `done` once the kernel has dropped what it was asked to before; at once if the front has gone.
  void when_forgotten(std::function<void()> done) {
    Entered entered(*this);
    if (entered)
      invalidator_->then(std::move(done));
    else
      done();
  }
  ConnectionId connection() const { return ConnectionId{memory_.header().connection}; }
  unsigned device_major() const { return parts_.device_major; }
  unsigned device_minor() const { return parts_.device_minor; }
  FrontStatistics statistics() const;

 private:
  Result<> make_session();
  Result<> answer_init();
  Result<> replay_init();
  Result<> ask_for_resend();
  void start_workers();
  void forget_what_others_own();
  void serve(Worker& worker);
  void park(std::span<const std::byte> message, RequestContext& context);
  void register_parked(const std::shared_ptr<ParkedRequest>& request);
  void retry(const std::shared_ptr<ParkedRequest>& request);
  void finish_parked(const std::shared_ptr<ParkedRequest>& request, std::uint32_t slot);
  void unlock(const ParkedRequest& request);  // it was answered
  // False: it waits for no retry any more.
  bool was_interrupted(const std::shared_ptr<ParkedRequest>& request);
  void answer_interrupted(const std::shared_ptr<ParkedRequest>& request);
  void unwatch(std::uint64_t unique);
  bool give_up_if_dying(const std::shared_ptr<Later>& later);
  void begin_watching();  // with watch_mutex_ held
  void watch_interrupted();
  void one_less_later();
  std::size_t largest_message() const;

  // Invalidator::Kernel
  void forget_pages(ObjectId image, PageRange range) override;
  void forget_attributes(ObjectId object) override;
  void forget_name(ObjectId parent, const std::string& name) override;
  void each_directory(
      const std::function<void(ObjectId, const std::vector<std::string>&)>& visit) override;

  Volume& volume_;
  const ConnectionParts parts_;
  const FrontOptions options_;
  ConnectionMemory& memory_;
  fuse_session* session_ = nullptr;
  bool can_resend_ = false;
  std::uint32_t write_max_ = 0;

  SlotTable slots_;
  OpenTable opens_;
  DirectoryTable directories_;
  ParkedTable parked_;
  std::unique_ptr<Invalidator> invalidator_;

  std::atomic<std::int64_t> later_{0};  // requests that are neither answered nor on a worker
  std::atomic<std::uint32_t> entered_{0};
  std::atomic<bool> closed_{false};

  std::mutex life_mutex_;
  std::condition_variable life_changed_;
  std::vector<std::unique_ptr<Worker>> workers_;  // guarded by life_mutex_
  unsigned serving_ = 0;                          // guarded by life_mutex_
  bool ended_ = false;                            // guarded by life_mutex_
  Front::End end_ = Front::End::kUnmounted;       // guarded by life_mutex_
  std::atomic<bool> stop_reading_{false};

  std::mutex watch_mutex_;
  std::condition_variable watch_changed_;
  std::thread watcher_;         // guarded by watch_mutex_
  bool watching_ = false;       // guarded by watch_mutex_: there is something to watch
  struct Watched {
    std::shared_ptr<Later> later;
    bool interrupted = false;
  };
  std::unordered_map<std::uint64_t, Watched> later_watched_;  // guarded by watch_mutex_
  // Guarded by watch_mutex_. Of requests that no thread had parked when the interrupt was read; most are
  // answered and never looked for, so the oldest go.
  std::deque<std::uint64_t> early_interrupts_;
  static constexpr std::size_t kEarlyInterruptsMax = 1024;
  bool watch_stopped_ = false;  // guarded by watch_mutex_
};

// The operations, as libfuse wants them (operations_*.cc).
fuse_lowlevel_ops front_operations();

}  // namespace vmfs
