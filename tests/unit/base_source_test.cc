// A copy of a group through the stream, step by step: what passes while the copy is prepared is not lost.
#include "net/replication/base_source.h"

#include <deque>

#include "net/replication/sender.h"
#include "net/wire/records.h"
#include "tests/unit/volume_stream.h"

namespace vmfs::test {
namespace {

// Blocking work is done when the test says so, and what follows it when the test says so again: between the two the
// node's thread may do anything.
class SteppedShell : public Shell {
 public:
  void post(std::function<void()> f) override { posted.push_back(std::move(f)); }
  void wake_at(std::int64_t) override {}
  void run_blocking(Lane, std::function<void()> work, std::function<void()> done) override {
    works.push_back(std::move(work));
    dones.push_back(std::move(done));
  }
  void dial(const std::string&, LinkEvents&, std::function<void(Result<std::unique_ptr<Link>>)>) override {
    FAIL("nobody is to be called");
  }
  void work() { take(works)(); }
  void done() { take(dones)(); }
  bool idle() const { return works.empty(); }

 private:
  static std::function<void()> take(std::deque<std::function<void()>>& queue) {
    REQUIRE_FALSE(queue.empty());
    auto first = std::move(queue.front());
    queue.pop_front();
    return first;
  }
  std::deque<std::function<void()>> posted, works, dones;
};

// One node's end of the stream to a peer, and the peer's volume at the other.
struct Copying : Sender::Events, BaseSource::Events {
  Copying()
      : from(1, kA),
        to(2, kB, true),
        image(from.create("web.img")),
        sender(*from, from.clock, *this, 0),
        copies(*from, shell, from.clock, sender, *this, [] { return 0; }) {
    auto handle = from.open_image(image);
    from.write(*handle, 0, "before");
    base_copy(from, to, kNameSpace);
    guest = std::move(handle);
  }
  void send_frame(Bytes frame) override { frames.push_back(std::move(frame)); }
  std::size_t unsent_bytes() override { return 0; }
  void needs_copy(GroupId, const char* why) override { asked_again.emplace_back(why); }
  void copy_begun(GroupId, bool) override { ++begun; }
  void copy_advanced() override { pump(); }
  void copy_finished(GroupId, Result<> result) override { outcome = std::move(result); }

  void pump() { REQUIRE(sender.pump(from->journal().written_lsn(), false, 0)); }
  // As Node::Impl::needs_copy() does.
  void begin_copy() {
    BaseJob job;
    job.group = image;
    sender.positions().stop(image);
    sender.incomplete(image);
    copies.add(std::move(job));
    copies.advance();
  }
  // Until there is nothing to do without another event.
  void run() {
    for (;;) {
      pump();
      copies.advance();
      if (outcome || shell.idle()) return;
      shell.work();
      shell.done();
    }
  }
  // Gives the peer what was sent; what it then reads of the image.
  std::string arrived() {
    for (const Bytes& frame : frames) {
      auto records = decode_records(frame);
      REQUIRE_MESSAGE(records, (records ? "" : records.error().message));
      auto received = to->receive(records->records);
      REQUIRE_MESSAGE(received, (received ? "" : received.error().message));
    }
    publish(to);
    auto handle = to.open_image(image, false);
    return to.read(*handle, 0, 64);
  }

  VolumeHome from, to;
  const ObjectId image;
  SteppedShell shell;
  Sender sender;
  BaseSource copies;
  ObjectRef guest;
  std::vector<Bytes> frames;
  std::vector<std::string> asked_again;
  int begun = 0;
  std::optional<Result<>> outcome;
};

TEST_SUITE_BEGIN("replication");

TEST_CASE("a copy looks back at what passed between its position and its beginning") {
  Copying t;
  t.begin_copy();
  t.shell.work();  // the position is taken...
  t.from.write(*t.guest, 0, "passed");
  t.pump();  // ... and this record is passed over: the group is stopped
  REQUIRE(t.sender.position() == t.from->journal().written_lsn());
  REQUIRE(t.frames.empty());
  t.shell.done();
  t.run();
  // Nothing else is written: the copy ends by itself, at the first attempt.
  REQUIRE(t.outcome);
  CHECK(*t.outcome);
  CHECK(t.begun == 1);
  CHECK(t.asked_again.empty());
  CHECK(t.arrived() == "passed");
  CHECK_FALSE(t.to->group(t.image)->inconsistent);
  CHECK(t.to->group(t.image)->seq == t.from->group(t.image)->seq);
}

TEST_CASE("a copy after the journal was gone through from its oldest record looks back as well") {
  Copying t;
  // A gap that had been there: it was looked for in the whole journal once, which is not done again.
  t.sender.positions().set(t.image, {t.from->group(t.image)->history.back().epoch, 0});
  t.pump();
  t.frames.clear();
  t.begin_copy();
  t.shell.work();
  t.from.write(*t.guest, 0, "passed");
  t.pump();
  t.shell.done();
  t.from.write(*t.guest, 6, " on");
  t.run();
  REQUIRE(t.outcome);
  CHECK(*t.outcome);
  CHECK(t.begun == 1);
  CHECK(t.asked_again.empty());
  CHECK(t.arrived() == "passed on");
}

TEST_CASE("looking back ships what was passed over once, and nothing that had been shipped") {
  Copying t;
  const EpochId epoch = t.from->group(t.image)->history.back().epoch;
  t.sender.positions().set(t.image, {epoch, 0});
  t.pump();
  REQUIRE(t.frames.size() == 1);
  const Position shipped = *t.sender.positions().position(t.image);
  const Lsn from = t.from->journal().written_lsn();
  t.sender.positions().stop(t.image);
  t.from.write(*t.guest, 6, " two");
  t.pump();
  CHECK(t.frames.size() == 1);
  t.sender.positions().set(t.image, shipped);
  t.sender.look_back(from);
  // What is not confirmed any more is waited for again: a flush must not count on it.
  CHECK(t.sender.durable() <= from);
  t.pump();
  REQUIRE(t.frames.size() == 2);
  auto records = decode_records(t.frames.back());
  REQUIRE(records);
  REQUIRE(records->records.size() == 1);
  CHECK(records->records[0].header.seq == shipped.seq + 1);
  // Ahead there is nothing to look back at.
  t.sender.look_back(t.sender.position() + 1000);
  t.pump();
  CHECK(t.frames.size() == 2);
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs::test
