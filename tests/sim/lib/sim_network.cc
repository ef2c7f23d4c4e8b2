#include "tests/sim/lib/sim_network.h"

#include <algorithm>
#include <cerrno>
#include <map>

#include "fs/base/check.h"

namespace vmfs::sim {

struct SimNetwork::End {
  std::string host;
  LinkEvents* events = nullptr;
  Link* link = nullptr;  // null: closed at this end
  std::size_t unsent = 0;      // with what the system's buffer has taken
  bool writable_owed = false;  // something has been left unsent since
  std::int64_t sent_until = 0;     // when the line is free again
  std::int64_t arrived_until = 0;  // when the last frame arrives at the other end
  // What was sent arrives in order, even if a part of it was held back by a cut.
  std::uint64_t next_sent = 0, next_arrived = 0;
  std::map<std::uint64_t, std::function<void()>> arrived;

  void arrive(std::uint64_t number, std::function<void()> f) {
    arrived.emplace(number, std::move(f));
    while (!arrived.empty() && arrived.begin()->first == next_arrived) {
      auto next = std::move(arrived.begin()->second);
      arrived.erase(arrived.begin());
      ++next_arrived;
      next();
    }
  }
};

struct SimNetwork::Connection {
  End ends[2];
};

class SimLink : public Link {
 public:
  SimLink(SimNetwork& network, std::shared_ptr<SimNetwork::Connection> connection, int side)
      : network_(network), connection_(std::move(connection)), side_(side) {
    connection_->ends[side_].link = this;
  }
  ~SimLink() override { close(); }
  void send(Bytes frame) override {
    CHECK_COMPARE(frame.size(), <=, kFrameMax);
    network_.send(connection_, side_, std::move(frame));
  }
  std::size_t unsent_bytes() const override {
    return network_.beyond_buffer(connection_->ends[side_], connection_->ends[1 - side_]);
  }
  void close() override { network_.close(connection_, side_, "the peer closed the connection"); }
  std::string remote() const override { return connection_->ends[1 - side_].host; }

