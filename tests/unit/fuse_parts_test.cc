// The front's parts by themselves.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <set>
#include <thread>

#include "fs/fuse/directories.h"
#include "fs/fuse/invalidator.h"
#include "fs/fuse/kernel.h"
#include "fs/fuse/open_table.h"
#include "fs/fuse/reply.h"
#include "fs/fuse/request.h"

namespace vmfs {
namespace {

std::shared_ptr<ParkedRequest> parked_write(std::uint64_t unique, std::uint64_t image,
                                            std::uint64_t offset, std::uint64_t length) {
  auto request = std::make_shared<ParkedRequest>();
  request->context.unique = unique;
  request->image = image;
  request->offset = offset;
  request->length = length;
  return request;
}

// Notes what it is asked, and lets the asker wait where the test says.
struct NotingKernel : Invalidator::Kernel {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> asked;
  std::string stuck_at, stuck_too;  // what waits

  void note(const std::string& what) {
    std::unique_lock lock(mutex);
    asked.push_back(what);
    changed.notify_all();
    changed.wait(lock, [&] { return what != stuck_at && what != stuck_too; });
  }
  void forget_pages(ObjectId image, PageRange range) override {
    note(fmt::format("pages {} {}+{}", raw(image), range.offset, range.length));
  }
  void forget_attributes(ObjectId object) override {
    note(fmt::format("attributes {}", raw(object)));
  }
  void forget_name(ObjectId parent, const std::string& name) override {
    note(fmt::format("name {}/{}", raw(parent), name));
  }
  void each_directory(
      const std::function<void(ObjectId, const std::vector<std::string>&)>& visit) override {
    visit(kRootObject, {"a", "b"});
    visit(ObjectId{9}, {"c"});
    visit(ObjectId{10}, {});
  }
  void release() {
    std::lock_guard lock(mutex);
    stuck_at.clear(), stuck_too.clear();
    changed.notify_all();
  }
  void wait_for(const std::string& what) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return std::find(asked.begin(), asked.end(), what) != asked.end(); });
  }
};

void wait_until_done(Invalidator& invalidator) {
  std::promise<void> done;
  invalidator.then([&] { done.set_value(); });
  done.get_future().wait();
}

