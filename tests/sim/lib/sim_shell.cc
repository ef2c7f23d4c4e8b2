#include "tests/sim/lib/sim_shell.h"

namespace vmfs::sim {

void SimShell::post(std::function<void()> f) {
  scheduler_.after(0, [alive = alive_, f = std::move(f)] {
    if (*alive) f();
  });
}

void SimShell::wake_at(std::int64_t monotonic_ns) {
  if (wake_ != 0 && wake_ <= monotonic_ns) return;
  wake_ = monotonic_ns;
  scheduler_.at(monotonic_ns, [this, alive = alive_, monotonic_ns] {
    if (!*alive || wake_ != monotonic_ns) return;
    wake_ = 0;
    if (tick_) tick_();
  });
}

void SimShell::run_blocking(Lane lane, std::function<void()> work, std::function<void()> done) {
  auto& queue = lanes_[static_cast<int>(lane)];
  queue.push_back({std::move(work), std::move(done)});
  if (queue.size() == 1) start_job(lane);
}

void SimShell::start_job(Lane lane) {
  const auto takes =
      static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(disk_latency_ns_)));
  scheduler_.after(takes, [this, alive = alive_, lane] {
    if (!*alive) return;
    auto& queue = lanes_[static_cast<int>(lane)];
    queue.front().work();
    if (!*alive) return;  // the work has stopped the node
    post(std::move(queue.front().done));
    queue.pop_front();
    if (!queue.empty()) start_job(lane);
  });
}

void SimShell::dial(const std::string& address, LinkEvents& events,
                    std::function<void(Result<std::unique_ptr<Link>>)> done) {
  network_.dial(host_, address, events, [alive = alive_, done = std::move(done)](auto result) {
    if (*alive) done(std::move(result));
  });
}

}  // namespace vmfs::sim
