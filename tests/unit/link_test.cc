// Real sockets on the loopback interface, with ports that the system chooses.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>

#include "fs/base/hash.h"
#include "fs/base/log.h"
#include "fs/seam/clock.h"
#include "net/link/address.h"
#include "net/link/asio_shell.h"
#include "net/wire/frame.h"

using namespace vmfs;

namespace {

LinkCredentials credentials_of(Encryption encryption, unsigned secret = 1, unsigned volume = 1) {
  LinkCredentials credentials;
  credentials.volume.fill(std::byte(volume));
  credentials.secret.fill(std::byte(secret));
  credentials.encryption = encryption;
  return credentials;
}

// One node's end: a shell, maybe a listener, and what its links told.
class Side final : public LinkEvents {
 public:
  explicit Side(const LinkCredentials& credentials) {
    set_log_maximum(Priority::kError);
    auto made = AsioShell::create({.credentials = credentials});
    REQUIRE(made);
    shell = std::move(*made);
  }
  ~Side() override {
    shell->stop();
    link.reset();
    listener.reset();
  }
  std::string listen() {
    auto made = Listener::open(*shell, "127.0.0.1:0", *this, [this](std::unique_ptr<Link> incoming) {
      std::lock_guard lock(mutex);
      ++accepted;
      link = std::move(incoming);
      changed.notify_all();
    });
    REQUIRE(made);
    listener = std::move(*made);
    shell->start([] {});
    return listener->address();
  }
  // The error's message, or "" with `link` set.
  std::string dial(const std::string& address) {
    std::promise<std::string> outcome;
    shell->post([&] {
      shell->dial(address, *this, [&](Result<std::unique_ptr<Link>> result) {
        if (result) {
          std::lock_guard lock(mutex);
          link = std::move(*result);
        }
        outcome.set_value(result ? "" : result.error().message);
      });
    });
    return outcome.get_future().get();
  }
  template <class F>
  void on_thread(F f) {
    std::promise<void> done;
    shell->post([&] {
      f();
      done.set_value();
    });
    done.get_future().get();
  }
  template <class Predicate>
  bool wait(Predicate predicate) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), predicate);
  }

  void frame(Link& from, ByteView body) override {
    if (on_frame) return on_frame(from, body);
    std::lock_guard lock(mutex);
    frames.emplace_back(body.begin(), body.end());
    changed.notify_all();
  }
  void progress(Link&) override {
    std::lock_guard lock(mutex);
    ++parts;
    changed.notify_all();
  }
  void writable(Link&) override {
    std::lock_guard lock(mutex);
    ++writables;
    changed.notify_all();
  }
  void closed(Link&, const Error& why) override {
    std::lock_guard lock(mutex);
    closings.push_back(why.message);
    changed.notify_all();
  }

  std::unique_ptr<AsioShell> shell;
  std::unique_ptr<Listener> listener;
  std::function<void(Link&, ByteView)> on_frame;
  std::mutex mutex;
  std::condition_variable changed;
  std::unique_ptr<Link> link;       // the last one; used on the shell's thread
  std::vector<Bytes> frames;        // guarded by mutex
  std::vector<std::string> closings;
  int writables = 0, accepted = 0, parts = 0;
};

Bytes pattern(std::size_t size, unsigned seed) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = std::byte((i * 31 + i / 251 + seed) & 255);
  return bytes;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// A client without any manners.
