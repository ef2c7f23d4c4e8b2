// The world as a node sees it, in virtual time. One per life of a node's process: kill() ends it,
// and nothing that was asked of it happens any more.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "net/seam/shell.h"
#include "tests/sim/lib/sim_network.h"
#include "tests/sim/lib/sim_scheduler.h"

namespace vmfs::sim {

class SimShell : public Shell {
 public:
  SimShell(Scheduler& scheduler, SimNetwork& network, std::string host, std::uint64_t seed)
      : scheduler_(scheduler), network_(network), host_(std::move(host)), random_(seed) {}
  ~SimShell() override { *alive_ = false; }

  void set_tick(std::function<void()> tick) { tick_ = std::move(tick); }
  void listen(LinkEvents& events, SimNetwork::Accepted accepted) {
    network_.listen(host_, events, std::move(accepted));
  }
  // What blocking work takes, at most.
  void set_disk_latency(std::int64_t ns) { disk_latency_ns_ = ns; }
  // No callback of this life happens after this. The links are the caller's to destroy, after
  // having told the network what has died.
  void kill() { *alive_ = false; }

  void post(std::function<void()> f) override;
  void wake_at(std::int64_t monotonic_ns) override;
  void run_blocking(Lane lane, std::function<void()> work, std::function<void()> done) override;
  void dial(const std::string& address, LinkEvents& events,
            std::function<void(Result<std::unique_ptr<Link>>)> done) override;

 private:
  struct Job {
    std::function<void()> work, done;
  };
  void start_job(Lane lane);

  Scheduler& scheduler_;
  SimNetwork& network_;
  const std::string host_;
  Random random_;
  std::function<void()> tick_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::int64_t wake_ = 0;  // 0: none asked for
  std::int64_t disk_latency_ns_ = 3'000'000;
  std::deque<Job> lanes_[kLanes];
};

}  // namespace vmfs::sim
