// A client's requests to the front, over the fake kernel, and the daemons' lives on one connection.
#pragma once

#include <fcntl.h>

#include <chrono>
#include <thread>

#include "tests/unit/fuse_kernel.h"

namespace vmfs::test {

inline constexpr std::uint64_t kRoot = 1;

// Images wait for a token for ever, until the test moves.
struct WaitingHooks : ReplicationHooks {
  Error may_not_change(GroupId, Gate) override { return {ErrorKind::kWouldWait, EAGAIN, {}}; }
  void written(Lsn) override {}
  void await_peers(GroupId, Lsn, std::function<void(Result<>)> done) override { done({}); }
  bool backlog_full() override { return false; }
};

inline ConnectionMemory new_memory() {
  auto memory = ConnectionMemory::create(ConnectionId{0x77});
  REQUIRE(memory);
  memory->header().starts.store(1);
  return std::move(*memory);
}

inline std::unique_ptr<Front> start(ScratchVolume& volume, FakeKernel& kernel, ConnectionMemory& memory,
                             unsigned threads = 1) {
  FrontOptions options;
  options.threads = threads;
  auto front = Front::start(*volume, kernel.parts(memory), options);
  REQUIRE_MESSAGE(front, front.error().message);
  return std::move(*front);
}

// The first daemon of a connection: the kernel speaks first.
inline std::unique_ptr<Front> begin(ScratchVolume& volume, FakeKernel& kernel, ConnectionMemory& memory,
                             unsigned threads = 1) {
  kernel.send(FakeKernel::kMain, FakeKernel::init());
  auto front = start(volume, kernel, memory, threads);
  auto answer = kernel.answer(FakeKernel::kMain);
  REQUIRE(answer);
  CHECK(answer->header.error == 0);
  return front;
}

inline void end(FakeKernel& kernel, std::unique_ptr<Front> front) {
  kernel.close();
  CHECK(front->wait() == Front::End::kUnmounted);
}

struct Created {
  std::uint64_t node = 0, handle = 0;
  std::uint32_t open_flags = 0;
};
inline Bytes create_message(std::uint64_t unique, const std::string& name, std::uint32_t flags) {
  fuse_create_in body{};
  body.flags = flags;
  body.mode = 0100644;
  return FakeKernel::message(FUSE_CREATE, unique, kRoot, body, FakeKernel::text(name));
}
inline Created created_by(const KernelAnswer& answer) {
  REQUIRE(answer.header.error == 0);
  struct Both {
    fuse_entry_out entry;
    fuse_open_out open;
  };
  const auto both = answer.as<Both>();
  return {both.entry.nodeid, both.open.fh, both.open.open_flags};
}
inline Bytes open_message(std::uint64_t unique, const Created& file, std::uint32_t flags) {
  fuse_open_in body{};
  body.flags = flags;
  return FakeKernel::message(FUSE_OPEN, unique, file.node, body);
}
// Another handle of the same file.
inline Created opened_by(const Created& file, const KernelAnswer& answer) {
  REQUIRE(answer.header.error == 0);
  const auto opened = answer.as<fuse_open_out>();
  return {file.node, opened.fh, opened.open_flags};
}
inline Bytes write_message(std::uint64_t unique, const Created& file, std::uint64_t offset,
                    const std::string& bytes) {
  fuse_write_in body{};
  body.fh = file.handle;
  body.offset = offset;
  body.size = static_cast<std::uint32_t>(bytes.size());
  return FakeKernel::message(FUSE_WRITE, unique, file.node, body, bytes);
}
inline Bytes read_message(std::uint64_t unique, const Created& file, std::uint32_t size) {
  fuse_read_in body{};
  body.fh = file.handle;
  body.size = size;
  return FakeKernel::message(FUSE_READ, unique, file.node, body);
}
inline Bytes release_message(std::uint64_t unique, const Created& file) {
  fuse_release_in body{};
  body.fh = file.handle;
  return FakeKernel::message(FUSE_RELEASE, unique, file.node, body);
}
inline std::string text_of(const KernelAnswer& answer) {
  return {reinterpret_cast<const char*>(answer.body.data()), answer.body.size()};
}
inline Bytes resent(Bytes message) {
  fuse_in_header header;
  std::memcpy(&header, message.data(), sizeof header);
  header.unique |= kUniqueResend;
  std::memcpy(message.data(), &header, sizeof header);
  return message;
}

// A slot is cleared after its answer was given, so the kernel's side may see the answer first. False if
// it does not come to that within ten seconds.
inline bool comes_to_wait_for(const ConnectionMemory& memory, const std::vector<std::uint64_t>& uniques) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (memory.unanswered() != uniques) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// What the kernel gets for a request whose retry may run now. Its worker may come to park it only after
// what woke it: then it is ready at once, and somebody has to run it.
inline std::optional<KernelAnswer> answer_of_parked(ScratchVolume& volume, FakeKernel& kernel, unsigned where) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  for (;;) {
    while (volume->run_parked()) {
    }
    if (auto answer = kernel.answer(where, 1)) return answer;
    if (std::chrono::steady_clock::now() > deadline) return std::nullopt;
  }
}

// A new daemon on the same connection: new descriptors stand for the kernel's patience.
inline std::unique_ptr<Front> restart(ScratchVolume& volume, FakeKernel& kernel, ConnectionMemory& memory) {
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

}  // namespace vmfs::test
