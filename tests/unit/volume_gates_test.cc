// A group's gate while two threads change it: what one of them decided before the other was done does not undo that.
#include <future>
#include <thread>

#include "tests/unit/volume_stream.h"

namespace vmfs::test {
namespace {

// Stops whoever releases a group in the middle: its gate is closed, its record is not in the journal yet.
class Held : public ReplicationHooks {
 public:
  Error may_not_change(GroupId, Gate) override {
    ++asked;
    return {ErrorKind::kWouldWait, EAGAIN, {}};
  }
  void written(Lsn) override {
    if (!armed.exchange(false)) return;
    reached.set_value();
    go_on.get_future().wait();
  }
  void await_peers(GroupId, Lsn, std::function<void(Result<>)> done) override { done({}); }
  bool backlog_full() override { return false; }
  std::atomic<bool> armed{false};
  std::atomic<int> asked{0};
  std::promise<void> reached, go_on;
};

// An image that is owned here, and whose release begins an epoch first.
struct Releasing {
  Releasing() : image(home.create("web.img")), guest(home.open_image(image)) {
    home.write(*guest, 0, "flushed");
    REQUIRE(home.flush(*guest));
    home->set_hooks(&hooks);
    home->begin_epochs(EpochCause::kPeerLost);
  }
  ~Releasing() { home->set_hooks(nullptr); }
  // Releases it on a thread of its own, and does `meanwhile` here while it is under way.
  Result<Lsn> release(const std::function<void()>& meanwhile) {
    hooks.armed = true;
    Result<Lsn> result = 0;
    std::thread releases([&] { result = home->release(image, NodeId{8}); });
    hooks.reached.get_future().wait();
    meanwhile();
    hooks.go_on.set_value();
    releases.join();
    return result;
  }
  Held hooks;
  VolumeHome home;
  const ObjectId image;
  ObjectRef guest;
};

TEST_SUITE_BEGIN("volume gates");

TEST_CASE("a group that is being released on another thread is neither opened nor held") {
  Releasing t;
  auto released = t.release([&] {
    REQUIRE(t.home->gate(t.image) == Gate::kReleasing);
    CHECK_FALSE(t.home->change_gate(t.image, Gate::kFrozen, Gate::kOpen));
    CHECK_FALSE(t.home->change_gate(t.image, Gate::kOpen, Gate::kFrozen));
    CHECK_FALSE(t.home->change_gate(t.image, Gate::kSuspended, Gate::kOpen));
    CHECK(t.home->gate(t.image) == Gate::kReleasing);
  });
  REQUIRE(released);
  CHECK(t.home->gate(t.image) == Gate::kSecondary);
}

TEST_CASE("what a thread saw of a group before it was released opens it no more") {
  Releasing t;
  // The order of a thaw: it sees who owns the group, and how its gate is; then it opens it.
  t.home->set_gate(t.image, Gate::kFrozen);
  const GroupState seen = *t.home->group(t.image);
  const Gate gate = t.home->gate(t.image);
  REQUIRE(seen.owner == NodeId{7});
  REQUIRE(t.release([] {}));
  CHECK_FALSE(t.home->change_gate(t.image, gate, Gate::kOpen));
  CHECK(t.home->gate(t.image) == Gate::kSecondary);
  const std::uint64_t seq = t.home->group(t.image)->seq;
  auto guest = t.home.open_image(t.image);
  auto refused = t.home->write(*guest, {}, 0, as_bytes("nobody's"));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().kind == ErrorKind::kWouldWait);
  CHECK(t.home->group(t.image)->seq == seq);
}

TEST_CASE("who writes while the group is handed over does not ask for it back") {
  Releasing t;
  Result<> written, zeroed;
  Result<Attributes> truncated{Attributes{}};
  std::vector<std::thread> writers;
  REQUIRE(t.release([&] {
    writers.emplace_back([&] { written = t.home->write(*t.guest, {}, 0, as_bytes("late")); });
    writers.emplace_back([&] { zeroed = t.home->zero(*t.guest, {}, 0, 1, true, false); });
    writers.emplace_back([&] {
      truncated = t.home->set_attributes({}, t.image, {.set = {}, .size = 1}, &*t.guest);
    });
    // They are at the lock that the release holds; one that comes later is refused as well.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }));
  for (std::thread& writer : writers) writer.join();
  CHECK(errno_of(written) == EIO);
  CHECK(errno_of(zeroed) == EIO);
  CHECK(errno_of(truncated) == EIO);
  CHECK(t.hooks.asked == 0);
}

TEST_CASE("what is opened is opened after all that was received of it, a removal too") {
  VolumeHome a(1, kA, false, true), b(2, kB, true, true);
  a->set_gate(kNameSpace, Gate::kOpen);
  const ObjectId kept = a.create("kept"), removed = a.create("removed");
  join(a, b);
  Stream to_b(a, b);
  to_b.skip_to_end();
  REQUIRE(a->unlink({}, kRootObject, "removed"));
  a.write(*a.open_image(kept), 0, "new");
  // It is in b's journal, which was not synced since.
  REQUIRE(to_b.receive());
  for (const ObjectId image : {kept, removed}) b->set_gate(image, Gate::kSuspended);
  REQUIRE(b->attributes(kept)->stat.size == 0);
  CHECK(b->change_gate(kept, Gate::kSuspended, Gate::kOpen));
  CHECK(b.read(*b.open_image(kept), 0, 10) == "new");
  CHECK_FALSE(b->change_gate(removed, Gate::kSuspended, Gate::kOpen));
  CHECK_FALSE(b->group(removed));
}

TEST_CASE("a release that has no room for its record leaves the gate as it was") {
  for (const Gate before : {Gate::kOpen, Gate::kFrozen}) {
    VolumeHome home;
    const ObjectId image = home.create("web.img");
    auto guest = home.open_image(image);
    // The peer's claim keeps all of the journal.
    home->set_peer({.id = NodeId{8}, .name = "b", .confirmed = 0, .present = true});
    const Bytes block(200'000);
    Result<> written;
    for (int i = 0; i < 200 && written; ++i) {
      written = home->write(*guest, {}, 0, block);
      (void)home->apply_some(true);
    }
    REQUIRE_FALSE(written);
    REQUIRE(written.error().kind == ErrorKind::kWouldWait);
    // And what is set aside for records such as these is used up too.
    do home->begin_epochs(EpochCause::kPeerLost);
    while (home->begin_epoch_if_due(image));
    home->set_gate(image, before);
    auto released = home->release(image, NodeId{8});
    REQUIRE_FALSE(released);
    CHECK(released.error().kind == ErrorKind::kWouldWait);
    CHECK(home->gate(image) == before);
    CHECK(home->group(image)->owner == NodeId{7});
  }
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs::test
