// One connection to a peer, from its opening to its end, as a state machine without I/O: an event
// goes in, actions come out. What travels after the handshake (positions, records) is not its
// business; it only tells the node when that may begin, and when the peer has fallen silent.
//
//   opened -> both send Hello -> each judges the other's: Welcome, or HelloRefused and close
//   Hello accepted and Welcome received -> established -> heartbeats until silent or closed
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "net/wire/messages.h"

namespace vmfs {

// A heartbeat each second is nothing even on a slow line.
inline constexpr std::int64_t kHeartbeatInterval = 1'000'000'000;
// Silent for five heartbeats: lost. Shorter, and a stalled disk or a busy hypervisor (whose single
// CPU the daemon shares) looks like a death; longer, and guests' flushes wait too long in sync mode.
inline constexpr std::int64_t kLostAfter = 5'000'000'000;
// From the opening to the end of the handshake.
inline constexpr std::int64_t kHandshakeTimeout = 5'000'000'000;

// What this node knows about itself and the volume when it judges a Hello.
struct SessionIdentity {
  Hello own;
  std::vector<NodeId> removed;
  std::vector<NodeId> known;  // ids of the peers
  // Addresses of peers whose id is not known yet: whoever answers there may be one.
  bool expects_unknown = false;
};

// Judges a Hello: the refusal, or nothing if it is welcome.
std::optional<HelloRefused> judge_hello(const SessionIdentity& identity, const Hello& theirs, bool dialed);

// Two connections to the same peer: whether the newer one replaces the older.
struct ConnectionFacts {
  NodeId dialer{};
  std::uint64_t peer_life = 0;
};
bool newer_connection_wins(const ConnectionFacts& older, const ConnectionFacts& newer, NodeId self,
                           NodeId peer);

class Session {
 public:
  enum class State : std::uint8_t { kHello, kEstablished, kOver };

  struct SendAction {
    Message message;
  };
  struct EstablishedAction {};  // hands shaken: peer() is who it is
  // The connection is to be closed. refused: one side said no (retry rarely).
  struct CloseAction {
    std::string why;
    bool refused = false;
    std::optional<RefusalReason> reason;
  };
  using Action = std::variant<SendAction, EstablishedAction, CloseAction>;
  using Actions = std::vector<Action>;

  // dialed: this node opened the connection.
  Session(SessionIdentity identity, bool dialed, std::int64_t now_ns);

  Actions opened();
  // Hello, Welcome, HelloRefused, Heartbeat and Bye; other messages only refresh (heard()).
  Actions message(const Message& message, std::int64_t now_ns);
  Actions tick(std::int64_t now_ns, std::int64_t wall_ns);
  // Bytes arrived: the peer lives.
  void heard(std::int64_t now_ns) { last_heard_ns_ = now_ns; }
  // The node prefers another connection to the same peer.
  Actions displaced();

  State state() const { return state_; }
  const Hello& peer() const { return peer_; }
  bool dialed() const { return dialed_; }
  ConnectionFacts facts() const;
  std::int64_t next_tick_ns() const;

 private:
  Actions refuse(HelloRefused refusal);
  Actions close(std::string why);
  void maybe_establish(Actions& actions);

  SessionIdentity identity_;
  const bool dialed_;
  State state_ = State::kHello;
  bool accepted_ = false;  // we welcomed them
  bool welcomed_ = false;  // they welcomed us
  Hello peer_;
  std::int64_t opened_ns_;
  std::int64_t last_heard_ns_;
  std::int64_t last_sent_ns_;
};

}  // namespace vmfs
