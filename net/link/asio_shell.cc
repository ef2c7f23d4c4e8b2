#include "net/link/asio_shell.h"

#include <pthread.h>
#include <sched.h>

#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>

#include "fs/base/check.h"
#include "fs/base/log.h"
#include "fs/seam/clock.h"
#include "net/link/connection.h"
#include "net/link/dialer.h"
#include "net/link/shell_state.h"

namespace vmfs {

bool clear_allowed(const LinkCredentials& credentials, const asio::ip::address& remote) {
  if (credentials.encryption == Encryption::kOffEverywhere) return true;
  if (remote.is_v6() && remote.to_v6().is_v4_mapped())
    return asio::ip::make_address_v4(asio::ip::v4_mapped, remote.to_v6()).is_loopback();
  return remote.is_loopback();
}

std::string to_text(const asio::ip::tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  return endpoint.address().is_v6() ? fmt::format("[{}]:{}", address, endpoint.port())
                                    : fmt::format("{}:{}", address, endpoint.port());
}

Result<std::unique_ptr<AsioShell>> AsioShell::create(const AsioShellOptions& options) {
  auto state = std::make_shared<State>();
  state->options = options;
  if (options.credentials.encryption == Encryption::kTls) {
    VMFS_ASSIGN(state->tls, TlsContext::create(options.credentials));
  }
  state->io = std::make_unique<asio::io_context>(1);
  state->timer.emplace(*state->io);
  return std::unique_ptr<AsioShell>(new AsioShell(std::move(state)));
}

AsioShell::AsioShell(std::shared_ptr<State> state) : state_(std::move(state)) {}

AsioShell::~AsioShell() {
  stop();
  // Connections may outlive this in their links; nothing of Asio's may.
  for (TcpConnection* connection : state_->connections) connection->detach();
  state_->timer.reset();
  std::unique_ptr<asio::io_context> io = std::move(state_->io);
}

void AsioShell::start(std::function<void()> tick) {
  CHECK_INVARIANT(!state_->thread.joinable(), "the shell was started before");
  state_->tick = std::move(tick);
  state_->thread = std::thread([state = state_] { state->run(); });
}

void AsioShell::stop() {
  if (state_->stopping.exchange(true)) return;
  state_->io->stop();
  if (state_->thread.joinable()) state_->thread.join();
  for (auto& lane : state_->lanes) lane.reset();
}

void AsioShell::State::run() {
  ::pthread_setname_np(::pthread_self(), "vmfs-net");
  auto work = asio::make_work_guard(*io);
  std::int64_t last_work = 0;
  while (!stopping.load(std::memory_order_acquire)) {
    if (io->poll() > 0) {
      last_work = system_clock().monotonic_ns();
    } else if (system_clock().monotonic_ns() - last_work < options.spin_ns) {
      ::sched_yield();
    } else {
      io->run_one();
      last_work = system_clock().monotonic_ns();
    }
  }
}

bool AsioShell::on_thread() const {
  return state_->thread.get_id() == std::this_thread::get_id();
}

void AsioShell::post(std::function<void()> f) { asio::post(*state_->io, std::move(f)); }

void AsioShell::wake_at(std::int64_t monotonic_ns) {
  if (state_->timer_at != 0 && state_->timer_at <= monotonic_ns) return;
  state_->arm_timer(monotonic_ns);
}

void AsioShell::State::arm_timer(std::int64_t monotonic_ns) {
  timer_at = std::max<std::int64_t>(monotonic_ns, 1);
  // steady_timer's clock is CLOCK_MONOTONIC, as system_clock().monotonic_ns() is.
  timer->expires_at(
      std::chrono::steady_clock::time_point(std::chrono::nanoseconds(monotonic_ns)));
  timer->async_wait([this, at = timer_at](const asio::error_code& error) {
    if (error || timer_at != at) return;
    timer_at = 0;
    if (tick) tick();
  });
}

void AsioShell::run_blocking(Lane lane, std::function<void()> work, std::function<void()> done) {
  auto& slot = state_->lanes[static_cast<std::size_t>(lane)];
  if (!slot) {
    slot = std::make_unique<BlockingLane>(
        [io = state_->io.get()](std::function<void()> f) { asio::post(*io, std::move(f)); },
        lane == Lane::kSync ? state_->options.spin_ns : 0);
  }
  slot->run(std::move(work), std::move(done));
}

void AsioShell::dial(const std::string& address, LinkEvents& events,
                     std::function<void(Result<std::unique_ptr<Link>>)> done) {
  std::make_shared<Dialer>(state_, events, std::move(done))->begin(address);
}

}  // namespace vmfs