 private:
  SimNetwork& network_;
  const std::shared_ptr<SimNetwork::Connection> connection_;
  const int side_;
};

SimNetwork::Path& SimNetwork::path(const std::string& a, const std::string& b) {
  return paths_[std::minmax(a, b)];
}

void SimNetwork::set_path(const std::string& a, const std::string& b, PathOptions options) {
  path(a, b).options = options;
}

void SimNetwork::cut(const std::string& a, const std::string& b) { path(a, b).cut = true; }

bool SimNetwork::is_cut(const std::string& a, const std::string& b) const {
  auto entry = paths_.find(std::minmax(a, b));
  return entry != paths_.end() && entry->second.cut;
}

void SimNetwork::mend(const std::string& a, const std::string& b) {
  Path& mended = path(a, b);
  mended.cut = false;
  // In the order in which they were held, after a delay as the system's retransmission has it.
  const std::int64_t when = scheduler_.now() + travel(mended);
  for (auto& arrive : std::exchange(mended.held, {})) carry(a, b, when, std::move(arrive));
}

std::int64_t SimNetwork::travel(const Path& path) {
  return path.options.delay_ns + static_cast<std::int64_t>(random_.below(
                                     static_cast<std::uint64_t>(path.options.jitter_ns) + 1));
}

void SimNetwork::carry(const std::string& a, const std::string& b, std::int64_t when,
                       std::function<void()> arrive) {
  scheduler_.at(when, [this, a, b, arrive = std::move(arrive)]() mutable {
    if (Path& through = path(a, b); through.cut)
      through.held.push_back(std::move(arrive));
    else
      arrive();
  });
}

void SimNetwork::listen(const std::string& host, LinkEvents& events, Accepted accepted) {
  listening_[host] = {&events, std::move(accepted), life(host)};
}

void SimNetwork::dial(const std::string& from, const std::string& to, LinkEvents& events,
                      Dialled done) {
  const std::uint64_t from_life = life(from);
  auto answered = std::make_shared<bool>(false);
  auto answer = [this, from, from_life, answered,
                 done = std::move(done)](Result<std::unique_ptr<Link>> result) {
    if (std::exchange(*answered, true) || life(from) != from_life) return;
    done(std::move(result));
  };
  constexpr std::int64_t kTimeout = 10'000'000'000;  // as the real one
  scheduler_.after(kTimeout, [answer, to] {
    answer(fail(ErrorKind::kIo, ETIMEDOUT, fmt::format("{}: no answer", to)));
  });
  carry(from, to, scheduler_.now() + travel(path(from, to)), [=, this, &events] {
    auto listener = listening_.find(to);
    if (listener == listening_.end()) {
      carry(from, to, scheduler_.now() + travel(path(from, to)), [answer, to] {
        answer(fail(ErrorKind::kIo, ECONNREFUSED, fmt::format("{}: connection refused", to)));
      });
      return;
    }
    auto connection = std::make_shared<Connection>();
    connection->ends[0].host = from;
    connection->ends[0].events = &events;
    connection->ends[1].host = to;
    connection->ends[1].events = listener->second.events;
    std::erase_if(connections_, [](const auto& weak) { return weak.expired(); });
    connections_.push_back(connection);
    // The dialling end exists first: it authenticates, and then the accepting side hears of it.
    auto accepting =
        std::make_shared<std::unique_ptr<Link>>(std::make_unique<SimLink>(*this, connection, 1));
    const std::uint64_t to_life = life(to);
    carry(from, to, scheduler_.now() + travel(path(from, to)), [=, this] {
      if (*answered || life(from) != from_life) return;  // *accepting closes
      if (connection->ends[1].link == nullptr) {
        answer(fail(ErrorKind::kIo, ECONNRESET, fmt::format("{}: connection reset", to)));
        return;
      }
      answer(std::make_unique<SimLink>(*this, connection, 0));
      auto now_listening = listening_.find(to);
      if (now_listening == listening_.end() || life(to) != to_life) return;
      now_listening->second.accepted(std::move(*accepting));
    });
  });
}

std::size_t SimNetwork::beyond_buffer(const End& end, const End& other) {
  const std::size_t buffer = path(end.host, other.host).options.send_buffer;
  return end.unsent - std::min(end.unsent, buffer);
}

void SimNetwork::send(const std::shared_ptr<Connection>& connection, int side, Bytes frame) {
  End& end = connection->ends[side];
  if (!end.link) return;
  const Path& through = path(end.host, connection->ends[1 - side].host);
  const std::size_t size = frame.size();
  end.unsent += size;
  bytes_carried_ += size;
  const auto line_time = static_cast<std::int64_t>(
      static_cast<double>(size) * 1e9 / static_cast<double>(through.options.bytes_per_second));
  end.sent_until = std::max(end.sent_until, scheduler_.now()) + line_time;
  end.arrived_until = std::max(end.arrived_until, end.sent_until + travel(through));
  if (beyond_buffer(end, connection->ends[1 - side]) > 0) end.writable_owed = true;
  // Nothing leaves a sender whose path is cut, once the system's buffers are full.
  carry(end.host, connection->ends[1 - side].host, end.sent_until, [this, connection, side, size] {
    End& sender = connection->ends[side];
    sender.unsent -= size;
    if (!sender.writable_owed || beyond_buffer(sender, connection->ends[1 - side]) > 0) return;
    sender.writable_owed = false;
    if (sender.link) sender.events->writable(*sender.link);
  });
  auto deliver = [this, connection, side, frame = std::move(frame)] {
    End& receiver = connection->ends[1 - side];
    if (receiver.link)
      receiver.events->frame(*receiver.link, frame);
    else if (listening_.contains(receiver.host))  // up again, and knows nothing of this
      arrive_close(connection, side, "connection reset");
  };
  carry(end.host, connection->ends[1 - side].host, end.arrived_until,
        [connection, side, number = end.next_sent++, deliver = std::move(deliver)] {
          connection->ends[side].arrive(number, deliver);
        });
}

void SimNetwork::close(const std::shared_ptr<Connection>& connection, int side, const char* why) {
  End& end = connection->ends[side];
  if (!end.link) return;
  end.link = nullptr;
  const Path& through = path(end.host, connection->ends[1 - side].host);
  end.arrived_until = std::max(end.arrived_until, scheduler_.now() + travel(through));
  carry(end.host, connection->ends[1 - side].host, end.arrived_until,
        [this, connection, side, why, number = end.next_sent++] {
          connection->ends[side].arrive(
              number, [this, connection, side, why] { arrive_close(connection, 1 - side, why); });
        });
}

void SimNetwork::arrive_close(const std::shared_ptr<Connection>& connection, int side,
                              const char* why) {
  End& end = connection->ends[side];
  Link* link = std::exchange(end.link, nullptr);
  if (!link || !end.events) return;
  end.events->closed(*link, Error{ErrorKind::kIo, ECONNRESET,
                                  fmt::format("{}: {}", connection->ends[1 - side].host, why)});
}

void SimNetwork::reset(const std::string& a, const std::string& b) {
  for (const auto& weak : std::vector(connections_)) {
    auto connection = weak.lock();
    if (!connection ||
        std::minmax(connection->ends[0].host, connection->ends[1].host) != std::minmax(a, b))
      continue;
    for (int side : {0, 1}) arrive_close(connection, side, "connection reset");
  }
}

void SimNetwork::process_died(const std::string& host) {
  ++life(host);
  listening_.erase(host);
  for (const auto& weak : std::vector(connections_)) {
    auto connection = weak.lock();
    if (!connection) continue;
    for (int side : {0, 1})
      if (connection->ends[side].host == host) close(connection, side, "the peer's process died");
  }
}

void SimNetwork::power_lost(const std::string& host) {
  ++life(host);
  listening_.erase(host);
  for (const auto& weak : std::vector(connections_)) {
    auto connection = weak.lock();
    if (!connection) continue;
    // Nobody tells the other end: its heartbeats must.
    for (int side : {0, 1})
      if (connection->ends[side].host == host) connection->ends[side].link = nullptr;
  }
}

}  // namespace vmfs::sim
