// The front over a socket pair: INIT and its replay, restarts, resent and parked requests.
#include <fcntl.h>

#include <thread>

#include "tests/unit/fuse_client.h"

namespace vmfs {
namespace {

using namespace test;

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

  TEST_CASE("a write is asked for when it is made: the kernel is not to keep it back") {
    ScratchVolume volume("writeback");
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    kernel.send(FakeKernel::kMain, FakeKernel::init(FUSE_BIG_WRITES | FUSE_ASYNC_READ | FUSE_WRITEBACK_CACHE));
    auto front = start(volume, kernel, memory);
    auto answer = kernel.answer(FakeKernel::kMain);
    REQUIRE(answer);
    const auto body = answer->as<fuse_init_out>();
    CHECK((body.flags & FUSE_ASYNC_READ) != 0);
    CHECK((body.flags & FUSE_WRITEBACK_CACHE) == 0);
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

  TEST_CASE("a handle whose right to write was given away stays without it, however soon the daemon died") {
    ScratchVolume volume("given-away");
    ConnectionMemory memory = new_memory();
    Created file, other;
    {
      FakeKernel kernel(1);
      auto front = begin(volume, kernel, memory);
      file = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
      other = created_by(kernel.ask(1, create_message(6, "other", O_RDWR)));
      CHECK(kernel.ask(1, write_message(8, file, 0, "before")).header.error == 0);
      // The hand-over is durable; the daemon dies before it has told the handles.
      REQUIRE(volume->release(ObjectId{file.node}, NodeId{9}));
      end(kernel, std::move(front));
    }
    FakeKernel kernel(1);
    auto front = restart(volume, kernel, memory);
    CHECK(kernel.ask(1, write_message(10, file, 0, "after")).header.error == -EIO);
    CHECK(kernel.ask(1, write_message(12, other, 0, "of its own")).header.error == 0);
    CHECK(text_of(kernel.ask(1, read_message(14, file, 100))) == "before");
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
    auto answer = answer_of_parked(volume, kernel, 2);
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
    answer = answer_of_parked(volume, kernel, 1);
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

    // The signal was read before the request was: by another thread, say, that was quicker.
    header.unique = 12;
    std::memcpy(write.data(), &header, sizeof header);
    kernel.send(1, interrupt(12));
    kernel.send(1, write);
    answer = kernel.answer(1);
    REQUIRE(answer);
    CHECK(answer->header.unique == 12);
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
