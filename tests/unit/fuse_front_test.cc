// The front over a socket pair: INIT and its replay, restarts, resent and parked requests.
#include <fcntl.h>

#include <chrono>
#include <thread>

#include "tests/unit/fuse_kernel.h"

namespace vmfs {
namespace {

using test::FakeKernel;
using test::KernelAnswer;
using test::ScratchVolume;

constexpr std::uint64_t kRoot = 1;

// Images wait for a token for ever, until the test moves.
struct WaitingHooks : ReplicationHooks {
  Error may_not_change(GroupId, Gate) override { return {ErrorKind::kWouldWait, EAGAIN, {}}; }
  void written(Lsn) override {}
  void await_peers(GroupId, Lsn, std::function<void(Result<>)> done) override { done({}); }
  bool backlog_full() override { return false; }
};

ConnectionMemory new_memory() {
  auto memory = ConnectionMemory::create(ConnectionId{0x77});
  REQUIRE(memory);
  memory->header().starts.store(1);
  return std::move(*memory);
}

std::unique_ptr<Front> start(ScratchVolume& volume, FakeKernel& kernel, ConnectionMemory& memory,
                             unsigned threads = 1) {
  FrontOptions options;
  options.threads = threads;
  auto front = Front::start(*volume, kernel.parts(memory), options);
  REQUIRE_MESSAGE(front, front.error().message);
  return std::move(*front);
}

// The first daemon of a connection: the kernel speaks first.
std::unique_ptr<Front> begin(ScratchVolume& volume, FakeKernel& kernel, ConnectionMemory& memory,
                             unsigned threads = 1) {
  kernel.send(FakeKernel::kMain, FakeKernel::init());
  auto front = start(volume, kernel, memory, threads);
  auto answer = kernel.answer(FakeKernel::kMain);
  REQUIRE(answer);
  CHECK(answer->header.error == 0);
  return front;
}

void end(FakeKernel& kernel, std::unique_ptr<Front> front) {
  kernel.close();
  CHECK(front->wait() == Front::End::kUnmounted);
}

struct Created {
  std::uint64_t node = 0, handle = 0;
  std::uint32_t open_flags = 0;
};
Bytes create_message(std::uint64_t unique, const std::string& name, std::uint32_t flags) {
  fuse_create_in body{};
  body.flags = flags;
  body.mode = 0100644;
  return FakeKernel::message(FUSE_CREATE, unique, kRoot, body, FakeKernel::text(name));
}
Created created_by(const KernelAnswer& answer) {
  REQUIRE(answer.header.error == 0);
  struct Both {
    fuse_entry_out entry;
    fuse_open_out open;
  };
  const auto both = answer.as<Both>();
  return {both.entry.nodeid, both.open.fh, both.open.open_flags};
}
Bytes write_message(std::uint64_t unique, const Created& file, std::uint64_t offset,
                    const std::string& bytes) {
  fuse_write_in body{};
  body.fh = file.handle;
  body.offset = offset;
  body.size = static_cast<std::uint32_t>(bytes.size());
  return FakeKernel::message(FUSE_WRITE, unique, file.node, body, bytes);
}
Bytes read_message(std::uint64_t unique, const Created& file, std::uint32_t size) {
  fuse_read_in body{};
  body.fh = file.handle;
  body.size = size;
  return FakeKernel::message(FUSE_READ, unique, file.node, body);
}
Bytes release_message(std::uint64_t unique, const Created& file) {
  fuse_release_in body{};
  body.fh = file.handle;
  return FakeKernel::message(FUSE_RELEASE, unique, file.node, body);
}
std::string text_of(const KernelAnswer& answer) {
  return {reinterpret_cast<const char*>(answer.body.data()), answer.body.size()};
}
Bytes resent(Bytes message) {
  fuse_in_header header;
  std::memcpy(&header, message.data(), sizeof header);
  header.unique |= kUniqueResend;
  std::memcpy(message.data(), &header, sizeof header);
  return message;
}

// A slot is cleared after its answer was given, so the kernel's side may see the answer first. False if
// it does not come to that within ten seconds.
bool comes_to_wait_for(const ConnectionMemory& memory, const std::vector<std::uint64_t>& uniques) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (memory.unanswered() != uniques) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// A new daemon on the same connection: new descriptors stand for the kernel's patience.
std::unique_ptr<Front> restart(ScratchVolume& volume, FakeKernel& kernel, ConnectionMemory& memory) {
  memory.header().starts.fetch_add(1);
  volume.open(ConnectionId{memory.header().connection}, memory.unanswered());
  auto front = start(volume, kernel, memory);
  auto notice = kernel.answer(FakeKernel::kMain);
  REQUIRE(notice);
  CHECK(notice->header.unique == 0);
  CHECK(notice->header.error == kNotifyResend);
  CHECK(notice->body.empty());
  return front;
}

TEST_SUITE("fuse front") {
  TEST_CASE("INIT is answered with what the kernel offers, and kept") {
    ScratchVolume volume("init");
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    kernel.send(FakeKernel::kMain, FakeKernel::init());
    auto front = start(volume, kernel, memory);
    auto answer = kernel.answer(FakeKernel::kMain);
    REQUIRE(answer);
    const auto body = answer->as<fuse_init_out>();
    CHECK(body.major == 7);
    CHECK(body.max_write == 1u << 20);
    CHECK(body.max_background >= 64);
    CHECK((body.flags & kInitExtended) != 0);
    CHECK(body.flags2 == (kInitHasResend | kInitDirectIoAllowMmap) >> 32);
    CHECK(memory.init_request().size() == FakeKernel::init().size());
    CHECK(std::equal(answer->body.begin(), answer->body.end(), memory.init_reply().begin(),
                     memory.init_reply().end()));
    end(kernel, std::move(front));
  }

  TEST_CASE("a kernel that cannot resend is not promised that it may") {
    ScratchVolume volume("old");
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    kernel.send(FakeKernel::kMain, FakeKernel::init(FUSE_BIG_WRITES));
    auto front = start(volume, kernel, memory);
    auto answer = kernel.answer(FakeKernel::kMain);
    REQUIRE(answer);
    CHECK((answer->as<fuse_init_out>().flags & kInitExtended) == 0);
    end(kernel, std::move(front));
  }

  TEST_CASE("a restart swallows INIT's answer, asks for a resend, and keeps the handles") {
    ScratchVolume volume("restart");
    ConnectionMemory memory = new_memory();
    Created file;
    {
      FakeKernel kernel(1);
      auto front = begin(volume, kernel, memory);
      file = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
      CHECK(file.open_flags == FOPEN_KEEP_CACHE);
      const auto direct = created_by(kernel.ask(1, create_message(6, "disk2", O_RDWR | O_DIRECT)));
      CHECK(direct.open_flags == (FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES));
      CHECK(kernel.ask(1, write_message(8, file, 0, "before the crash")).header.error == 0);
      end(kernel, std::move(front));
    }
    CHECK(memory.unanswered().empty());
    FakeKernel kernel(1);
    auto front = restart(volume, kernel, memory);
    // A guest that is idle across the restart still uses its disk.
    CHECK(volume->activity(ObjectId{file.node}).open_writer);
    CHECK(text_of(kernel.ask(1, read_message(10, file, 4096))) == "before the crash");
    // The INIT's answer would have come first on either descriptor.
    CHECK_FALSE(kernel.answer(FakeKernel::kMain, 0));
    CHECK(kernel.ask(1, release_message(12, file)).header.error == 0);
    CHECK(front->statistics().open_handles == 1);
    CHECK_FALSE(volume->activity(ObjectId{file.node}).open_writer);
    CHECK(kernel.ask(1, read_message(14, file, 10)).header.error == -EBADF);
    end(kernel, std::move(front));
  }

  TEST_CASE("what comes again after a crash is answered once more, and done once") {
    ScratchVolume volume("resend");
    ConnectionMemory memory = new_memory();
    Created file;
    const Bytes create = create_message(4, "disk", O_RDWR | O_EXCL);
    {
      FakeKernel kernel(1);
      auto front = begin(volume, kernel, memory);
      file = created_by(kernel.ask(1, create));
      end(kernel, std::move(front));
    }
    // As if the daemon had been killed between its answer's making and giving.
    memory.slots()[0].store(4);
    CHECK(memory.is_unanswered(4));
    FakeKernel kernel(1);
    auto front = restart(volume, kernel, memory);
    CHECK(memory.is_unanswered(4));  // a daemon after this one must find it, too
    const Created again = created_by(kernel.ask(1, resent(create)));
    CHECK(again.node == file.node);
    CHECK(again.handle == file.handle);
    CHECK(front->statistics().open_handles == 1);
    // A first request of the same name is another matter.
    CHECK(kernel.ask(1, create_message(6, "disk", O_RDWR | O_EXCL)).header.error == -EEXIST);
    CHECK_FALSE(memory.is_unanswered(4));

    // A release that comes twice does not close what took the handle's place.
    CHECK(kernel.ask(1, release_message(8, file)).header.error == 0);
    const Created other = created_by(kernel.ask(1, create_message(10, "other", O_RDWR)));
    CHECK(other.handle != file.handle);
    CHECK(kernel.ask(1, resent(release_message(8, file))).header.error == 0);
    CHECK(kernel.ask(1, write_message(12, other, 0, "x")).header.error == 0);
    end(kernel, std::move(front));
  }

  TEST_CASE("INIT that comes again is answered as before") {
    ScratchVolume volume("reinit");
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    auto front = begin(volume, kernel, memory);
    const KernelAnswer again = kernel.ask(1, resent(FakeKernel::init()));
    CHECK(std::equal(again.body.begin(), again.body.end(), memory.init_reply().begin(),
                     memory.init_reply().end()));
    end(kernel, std::move(front));
  }

  TEST_CASE("a request that waits is noted until it is answered, on the descriptor it came from") {
    ScratchVolume volume("park");
    WaitingHooks hooks;
    volume->set_hooks(&hooks);
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(2);
    auto front = begin(volume, kernel, memory, 2);
    const Created file = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
    volume->set_gate(ObjectId{file.node}, Gate::kSecondary);
    kernel.send(2, write_message(6, file, 0, "waits"));
    while (front->statistics().parked == 0) std::this_thread::yield();
    CHECK(comes_to_wait_for(memory, {6}));
    // The worker is free for others meanwhile.
    CHECK(kernel.ask(2, read_message(8, file, 10)).body.empty());
    CHECK_FALSE(kernel.answer(2, 0));

    volume->set_gate(ObjectId{file.node}, Gate::kOpen);
    volume->reopen(ObjectId{file.node});
    while (volume->run_parked()) {
    }
    auto answer = kernel.answer(2);
    REQUIRE(answer);
    CHECK(answer->header.unique == 6);
    CHECK(answer->as<fuse_write_out>().size == 5);
    CHECK(comes_to_wait_for(memory, {}));
    CHECK(text_of(kernel.ask(1, read_message(10, file, 10))) == "waits");

    // Refused: the error reaches the client.
    volume->set_gate(ObjectId{file.node}, Gate::kSecondary);
    kernel.send(1, write_message(12, file, 0, "never"));
    while (front->statistics().parked == 0) std::this_thread::yield();
    volume->refuse(ObjectId{file.node}, Error{ErrorKind::kReadOnly, EROFS, {}});
    while (volume->run_parked()) {
    }
    answer = kernel.answer(1);
    REQUIRE(answer);
    CHECK(answer->header.error == -EROFS);
    end(kernel, std::move(front));
    front.reset();
    volume->set_hooks(nullptr);
  }

  TEST_CASE("a waiting request of a process that is gone is given up") {
    ScratchVolume volume("interrupt");
    WaitingHooks hooks;
    volume->set_hooks(&hooks);
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    auto front = begin(volume, kernel, memory);
    const Created file = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
    volume->set_gate(ObjectId{file.node}, Gate::kSecondary);
    Bytes write = write_message(6, file, 0, "waits");
    const auto interrupt = [&](std::uint64_t unique) {
      fuse_interrupt_in body{};
      body.unique = unique;
      return FakeKernel::message(FUSE_INTERRUPT, unique | 1, 0, body);
    };
    // A signal that this process, which is alive, will handle: nothing happens.
    kernel.send(1, write);
    while (front->statistics().parked == 0) std::this_thread::yield();
    kernel.send(1, interrupt(6));
    CHECK(kernel.ask(1, read_message(8, file, 10)).body.empty());
    CHECK(front->statistics().parked == 1);

    fuse_in_header header;
    std::memcpy(&header, write.data(), sizeof header);
    header.unique = 10;
    header.pid = 0x7ffffff0;  // no such process
    std::memcpy(write.data(), &header, sizeof header);
    kernel.send(1, write);
    while (front->statistics().parked == 1) std::this_thread::yield();
    kernel.send(1, interrupt(10));
    auto answer = kernel.answer(1);
    REQUIRE(answer);
    CHECK(answer->header.unique == 10);
    CHECK(answer->header.error == -EINTR);
    end(kernel, std::move(front));
    front.reset();
    volume->set_hooks(nullptr);
  }

  TEST_CASE("draining answers what was read, and leaves the rest where the kernel can resend it") {
    ScratchVolume volume("drain");
    WaitingHooks hooks;
    volume->set_hooks(&hooks);
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(2);
    auto front = begin(volume, kernel, memory, 2);
    const Created file = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
    volume->set_gate(ObjectId{file.node}, Gate::kSecondary);
    kernel.send(1, write_message(6, file, 0, "waits"));
    while (front->statistics().parked == 0) std::this_thread::yield();
    CHECK(front->drain(1'000'000));
    CHECK(front->wait() == Front::End::kDrained);
    front.reset();
    CHECK(memory.unanswered() == std::vector<std::uint64_t>{6});
    volume->set_hooks(nullptr);
  }

  TEST_CASE("on a kernel that cannot resend, draining goes on serving while a request waits") {
    ScratchVolume volume("drain_old");
    WaitingHooks hooks;
    volume->set_hooks(&hooks);
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    kernel.send(FakeKernel::kMain, FakeKernel::init(FUSE_BIG_WRITES));
    auto front = start(volume, kernel, memory);
    REQUIRE(kernel.answer(FakeKernel::kMain));
    const Created file = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
    volume->set_gate(ObjectId{file.node}, Gate::kSecondary);
    kernel.send(1, write_message(6, file, 0, "waits"));
    while (front->statistics().parked == 0) std::this_thread::yield();
    auto drained = front->drain(1'000'000);
    REQUIRE_FALSE(drained);
    CHECK(drained.error().kind == ErrorKind::kBusy);
    CHECK(kernel.ask(1, read_message(8, file, 10)).header.error == 0);
    volume->set_gate(ObjectId{file.node}, Gate::kOpen);
    volume->reopen(ObjectId{file.node});
    while (volume->run_parked()) {
    }
    CHECK(kernel.answer(1));
    CHECK(front->drain(1'000'000));
    CHECK(front->wait() == Front::End::kDrained);
    front.reset();
    CHECK(memory.unanswered().empty());
    volume->set_hooks(nullptr);
  }
}

}  // namespace
}  // namespace vmfs