class RawClient {
 public:
  explicit RawClient(const std::string& address) {
    socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(parse_address(address)->port);
    REQUIRE(::connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  }
  ~RawClient() { ::close(socket_); }
  void write(ByteView bytes) { ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  Bytes read(std::size_t size) {
    Bytes bytes(size);
    const ssize_t got = ::recv(socket_, bytes.data(), size, MSG_WAITALL);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }
  void half_close() { ::shutdown(socket_, SHUT_WR); }
  bool closed_within(int ms) {
    pollfd poll{socket_, POLLIN, 0};
    char byte;
    return ::poll(&poll, 1, ms) == 1 && ::recv(socket_, &byte, 1, 0) <= 0;
  }

 private:
  int socket_;
};

// Authenticates in clear by hand, so that what follows can be anything.
void shake_hands(RawClient& client, const LinkCredentials& credentials) {
  const LinkHello mine = make_hello(LinkRole::kDialer, credentials);
  client.write(std::as_bytes(std::span(&mine, 1)));
  auto theirs = parse_hello(client.read(sizeof(LinkHello)), LinkRole::kListener);
  REQUIRE(theirs);
  REQUIRE(theirs->verdict == HelloVerdict::kAccepted);
  const Proof proof = make_proof(LinkRole::kDialer, mine, *theirs, {}, credentials.secret);
  client.write(std::as_bytes(std::span(&proof, 1)));
  Proof answer;
  Bytes bytes = client.read(sizeof answer);
  REQUIRE(bytes.size() == sizeof answer);
  std::memcpy(&answer, bytes.data(), sizeof answer);
  REQUIRE(proof_is_right(answer, LinkRole::kListener, mine, *theirs, {}, credentials.secret));
}

}  // namespace

TEST_SUITE("link") {
  TEST_CASE("frames go both ways in order, encrypted and in clear") {
    for (Encryption encryption : {Encryption::kTls, Encryption::kOffOnLoopback}) {
      Side listener(credentials_of(encryption)), dialer(credentials_of(encryption));
      const std::string address = listener.listen();
      dialer.shell->start([] {});
      REQUIRE(dialer.dial(address) == "");
      REQUIRE(listener.wait([&] { return listener.accepted == 1; }));
      std::vector<Bytes> bodies;
      for (std::size_t size : {0, 1, 100, 4096, 16384, 16385, 65536, 1 << 20, 3, 4 << 20, 77})
        bodies.push_back(pattern(size, static_cast<unsigned>(size)));
      for (unsigned i = 0; i < 300; ++i) bodies.push_back(pattern(i * 7, i));
      for (Side* side : {&dialer, &listener})
        side->on_thread([&] {
          for (const Bytes& body : bodies) side->link->send(body);
        });
      for (Side* side : {&dialer, &listener}) {
        REQUIRE(side->wait([&] { return side->frames.size() == bodies.size(); }));
        CHECK(side->frames == bodies);
      }
      // What was queued before close() still arrives.
      dialer.on_thread([&] {
        dialer.link->send(pattern(3 << 20, 1));
        dialer.link->send(pattern(5, 2));
        dialer.link->close();
        dialer.link.reset();
      });
      REQUIRE(listener.wait([&] { return listener.closings.size() == 1; }));
      CHECK(contains(listener.closings[0], "the other"));
      CHECK(listener.frames.size() == bodies.size() + 2);
      CHECK(dialer.closings.empty());
    }
  }

  TEST_CASE("the wrong secret, volume or encryption is refused by name on both sides") {
    struct Case {
      LinkCredentials listener, dialer;
      const char* says;
    };
    const Case cases[] = {
        {credentials_of(Encryption::kTls), credentials_of(Encryption::kTls, 2),
         "refused: wrong secret"},
        {credentials_of(Encryption::kOffOnLoopback), credentials_of(Encryption::kOffEverywhere, 2),
         "refused: wrong secret"},
        {credentials_of(Encryption::kTls), credentials_of(Encryption::kTls, 1, 2),
         "refused: wrong volume"},
        {credentials_of(Encryption::kTls), credentials_of(Encryption::kOffOnLoopback),
         "tls = off"},
        {credentials_of(Encryption::kOffOnLoopback), credentials_of(Encryption::kTls), "tls = off"},
    };
    for (const Case& one : cases) {
      Side listener(one.listener), dialer(one.dialer);
      const std::string address = listener.listen();
      dialer.shell->start([] {});
      const std::string error = dialer.dial(address);
      INFO(error);
      CHECK(contains(error, one.says));
      CHECK(contains(error, address));
      CHECK(listener.accepted == 0);
    }
  }

  TEST_CASE("in clear only loopback addresses are dialled, unless forced") {
    Side dialer(credentials_of(Encryption::kOffOnLoopback));
    dialer.shell->start([] {});
    CHECK(contains(dialer.dial("192.0.2.1:9"), "only between loopback addresses"));
  }

  TEST_CASE("an address that nobody listens on, or that is none, is an error value") {
    Side dialer(credentials_of(Encryption::kTls));
    dialer.shell->start([] {});
    CHECK(contains(dialer.dial("127.0.0.1:1"), "cannot connect"));
    CHECK(contains(dialer.dial("127.0.0.1:x"), "is no address"));
    CHECK(contains(dialer.dial("no.such.name.invalid:1"), "cannot resolve"));
    Side listener(credentials_of(Encryption::kTls));
    const std::string address = listener.listen();
    auto again = Listener::open(*dialer.shell, address, dialer, [](std::unique_ptr<Link>) {});
    REQUIRE_FALSE(again);
    CHECK(contains(again.error().message, "cannot listen on " + address));
  }

  TEST_CASE("garbage before the handshake ends the connection and leaves the port working") {
    const auto credentials = credentials_of(Encryption::kTls);
    Side listener(credentials), dialer(credentials);
    const std::string address = listener.listen();
    {
      RawClient http(address);
      http.write(as_bytes("GET / HTTP/1.1\r\nHost: a.very.long.name.so.that.a.hello.is.filled.example\r\n\r\n"));
      CHECK(http.closed_within(5000));
    }
    {
      RawClient silent(address);
      silent.write(as_bytes("VF"));
      silent.half_close();
      CHECK(silent.closed_within(5000));
    }
    {
      // A valid LinkHello, then anything but TLS.
      RawClient liar(address);
      const LinkHello hello = make_hello(LinkRole::kDialer, credentials);
      liar.write(std::as_bytes(std::span(&hello, 1)));
      CHECK(liar.read(sizeof(LinkHello)).size() == sizeof(LinkHello));
      liar.write(pattern(20'000, 3));
      liar.read(7);  // an alert
      CHECK(liar.closed_within(5000));
    }
    dialer.shell->start([] {});
    CHECK(dialer.dial(address) == "");
  }

  TEST_CASE("strangers that say nothing do not keep a node out") {
    const auto credentials = credentials_of(Encryption::kTls);
    Side listener(credentials), dialer(credentials);
    const std::string address = listener.listen();
    std::vector<std::unique_ptr<RawClient>> strangers;
    for (std::size_t i = 0; i < kUnauthenticatedMax + 4; ++i)
      strangers.push_back(std::make_unique<RawClient>(address));
    dialer.shell->start([] {});
    CHECK(dialer.dial(address) == "");
    CHECK(strangers[0]->closed_within(5000));
    CHECK_FALSE(strangers.back()->closed_within(0));
  }

  TEST_CASE("oversized, damaged and cut frames end the link with the reason") {
    const auto credentials = credentials_of(Encryption::kOffOnLoopback);
    struct Case {
      std::function<Bytes()> bytes;
      const char* says;
    };
    const Case cases[] = {
        {[] {
           FrameHeader header = make_frame_header({}, true);
           header.length = kFrameMax + 1;
           header.header_hash = 0;
           header.header_hash = hash64(std::as_bytes(std::span(&header, 1)));
           Bytes bytes;
           Writer(bytes).bytes(std::as_bytes(std::span(&header, 1)));
           return bytes;
         },
         "longer than the limit"},
        {[] { return pattern(100, 4); }, "a frame begins with"},
        {[] {
           const Bytes body = pattern(1000, 4);
           const FrameHeader header = make_frame_header(body, true);
           Bytes bytes;
           Writer(bytes).bytes(std::as_bytes(std::span(&header, 1))).bytes(ByteView(body).first(500));
           return bytes;
         },
         "cut in the middle of a frame (532 bytes"},
    };
    for (const Case& one : cases) {
      Side listener(credentials);
      RawClient client(listener.listen());
      shake_hands(client, credentials);
      client.write(one.bytes());
      client.half_close();
      REQUIRE(listener.wait([&] { return !listener.closings.empty(); }));
      CHECK(contains(listener.closings[0], one.says));
      CHECK(listener.frames.empty());
    }
  }

  TEST_CASE("a part of a frame is a sign of life: on a slow line the whole one takes long") {
    const auto credentials = credentials_of(Encryption::kOffOnLoopback);
    Side listener(credentials);
    RawClient client(listener.listen());
    shake_hands(client, credentials);
    const Bytes body = pattern(1000, 4);
    const FrameHeader header = make_frame_header(body, true);
    Bytes bytes;
    Writer(bytes).bytes(std::as_bytes(std::span(&header, 1))).bytes(body);
    client.write(ByteView(bytes).first(500));
    REQUIRE(listener.wait([&] { return listener.parts > 0; }));
    CHECK(listener.frames.empty());
    client.write(ByteView(bytes).subspan(500));
    REQUIRE(listener.wait([&] { return listener.frames.size() == 1; }));
    CHECK(listener.frames[0] == body);
  }

  TEST_CASE("a proof cannot be replayed or reflected") {
    const auto credentials = credentials_of(Encryption::kOffOnLoopback);
    const LinkHello a = make_hello(LinkRole::kDialer, credentials);
    const LinkHello b = make_hello(LinkRole::kListener, credentials);
    const LinkHello c = make_hello(LinkRole::kListener, credentials);
    const Proof proof = make_proof(LinkRole::kDialer, a, b, {}, credentials.secret);
    CHECK(proof_is_right(proof, LinkRole::kDialer, a, b, {}, credentials.secret));
    CHECK_FALSE(proof_is_right(proof, LinkRole::kDialer, a, c, {}, credentials.secret));
    CHECK_FALSE(proof_is_right(proof, LinkRole::kListener, a, b, {}, credentials.secret));
    CHECK_FALSE(proof_is_right(proof, LinkRole::kDialer, a, b, as_bytes("x"), credentials.secret));
    LinkHello older = b;
    older.version = 0;
    CHECK_FALSE(proof_is_right(proof, LinkRole::kDialer, a, older, {}, credentials.secret));
  }

  TEST_CASE("a slow reader fills the queue, and writable tells when it is empty again") {
    for (Encryption encryption : {Encryption::kTls, Encryption::kOffOnLoopback}) {
      Side listener(credentials_of(encryption)), dialer(credentials_of(encryption));
      std::promise<void> go_on;
      std::shared_future<void> gate = go_on.get_future().share();
      std::size_t received = 0;
      listener.on_frame = [&](Link&, ByteView body) {
        gate.wait();
        std::lock_guard lock(listener.mutex);
        received += body.size();
        listener.changed.notify_all();
      };
      const std::string address = listener.listen();
      dialer.shell->start([] {});
      REQUIRE(dialer.dial(address) == "");
      std::size_t unsent = 0;
      constexpr std::size_t kFrames = 64;
      dialer.on_thread([&] {
        for (std::size_t i = 0; i < kFrames; ++i) dialer.link->send(pattern(1 << 20, 1));
        unsent = dialer.link->unsent_bytes();
      });
      CHECK(unsent > (32u << 20));
      CHECK(dialer.writables == 0);
      go_on.set_value();
      REQUIRE(dialer.wait([&] { return dialer.writables == 1; }));
      REQUIRE(listener.wait([&] { return received == kFrames << 20; }));
      dialer.on_thread([&] { unsent = dialer.link->unsent_bytes(); });
      CHECK(unsent == 0);
    }
  }

  TEST_CASE("closing from within an event is safe, and nothing follows") {
    const auto credentials = credentials_of(Encryption::kTls);
    Side listener(credentials), dialer(credentials);
    int frames = 0;
    listener.on_frame = [&](Link&, ByteView) {
      std::lock_guard lock(listener.mutex);
      ++frames;
      listener.link.reset();
      listener.changed.notify_all();
    };
    const std::string address = listener.listen();
    dialer.shell->start([] {});
    REQUIRE(dialer.dial(address) == "");
    dialer.on_thread([&] {
      for (int i = 0; i < 10; ++i) dialer.link->send(pattern(100, 1));
    });
    REQUIRE(listener.wait([&] { return frames == 1; }));
    REQUIRE(dialer.wait([&] { return dialer.closings.size() == 1; }));
    CHECK(frames == 1);
    CHECK(listener.closings.empty());
  }

  TEST_CASE("posted functions, timer and lanes") {
    Side side(credentials_of(Encryption::kTls));
    std::promise<std::int64_t> woken;
    side.shell->start([&] { woken.set_value(system_clock().monotonic_ns()); });
    const std::int64_t now = system_clock().monotonic_ns();
    side.on_thread([&] {
      CHECK(side.shell->on_thread());
      side.shell->wake_at(now + 3'000'000'000'000);
      side.shell->wake_at(now + 30'000'000);
      side.shell->wake_at(now + 2'000'000'000'000);
    });
    CHECK_FALSE(side.shell->on_thread());
    CHECK(woken.get_future().get() >= now + 30'000'000);

    std::vector<int> order;
    std::promise<bool> finished;
    side.on_thread([&] {
      for (int i = 0; i < 100; ++i)
        side.shell->run_blocking(
            Shell::Lane::kSync, [&order, i] { order.push_back(i); },
            [&, i] {
              if (i == 99) finished.set_value(side.shell->on_thread());
            });
    });
    CHECK(finished.get_future().get());
    for (int i = 0; i < 100; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
  }
}
