#include "net/session/session.h"

#include <algorithm>

namespace vmfs {

std::optional<HelloRefused> judge_hello(const SessionIdentity& identity, const Hello& theirs, bool dialed) {
  const Hello& own = identity.own;
  auto refusal = [](RefusalReason reason, std::string text) {
    text.resize(std::min(text.size(), kTextMax));
    return HelloRefused{reason, std::move(text)};
  };
  if (theirs.version_oldest > own.version || theirs.version < own.version_oldest)
    return refusal(RefusalReason::kVersion,
                   fmt::format("{} speaks protocol versions {} to {}, the other node {} to {}: upgrade "
                               "the older one (vmfs --version)",
                               own.self.name, own.version_oldest, own.version, theirs.version_oldest,
                               theirs.version));
  if (theirs.volume != own.volume)
    return refusal(RefusalReason::kWrongVolume,
                   fmt::format("{} holds volume {}, the other node {}: check the peer's address",
                               own.self.name, to_string(own.volume), to_string(theirs.volume)));
  if (theirs.self.id == own.self.id)
    return refusal(RefusalReason::kSameNode,
                   fmt::format("both sides are node {} ({}): one of the stores is a copy of the other, "
                               "or the address leads back here; make a store of its own with vmfs join",
                               own.self.id, own.self.name));
  if (std::find(identity.removed.begin(), identity.removed.end(), theirs.self.id) !=
      identity.removed.end())
    return refusal(RefusalReason::kRemoved,
                   fmt::format("node {} was removed from the volume; join it again with an empty store "
                               "(vmfs token on {}, then vmfs join)",
                               theirs.self.name, own.self.name));
  if (theirs.payload_max < own.payload_max)
    return refusal(RefusalReason::kSegments,
                   fmt::format("the journal of {} takes records of {} bytes at most, that of {} has records of "
                               "up to {}: its segments are too small; make that store anew (vmfs init and "
                               "vmfs join choose segments that fit)",
                               theirs.self.name, theirs.payload_max, own.self.name, own.payload_max));
  bool known = std::find(identity.known.begin(), identity.known.end(), theirs.self.id) !=
               identity.known.end();
  // Whom we dialled by an address from a token is who we were told to meet; whoever asks to join has
  // proved that it holds the volume's secret, since the link is authenticated.
  bool introduced = theirs.joining || own.joining || (dialed && identity.expects_unknown);
  if (!known && !introduced)
    return refusal(RefusalReason::kUnknown,
                   fmt::format("{} does not know node {} ({}); join with vmfs token and vmfs join",
                               own.self.name, theirs.self.name, theirs.self.id));
  return std::nullopt;
}

bool newer_connection_wins(const ConnectionFacts& older, const ConnectionFacts& newer, NodeId self,
                           NodeId peer) {
  // The peer was started again: what we still hold is a connection to its former life.
  if (older.peer_life != newer.peer_life) return true;
  // The same side dialled twice: it knows that its first connection is gone.
  if (older.dialer == newer.dialer) return true;
  // Both dialled at once: both sides keep the one that the lower id dialled.
  NodeId lower = raw(self) < raw(peer) ? self : peer;
  return newer.dialer == lower;
}

Session::Session(SessionIdentity identity, bool dialed, std::int64_t now_ns)
    : identity_(std::move(identity)),
      dialed_(dialed),
      opened_ns_(now_ns),
      last_heard_ns_(now_ns),
      last_sent_ns_(now_ns) {}

ConnectionFacts Session::facts() const {
  return {dialed_ ? identity_.own.self.id : peer_.self.id, peer_.life};
}

Session::Actions Session::opened() {
  Actions actions;
  actions.push_back(SendAction{identity_.own});
  return actions;
}

Session::Actions Session::close(std::string why) {
  state_ = State::kOver;
  Actions actions;
  actions.push_back(CloseAction{std::move(why), false, std::nullopt});
  return actions;
}

Session::Actions Session::refuse(HelloRefused refusal) {
  state_ = State::kOver;
  Actions actions;
  CloseAction closing{refusal.text, refusal.reason != RefusalReason::kDuplicate, refusal.reason};
  actions.push_back(SendAction{std::move(refusal)});
  actions.push_back(std::move(closing));
  return actions;
}

Session::Actions Session::displaced() {
  return refuse({RefusalReason::kDuplicate, "another connection between these nodes is in use"});
}

void Session::maybe_establish(Actions& actions) {
  if (!accepted_ || !welcomed_ || state_ != State::kHello) return;
  state_ = State::kEstablished;
  actions.emplace_back(EstablishedAction{});
}

Session::Actions Session::message(const Message& message, std::int64_t now_ns) {
  if (state_ == State::kOver) return {};
  heard(now_ns);
  Actions actions;
  if (const auto* refusal = std::get_if<HelloRefused>(&message)) {
    state_ = State::kOver;
    bool refused = refusal->reason != RefusalReason::kDuplicate;
    actions.push_back(CloseAction{"the peer refuses: " + refusal->text, refused, refusal->reason});
    return actions;
  }
  if (const auto* bye = std::get_if<Bye>(&message))
    return close("the peer said goodbye: " + bye->reason);
  if (const auto* hello = std::get_if<Hello>(&message)) {
    if (accepted_) return refuse({RefusalReason::kProtocol, "a second hello"});
    if (auto refusal = judge_hello(identity_, *hello, dialed_)) return refuse(std::move(*refusal));
    peer_ = *hello;
    accepted_ = true;
    actions.push_back(SendAction{Welcome{std::min(identity_.own.version, hello->version)}});
    maybe_establish(actions);
    return actions;
  }
  if (const auto* welcome = std::get_if<Welcome>(&message)) {
    if (welcomed_) return refuse({RefusalReason::kProtocol, "a second welcome"});
    if (welcome->version < identity_.own.version_oldest || welcome->version > identity_.own.version)
      return refuse({RefusalReason::kVersion,
                     fmt::format("welcomed with protocol version {}; {} speaks {} to {}", welcome->version,
                                 identity_.own.self.name, identity_.own.version_oldest, identity_.own.version)});
    welcomed_ = true;
    maybe_establish(actions);
    return actions;
  }
  if (state_ != State::kEstablished)
    return refuse({RefusalReason::kProtocol, "a message before the handshake"});
  return actions;
}

std::int64_t Session::next_tick_ns() const {
  if (state_ == State::kHello) return opened_ns_ + kHandshakeTimeout;
  return std::min(last_sent_ns_ + kHeartbeatInterval, last_heard_ns_ + kLostAfter);
}

Session::Actions Session::tick(std::int64_t now_ns, std::int64_t wall_ns) {
  if (state_ == State::kOver) return {};
  if (state_ == State::kHello) {
    if (now_ns - opened_ns_ >= kHandshakeTimeout) return close("no handshake within 5 seconds");
    return {};
  }
  if (now_ns - last_heard_ns_ >= kLostAfter)
    return close(fmt::format("silent for {} seconds", (now_ns - last_heard_ns_) / 1'000'000'000));
  Actions actions;
  if (now_ns - last_sent_ns_ >= kHeartbeatInterval) {
    last_sent_ns_ = now_ns;
    actions.push_back(SendAction{Heartbeat{now_ns, wall_ns}});
  }
  return actions;
}

}  // namespace vmfs
