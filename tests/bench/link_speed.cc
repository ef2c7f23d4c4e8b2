// What a link costs on the loopback interface: throughput of large frames and round trips of small
// ones, in clear and encrypted. Prints one line a case.
//
//   link_speed [SPIN_NS...]
#include <fmt/format.h>

#include <cstdlib>
#include <future>
#include <memory>
#include <vector>

#include "fs/base/check.h"
#include "fs/seam/clock.h"
#include "net/link/asio_shell.h"

namespace {

using namespace vmfs;

constexpr std::size_t kAhead = 4u << 20;  // unsent bytes above which the sender waits

struct End final : LinkEvents {
  explicit End(const LinkCredentials& credentials, std::int64_t spin_ns) {
    auto made = AsioShell::create({.credentials = credentials, .spin_ns = spin_ns});
    CHECK_INVARIANT(made.has_value(), "{}", made.error().message);
    shell = std::move(*made);
  }
  ~End() override {
    shell->stop();
    link.reset();
    listener.reset();
  }
  void frame(Link& from, ByteView body) override {
    if (on_frame) on_frame(from, body);
  }
  void writable(Link&) override {
    if (on_writable) on_writable();
  }
  void closed(Link&, const Error&) override {}

  std::unique_ptr<AsioShell> shell;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Link> link;
  std::function<void(Link&, ByteView)> on_frame;
  std::function<void()> on_writable;
};

struct Pair {
  Pair(Encryption encryption, std::int64_t spin_ns)
      : a(credentials(encryption), spin_ns), b(credentials(encryption), spin_ns) {
    std::promise<void> accepted, dialled;
    auto made = Listener::open(*b.shell, "127.0.0.1:0", b, [&](std::unique_ptr<Link> link) {
      b.link = std::move(link);
      accepted.set_value();
    });
    CHECK_INVARIANT(made.has_value(), "{}", made.error().message);
    b.listener = std::move(*made);
    a.shell->start([] {});
    b.shell->start([] {});
    a.shell->post([&] {
      a.shell->dial(b.listener->address(), a, [&](Result<std::unique_ptr<Link>> link) {
        CHECK_INVARIANT(link.has_value(), "{}", link.error().message);
        a.link = std::move(*link);
        dialled.set_value();
      });
    });
    dialled.get_future().wait();
    accepted.get_future().wait();
  }
  static LinkCredentials credentials(Encryption encryption) {
    LinkCredentials made;
    made.encryption = encryption;
    return made;
  }
  End a, b;
};

double seconds_since(std::int64_t start) {
  return static_cast<double>(system_clock().monotonic_ns() - start) / 1e9;
}

void throughput(Pair& pair, std::size_t frame_size, std::size_t total) {
  std::promise<void> finished;
  std::size_t received = 0, sent = 0;
  pair.b.on_frame = [&](Link&, ByteView body) {
    if ((received += body.size()) >= total) finished.set_value();
  };
  auto fill = [&] {
    while (sent < total && pair.a.link->unsent_bytes() < kAhead) {
      sent += frame_size;
      pair.a.link->send(Bytes(frame_size, std::byte{7}));
    }
  };
  pair.a.on_writable = fill;
  const std::int64_t start = system_clock().monotonic_ns();
  pair.a.shell->post(fill);
  finished.get_future().wait();
  fmt::print("  {:5} KiB frames  {:8.0f} MB/s\n", frame_size >> 10,
             static_cast<double>(total) / seconds_since(start) / 1e6);
}

void round_trips(Pair& pair, std::size_t frame_size, int count) {
  std::promise<void> finished;
  int left = count;
  pair.b.on_frame = [&](Link& from, ByteView) { from.send(Bytes(64)); };
  pair.a.on_frame = [&](Link& from, ByteView) {
    if (--left == 0)
      finished.set_value();
    else
      from.send(Bytes(frame_size));
  };
  const std::int64_t start = system_clock().monotonic_ns();
  pair.a.shell->post([&] { pair.a.link->send(Bytes(frame_size)); });
  finished.get_future().wait();
  fmt::print("  {:5} B there, 64 B back  {:8.1f} us\n", frame_size,
             seconds_since(start) * 1e6 / count);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::int64_t> spins;
  for (int i = 1; i < argc; ++i) spins.push_back(std::atoll(argv[i]));
  if (spins.empty()) spins = {AsioShellOptions{}.spin_ns};
  for (const std::int64_t spin : spins) {
    for (Encryption encryption : {Encryption::kOffOnLoopback, Encryption::kTls}) {
      fmt::print("{}, spinning {} us\n", encryption == Encryption::kTls ? "TLS" : "in clear",
                 spin / 1000);
      Pair pair(encryption, spin);
      round_trips(pair, 64, 20'000);
      round_trips(pair, 4096, 20'000);
      throughput(pair, 64u << 10, std::size_t{2} << 30);
      throughput(pair, 1u << 20, std::size_t{2} << 30);
    }
  }
}
