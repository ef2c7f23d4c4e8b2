// Takes things out of the kernel's caches, on a thread which serves no request.
//
// The kernel may make that thread wait: for a page that a write holds locked, or for a directory that
// a create holds locked, until these are answered. If such a request is parked (because it waits for a
// token, say, whose hand-over waits for the invalidation), that would never end. So what parked
// requests lock is left out and done when they are answered; and if a request is parked that locks what
// the thread already waits for in the kernel, another thread takes over the queue and the rest of the work.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "fs/base/ids.h"
#include "fs/fuse/parked.h"

namespace vmfs {

class Invalidator {
 public:
  // What it asks of the kernel; errors are no concern (what is not cached cannot be invalidated).
  struct Kernel {
    virtual ~Kernel() = default;
    // Attributes, and the pages of the range (length 0: to the end).
    virtual void forget_pages(ObjectId image, PageRange range) = 0;
    virtual void forget_attributes(ObjectId object) = 0;
    virtual void forget_name(ObjectId parent, const std::string& name) = 0;
    // Every directory there is, parents first, with the names in it.
    virtual void each_directory(
        const std::function<void(ObjectId directory, const std::vector<std::string>& names)>& visit) = 0;
  };
  Invalidator(Kernel& kernel, ParkedTable& parked);
  // Waits for its threads, so what they wait for must have ended: see Notifier::stop().
  ~Invalidator();

  void image(ObjectId image);
  void pages(ObjectId image, PageRange range);
  void attributes(ObjectId object);
  void name(ObjectId parent, const std::string& name);
  void names();
  // After everything asked for before, save what parked requests lock.
  void then(std::function<void()> done);

  // To be called after a request was parked, and after a parked request was answered.
  void was_parked(const ParkedRequest& request);
  void was_answered(const ParkedRequest& request);

  std::size_t threads_waiting() const;  // in the kernel, for parked requests; for tests

 private:
  struct Item {
    enum class Kind : std::uint8_t {
      kImage,
      kPages,
      kName,        // and the attributes of its directory
      kEntry,       // a name alone
      kAttributes,  // alone
      kNames,       // becomes many of the two before
      kDone,
    } kind = Kind::kImage;
    ObjectId object{};
    std::string name;
    std::function<void()> done;
    PageRange range;  // of kImage and kPages: what is still to be done
  };
  struct Shift;  // one thread's turn at the queue

  void enqueue(Item item);
  void run(const std::shared_ptr<Shift>& shift);
  void process(Shift& shift);
  void forget_pages(Shift& shift);
  void forget_name(Shift& shift);
  void defer(ObjectId image, PageRange range);  // with mutex_ held
  void start_shift();  // with mutex_ held

  // More threads than this are never stuck at once; then the queue waits for one of them.
  static constexpr std::size_t kShiftsMax = 64;

  Kernel& kernel_;
  ParkedTable& parked_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;                                 // guarded by mutex_
  std::set<ObjectId> queued_images_;                       // guarded by mutex_
  std::set<std::pair<ObjectId, std::string>> queued_names_;  // guarded by mutex_
  bool queued_all_names_ = false;                          // guarded by mutex_
  // Guarded by mutex_. Of each image, begins and ends of ranges that lie apart.
  std::map<ObjectId, std::map<std::uint64_t, std::uint64_t>> deferred_pages_;
  std::set<std::pair<ObjectId, std::string>> deferred_names_;  // guarded by mutex_
  std::shared_ptr<Shift> shift_;                           // guarded by mutex_; the one in charge
  std::vector<std::shared_ptr<Shift>> shifts_;             // guarded by mutex_
  bool stopping_ = false;                                  // guarded by mutex_
};

}  // namespace vmfs
