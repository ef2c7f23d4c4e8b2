#include "net/link/blocking_lane.h"

#include <sched.h>

#include "fs/seam/clock.h"

namespace vmfs {

BlockingLane::BlockingLane(std::function<void(std::function<void()>)> post, std::int64_t spin_ns)
    : post_(std::move(post)), spin_ns_(spin_ns), thread_([this] { loop(); }) {}

BlockingLane::~BlockingLane() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    jobs_.clear();
    waiting_ = 1;  // ends a spin
  }
  wake_.notify_one();
  thread_.join();
}

void BlockingLane::run(std::function<void()> work, std::function<void()> done) {
  bool wake = false;
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back({std::move(work), std::move(done)});
    waiting_.store(1, std::memory_order_release);
    wake = asleep_;
  }
  if (wake) wake_.notify_one();
}

void BlockingLane::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (stopping_) return;
    if (!jobs_.empty()) {
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      if (jobs_.empty()) waiting_.store(0, std::memory_order_relaxed);
      lock.unlock();
      job.work();
      post_(std::move(job.done));
      job = {};
      lock.lock();
      continue;
    }
    lock.unlock();
    const std::int64_t until = system_clock().monotonic_ns() + spin_ns_;
    while (waiting_.load(std::memory_order_acquire) == 0 && system_clock().monotonic_ns() < until)
      ::sched_yield();
    lock.lock();
    asleep_ = true;
    wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    asleep_ = false;
  }
}

}  // namespace vmfs
