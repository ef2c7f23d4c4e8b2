#include "cli/listening.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "fs/base/log.h"

namespace vmfs {

namespace {
// An address that comes up is there to stay, so soon is soon enough; a name may take long to look up.
constexpr std::int64_t kFirstDelayNs = 500'000'000, kLongestDelayNs = 8'000'000'000;
}  // namespace

Listening::Listening(AsioShell& shell, Node& node, Clock& clock, std::string store)
    : shell_(shell), node_(node), clock_(clock), store_(std::move(store)) {}

Result<> Listening::open(const std::string& address) {
  VMFS_ASSIGN(listener_, Listener::open(shell_, address, node_, [this](std::unique_ptr<Link> link) {
                node_.link_opened(std::move(link));
              }));
  address_ = address;
  failure_.clear();
  again_ns_ = 0;
  log_notice("listening on {}", listener_->address());
  return {};
}

void Listening::keep(const std::string& address) {
  address_ = address;
  delay_ns_ = kFirstDelayNs;
  again_ns_ = clock_.monotonic_ns();
  tick();
}

void Listening::tick() {
  if (again_ns_ == 0) return;
  const std::int64_t now = clock_.monotonic_ns();
  if (now >= again_ns_) {
    auto opened = open(address_);
    if (opened) return;
    if (std::exchange(failure_, opened.error().message) != opened.error().message)
      log_error("{}; no other node can call this one until that works: it is tried again", failure_);
    again_ns_ = now + delay_ns_;
    delay_ns_ = std::min(2 * delay_ns_, kLongestDelayNs);
  }
  shell_.wake_at(again_ns_);
}

std::string Listening::problem() const {
  if (failure_.empty()) return "";
  return fmt::format("{}: no other node can call this one; it is tried again by itself\n"
                     "the address is node.listen in {}/vmfs.toml; after changing it:  vmfs restart {}",
                     failure_, store_, store_);
}

}  // namespace vmfs
