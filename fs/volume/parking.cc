// Requests that wait for a token, for journal space, for memory, or for a peer that is behind.
#include "fs/volume/impl.h"
#include "fs/volume/refusal.h"

namespace vmfs {

bool Volume::Impl::resources_lack() {
  return full_at_.load(std::memory_order_acquire) == space_events_.load(std::memory_order_acquire) ||
         index_memory_->load() > options_.memory_max || peers_behind();
}

void Volume::park(GroupId group, std::function<void()> retry) {
  Impl& v = *impl_;
  // A change of names may wait for an image's token; the caller cannot know that.
  GroupId waits_for = std::exchange(Refusal::waits_for, GroupId{});
  Impl::Parked parked{raw(waits_for) != 0 ? waits_for : group, std::move(retry)};
  std::vector<Impl::Parked> now;
  std::optional<Error> refusal;
  // Looked up before: names_mutex_ is not taken under the parking's.
  std::shared_ptr<Inode> alive;
  VolumeGroup* const its_group = v.find_group(parked.group, alive);
  {
    // What it waits for may have come since the call failed: those who bring it take this mutex after
    // they changed what is looked at here.
    std::lock_guard lock(v.parking_.mutex);
    bool answered = false;
    for (const auto& wake : v.parking_.wakes)
      if (wake.group == parked.group && wake.number > Refusal::asked_at) {
        answered = true;
        refusal = wake.refusal;
      }
    if (raw(waits_for) == 0) answered = false;
    if (answered)
      now.push_back(std::move(parked));
    else if (raw(waits_for) != 0 && its_group && its_group->gate.load(std::memory_order_acquire) != Gate::kOpen)
      v.parking_.on_gate.push_back(std::move(parked));
    else if (v.resources_lack())
      v.parking_.on_resources.push_back(std::move(parked));
    else
      now.push_back(std::move(parked));
  }
  v.make_ready(std::move(now), refusal ? &*refusal : nullptr);
}

void Volume::Impl::make_ready(std::vector<Parked> retries, const Error* refusal) {
  for (Parked& parked : retries) {
    std::function<void()> run = std::move(parked.retry);
    if (refusal) {
      run = [run = std::move(run), group = parked.group, error = *refusal] {
        Refusal::current = {group, error};
        run();
        Refusal::current = {};
      };
    }
    std::lock_guard lock(parking_.mutex);
    parking_.ready.push_back(std::move(run));
    parking_.ready_changed.notify_one();
  }
}

void Volume::Impl::wake_gate(GroupId group, const Error* refusal) {
  std::vector<Parked> woken;
  {
    std::lock_guard lock(parking_.mutex);
    auto rest = std::stable_partition(parking_.on_gate.begin(), parking_.on_gate.end(),
                                      [&](const Parked& parked) { return parked.group != group; });
    std::move(rest, parking_.on_gate.end(), std::back_inserter(woken));
    parking_.on_gate.erase(rest, parking_.on_gate.end());
    parking_.wakes.push_back({++parking_.wake_number, group,
                              refusal ? std::optional<Error>(*refusal) : std::nullopt});
    if (parking_.wakes.size() > kWakesKept) parking_.wakes.pop_front();
  }
  make_ready(std::move(woken), refusal);
}

void Volume::Impl::wake_resources() {
  std::vector<Parked> woken;
  {
    std::lock_guard lock(parking_.mutex);
    woken.swap(parking_.on_resources);
  }
  make_ready(std::move(woken), nullptr);
}

void Volume::Impl::retry_parked() {
  constexpr std::int64_t kInterval = 200'000'000;
  std::int64_t now = clock_.monotonic_ns();
  {
    std::lock_guard lock(parking_.mutex);
    if (parking_.on_resources.empty()) return;
  }
  if (now - retried_ns_.load() < kInterval) return;
  retried_ns_.store(now);
  space_events_.fetch_add(1);
  wake_resources();
}

bool Volume::run_parked() {
  std::deque<std::function<void()>> ready;
  {
    std::lock_guard lock(impl_->parking_.mutex);
    ready.swap(impl_->parking_.ready);
  }
  for (auto& retry : ready) retry();
  return !ready.empty();
}

void Volume::reopen(GroupId group) { impl_->wake_gate(group, nullptr); }
void Volume::refuse(GroupId group, Error error) { impl_->wake_gate(group, &error); }
void Volume::resume_writes() { impl_->wake_resources(); }

}  // namespace vmfs
