// The threads that do in production what the simulator does by hand.
#include "fs/volume/workers.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "fs/base/log.h"
#include "fs/volume/impl.h"

namespace vmfs {

void Volume::Impl::want_sync() {
  if (wanted_.sync.exchange(true)) return;
  std::lock_guard lock(wanted_.mutex);
  wanted_.changed.notify_all();
}

void Volume::Impl::want_apply() {
  if (wanted_.apply.exchange(true)) return;
  std::lock_guard lock(wanted_.mutex);
  wanted_.changed.notify_all();
}

struct VolumeWorkers::State {
  Volume& volume;
  Volume::Impl& impl;
  std::thread sync, prepare, apply, slow_lane;

  // Waits until `wanted` is set, the time is over, or the end. False: the end.
  bool wait(std::atomic<bool>* wanted, std::chrono::nanoseconds time) {
    std::unique_lock lock(impl.wanted_.mutex);
    impl.wanted_.changed.wait_for(
        lock, time, [&] { return impl.wanted_.stopped || (wanted && wanted->load()); });
    return !impl.wanted_.stopped;
  }

  void run_sync() {
    std::chrono::nanoseconds time{0};
    while (wait(&impl.wanted_.sync, time)) {
      impl.wanted_.sync.store(false);
      auto due = volume.sync_if_due();
      constexpr std::chrono::nanoseconds kAfterFailure{1'000'000'000};
      time = due ? std::chrono::nanoseconds(std::max<std::int64_t>(*due, 1'000'000)) : kAfterFailure;
    }
  }

  void run_prepare() {
    // Often enough that a segment is ready before the one in use is full.
    constexpr std::chrono::milliseconds kInterval{20}, kAfterFailure{1000};
    std::chrono::milliseconds time = kInterval;
    while (wait(nullptr, time)) {
      auto made = impl.journal_->prepare_segments();
      time = !made ? kAfterFailure : *made ? std::chrono::milliseconds{0} : kInterval;
    }
  }

  void run_apply() {
    constexpr std::chrono::milliseconds kInterval{50};
    constexpr std::chrono::seconds kAfterFailure{1};
    bool failed = false, more = false;
    for (;;) {
      // A failing disk is not asked more often because somebody waits for it.
      if (failed ? !wait(nullptr, kAfterFailure)
                 : !wait(&impl.wanted_.apply, more ? pause() : kInterval))
        return;
      auto result = volume.apply_some(false);
      failed = !result;
      more = result && *result;
    }
  }

  // Between two steps of a pass: as long as the step is short of disk and processor time that guests
  // could use, but not when the journal fills up.
  std::chrono::microseconds pause() {
    Journal& journal = *impl.journal_;
    bool pressed = journal.bytes_used() > journal.bytes_max() / 2;
    return std::chrono::microseconds(pressed ? 0 : 2000);
  }

  void run_slow_lane() {
    auto& parking = impl.parking_;
    for (;;) {
      {
        std::unique_lock lock(parking.mutex);
        parking.ready_changed.wait(lock,
                                   [&] { return parking.stopped || !parking.ready.empty(); });
        if (parking.stopped) return;
      }
      volume.run_parked();
    }
  }
};

VolumeWorkers::VolumeWorkers(Volume& volume)
    : state_(std::make_unique<State>(State{volume, volume.impl(), {}, {}, {}, {}})) {
  State* state = state_.get();
  {
    std::lock_guard lock(state->impl.wanted_.mutex);
    state->impl.wanted_.stopped = false;
  }
  {
    std::lock_guard lock(state->impl.parking_.mutex);
    state->impl.parking_.stopped = false;
  }
  state->sync = std::thread([state] { state->run_sync(); });
  state->prepare = std::thread([state] { state->run_prepare(); });
  state->apply = std::thread([state] { state->run_apply(); });
  state->slow_lane = std::thread([state] { state->run_slow_lane(); });
}

VolumeWorkers::~VolumeWorkers() {
  {
    std::lock_guard lock(state_->impl.wanted_.mutex);
    state_->impl.wanted_.stopped = true;
    state_->impl.wanted_.changed.notify_all();
  }
  {
    std::lock_guard lock(state_->impl.parking_.mutex);
    state_->impl.parking_.stopped = true;
    state_->impl.parking_.ready_changed.notify_all();
  }
  for (std::thread* thread : {&state_->sync, &state_->prepare, &state_->apply, &state_->slow_lane})
    thread->join();
}

}  // namespace vmfs
