#include <doctest/doctest.h>

#include <deque>
#include <optional>

#include "net/session/back_off.h"
#include "net/session/session.h"

namespace vmfs {
namespace {

TEST_SUITE_BEGIN("session");

constexpr std::int64_t kSecond = 1'000'000'000;

SessionIdentity node(std::uint64_t id, std::vector<std::uint64_t> known) {
  SessionIdentity identity;
  identity.own.volume[3] = std::byte{7};
  identity.own.life = id * 10;
  identity.own.self = {NodeId{id}, "node-" + std::to_string(id), "addr"};
  for (std::uint64_t other : known) identity.known.push_back(NodeId{other});
  return identity;
}

// Two sessions whose messages reach each other at once.
struct Pair {
  Session a, b;
  bool a_up = false, b_up = false;
  std::optional<Session::CloseAction> a_closed, b_closed;

  Pair(SessionIdentity one, SessionIdentity two) : a(std::move(one), true, 0), b(std::move(two), false, 0) {}

  void perform(bool from_a, Session::Actions actions) {
    std::deque<std::pair<bool, Session::Action>> queue;
    for (auto& action : actions) queue.emplace_back(from_a, std::move(action));
    while (!queue.empty()) {
      auto [by_a, action] = std::move(queue.front());
      queue.pop_front();
      if (auto* send = std::get_if<Session::SendAction>(&action)) {
        auto travelled = decode_message(encode_message(send->message));
        REQUIRE(travelled);
        for (auto& answer : (by_a ? b : a).message(*travelled, 0)) queue.emplace_back(!by_a, std::move(answer));
      } else if (auto* close = std::get_if<Session::CloseAction>(&action)) {
        (by_a ? a_closed : b_closed) = *close;
      } else {
        (by_a ? a_up : b_up) = true;
      }
    }
  }
  void open() {
    perform(true, a.opened());
    perform(false, b.opened());
  }
};

TEST_CASE("a welcome in a version that this side does not speak is refused") {
  for (std::uint16_t version : {std::uint16_t{0}, std::uint16_t{kProtocolVersion + 1}}) {
    CAPTURE(version);
    Session session(node(1, {2}), true, 0);
    (void)session.opened();
    (void)session.message(node(2, {1}).own, 0);
    bool closed = false;
    for (const auto& action : session.message(Welcome{version}, 0)) {
      CHECK_FALSE(std::holds_alternative<Session::EstablishedAction>(action));
      if (const auto* close = std::get_if<Session::CloseAction>(&action)) {
        closed = true;
        CHECK(close->reason == RefusalReason::kVersion);
      }
    }
    CHECK(closed);
  }
}

TEST_CASE("two nodes that know each other shake hands") {
  Pair pair(node(1, {2}), node(2, {1}));
  pair.open();
  CHECK(pair.a_up);
  CHECK(pair.b_up);
  CHECK(pair.a.peer().self.name == "node-2");
}

TEST_CASE("who is refused, and why both sides know") {
  auto refused = [](SessionIdentity one, SessionIdentity two) {
    Pair pair(std::move(one), std::move(two));
    pair.open();
    CHECK_FALSE((pair.a_up && pair.b_up));
    REQUIRE((pair.a_closed || pair.b_closed));
    auto& close = pair.a_closed ? pair.a_closed : pair.b_closed;
    CHECK(close->refused);
    REQUIRE(close->reason);
    return *close->reason;
  };
  SessionIdentity other_volume = node(2, {1});
  other_volume.own.volume[0] = std::byte{1};
  CHECK(refused(node(1, {2}), other_volume) == RefusalReason::kWrongVolume);
  SessionIdentity future = node(2, {1});
  future.own.version = future.own.version_oldest = 9;
  CHECK(refused(node(1, {2}), future) == RefusalReason::kVersion);
  SessionIdentity small = node(2, {1}), large = node(1, {2});
  large.own.payload_max = 1 << 20;
  small.own.payload_max = 1 << 18;
  CHECK(refused(large, small) == RefusalReason::kSegments);
  CHECK(refused(small, large) == RefusalReason::kSegments);
  SessionIdentity strict = node(1, {});
  strict.removed.push_back(NodeId{2});
  CHECK(refused(strict, node(2, {1})) == RefusalReason::kRemoved);
  CHECK(refused(node(1, {2}), node(1, {2})) == RefusalReason::kSameNode);
  CHECK(refused(node(1, {}), node(2, {1})) == RefusalReason::kUnknown);
}

TEST_CASE("a node that joins is admitted") {
  SessionIdentity joining = node(1, {});
  joining.own.joining = true;
  joining.expects_unknown = true;
  Pair pair(joining, node(2, {}));
  pair.open();
  CHECK(pair.a_up);
  CHECK(pair.b_up);
  CHECK(pair.b.peer().joining);
}

TEST_CASE("silence is noticed, heartbeats prevent it") {
  Pair pair(node(1, {2}), node(2, {1}));
  pair.open();
  REQUIRE(pair.a_up);
  std::int64_t now = 0;
  while (now < 20 * kSecond) {
    now = pair.a.next_tick_ns();
    auto actions = pair.a.tick(now, 0);
    for (auto& action : actions) CHECK(std::holds_alternative<Session::SendAction>(action));
    CHECK(actions.size() == 1);
    pair.a.heard(now);
  }
  auto actions = pair.a.tick(now + kLostAfter, 0);
  REQUIRE(actions.size() == 1);
  CHECK(std::holds_alternative<Session::CloseAction>(actions[0]));
}

TEST_CASE("a peer that never says hello is dropped; one that talks before is refused") {
  Session session(node(1, {2}), false, 0);
  CHECK(session.tick(kHandshakeTimeout - 1, 0).empty());
  CHECK(session.tick(kHandshakeTimeout, 0).size() == 1);
  Session other(node(1, {2}), false, 0);
  auto actions = other.message(Heartbeat{}, 0);
  REQUIRE(actions.size() == 2);
  CHECK(std::get<Session::CloseAction>(actions[1]).reason == RefusalReason::kProtocol);
}

TEST_CASE("of two connections both sides keep the same") {
  for (std::uint64_t self : {1, 2}) {
    NodeId me{self}, peer{3 - self};
    ConnectionFacts by_one{NodeId{1}, 50}, by_two{NodeId{2}, 50};
    CHECK(newer_connection_wins(by_two, by_one, me, peer));
    CHECK_FALSE(newer_connection_wins(by_one, by_two, me, peer));
    CHECK(newer_connection_wins(by_one, by_one, me, peer));
    CHECK(newer_connection_wins(by_one, {NodeId{2}, 51}, me, peer));
  }
}

TEST_CASE("dialling backs off, and begins anew after a connection that was of use") {
  BackOff back_off(1);
  CHECK(back_off.due(0));
  std::int64_t now = 0, last = 0;
  for (int i = 0; i < 12; ++i) {
    back_off.dialing();
    CHECK_FALSE(back_off.due(INT64_MAX - 1));
    back_off.over(now, false);
    std::int64_t delay = back_off.next_ns() - now;
    CHECK(delay >= BackOff::kFirstDelay / 2);
    CHECK(delay <= BackOff::kLongestDelay);
    if (i == 11) CHECK(delay >= BackOff::kLongestDelay / 2);
    last = delay;
    now = back_off.next_ns();
  }
  CHECK(last > BackOff::kFirstDelay);
  // One that came to nothing.
  back_off.established();
  back_off.over(now, false);
  CHECK(back_off.next_ns() - now >= BackOff::kLongestDelay / 2);
  back_off.established();
  back_off.useful();
  back_off.over(now, false);
  CHECK(back_off.next_ns() - now <= BackOff::kFirstDelay);
  back_off.over(now, true);
  CHECK(back_off.next_ns() - now >= BackOff::kRefusedDelay / 2);
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