TEST_SUITE("fuse parts") {
  TEST_CASE("the connection's memory is the same for whoever maps it") {
    auto memory = ConnectionMemory::create(ConnectionId{5});
    REQUIRE(memory);
    memory->store_init(as_bytes("request"), as_bytes("reply"));
    memory->header().slots_used.store(3);
    memory->slots()[2].store(8);
    memory->slots()[0].store(9);
    auto other = ConnectionMemory::map(::dup(memory->descriptor()));
    REQUIRE(other);
    CHECK(other->header().connection == 5);
    CHECK(other->init_request().size() == 7);
    CHECK(other->init_reply().size() == 5);
    CHECK(other->unanswered() == std::vector<std::uint64_t>{8, 9});
    CHECK(other->is_unanswered(8));
    CHECK_FALSE(other->is_unanswered(10));
    memory->header().version = kConnectionVersion + 1;
    CHECK_FALSE(ConnectionMemory::map(::dup(memory->descriptor())));
    CHECK_FALSE(ConnectionMemory::map(::dup(STDERR_FILENO)));
  }

  TEST_CASE("a connection's memory that contradicts itself is refused") {
    auto memory = ConnectionMemory::create(ConnectionId{5});
    REQUIRE(memory);
    ConnectionHeader& header = memory->header();
    const auto refused = [&] {
      auto mapped = ConnectionMemory::map(::dup(memory->descriptor()));
      REQUIRE_FALSE(mapped);
      CHECK(mapped.error().kind == ErrorKind::kCorrupt);
      CHECK(mapped.error().message.find("mount again") != std::string::npos);
    };
    header.slots_used.store(ConnectionMemory::kSlotMax + 1);
    refused();
    header.slots_used.store(0);
    header.opens_used.store(ConnectionMemory::kOpenMax + 1);
    refused();
    header.opens_used.store(0);
    header.open_count -= 1;
    refused();
    // As large as it says, and more than a table of handles has places for.
    header.open_count = ConnectionMemory::kOpenMax + 1;
    struct stat status {};
    REQUIRE(::fstat(memory->descriptor(), &status) == 0);
    REQUIRE(::ftruncate(memory->descriptor(), status.st_size + static_cast<off_t>(sizeof(OpenEntry))) == 0);
    refused();
    header.open_count = ConnectionMemory::kOpenMax;
    REQUIRE(::ftruncate(memory->descriptor(), status.st_size) == 0);
    CHECK(ConnectionMemory::map(::dup(memory->descriptor())));
  }

  TEST_CASE("slots that an earlier daemon left stay until claimed") {
    auto memory = ConnectionMemory::create(ConnectionId{5});
    REQUIRE(memory);
    memory->header().slots_used.store(3);
    memory->slots()[1].store(40);
    SlotTable slots(*memory);
    const std::uint32_t mine = slots.acquire();
    slots.note(mine, 42);
    for (int i = 0; i < 5; ++i) CHECK(slots.acquire() != 1);
    CHECK(memory->unanswered() == std::vector<std::uint64_t>{40, 42});
    CHECK(slots.claim_left(41) == SlotTable::kNone);
    const std::uint32_t left = slots.claim_left(40);
    CHECK(left == 1);
    CHECK(slots.claim_left(40) == SlotTable::kNone);
    slots.release(left);
    slots.release(mine);
    CHECK(memory->unanswered().empty());
  }

  TEST_CASE("a listing has stable positions, and goes on in another listing") {
    std::vector<ListedEntry> entries;
    for (int i = 0; i < 1000; ++i)
      entries.push_back({"entry" + std::to_string(i), ObjectId{100u + unsigned(i)}, FileType::kRegular});
    Listing listing(entries);
    REQUIRE(listing.entries().size() == 1000);
    CHECK(listing.after(Listing::kParent) == 0);
    for (std::size_t i = 0; i < 1000; ++i) {
      CHECK(listing.after(listing.entries()[i].position) == i + 1);
      CHECK(listing.entries()[i].position > Listing::kParent);
      CHECK(static_cast<std::int64_t>(listing.entries()[i].position) > 0);
    }
    // Half of them go, others come: the rest of the old listing is in the new one, each once.
    const std::uint64_t middle = listing.entries()[499].position;
    std::set<std::string> rest;
    for (std::size_t i = 500; i < 1000; ++i) rest.insert(listing.entries()[i].name);
    for (int i = 0; i < 500; ++i)
      entries.push_back({"new" + std::to_string(i), ObjectId{5000u + unsigned(i)}, FileType::kRegular});
    Listing later(entries);
    for (std::size_t i = later.after(middle); i < later.entries().size(); ++i)
      rest.erase(later.entries()[i].name);
    CHECK(rest.empty());
  }

  TEST_CASE("pages that parked writes hold are left out, and follow") {
    NotingKernel kernel;
    ParkedTable parked;
    auto first = parked_write(2, 7, 5000, 100), second = parked_write(4, 7, 20480, 4096);
    parked.add(first);
    parked.add(second);
    Invalidator invalidator(kernel, parked);
    invalidator.image(ObjectId{7});
    invalidator.image(ObjectId{8});
    wait_until_done(invalidator);
    CHECK(kernel.asked == std::vector<std::string>{"pages 7 0+4096", "pages 7 8192+12288",
                                                   "pages 7 24576+0", "pages 8 0+0"});
    kernel.asked.clear();
    parked.remove(*first);
    invalidator.was_answered(*first);
    wait_until_done(invalidator);
    CHECK(kernel.asked == std::vector<std::string>{"pages 7 4096+4096"});
    kernel.asked.clear();
    parked.remove(*second);
    invalidator.was_answered(*second);
    invalidator.was_answered(*first);  // nothing is left
    wait_until_done(invalidator);
    CHECK(kernel.asked == std::vector<std::string>{"pages 7 20480+4096"});
  }

  TEST_CASE("a range is left out and follows only where parked writes hold it") {
    NotingKernel kernel;
    ParkedTable parked;
    auto first = parked_write(2, 7, 4096, 4096), second = parked_write(4, 7, 8192, 4096);
    auto elsewhere = parked_write(6, 7, 1 << 20, 4096);
    for (const auto& write : {first, second, elsewhere}) parked.add(write);
    Invalidator invalidator(kernel, parked);
    invalidator.pages(ObjectId{7}, {100, 10'000});
    invalidator.pages(ObjectId{7}, {40'000, 4096});
    wait_until_done(invalidator);
    CHECK(kernel.asked == std::vector<std::string>{"pages 7 100+3996", "pages 7 40000+4096"});
    kernel.asked.clear();
    parked.remove(*elsewhere);
    invalidator.was_answered(*elsewhere);
    wait_until_done(invalidator);
    CHECK(kernel.asked.empty());
    parked.remove(*first);
    invalidator.was_answered(*first);
    invalidator.pages(ObjectId{7}, {8192, 100});
    wait_until_done(invalidator);
    CHECK(kernel.asked == std::vector<std::string>{"pages 7 4096+4096"});
    kernel.asked.clear();
    parked.remove(*second);
    invalidator.was_answered(*second);
    wait_until_done(invalidator);
    CHECK(kernel.asked == std::vector<std::string>{"pages 7 8192+1908"});
  }

  TEST_CASE("names in a directory that a parked request locks follow, too") {
    NotingKernel kernel;
    ParkedTable parked;
    auto create = std::make_shared<ParkedRequest>();
    create->context.unique = 2;
    create->directories[0] = 1;
    parked.add(create);
    Invalidator invalidator(kernel, parked);
    invalidator.names();
    wait_until_done(invalidator);
    CHECK(kernel.asked == std::vector<std::string>{"attributes 1", "attributes 9", "name 9/c", "attributes 10"});
    kernel.asked.clear();
    parked.remove(*create);
    invalidator.was_answered(*create);
    wait_until_done(invalidator);
    CHECK(std::count(kernel.asked.begin(), kernel.asked.end(), "name 1/a") == 1);
    CHECK(std::count(kernel.asked.begin(), kernel.asked.end(), "name 1/b") == 1);
  }

  TEST_CASE("a request that parks while the kernel is being asked does not hold up the rest") {
    NotingKernel kernel;
    ParkedTable parked;
    auto write = parked_write(2, 7, 0, 4096);
    {
      Invalidator invalidator(kernel, parked);
      {
        std::lock_guard lock(kernel.mutex);
        kernel.stuck_at = "pages 7 0+0";
      }
      invalidator.image(ObjectId{7});
      kernel.wait_for("pages 7 0+0");
      invalidator.name(ObjectId{3}, "x");
      parked.add(write);
      invalidator.was_parked(*write);
      wait_until_done(invalidator);  // would wait for ever
      CHECK(invalidator.threads_waiting() == 1);
      CHECK(kernel.asked ==
            std::vector<std::string>{"pages 7 0+0", "pages 7 4096+0", "name 3/x", "attributes 3"});
      // Answering the write lets the page go.
      parked.remove(*write);
      invalidator.was_answered(*write);
      kernel.release();
      wait_until_done(invalidator);
      CHECK(kernel.asked.back() == "pages 7 0+4096");
    }
  }

  TEST_CASE("what is dropped counts as dropped only then, whatever else is parked on the image") {
    NotingKernel kernel;
    ParkedTable parked;
    kernel.stuck_at = "pages 7 0+8192";  // for something that will get through
    Invalidator invalidator(kernel, parked);
    invalidator.pages(ObjectId{7}, {0, 8192});
    kernel.wait_for("pages 7 0+8192");
    std::atomic<bool> done{false};
    std::promise<void> told;
    invalidator.then([&] {
      done.store(true);
      told.set_value();
    });
    auto apart = parked_write(2, 7, 8192, 4096);
    parked.add(apart);
    invalidator.was_parked(*apart);
    CHECK(invalidator.threads_waiting() == 0);
    // One that holds the first page: another thread does the rest, and waits for the same thing.
    {
      std::lock_guard lock(kernel.mutex);
      kernel.stuck_too = "pages 7 4096+4096";
    }
    auto first = parked_write(4, 7, 0, 4096);
    parked.add(first);
    invalidator.was_parked(*first);
    kernel.wait_for("pages 7 4096+4096");
    CHECK(invalidator.threads_waiting() == 1);
    CHECK_FALSE(done.load());
    kernel.release();
    told.get_future().wait();
    parked.remove(*first);
    invalidator.was_answered(*first);
    wait_until_done(invalidator);
    CHECK(kernel.asked == std::vector<std::string>{"pages 7 0+8192", "pages 7 4096+4096", "pages 7 0+4096"});
  }

  TEST_CASE("a page that comes from a mapping is held, also by a handle without page cache") {
    fuse_in_header header{};
    header.opcode = FUSE_WRITE;
    header.nodeid = 7;
    fuse_write_in body{};
    body.offset = 8192;
    body.size = 4096;
    for (bool from_cache : {false, true}) {
      body.write_flags = from_cache ? FUSE_WRITE_CACHE : 0;
      ParkedRequest request;
      request.message.resize(sizeof header + sizeof body);
      std::memcpy(request.message.data(), &header, sizeof header);
      std::memcpy(request.message.data() + sizeof header, &body, sizeof body);
      describe_locks(request, /*direct=*/true, {});
      CHECK(request.image == (from_cache ? 7u : 0u));
      CHECK(request.length == (from_cache ? 4096u : 0u));
    }
  }

  TEST_CASE("a directory that is moved, replaced or removed is locked beside those that it is in") {
    const auto locked = [](std::uint32_t opcode, ByteView body, std::string_view names) {
      fuse_in_header header{};
      header.opcode = opcode;
      header.nodeid = 7;
      ParkedRequest request;
      Writer(request.message).bytes(std::as_bytes(std::span(&header, 1))).bytes(body).bytes(as_bytes(names));
      describe_locks(request, false, [](std::uint64_t parent, std::string_view name) -> std::uint64_t {
        return name == "d" ? parent * 10 : name == "e" ? parent * 10 + 1 : 0;
      });
      return std::vector<std::uint64_t>(std::begin(request.directories), std::end(request.directories));
    };
    using Ids = std::vector<std::uint64_t>;
    fuse_rename_in rename{};
    fuse_rename2_in rename2{};
    rename.newdir = rename2.newdir = 8;
    const ByteView body = std::as_bytes(std::span(&rename, 1)), body2 = std::as_bytes(std::span(&rename2, 1));
    using namespace std::string_view_literals;
    CHECK(locked(FUSE_RENAME, body, "d\0e\0"sv) == Ids{7, 8, 70, 81});
    CHECK(locked(FUSE_RENAME2, body2, "d\0e\0"sv) == Ids{7, 8, 70, 81});
    CHECK(locked(FUSE_RENAME2, body2, "image\0e\0"sv) == Ids{7, 8, 0, 81});
    CHECK(locked(FUSE_RMDIR, {}, "d\0"sv) == Ids{7, 0, 70, 0});
    CHECK(locked(FUSE_UNLINK, {}, "d\0"sv) == Ids{7, 0, 0, 0});
    // Cut off: no name.
    CHECK(locked(FUSE_RENAME, body, "d"sv) == Ids{7, 8, 70, 0});
    CHECK(locked(FUSE_RENAME, body, ""sv) == Ids{7, 8, 0, 0});
  }

  TEST_CASE("errors become numbers at this edge only") {
    CHECK(error_number({ErrorKind::kIo, ENOSPC, {}}) == ENOSPC);
    CHECK(error_number({ErrorKind::kCorrupt, 0, {}}) == EIO);
    CHECK(error_number({ErrorKind::kReadOnly, 0, {}}) == EROFS);
    CHECK(error_number({ErrorKind::kBusy, 0, {}}) == EBUSY);
  }

  TEST_CASE("whether the right to write was given away is told by the history") {
    const NodeId self{1}, other{2};
    auto epoch = [](std::uint64_t id, NodeId node) {
      EpochEntry entry;
      entry.epoch = EpochId{id};
      entry.node = node;
      return entry;
    };
    GroupState group;
    group.history = {epoch(10, self), epoch(11, self)};
    group.owner = self;
    CHECK(epoch_mark(group) == 11);
    CHECK_FALSE(gave_away_since(group, 10, self));
    CHECK_FALSE(gave_away_since(group, 11, self));
    group.owner = {};  // released, not yet taken
    CHECK(gave_away_since(group, 10, self));
    CHECK(gave_away_since(group, 11, self));
    CHECK_FALSE(gave_away_since(group, 0, self));  // an older program did not note it
    group.history.push_back(epoch(12, other));
    group.owner = other;
    CHECK(gave_away_since(group, 11, self));
    CHECK_FALSE(gave_away_since(group, 12, self));  // opened there, never had it
    group.history.push_back(epoch(13, self));
    group.owner = self;
    CHECK(gave_away_since(group, 11, self));
    CHECK_FALSE(gave_away_since(group, 12, self));
    CHECK(gave_away_since(group, 9, self));  // before all that is remembered
  }
}

}  // namespace
}  // namespace vmfs
