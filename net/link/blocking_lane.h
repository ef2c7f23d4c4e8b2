// A thread that runs work which may wait for the disk, in order, one at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace vmfs {

class BlockingLane {
 public:
  // `post` hands a function to the node's thread. The lane looks for more work for spin_ns before it
  // sleeps.
  BlockingLane(std::function<void(std::function<void()>)> post, std::int64_t spin_ns);
  // Ends after the work under way; what waits is dropped.
  ~BlockingLane();
  void run(std::function<void()> work, std::function<void()> done);

 private:
  struct Job {
    std::function<void()> work, done;
  };
  void loop();

  const std::function<void(std::function<void()>)> post_;
  const std::int64_t spin_ns_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;              // guarded by mutex_
  bool stopping_ = false;             // guarded by mutex_
  bool asleep_ = false;               // guarded by mutex_
  std::atomic<std::uint32_t> waiting_{0};
  std::thread thread_;
};

}  // namespace vmfs
