#include <algorithm>
#include <map>

#include "tests/unit/volume_stream.h"

namespace vmfs {
namespace {

using namespace test;

TEST_SUITE_BEGIN("volume groups");

std::string position(VolumeHome& home, GroupId group) {
  auto state = home->group(group);
  if (!state) return "none";
  if (state->history.empty()) return "empty";
  return fmt::format("{}/{}", state->history.back().epoch, state->seq);
}

TEST_CASE("a replica fed from the journal shows the same, and its store ends the same") {
  VolumeHome a(1, kA, false, true), b(2, kB, true, true);
  a->set_gate(kNameSpace, Gate::kOpen);
  join(a, b);
  Stream stream(a, b);
  stream.skip_to_end();
  sim::Random random(5);
  std::map<std::string, ObjectRef> open;
  ObjectId d = a->make_directory({}, kRootObject, "d", 0755)->object;
  for (int step = 0; step < 300; ++step) {
    a.clock.advance(1000);
    std::string name(1, static_cast<char>('a' + random.below(4)));
    if (!open.contains(name)) {
      auto made = a->create({}, d, name, 0600);
      REQUIRE(made);
      open[name] = a.open_image(made->object);
    }
    Object& image = *open[name];
    std::uint64_t offset = random.below(100000);
    switch (random.below(8)) {
      case 0:
        REQUIRE(a->set_attributes({}, a->resolve("d/" + name)->object,
                                  {.set = {.permissions = 0600 + random.below(64)}, .size = offset}));
        break;
      case 1:
        REQUIRE(a->zero(image, {}, offset, 10000, true, false));
        break;
      case 2:
        REQUIRE(a->unlink({}, d, name));
        a->close_image(open[name]);
        open.erase(name);
        break;
      case 3:
        stream.run();
        if (random.one_in(3)) b.kill_and_open();
        if (random.one_in(3)) stream.from_start();
        break;
      case 4:
        REQUIRE(a->apply_some(true));
        REQUIRE(b->apply_some(true));
        break;
      default:
        a.write(image, offset, std::string(1 + random.below(5000), static_cast<char>('a' + step % 26)));
    }
  }
  stream.run();
  stream.from_start();
  stream.run();  // repeats are passed over
  for (auto& [name, image] : open) {
    CAPTURE(name);
    ObjectId id = a->resolve("d/" + name)->object;
    CHECK(position(a, id) == position(b, id));
    auto there = b.open_path("d/" + name, false);
    CHECK(a.read(*image, 0, 200000) == b.read(*there, 0, 200000));
    CHECK(b->gate(id) == Gate::kSecondary);
    CHECK(errno_of(b->write(*there, {}, 0, as_bytes("x"))) == EROFS);
    CHECK(a->attributes(id)->stat.mtime_ns == b->attributes(id)->stat.mtime_ns);
    CHECK(a->attributes(id)->stat.permissions == b->attributes(id)->stat.permissions);
  }
  CHECK(position(a, kNameSpace) == position(b, kNameSpace));
  CHECK(a->groups().size() == b->groups().size());
  auto names = *a->list(d);
  open.clear();
  REQUIRE(a->close());
  REQUIRE(b->close());
  for (const ListedEntry& entry : names)
    CHECK(a.stored("d/" + entry.name) == b.stored("d/" + entry.name));
}

TEST_CASE("a gap or a wrong epoch is refused and appends nothing") {
  VolumeHome a(1, kA), b(2, kB, true);
  ObjectId id = a.create("a");
  join(a, b);
  auto image = a.open_image(id);
  auto state = *b->group(id);
  ReceivedRecord record;
  record.header.type = RecordType::kWrite;
  record.header.group = raw(id);
  record.header.epoch = raw(state.history.back().epoch);
  Bytes payload(10);
  record.header.payload_size = 10;
  record.header.extent = 10;
  record.header.payload_hash = hash64(payload);
  record.payload = payload;
  record.header.seq = state.seq + 2;
  Lsn before = b->journal().written_lsn();
  CHECK(b->receive({&record, 1}).error().kind == ErrorKind::kProtocol);
  record.header.seq = state.seq + 1;
  record.header.epoch = 99;
  CHECK(b->receive({&record, 1}).error().kind == ErrorKind::kProtocol);
  record.header.epoch = raw(state.history.back().epoch);
  record.header.payload_hash ^= 1;
  CHECK(b->receive({&record, 1}).error().kind == ErrorKind::kProtocol);
  record.header.payload_hash ^= 1;
  record.header.group = 12345;
  CHECK(b->receive({&record, 1}));  // deleted before, so a repeat
  CHECK(b->journal().written_lsn() == before);
  record.header.group = raw(id);
  CHECK(b->receive({&record, 1}));
}

TEST_CASE("a group is handed over, and the giver's handles end") {
  VolumeHome a(1, kA, false, true), b(2, kB, true, true);
  a->set_gate(kNameSpace, Gate::kOpen);
  ObjectId id = a.create("a");
  join(a, b);
  Stream to_b(a, b), to_a(b, a);
  to_b.skip_to_end();
  to_a.skip_to_end();
  auto image = a.open_image(id);
  a.write(*image, 0, "from a");
  CHECK(a->activity(id).unflushed);
  REQUIRE(a->release(id, kB));
  CHECK(!a->activity(id).unflushed);
  CHECK(errno_of(a->write(*image, {}, 0, as_bytes("x"))) == EIO);
  to_b.run();
  CHECK(raw(b->group(id)->owner) == 0);
  CHECK(b->group(id)->taker == kB);
  REQUIRE(b->take(id, EpochCause::kTaken));
  CHECK(b->gate(id) == Gate::kOpen);
  auto there = b.open_image(id);
  CHECK(b.read(*there, 0, 10) == "from a");
  b.write(*there, 5, "b");
  to_a.run();
  CHECK(a->group(id)->owner == kB);
  CHECK(a.read(*image, 0, 10) == "from b");
  CHECK(errno_of(a->write(*image, {}, 0, as_bytes("x"))) == EIO);
  auto again = a.open_image(id);
  CHECK(errno_of(a->write(*again, {}, 0, as_bytes("x"))) == EROFS);
  CHECK(position(a, id) == position(b, id));
  // The same after both were restarted.
  again.reset(), there.reset(), image.reset();
  a.lose_power_and_open();
  b.lose_power_and_open();
  CHECK(a->group(id)->owner == kB);
  CHECK(b->gate(id) == Gate::kSuspended);
  CHECK(a->gate(id) == Gate::kSecondary);
  CHECK(a->group(id)->history.size() == 2);
}

TEST_CASE("what was received is shown and applied although whoever received it has gone") {
  VolumeHome a(1, kA, false, true), b(2, kB, true, true);
  a->set_gate(kNameSpace, Gate::kOpen);
  ObjectId id = a.create("a");
  join(a, b);
  Stream to_b(a, b);
  to_b.skip_to_end();
  a.write(*a.open_image(id), 0, "the last words");
  REQUIRE(to_b.receive());
  const Lsn end = b->journal().written_lsn();
  b.clock.advance(1'000'000'000);
  REQUIRE(b->sync_if_due());
  CHECK(b.read(*b.open_image(id), 0, 20) == "the last words");
  b.apply_all();
  CHECK(b->usage().unapplied_bytes == 0);
  CHECK(b->stored_lsn() >= end);
}

TEST_CASE("a taking that was decided on before the owner's next records came changes nothing") {
  VolumeHome a(1, kA, false, true), b(2, kB, true, true);
  a->set_gate(kNameSpace, Gate::kOpen);
  ObjectId id = a.create("a");
  join(a, b);
  Stream to_b(a, b);
  to_b.skip_to_end();
  auto image = a.open_image(id);
  a.write(*image, 0, "first");
  to_b.run();
  const Position decided_at = b->group(id)->position();
  a.write(*image, 0, "second");
  to_b.run();
  const GroupState before = *b->group(id);
  REQUIRE(before.position() != decided_at);
  auto taken = b->take(id, EpochCause::kForced, Gate::kOpen, decided_at);
  REQUIRE_FALSE(taken);
  CHECK(taken.error().kind == ErrorKind::kRefused);
  CHECK(b->group(id)->position() == before.position());
  CHECK(b->group(id)->owner == kA);
  CHECK(b->gate(id) == Gate::kSecondary);
  // And what it may do then is what was asked for.
  REQUIRE(b->take(id, EpochCause::kForced, Gate::kFrozen, before.position()));
  CHECK(b->group(id)->owner == kB);
  CHECK(b->gate(id) == Gate::kFrozen);
}

TEST_CASE("new epochs: after an unclean stop, and after a lost peer") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto image = home.open_image(id);
  home.write(*image, 0, "1");
  CHECK(home->group(id)->history.size() == 1);
  home->begin_epochs(EpochCause::kPeerLost);
  CHECK(home->group(id)->history.size() == 1);
  home.write(*image, 0, "2");
  home.write(*image, 0, "3");
  REQUIRE(home->group(id)->history.size() == 2);
  CHECK(home->group(id)->history[1].cause == EpochCause::kPeerLost);
  CHECK(home->group(id)->history[1].parent.seq == 2);  // that it is open for writing, and a write
  CHECK(home->durable_position(id).seq == 5);
  image.reset();
  home.lose_power_and_open();
  image = home.open_path("a");
  home.write(*image, 0, "4");
  REQUIRE(home->group(id)->history.size() == 3);
  CHECK(home->group(id)->history[2].cause == EpochCause::kUncleanStop);
  image.reset();
  home.close_and_open();
  image = home.open_path("a");
  home.write(*image, 0, "5");
  CHECK(home->group(id)->history.size() == 3);
  home->begin_epochs(EpochCause::kPeerLost);
  image.reset();
  home.close_and_open();
  CHECK(home->group(id)->history.size() == 4);  // a due epoch is not forgotten
  home->trim_history(id, {home->group(id)->history[2].epoch, 1});
  CHECK(home->group(id)->history.size() == 2);
}

TEST_CASE("a base copy replaces what was there, and names that the source does not have go") {
  VolumeHome a(1, kA), b(2, kB);
  ObjectId d = a->make_directory({}, kRootObject, "d", 0711)->object;
  ObjectId id = a.create("a", d);
  auto image = a.open_image(id);
  a.write(*image, 0, std::string(30000, 'a'));
  a.write(*image, 1 << 20, std::string(30000, 'b'));
  ObjectId extra = b.create("extra");
  b->make_directory({}, b->make_directory({}, kRootObject, "e", 0700)->object, "f", 0700);
  REQUIRE(b->release(kNameSpace, kA));
  // An image goes only once it is given up.
  b->set_gate(extra, Gate::kInconsistent);
  REQUIRE(b->keep_as_snapshot(extra, "left-b"));
  join(a, b);
  CHECK(!b->group(extra));
  CHECK(b->list(kRootObject)->size() == 2);
  CHECK(b->attributes(d)->stat.permissions == 0711);
  auto there = b.open_path("d/a", false);
  CHECK(b.read(*there, 0, 2 << 20) == a.read(*image, 0, 2 << 20));
  CHECK(position(a, id) == position(b, id));
  there.reset();
  b.kill_and_open();
  b.apply_all();
  b.lose_power_and_open();
  there = b.open_path("d/a", false);
  CHECK(b.read(*there, 0, 2 << 20) == a.read(*image, 0, 2 << 20));
  CHECK(b->list(kRootObject)->size() == 2);
  CHECK(errno_of(b->take(id, EpochCause::kForced)) == 0);
}

TEST_CASE("a group that is being copied cannot be taken, also after a restart") {
  VolumeHome a(1, kA), b(2, kB, true);
  ObjectId id = a.create("a");
  base_copy(a, b, kNameSpace);
  CHECK(b->group(id)->inconsistent);
  CHECK(!b->take(id, EpochCause::kForced));
  b.kill_and_open();
  CHECK(b->group(id)->inconsistent);
  CHECK(!b->take(id, EpochCause::kForced));
  base_copy(a, b, id);
  b.kill_and_open();
  CHECK(!b->group(id)->inconsistent);
  CHECK(b->take(id, EpochCause::kForced));
}

TEST_CASE("a failed primary fetches what it touched alone, and keeps it") {
  VolumeHome a(1, kA), b(2, kB, true);
  ObjectId id = a.create("a");
  auto image = a.open_image(id);
  a.write(*image, 0, std::string(500000, 'a'));
  join(a, b);
  Stream to_b(a, b);
  to_b.skip_to_end();
  Position common = a->durable_position(id);
  // What b never got.
  a.write(*image, 100000, "lost words");
  REQUIRE(a->set_attributes({}, id, {.set = {}, .size = 450000}));
  REQUIRE(a.flush(*image));
  image.reset();
  REQUIRE(b->take(id, EpochCause::kForced));
  REQUIRE(b->take(kNameSpace, EpochCause::kForced));
  auto there = b.open_image(id);
  b.write(*there, 300000, "new words");
  a.options.has_peers = true;
  a.lose_power_and_open();
  auto touched = a->touched_since(id, common);
  REQUIRE(touched);
  CHECK(touched->changed);
  REQUIRE(touched->ranges);
  REQUIRE(!touched->ranges->empty());
  REQUIRE(a->keep_as_snapshot(id, "left-a"));
  a->set_gate(id, Gate::kInconsistent);  // nothing comes to it any more: only now may it be replaced
  auto ranges = *touched->ranges;
  // What b wrote since reaches a as ranges too, in this test.
  auto news = b->touched_since(id, common);
  REQUIRE((news && news->ranges));
  ranges.insert(ranges.end(), news->ranges->begin(), news->ranges->end());
  base_copy(b, a, id, ranges);
  image = a.open_image(id, false);
  CHECK(a.read(*image, 0, 1 << 20) == b.read(*there, 0, 1 << 20));
  auto kept = a.open_path(".snapshots/left-a/a", false);
  CHECK(a.read(*kept, 100000, 10) == "lost words");
  CHECK(errno_of(a->write(*kept, {}, 0, as_bytes("x"))) == EROFS);
  CHECK(errno_of(a->unlink({}, a->resolve(".snapshots/left-a")->object, "a")) == EROFS);
  CHECK(a->groups().size() == 2);
  kept.reset(), image.reset();
  a.lose_power_and_open();
  kept = a.open_path(".snapshots/left-a/a", false);
  CHECK(a.read(*kept, 100000, 10) == "lost words");
  CHECK(a->attributes(kept ? a->resolve(".snapshots/left-a/a")->object : id)->stat.size == 450000);
}

// Asks for a token, and decides when told to.
class Asking : public ReplicationHooks {
 public:
  Error may_not_change(GroupId, Gate) override {
    ++asked;
    return {ErrorKind::kWouldWait, EAGAIN, {}};
  }
  void written(Lsn) override {}
  void await_peers(GroupId, Lsn, std::function<void(Result<>)> done) override {
    waiting.push_back(std::move(done));
  }
  bool backlog_full() override { return full; }
  int asked = 0;
  bool full = false;
  std::vector<std::function<void(Result<>)>> waiting;
};

TEST_CASE("a flush without a lost peer waits for its epoch while the journal is full") {
  VolumeHome home;
  ObjectId id = home.create("a"), other = home.create("other");
  auto image = home.open_image(id), filler = home.open_image(other);
  REQUIRE(home.flush(*image));
  Asking hooks;
  home->set_hooks(&hooks);
  home.write(*image, 0, "of the old epoch");
  const std::string block(128u << 10, 'f');
  while (home->write(*filler, {}, 0, as_bytes(block)))
    ;
  // The last segment is for urgent records: they fill it.
  do {
    home->begin_epochs(EpochCause::kPeerLost);
  } while (home->begin_epoch_if_due(other));
  const std::size_t epochs = home->group(id)->history.size();
  std::optional<Result<>> flushed, names;
  home->flush(*image, {}, [&](Result<> result) { flushed = std::move(result); });
  home->flush_names({}, [&](Result<> result) { names = std::move(result); });
  CHECK(!home->run_parked());
  CHECK(hooks.waiting.empty());
  CHECK(!flushed);
  CHECK(home->group(id)->history.size() == epochs);
  // Nobody flushes, and the applier makes room all the same.
  for (int round = 0; round < 10 && hooks.waiting.size() < 2; ++round) {
    home.apply_all();
    REQUIRE(home->checkpoint());
    home.clock.advance(1'000'000'000);
    (void)home->apply_some(false);
    (void)home->run_parked();
  }
  REQUIRE(hooks.waiting.size() == 2);
  for (auto& done : hooks.waiting) done({});
  hooks.waiting.clear();
  REQUIRE((flushed && *flushed));
  REQUIRE((names && *names));
  const GroupState state = *home->group(id);
  CHECK(state.history.size() == epochs + 1);
  CHECK(state.seq > state.history.back().parent.seq + 1);  // and a record in it says so
  home->set_hooks(nullptr);
}

TEST_CASE("requests wait for a token, for room on the link, and for the peers' answer to a flush") {
  VolumeHome home;
  ObjectId id = home.create("a");
  auto image = home.open_image(id);
  Asking hooks;
  home->set_hooks(&hooks);
  home->set_gate(id, Gate::kSecondary);
  Result<> outcome;
  auto write = [&] { outcome = home->write(*image, {}, 0, as_bytes("x")); };
  write();
  CHECK(outcome.error().kind == ErrorKind::kWouldWait);
  SUBCASE("granted") {
    home->park(id, write);
    CHECK(!home->run_parked());
    home->set_gate(id, Gate::kOpen);
    home->reopen(id);
    CHECK(home->run_parked());
    CHECK(outcome);
  }
  SUBCASE("refused") {
    home->park(id, write);
    home->refuse(id, {ErrorKind::kBusy, EBUSY, {}});
    CHECK(home->run_parked());
    CHECK(errno_of(outcome) == EBUSY);
    CHECK(hooks.asked == 1);
  }
  SUBCASE("refused before it was parked") {
    home->refuse(id, {ErrorKind::kBusy, EBUSY, {}});
    home->park(id, write);
    CHECK(home->run_parked());
    CHECK(errno_of(outcome) == EBUSY);
  }
  SUBCASE("a removal waits for the image's token") {
    Result<> removed = home->unlink({}, kRootObject, "a");
    CHECK(removed.error().kind == ErrorKind::kWouldWait);
    home->park(kNameSpace, [&] { removed = home->unlink({}, kRootObject, "a"); });
    CHECK(!home->run_parked());
    home->set_gate(id, Gate::kOpen);
    home->reopen(id);
    CHECK(home->run_parked());
    CHECK(removed);
  }
  SUBCASE("backlog") {
    home->set_gate(id, Gate::kOpen);
    hooks.full = true;
    write();
    CHECK(outcome.error().kind == ErrorKind::kWouldWait);
    home->park(id, write);
    CHECK(!home->run_parked());
    hooks.full = false;
    home->resume_writes();
    CHECK(home->run_parked());
    CHECK(outcome);
  }
  SUBCASE("flush") {
    home->set_gate(id, Gate::kOpen);
    write();
    REQUIRE(outcome);
    int done = 0;
    home->flush(*image, {}, [&](Result<> result) { done += result ? 1 : 100; });
    home->flush(*image, {}, [&](Result<> result) { done += result ? 1 : 100; });
    CHECK(done == 0);
    REQUIRE(hooks.waiting.size() == 2);
    hooks.waiting[1]({});
    CHECK(done == 1);
    hooks.waiting[0]({});
    CHECK(done == 2);
    home->flush(*image, {}, [&](Result<> result) { done += result ? 1 : 100; });
    CHECK(done == 3);
    CHECK(!home->activity(id).unflushed);
  }
  home->set_hooks(nullptr);
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
