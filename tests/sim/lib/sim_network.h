// Links between simulated hosts: ordered and reliable as TCP's, with a delay, a rate, and cuts.
//
// A cut is silence: what is under way arrives when the path is whole again, if both ends still have
// the connection then. A reset ends all connections of a path at once, at both ends. A process that
// dies closes its connections, after what the system had taken from it; a machine that loses its
// power says nothing, and resets what comes in once it is up again. As with TCP, `writable` comes only to a link that
// had left something unsent, because the system's buffer was full.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/seam/link.h"
#include "tests/sim/lib/sim_random.h"
#include "tests/sim/lib/sim_scheduler.h"

namespace vmfs::sim {

struct PathOptions {
  std::int64_t delay_ns = 100'000;
  std::int64_t jitter_ns = 20'000;
  std::uint64_t bytes_per_second = 1u << 30;
  std::size_t send_buffer = 256u << 10;  // of the system
};

class SimNetwork {
 public:
  SimNetwork(Scheduler& scheduler, std::uint64_t seed) : scheduler_(scheduler), random_(seed) {}

  using Accepted = std::function<void(std::unique_ptr<Link>)>;
  using Dialled = std::function<void(Result<std::unique_ptr<Link>>)>;

  // Host names are addresses. Replaces an earlier listener of that host.
  void listen(const std::string& host, LinkEvents& events, Accepted accepted);
  void dial(const std::string& from, const std::string& to, LinkEvents& events, Dialled done);

  // Between two hosts, both ways.
  void set_path(const std::string& a, const std::string& b, PathOptions options);
  void cut(const std::string& a, const std::string& b);
  void mend(const std::string& a, const std::string& b);
  void reset(const std::string& a, const std::string& b);
  bool is_cut(const std::string& a, const std::string& b) const;
  // The host's process is gone, with its listener, dials and connections.
  void process_died(const std::string& host);
  void power_lost(const std::string& host);

  std::uint64_t bytes_carried() const { return bytes_carried_; }

 private:
  friend class SimLink;
  struct End;
  struct Connection;
  struct Path {
    PathOptions options;
    bool cut = false;
    std::vector<std::function<void()>> held;  // what arrives when it is mended
  };
  struct Listening {
    LinkEvents* events;
    Accepted accepted;
    std::uint64_t life;
  };

  Path& path(const std::string& a, const std::string& b);
  std::uint64_t& life(const std::string& host) { return lives_[host]; }
  std::int64_t travel(const Path& path);
  // Runs `arrive` at that time, or when the path is mended.
  void carry(const std::string& a, const std::string& b, std::int64_t when,
             std::function<void()> arrive);
  std::size_t beyond_buffer(const End& end, const End& other);
  void send(const std::shared_ptr<Connection>& connection, int side, Bytes frame);
  void close(const std::shared_ptr<Connection>& connection, int side, const char* why);
  void arrive_close(const std::shared_ptr<Connection>& connection, int side, const char* why);

  Scheduler& scheduler_;
  Random random_;
  std::map<std::pair<std::string, std::string>, Path> paths_;
  std::map<std::string, Listening> listening_;
  std::map<std::string, std::uint64_t> lives_;
  std::vector<std::weak_ptr<Connection>> connections_;
  std::uint64_t bytes_carried_ = 0;
};

}  // namespace vmfs::sim
