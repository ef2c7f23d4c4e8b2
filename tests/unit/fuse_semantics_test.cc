// What the front sees to that neither the kernel nor the volume does by itself.
#include <future>

#include "tests/unit/fuse_client.h"

namespace vmfs {
namespace {

using namespace test;

TEST_SUITE("fuse semantics") {
  TEST_CASE("what was given away just before a crash is taken out of the kernel's caches") {
    ScratchVolume volume("caches");
    ConnectionMemory memory = new_memory();
    Created given, direct, kept;
    {
      FakeKernel kernel(1);
      auto front = begin(volume, kernel, memory);
      given = created_by(kernel.ask(1, create_message(4, "given", O_RDWR)));
      direct = created_by(kernel.ask(1, create_message(6, "direct", O_RDWR | O_DIRECT)));
      kept = created_by(kernel.ask(1, create_message(8, "kept", O_RDWR)));
      REQUIRE(volume->release(ObjectId{given.node}, NodeId{9}));
      REQUIRE(volume->release(ObjectId{direct.node}, NodeId{9}));
      REQUIRE(volume->release(kNameSpace, NodeId{9}));
      end(kernel, std::move(front));
    }
    FakeKernel kernel(1);
    auto front = restart(volume, kernel, memory);
    front->wait_until_invalidated();
    std::vector<std::uint64_t> inodes;
    std::size_t names = 0;
    while (auto notice = kernel.answer(FakeKernel::kMain, 0)) {
      CHECK(notice->header.unique == 0);
      if (notice->header.error == FUSE_NOTIFY_INVAL_ENTRY) ++names;
      if (notice->header.error == FUSE_NOTIFY_INVAL_INODE)
        inodes.push_back(notice->as<fuse_notify_inval_inode_out>().ino);
    }
    CHECK(names == 3);
    CHECK(inodes == std::vector<std::uint64_t>{kRoot, given.node});
    end(kernel, std::move(front));
  }

  TEST_CASE("a flush that waits for a peer is given up when its process is gone, and only then") {
    ScratchVolume volume("flush");
    struct Silent : WaitingHooks {
      std::function<void(Result<>)> waits;
      void await_peers(GroupId, Lsn, std::function<void(Result<>)> done) override { waits = std::move(done); }
    } hooks;
    volume->set_hooks(&hooks);
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    auto front = begin(volume, kernel, memory);
    const Created file = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
    const auto fsync_by = [&](std::uint64_t unique, std::uint32_t process) {
      CHECK(kernel.ask(1, write_message(unique - 2, file, 0, "x")).header.error == 0);
      fuse_fsync_in body{};
      body.fh = file.handle;
      kernel.send(1, FakeKernel::message(FUSE_FSYNC, unique, file.node, body, {}, process));
      fuse_interrupt_in stop{};
      stop.unique = unique;
      kernel.send(1, FakeKernel::message(FUSE_INTERRUPT, unique | 1, 0, stop));
      CHECK(kernel.ask(1, read_message(unique + 2, file, 1)).body.size() == 1);
    };
    fsync_by(8, static_cast<std::uint32_t>(::getpid()));
    CHECK(comes_to_wait_for(memory, {8}));
    hooks.waits({});
    CHECK(kernel.answer(1)->header.unique == 8);

    constexpr std::uint32_t kNobody = 0x7ffffff0;
    CHECK(kernel.ask(1, write_message(14, file, 0, "y")).header.error == 0);
    fuse_fsync_in body{};
    body.fh = file.handle;
    kernel.send(1, FakeKernel::message(FUSE_FSYNC, 16, file.node, body, {}, kNobody));
    fuse_interrupt_in stop{};
    stop.unique = 16;
    kernel.send(1, FakeKernel::message(FUSE_INTERRUPT, 17, 0, stop));
    auto answer = kernel.answer(1);
    REQUIRE(answer);
    CHECK(answer->header.unique == 16);
    CHECK(answer->header.error == -EINTR);
    CHECK(comes_to_wait_for(memory, {}));
    hooks.waits({});  // too late: nobody is answered twice
    hooks.waits = nullptr;
    CHECK(text_of(kernel.ask(1, read_message(18, file, 10))) == "y");
    end(kernel, std::move(front));
    front.reset();
    volume->set_hooks(nullptr);
  }

  TEST_CASE("an append goes to the end as it is, wherever the kernel takes that to be") {
    ScratchVolume volume("append");
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    auto front = begin(volume, kernel, memory);
    const Created file = created_by(kernel.ask(1, create_message(4, "log", O_RDWR | O_APPEND | O_DIRECT)));
    const auto write_with = [&](std::uint64_t unique, std::uint32_t flags, std::uint64_t offset, const char* text) {
      fuse_write_in body{};
      body.fh = file.handle;
      body.offset = offset;
      body.size = static_cast<std::uint32_t>(std::strlen(text));
      body.flags = flags;
      CHECK(kernel.ask(1, FakeKernel::message(FUSE_WRITE, unique, file.node, body, text)).header.error == 0);
    };
    write_with(6, O_RDWR | O_APPEND, 0, "one ");
    write_with(8, O_RDWR | O_APPEND, 0, "two ");
    write_with(10, O_RDWR | O_APPEND, 100, "three");
    write_with(12, O_RDWR, 0, "ONE");  // fcntl(F_SETFL) has taken it away
    CHECK(text_of(kernel.ask(1, read_message(14, file, 100))) == "ONE two three");
    end(kernel, std::move(front));
  }

  TEST_CASE("handles through the page cache and past it exclude each other on the owner") {
    ScratchVolume volume("kinds");
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    auto front = begin(volume, kernel, memory);
    constexpr std::uint32_t kPast = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
    std::uint64_t unique = 4;
    const auto next = [&] { return unique += 2; };
    const Created first = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
    const auto open = [&](std::uint32_t flags) { return opened_by(first, kernel.ask(1, open_message(next(), first, flags))); };
    const auto close = [&](const Created& file) {
      CHECK(kernel.ask(1, release_message(next(), file)).header.error == 0);
    };
    CHECK(first.open_flags == FOPEN_KEEP_CACHE);
    const Created again = open(O_RDONLY);
    CHECK(again.open_flags == FOPEN_KEEP_CACHE);
    const Created beside = open(O_RDWR | O_DIRECT);  // the kernel's own direct writes keep its pages right
    CHECK(beside.open_flags == FOPEN_KEEP_CACHE);
    const Created reading = open(O_RDONLY | O_DIRECT);  // else a mapping of it would drop what is being written
    CHECK(reading.open_flags == FOPEN_KEEP_CACHE);
    close(first), close(again), close(beside), close(reading);

    const Created reader = open(O_RDONLY | O_DIRECT);
    CHECK(reader.open_flags == kPast);
    const Created second = open(O_RDONLY);  // likewise
    CHECK(second.open_flags == kPast);
    close(second), close(reader);
    const Created cached = open(O_RDONLY);  // but nobody has changed anything past the pages
    CHECK(cached.open_flags == FOPEN_KEEP_CACHE);
    close(cached);
    CHECK_FALSE(kernel.answer(FakeKernel::kMain, 0));
    const Created writer = open(O_RDWR | O_DIRECT);
    CHECK(writer.open_flags == kPast);
    const Created guest = open(O_RDONLY);
    CHECK(guest.open_flags == kPast);
    CHECK(kernel.ask(1, write_message(next(), writer, 0, "past the cache")).header.error == 0);
    close(writer), close(guest);
    CHECK_FALSE(kernel.answer(FakeKernel::kMain, 0));
    const Created after = open(O_RDONLY);
    CHECK(after.open_flags == FOPEN_KEEP_CACHE);
    auto notice = kernel.answer(FakeKernel::kMain, 0);  // what was cached before that writer is not to be seen
    REQUIRE(notice);
    CHECK(notice->header.error == FUSE_NOTIFY_INVAL_INODE);
    CHECK(notice->as<fuse_notify_inval_inode_out>().ino == first.node);
    CHECK(notice->as<fuse_notify_inval_inode_out>().len == 0);
    CHECK(open(O_RDONLY).open_flags == FOPEN_KEEP_CACHE);
    CHECK_FALSE(kernel.answer(FakeKernel::kMain, 0));
    end(kernel, std::move(front));
  }

  TEST_CASE("no open is answered before the kernel's old pages are gone, and then they go no more") {
    ScratchVolume volume("old-pages");
    ConnectionMemory memory = new_memory();
    Created file;
    std::promise<void> go, go_again;
    const auto open_while_held = [&](FakeKernel& kernel, Front& front, std::promise<void>& gate) {
      front.when_invalidated([&gate] { gate.get_future().wait(); });
      kernel.send(1, open_message(10, file, O_RDWR));
      kernel.send(1, open_message(12, file, O_RDWR));
      // One thread serves them all: what it does next, it does after those.
      CHECK(kernel.ask(1, FakeKernel::message(FUSE_STATFS, 14, kRoot, 0)).header.error == 0);
      CHECK(comes_to_wait_for(memory, {10, 12}));
    };
    {
      FakeKernel kernel(1);
      auto front = begin(volume, kernel, memory);
      file = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
      CHECK(kernel.ask(1, release_message(6, file)).header.error == 0);
      end(kernel, std::move(front));
    }
    {
      FakeKernel kernel(1);
      auto front = restart(volume, kernel, memory);  // what this one knows of the pages is nothing
      open_while_held(kernel, *front, go);
      CHECK_FALSE(kernel.answer(FakeKernel::kMain, 0));
      // It ends before it has dropped them.
      REQUIRE(front->drain(0));
      CHECK(front->wait() == Front::End::kDrained);
      front->answer_no_more();
      go.set_value();
    }
    FakeKernel kernel(1);
    auto front = restart(volume, kernel, memory);
    front->when_invalidated([&] { go_again.get_future().wait(); });
    kernel.send(1, resent(open_message(12, file, O_RDWR)));
    kernel.send(1, resent(open_message(10, file, O_RDWR)));
    CHECK(kernel.ask(1, FakeKernel::message(FUSE_STATFS, 16, kRoot, 0)).header.error == 0);
    CHECK_FALSE(kernel.answer(FakeKernel::kMain, 0));
    go_again.set_value();
    for (const std::uint64_t unique : {12, 10}) {
      auto answer = kernel.answer(1);
      REQUIRE(answer);
      CHECK(answer->header.unique == (unique | kUniqueResend));
      CHECK(opened_by(file, *answer).open_flags == FOPEN_KEEP_CACHE);
    }
    front->wait_until_invalidated();
    auto notice = kernel.answer(FakeKernel::kMain, 0);
    REQUIRE(notice);
    CHECK(notice->as<fuse_notify_inval_inode_out>().ino == file.node);
    CHECK_FALSE(kernel.answer(FakeKernel::kMain, 0));  // once for both
    CHECK(front->statistics().open_handles == 2);
    CHECK(comes_to_wait_for(memory, {}));
    end(kernel, std::move(front));
  }

  TEST_CASE("an asynchronous write with O_DIRECT beside cached handles leaves no page from before it") {
    ScratchVolume volume("beside");
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    auto front = begin(volume, kernel, memory);
    const Created cached = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
    const Created beside = opened_by(cached, kernel.ask(1, open_message(6, cached, O_RDWR | O_DIRECT)));
    CHECK(beside.open_flags == FOPEN_KEEP_CACHE);
    const auto write = [&](std::uint64_t unique, std::uint32_t flags, std::uint32_t write_flags) {
      fuse_write_in body{};
      body.fh = beside.handle;
      body.offset = 8192;
      body.size = 4;
      body.flags = flags;
      body.write_flags = write_flags;
      CHECK(kernel.ask(1, FakeKernel::message(FUSE_WRITE, unique, cached.node, body, "page")).header.error == 0);
    };
    write(8, O_RDWR, 0);  // fcntl(F_SETFL) has taken it away
    write(10, O_RDWR | O_DIRECT, FUSE_WRITE_CACHE);  // from a mapping
    CHECK_FALSE(kernel.answer(FakeKernel::kMain, 0));
    write(12, O_RDWR | O_DIRECT, 0);
    auto notice = kernel.answer(FakeKernel::kMain, 0);  // it came before the answer
    REQUIRE(notice);
    CHECK(notice->as<fuse_notify_inval_inode_out>().off == 8192);
    CHECK(notice->as<fuse_notify_inval_inode_out>().len == 4);
    CHECK(comes_to_wait_for(memory, {}));
    end(kernel, std::move(front));
  }

  TEST_CASE("a write with O_DSYNC or O_SYNC is answered when it is durable, and the peers have been waited for") {
    ScratchVolume volume("synced");
    struct Counting : WaitingHooks {
      std::atomic<int> asked = 0;
      void await_peers(GroupId, Lsn, std::function<void(Result<>)> done) override {
        ++asked;
        done({});
      }
    } hooks;
    volume->set_hooks(&hooks);
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    auto front = begin(volume, kernel, memory);
    const Created file = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
    std::uint64_t unique = 6;
    for (const std::uint32_t flags : {0, O_DSYNC, O_SYNC}) {
      CAPTURE(flags);
      hooks.asked = 0;
      fuse_write_in body{};
      body.fh = file.handle;
      body.size = 4;
      body.flags = O_RDWR | flags;
      CHECK(kernel.ask(1, FakeKernel::message(FUSE_WRITE, unique, file.node, body, "page")).header.error == 0);
      unique += 2;
      CHECK(hooks.asked == (flags != 0 ? 1 : 0));
      if (flags != 0) CHECK(volume->journal().durable_lsn() >= volume->journal().written_lsn());
    }
    end(kernel, std::move(front));
    front.reset();
    volume->set_hooks(nullptr);
  }

  TEST_CASE("peers that confirm a direct write after the front has gone disturb nobody") {
    ScratchVolume volume("late");
    struct Silent : WaitingHooks {
      std::function<void(Result<>)> waits;
      void await_peers(GroupId, Lsn, std::function<void(Result<>)> done) override { waits = std::move(done); }
    } hooks;
    volume->set_hooks(&hooks);
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    auto front = begin(volume, kernel, memory);
    const Created cached = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
    const Created beside = opened_by(cached, kernel.ask(1, open_message(6, cached, O_RDWR | O_DIRECT)));
    fuse_write_in body{};
    body.fh = beside.handle;
    body.size = 4;
    body.flags = O_RDWR | O_DIRECT | O_DSYNC;
    kernel.send(1, FakeKernel::message(FUSE_WRITE, 8, cached.node, body, "page"));
    CHECK(kernel.ask(1, read_message(10, cached, 10)).header.error == 0);
    end(kernel, std::move(front));
    front.reset();
    REQUIRE(hooks.waits);
    hooks.waits({});
    hooks.waits = nullptr;
    CHECK(memory.unanswered() == std::vector<std::uint64_t>{8});
    volume->set_hooks(nullptr);
  }

  TEST_CASE("what a parked write locks stays locked while it waits for peers, and can be given up there") {
    ScratchVolume volume("locked");
    struct Silent : WaitingHooks {
      std::function<void(Result<>)> waits;
      void await_peers(GroupId, Lsn, std::function<void(Result<>)> done) override { waits = std::move(done); }
    } hooks;
    volume->set_hooks(&hooks);
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    auto front = begin(volume, kernel, memory);
    const Created file = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
    const ObjectId object{file.node};
    const auto notices = [&] {
      front->wait_until_invalidated();
      std::vector<std::int64_t> offsets;
      while (auto notice = kernel.answer(FakeKernel::kMain, 0))
        offsets.push_back(notice->as<fuse_notify_inval_inode_out>().off);
      return offsets;
    };
    const auto park_and_retry = [&](std::uint64_t unique, std::uint32_t process, bool interrupted) {
      volume->set_gate(object, Gate::kSecondary);
      fuse_write_in body{};
      body.fh = file.handle;
      body.size = 4;
      body.flags = O_RDWR | O_DSYNC;
      kernel.send(1, FakeKernel::message(FUSE_WRITE, unique, file.node, body, "page", process));
      CHECK(kernel.ask(1, FakeKernel::message(FUSE_STATFS, unique + 2, kRoot, 0)).header.error == 0);
      front->invalidate_image(object);
      CHECK(notices() == std::vector<std::int64_t>{4096});
      volume->set_gate(object, Gate::kOpen);
      volume->reopen(object);
      while (volume->run_parked()) {
      }
      fuse_interrupt_in stop{};
      stop.unique = unique;
      if (interrupted) kernel.send(1, FakeKernel::message(FUSE_INTERRUPT, unique | 1, 0, stop));
    };
    park_and_retry(6, static_cast<std::uint32_t>(::getpid()), false);
    REQUIRE(hooks.waits);
    CHECK(notices().empty());
    std::exchange(hooks.waits, nullptr)({});
    CHECK(kernel.answer(1)->header.unique == 6);
    CHECK(comes_to_wait_for(memory, {}));
    CHECK(notices() == std::vector<std::int64_t>{0});

    constexpr std::uint32_t kNobody = 0x7ffffff0;
    park_and_retry(10, kNobody, true);
    auto answer = kernel.answer(1);
    REQUIRE(answer);
    CHECK(answer->header.unique == 10);
    CHECK(answer->header.error == -EINTR);
    CHECK(comes_to_wait_for(memory, {}));
    CHECK(notices() == std::vector<std::int64_t>{0});
    REQUIRE(hooks.waits);
    std::exchange(hooks.waits, nullptr)({});  // too late
    end(kernel, std::move(front));
    front.reset();
    volume->set_hooks(nullptr);
  }

  TEST_CASE("a direct write takes out of the page cache what handles from an earlier ownership may have brought back") {
    for (const std::uint32_t flags : {std::uint32_t{O_RDWR}, std::uint32_t{O_RDWR | O_DSYNC}}) {
      ScratchVolume volume("shared");
      ConnectionMemory memory = new_memory();
      FakeKernel kernel(1);
      auto front = begin(volume, kernel, memory);
      const Created cached = created_by(kernel.ask(1, create_message(4, "disk", O_RDWR)));
      const ObjectId object{cached.node};
      REQUIRE(volume->release(object, volume->node()));
      const Created direct = opened_by(cached, kernel.ask(1, open_message(6, cached, flags)));
      CHECK((direct.open_flags & FOPEN_DIRECT_IO) != 0);
      REQUIRE(volume->take(object, EpochCause::kTaken));
      volume->set_gate(object, Gate::kOpen);
      CHECK_FALSE(kernel.answer(FakeKernel::kMain, 0));
      fuse_write_in body{};
      body.fh = direct.handle;
      body.offset = 4096;
      body.size = 7;
      body.flags = flags;
      const auto answer = kernel.ask(1, FakeKernel::message(FUSE_WRITE, 10, direct.node, body, "past it"));
      CHECK(answer.as<fuse_write_out>().size == 7);
      auto notice = kernel.answer(FakeKernel::kMain, 0);  // it came before the answer
      REQUIRE(notice);
      CHECK(notice->header.error == FUSE_NOTIFY_INVAL_INODE);
      const auto what = notice->as<fuse_notify_inval_inode_out>();
      CHECK(what.ino == cached.node);
      CHECK(what.off == 4096);
      CHECK(what.len == 7);
      CHECK(comes_to_wait_for(memory, {}));
      end(kernel, std::move(front));
    }
  }

  TEST_CASE("a direct write by somebody without the right to them takes the set-id bits away") {
    ScratchVolume volume("setid");
    ConnectionMemory memory = new_memory();
    FakeKernel kernel(1);
    auto front = begin(volume, kernel, memory);
    const Created file = created_by(kernel.ask(1, create_message(4, "tool", O_RDWR | O_DIRECT)));
    const ObjectId object{file.node};
    REQUIRE(volume->set_attributes({}, object, {.set = {.permissions = 06775}, .size = {}}));
    const auto write_with = [&](std::uint64_t unique, std::uint32_t write_flags) {
      fuse_write_in body{};
      body.fh = file.handle;
      body.size = 1;
      body.write_flags = write_flags;
      const Bytes message = FakeKernel::message(FUSE_WRITE, unique, file.node, body, "x");
      CHECK(kernel.ask(1, message).header.error == 0);
    };
    write_with(6, 0);
    CHECK(volume->attributes(object)->stat.permissions == 06775);
    write_with(8, FUSE_WRITE_KILL_SUIDGID);
    CHECK(volume->attributes(object)->stat.permissions == 0775);
    // Without execution by the group that bit means a lock, and stays.
    REQUIRE(volume->set_attributes({}, object, {.set = {.permissions = 02664}, .size = {}}));
    write_with(10, FUSE_WRITE_KILL_SUIDGID);
    CHECK(volume->attributes(object)->stat.permissions == 02664);
    end(kernel, std::move(front));
  }
}

}  // namespace
}  // namespace vmfs
