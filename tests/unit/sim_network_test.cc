#include "tests/sim/lib/sim_network.h"

#include <doctest/doctest.h>

#include "tests/sim/lib/sim_shell.h"

using namespace vmfs;
using namespace vmfs::sim;

namespace {

struct Recorder : LinkEvents {
  void frame(Link&, ByteView body) override {
    text.append(reinterpret_cast<const char*>(body.data()), body.size());
  }
  void writable(Link&) override { ++writable_count; }
  void closed(Link&, const Error& why) override { closed_because = why.message; }
  std::string text, closed_because;
  int writable_count = 0;
};

Bytes bytes_of(std::string_view text) {
  ByteView view = as_bytes(text);
  return {view.begin(), view.end()};
}

struct TwoHosts {
  TwoHosts() {
    b_shell.listen(b_events, [this](std::unique_ptr<Link> link) { b_link = std::move(link); });
  }
  void connect() {
    a_shell.dial("b", a_events, [this](Result<std::unique_ptr<Link>> link) {
      REQUIRE(link);
      a_link = std::move(*link);
    });
    REQUIRE(scheduler.run_until([&] { return a_link && b_link; }, scheduler.now() + 1'000'000'000));
  }
  void run(std::int64_t ns) { scheduler.run_until(scheduler.now() + ns); }
  SimClock clock;
  Scheduler scheduler{clock};
  SimNetwork network{scheduler, 1};
  SimShell a_shell{scheduler, network, "a", 2}, b_shell{scheduler, network, "b", 3};
  Recorder a_events, b_events;
  std::unique_ptr<Link> a_link, b_link;
};

}  // namespace

TEST_SUITE("simulated network") {
  TEST_CASE("frames arrive in order, after the delay, at the rate of the path") {
    TwoHosts t;
    t.network.set_path("a", "b",
                       {.delay_ns = 50'000'000, .jitter_ns = 10, .bytes_per_second = 1000, .send_buffer = 10});
    t.connect();
    t.a_link->send(bytes_of(std::string(100, 'x')));
    t.a_link->send(bytes_of("y"));
    CHECK(t.a_link->unsent_bytes() == 91);
    t.run(140'000'000);
    CHECK(t.b_events.text.empty());
    CHECK(t.a_events.writable_count == 1);
    t.run(20'000'000);
    CHECK(t.b_events.text == std::string(100, 'x') + "y");
    CHECK(t.a_link->remote() == "b");
  }

  TEST_CASE("only a link that left something unsent becomes writable") {
    TwoHosts t;
    t.network.set_path("a", "b", {.bytes_per_second = 1000, .send_buffer = 10});
    t.connect();
    t.a_link->send(bytes_of("fits"));
    CHECK(t.a_link->unsent_bytes() == 0);
    t.run(1'000'000'000);
    CHECK(t.a_events.writable_count == 0);
    for (int i = 0; i < 3; ++i) t.a_link->send(bytes_of("a frame"));
    CHECK(t.a_link->unsent_bytes() == 11);
    t.run(1'000'000'000);
    CHECK(t.a_events.writable_count == 1);
    CHECK(t.b_events.text == "fitsa framea framea frame");
  }

  TEST_CASE("a cut holds everything back, a mended path delivers it") {
    TwoHosts t;
    t.network.set_path("a", "b", {.send_buffer = 0});
    t.connect();
    t.network.cut("a", "b");
    t.a_link->send(bytes_of("1"));
    t.a_link->send(bytes_of("2"));
    t.run(1'000'000'000);
    CHECK(t.b_events.text.empty());
    CHECK(t.a_link->unsent_bytes() == 2);
    t.network.mend("a", "b");
    t.a_link->send(bytes_of("3"));
    t.run(1'000'000'000);
    CHECK(t.b_events.text == "123");
    CHECK(t.a_link->unsent_bytes() == 0);
  }

  TEST_CASE(
      "a close, a reset and a dead process are seen by the other end, a dead machine is not") {
    for (int how = 0; how < 4; ++how) {
      CAPTURE(how);
      TwoHosts t;
      t.connect();
      t.a_link->send(bytes_of("last"));
      if (how == 0) t.a_link->close();
      if (how == 1) t.network.reset("a", "b");
      if (how == 2) t.network.process_died("a");
      if (how == 3) t.network.power_lost("a");
      t.run(1'000'000'000);
      CHECK(t.b_events.closed_because.empty() == (how == 3));
      if (how == 0 || how == 2) CHECK(t.b_events.text == "last");
      t.b_link->send(bytes_of("nobody there"));
      t.run(1'000'000'000);
      CHECK(t.a_events.text.empty());
    }
  }

  TEST_CASE("dialing nobody fails") {
    TwoHosts t;
    std::string why;
    auto note = [&](Result<std::unique_ptr<Link>> link) {
      REQUIRE(!link);
      why = link.error().message;
    };
    t.a_shell.dial("c", t.a_events, note);
    t.run(1'000'000'000);
    CHECK(why == "c: connection refused");
    t.network.cut("a", "b");
    t.a_shell.dial("b", t.a_events, note);
    t.run(20'000'000'000);
    CHECK(why == "b: no answer");
  }

  TEST_CASE("the shell posts, wakes and works in order; a killed one does nothing more") {
    TwoHosts t;
    std::string order;
    t.a_shell.set_tick([&] { order += 't'; });
    t.a_shell.wake_at(t.scheduler.now() + 20'000'000);
    t.a_shell.wake_at(t.scheduler.now() + 10'000'000);
    t.a_shell.post([&] { order += 'p'; });
    for (char c : {'1', '2'})
      t.a_shell.run_blocking(
          Shell::Lane::kSync, [&, c] { order += c; }, [&] { order += 'd'; });
    t.run(30'000'000);
    CHECK(order == "p1d2dt");
    t.a_shell.post([&] { order += 'p'; });
    t.a_shell.run_blocking(
        Shell::Lane::kCopy, [&] { order += '3'; }, [] {});
    t.a_shell.kill();
    t.run(1'000'000'000);
    CHECK(order == "p1d2dt");
  }
}
