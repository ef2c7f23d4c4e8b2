// Signals to clients whose requests wait: who is killed gets its request back, so that it can end.
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fs/base/log.h"
#include "fs/fuse/core.h"

namespace vmfs {
namespace {

// Whether the thread that made the request is being killed: then nobody wants the answer. (The kernel
// tells only that there was a signal, and a write must not fail because of one that is handled.)
bool is_dying(std::uint32_t process) {
  std::FILE* file = std::fopen(fmt::format("/proc/{}/status", process).c_str(), "re");
  if (file == nullptr) return true;
  char line[256];
  std::uint64_t pending = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::strncmp(line, "SigPnd:", 7) == 0 || std::strncmp(line, "ShdPnd:", 7) == 0)
      pending |= std::strtoull(line + 7, nullptr, 16);
  }
  std::fclose(file);
  return (pending & (1ull << (SIGKILL - 1))) != 0;
}

}  // namespace

void Core::interrupt(std::uint64_t unique) {
  if (auto request = parked_.find(unique); request && was_interrupted(request)) return;
  // Another thread may be about to park it, or has not even noted yet that it read it, and the kernel does not say it
  // twice. What is not parked at all is answered soon enough.
  std::shared_ptr<Later> later;
  {
    std::lock_guard lock(watch_mutex_);
    if (auto found = later_watched_.find(unique); found != later_watched_.end()) {
      found->second.interrupted = true;
      later = found->second.later;
      begin_watching();
    } else {
      early_interrupts_.push_back(unique);
      if (early_interrupts_.size() > kEarlyInterruptsMax) early_interrupts_.pop_front();
    }
  }
  if (later) {
    give_up_if_dying(later);
    return;
  }
  if (auto request = parked_.find(unique)) was_interrupted(request);
}

void Core::watch(const std::shared_ptr<Later>& later) {
  if (later->answered.load()) return;
  std::lock_guard lock(watch_mutex_);
  const bool interrupted = std::erase(early_interrupts_, later->unique) != 0;
  later_watched_[later->unique] = {later, interrupted};
  later->watched.store(true);
  // Whoever answers looks at that flag after having set this one.
  if (later->answered.load())
    later_watched_.erase(later->unique);
  else if (interrupted)
    begin_watching();
}

void Core::unwatch(std::uint64_t unique) {
  std::lock_guard lock(watch_mutex_);
  later_watched_.erase(unique);
}

bool Core::give_up_if_dying(const std::shared_ptr<Later>& later) {
  if (!is_dying(later->process)) return false;
  later->answer([](fuse_req_t waiting) { fuse_reply_err(waiting, EINTR); });
  return true;
}

bool Core::was_interrupted(const std::shared_ptr<ParkedRequest>& request) {
  request->interrupted.store(true);
  answer_interrupted(request);
  if (request->state.load() == ParkedRequest::State::kAnswered) return false;
  // The kernel tells of the first signal only; a later one may be the one that kills.
  std::lock_guard lock(watch_mutex_);
  begin_watching();
  return true;
}

void Core::begin_watching() {
  watching_ = true;
  if (!watcher_.joinable() && !watch_stopped_) watcher_ = std::thread([this] { watch_interrupted(); });
  watch_changed_.notify_all();
}

void Core::answer_interrupted(const std::shared_ptr<ParkedRequest>& request) {
  fuse_in_header header;
  std::memcpy(&header, request->message.data(), sizeof header);
  if (!is_dying(header.pid)) return;
  auto expected = ParkedRequest::State::kWaiting;
  if (!request->state.compare_exchange_strong(expected, ParkedRequest::State::kAnswered)) return;
  fuse_out_header answer{};
  answer.len = sizeof answer;
  answer.error = -EINTR;
  answer.unique = header.unique;
  if (::write(request->context.descriptor, &answer, sizeof answer) < 0 && errno != ENOENT)
    log_warning("cannot answer an interrupted request: {}", strerror(errno));
  finish_parked(request, request->context.slot);
}

void Core::watch_interrupted() {
  std::unique_lock lock(watch_mutex_);
  while (!watch_stopped_) {
    if (!watching_) {
      watch_changed_.wait(lock);
      continue;
    }
    watch_changed_.wait_for(lock, std::chrono::milliseconds(500));
    if (watch_stopped_) break;
    std::vector<std::shared_ptr<Later>> laters;
    for (const auto& [unique, watched] : later_watched_)
      if (watched.interrupted) laters.push_back(watched.later);
    watching_ = false;  // whoever comes from here on says so again
    lock.unlock();
    const auto requests = parked_.interrupted();
    for (const auto& request : requests) answer_interrupted(request);
    for (const auto& later : laters) give_up_if_dying(later);
    const bool none = requests.empty() && laters.empty();
    laters.clear();
    lock.lock();
    if (!none) watching_ = true;
  }
}

}  // namespace vmfs
