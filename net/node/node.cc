#include "net/node/node.h"

#include <algorithm>

#include "fs/base/log.h"
#include "net/node/impl.h"

namespace vmfs {
namespace {

// So long a connected peer may take until the histories are compared.
constexpr std::int64_t kCompareWait = 60'000'000'000;
// Rates, trimming, what is kept about peers: nothing that anybody waits for.
constexpr std::int64_t kPeriod = 1'000'000'000;

}  // namespace

Node::Node(Volume& volume, Shell& shell, Clock& clock, NodeOptions options, NodeCallbacks callbacks)
    : impl_(std::make_unique<Impl>(*this, volume, shell, clock, std::move(options),
                                   std::move(callbacks))) {}

Node::~Node() = default;

void Node::start() { impl_->start(); }
void Node::stop() { impl_->stop(); }
bool Node::idle() const { return impl_->blocking_jobs == 0 && !impl_->sync.running(); }
void Node::link_opened(std::unique_ptr<Link> incoming) {
  impl_->adopt_link(std::move(incoming), nullptr);
}
void Node::tick() { impl_->tick(); }
void Node::promote(std::vector<GroupId> groups, bool force, Done done) {
  impl_->promote(std::move(groups), force, std::move(done));
}
void Node::demote(std::vector<GroupId> groups, bool force, Done done) {
  impl_->demote(std::move(groups), force, std::move(done));
}
void Node::resolve(std::vector<GroupId> groups, bool keep_local, Done done) {
  impl_->resolve(std::move(groups), keep_local, std::move(done));
}
void Node::remove_peer(NodeId peer, Done done) { impl_->remove_peer(peer, std::move(done)); }
void Node::set_settings(VolumeSettings settings, Done done) {
  impl_->set_settings(std::move(settings), std::move(done));
}
const VolumeSettings& Node::settings() const { return impl_->options.settings; }
void Node::hand_over_all(std::int64_t deadline_ns, Done done) {
  impl_->hand_over_all(deadline_ns, std::move(done));
}

std::uint64_t Node::wait(Condition condition, std::vector<GroupId> groups, Done done) {
  std::uint64_t number = impl_->next_wait++;
  impl_->waits[number] = {condition, std::move(groups), std::move(done)};
  impl_->poke();
  return number;
}

void Node::cancel_wait(std::uint64_t number) { impl_->waits.erase(number); }
NodeStatus Node::status(const std::vector<GroupId>& groups) { return impl_->status(groups); }

std::vector<PeerInfo> Node::peers() const {
  std::vector<PeerInfo> out;
  for (const auto& peer : impl_->peers) out.push_back(peer->info);
  return out;
}

void Node::frame(Link& link, ByteView body) { impl_->on_frame(link, body); }
void Node::closed(Link& link, const Error& why) { impl_->on_closed(link, why); }
void Node::progress(Link& link) {
  if (Connection* connection = impl_->find(link)) connection->session->heard(impl_->now());
}
void Node::writable(Link& link) {
  Connection* connection = impl_->find(link);
  if (connection == nullptr || !connection->established) return;
  if (connection->peer->stream) connection->peer->stream->copies.advance();
  impl_->pump(*connection->peer);
}

// --- ReplicationHooks ------------------------------------------------------------------------------

Error Node::may_not_change(GroupId group, Gate gate) {
  if (gate == Gate::kInconsistent || gate == Gate::kSplit)
    return {ErrorKind::kReadOnly, EROFS, {}};
  if (gate == Gate::kSecondary && impl_->streams.load() == 0)
    return {ErrorKind::kReadOnly, EROFS, {}};
  impl_->post([impl = impl_.get(), group, gate] { impl->gate_met(group, gate); });
  return {ErrorKind::kWouldWait, EAGAIN, {}};
}

void Node::written(Lsn lsn) {
  // A wake-up for each write would cost more than the write. While records flow, the node's thread
  // looks by itself every few milliseconds; it is woken when it has gone idle, or when much gathered.
  constexpr std::uint64_t kMuch = 256u << 10;
  Impl& impl = *impl_;
  if (impl.streams.load(std::memory_order_relaxed) == 0) return;
  Lsn shipped = impl.shipped.load(std::memory_order_relaxed);
  bool much = lsn > shipped && lsn - shipped >= kMuch && impl.mode.load() != ReplicationMode::kAsync;
  // wake_sent stays set until the thread has gone idle or shipped what there was.
  if (impl.wake_sent.load(std::memory_order_relaxed) && !much) return;
  if (impl.wake_sent.exchange(true) && !much) return;
  static constexpr std::int64_t kGather = 2'000'000;
  if (much) {
    // One wake-up for each such amount: what was announced counts as shipped.
    if (!impl.shipped.compare_exchange_strong(shipped, lsn)) return;
  }
  impl.post([&impl, much] {
    impl.pump_at_ns = impl.now() + (much ? 0 : kGather);
    if (much)
      impl.pump_all();
    else
      impl.wake_at(impl.pump_at_ns);
  });
}

void Node::await_peers(GroupId group, Lsn lsn, std::function<void(Result<>)> done) {
  Impl& impl = *impl_;
  if (impl.counting.load() == 0 && !impl.frozen.load() && lsn > impl.alone_from.load()) {
    done({});
    return;
  }
  impl.post([&impl, group, lsn, done = std::move(done)]() mutable {
    impl.flush_waits.emplace(lsn, FlushWait{group, std::move(done)});
    impl.pump_all();
    impl.check_flushes();
  });
}

bool Node::backlog_full() {
  Impl& impl = *impl_;
  if (impl.counting.load(std::memory_order_relaxed) == 0) return false;
  Lsn written = impl.volume.journal().written_lsn();
  Lsn confirmed = impl.confirmed.load(std::memory_order_relaxed);
  if (written <= confirmed || written - confirmed < impl.backlog_max.load(std::memory_order_relaxed))
    return false;
  // Set first, then look again: the node's thread wakes the writers only if it saw the flag.
  impl.throttled.store(true);
  confirmed = impl.confirmed.load();
  if (impl.counting.load() != 0 && written > confirmed &&
      written - confirmed >= impl.backlog_max.load())
    return true;
  return false;
}

// --- Impl ------------------------------------------------------------------------------------------

Node::Impl::Impl(Node& node, Volume& volume, Shell& shell, Clock& clock, NodeOptions options_in,
                 NodeCallbacks callbacks)
    : node(node),
      volume(volume),
      shell(shell),
      clock(clock),
      options(std::move(options_in)),
      callbacks(std::move(callbacks)),
      sync(volume, shell),
      life(options.seed == 0 ? random_u64() : options.seed ^ static_cast<std::uint64_t>(clock.monotonic_ns())),
      alive(std::make_shared<bool>(true)) {
  mode = options.settings.mode;
  for (const PeerInfo& info : options.peers) add_peer(info);
  volume.add_observer(this);
  // One that was removed while this node was down, or whose removal no checkpoint has seen: nothing is kept for it.
  for (const PeerState& known : volume.peers())
    if (std::none_of(options.peers.begin(), options.peers.end(),
                     [&](const PeerInfo& info) { return info.id == known.id; }))
      volume.remove_peer(known.id);
  // Nobody is connected yet, and the front may serve before start(): what is to be held is held from here on.
  freeze_or_thaw();
}

Node::Impl::~Impl() {
  *alive = false;
  volume.remove_observer(this);
}

void Node::Impl::post(std::function<void()> f) {
  shell.post([alive = alive, f = std::move(f)] {
    if (*alive) f();
  });
}

void Node::Impl::start() {
  started = true;
  started_ns = now();
  started_lsn = volume.journal().written_lsn();
  next_periodic_ns = started_ns + kPeriod;
  rate_counted_lsn = volume.journal().written_lsn();
  for (auto& peer : peers) {
    set_deference(*peer);
    peer->back_off.begin(started_ns);
  }
  for (const GroupState& state : volume.groups()) {
    if (state.inconsistent) parts.insert(state.id);
    bool named = raw(state.owner) == 0 && state.taker == options.node;
    if (named || (state.owner == options.node && volume.gate(state.id) == Gate::kSuspended))
      unsettled.insert(state.id);
  }
  if (!peers.empty()) {
    // Nobody is connected yet: what goes on from before the start goes on without the peers, in new
    // epochs, which the volume's recovery has seen to.
    alone_from = volume.journal().written_lsn();
    update_counting();
    freeze_or_thaw();
  }
  end_splits_of_nobody();
  poke();
  tick();
}

void Node::Impl::stop() {
  if (stopped) return;
  stopped = true;
  for (auto& connection : connections) {
    if (connection->over) continue;
    if (connection->established) {
      persist(*connection->peer);
      connection->link->send(encode_message(Bye{"stopping"}));
    }
    connection->over = true;
    connection->link->close();
  }
  for (auto& peer : peers) {
    peer->connection = nullptr;
    peer->stream.reset();
  }
  streams = 0;
  counting = 0;
  frozen = false;
  Error stopping{ErrorKind::kRefused, ESHUTDOWN, "the node is stopping"};
  auto flushes = std::move(flush_waits);
  flush_waits.clear();
  for (auto& [lsn, wait] : flushes) wait.done(pass(stopping));
  auto alone = std::move(completing_alone);
  completing_alone.clear();
  for (auto& held : alone)
    for (auto& [lsn, wait] : *held) wait.done(pass(stopping));
  auto commands = std::move(promotions);
  promotions.clear();
  for (auto& command : commands) command->done(pass(stopping));
  auto resolving = std::move(resolutions);
  resolutions.clear();
  for (auto& command : resolving) command->done(pass(stopping));
  auto giving_away = std::move(demotions);
  demotions.clear();
  for (auto& command : giving_away) command->done(pass(stopping));
  if (auto giving = std::move(hand_over)) giving->done(pass(stopping));
  auto waiting = std::move(waits);
  waits.clear();
  for (auto& [number, wait] : waiting) wait.done(pass(stopping));
  auto asks = std::move(asking);
  asking.clear();
  for (auto& [group, ask] : asks) volume.refuse(group, {ErrorKind::kReadOnly, EROFS, {}});
}

void Node::Impl::blocking(Shell::Lane lane, std::function<Result<>()> work,
                          std::function<void(Result<>)> done) {
  ++blocking_jobs;
  auto result = std::make_shared<Result<>>();
  shell.run_blocking(
      lane, [work = std::move(work), result] { *result = work(); },
      [this, alive = alive, result, done = std::move(done)] {
        if (!*alive) return;
        --blocking_jobs;
        if (!stopped) done(std::move(*result));
      });
}

void Node::Impl::problem(const std::string& key, std::string text) {
  if (text.empty()) {
    problems.erase(key);
    return;
  }
  auto [it, inserted] = problems.insert_or_assign(key, text);
  if (inserted) log_warning("{}", it->second);
}

void Node::Impl::poke() {
  if (poked || stopped) return;
  poked = true;
  post([this] {
    poked = false;
    if (!stopped) reconsider();
  });
}

void Node::Impl::reconsider() {
  forget_received();
  for (auto& peer : peers) {
    if (!peer->stream) continue;
    start_follows(*peer);
    forget_removed(*peer);
    go_on_letting_go(*peer);
    // No write of this node's announces what was received, nor the volume's own records.
    pump(*peer);
  }
  settle();
  answer_wants();
  check_asking();
  check_commands();
}

void Node::Impl::periodic(std::int64_t now_ns) {
  next_periodic_ns = now_ns + kPeriod;
  const Lsn end = volume.journal().written_lsn();
  write_rate = (write_rate + (end - rate_counted_lsn)) / 2;
  rate_counted_lsn = end;
  look_at_parts();
  const bool away = std::any_of(peers.begin(), peers.end(), [](const auto& peer) { return !peer->stream; });
  if (away && now_ns >= tell_parts_ns) tell_parts();
  for (auto& peer : peers) {
    if (const Lsn oldest = volume.journal().oldest_lsn(); oldest != peer->reuse_looked_at || peer->stream) {
      peer->reuse_looked_at = oldest;
      const bool reused = lacks_reused(*peer);
      if (reused && !peer->reuse_told)
        log_warning("{}: has been away for longer than the journal keeps records for it: images that were changed since "
                    "are copied whole when it is back",
                    peer->info.name);
      peer->reuse_told = reused;
    }
    if (!peer->stream) {
      // Its heartbeats come, so nothing else would end this; and who is frozen waits for it.
      if (peer->connection != nullptr && now_ns - peer->connected_ns > kCompareWait)
        close(*peer->connection, "histories could not be compared within a minute: is a disk hanging, here or there?", false);
      continue;
    }
    std::uint64_t sent = peer->stream->sender.bytes_sent();
    std::uint64_t received = peer->stream->receiver.bytes_received();
    peer->send_rate = (peer->send_rate + (sent - peer->counted_sent)) / 2;
    peer->receive_rate = (peer->receive_rate + (received - peer->counted_received)) / 2;
    peer->counted_sent = sent;
    peer->counted_received = received;
    peer->stream->receiver.stored(volume.stored_lsn());
    persist(*peer);
    std::vector<GroupId> failed;
    for (const auto& [group, course] : peer->courses)
      if (course.course == Course::kCopyToPeer && !course.started) failed.push_back(group);
    for (GroupId group : failed) needs_copy(*peer, group, "the copy before failed");
    peer->stream->backlog.second(peer->stream->sender.received(), volume.journal().written_lsn());
    // Histories need not reach back below what every peer has; only long ones are worth the work.
    if (peers.size() == 1 && peer->sync == PeerSync::kInSync) {
      constexpr std::size_t kLong = 16;
      for (const auto& [group, position] : peer->stream->sender.all_durable()) {
        auto state = volume.group(group);
        if (state && state->history.size() > kLong) volume.trim_history(group, position);
      }
    }
  }
  Lsn needed = volume.journal().written_lsn();
  for (const auto& peer : peers)
    needed = std::min(needed, peer->stream ? peer->stream->sender.durable() : peer->persisted.confirmed);
  written_times.forget(needed);
  match_frozen();
  poke();
}

void Node::Impl::tick() {
  if (stopped || !started) return;
  std::int64_t now_ns = now();
  written_times.note(volume.journal().written_lsn(), now_ns);
  for (std::size_t i = 0; i < connections.size(); ++i) {
    Connection& connection = *connections[i];
    if (connection.over) continue;
    perform(connection, connection.session->tick(now_ns, clock.wall_ns()));
    if (!connection.over && connection.established && connection.peer->stream)
      connection.peer->stream->receiver.tick(now_ns);
  }
  sweep();
  dial_due_peers(now_ns);
  if (pump_at_ns != 0 && now_ns >= pump_at_ns) pump_all();
  if (retry_flushes_ns != 0 && now_ns >= retry_flushes_ns) {
    retry_flushes_ns = 0;
    check_flushes();
  }
  if (now_ns >= next_periodic_ns) periodic(now_ns);
  for (auto it = reopen_again_ns.begin(); it != reopen_again_ns.end();) {
    if (now_ns >= it->second) {
      volume.reopen(it->first);
      it = reopen_again_ns.erase(it);
    } else {
      ++it;
    }
  }
  answer_wants();
  check_asking();
  check_commands();

  std::int64_t next = next_periodic_ns;
  for (const auto& connection : connections) {
    if (connection->over) continue;
    next = std::min(next, connection->session->next_tick_ns());
    if (connection->established && connection->peer->stream)
      next = std::min(next, connection->peer->stream->receiver.next_tick_ns());
  }
  for (const auto& peer : peers)
    if (!peer->info.address.empty()) next = std::min(next, peer->back_off.next_ns());
  if (pump_at_ns != 0) next = std::min(next, pump_at_ns);
  if (retry_flushes_ns != 0) next = std::min(next, retry_flushes_ns);
  for (const auto& [group, at] : reopen_again_ns) next = std::min(next, at);
  // A taker's lag is looked at again and again until it is small enough.
  if (!wanted.empty()) next = std::min(next, now_ns + 20'000'000);
  wake_at(std::max(next, now_ns + 100'000));
}

}  // namespace vmfs
