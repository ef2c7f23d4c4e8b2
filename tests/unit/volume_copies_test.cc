// Copies and received records, and what failures do to them.
#include "tests/unit/volume_stream.h"

namespace vmfs {
namespace {

using namespace test;

TEST_SUITE_BEGIN("volume copies");

TEST_CASE("a second copy of the name space that a death interrupts removes nothing") {
  VolumeHome a(1, kA, false, true), b(2, kB, true, true);
  a->set_gate(kNameSpace, Gate::kOpen);
  REQUIRE(a->make_directory({}, kRootObject, "d", 0755));
  a.write(*a.open_image(a.create("x", a->resolve("d")->object)), 0, "its bytes");
  join(a, b);
  auto base = a->base_image(kNameSpace);
  REQUIRE(base);
  give_base(b, RecordType::kBaseBegin, base->state, 0,
            encode(BaseBegin{.whole = true, .ranges = {}, .history = base->state.history,
                             .stat = base->stat, .owner = base->state.owner,
                             .taker = base->state.taker}));
  publish(b);
  b.kill_and_open();
  REQUIRE(b->resolve("d/x"));
  b.apply_all();
  CHECK(b.stored("d/x") == "its bytes");
}

TEST_CASE("a state that was saved between the two ends of a copy of the names does not end another one") {
  VolumeHome a(1, kA, false, true), b(2, kB, true, true);
  a->set_gate(kNameSpace, Gate::kOpen);
  a.write(*a.open_image(a.create("x")), 0, "its bytes");
  join(a, b);
  b.apply_all();
  auto base = a->base_image(kNameSpace);
  REQUIRE(base);
  auto give = [&](RecordType type, Bytes payload) {
    give_base(b, type, base->state, 0, payload);
    publish(b);
  };
  give(RecordType::kBaseBegin, encode(BaseBegin{.whole = true, .ranges = {}, .history = base->state.history,
                                                .stat = base->stat, .owner = base->state.owner,
                                                .taker = base->state.taker}));
  give(RecordType::kBaseData, encode(*a->base_names()));
  // A pass goes as far as that; the state names the beginning still.
  b.apply_all();
  give(RecordType::kBaseEnd, {});
  REQUIRE(b->checkpoint());
  b.kill_and_open();
  REQUIRE(b->resolve("x"));
  b.apply_all();
  CHECK(b.stored("x") == "its bytes");
}

TEST_CASE("an image that was made while the names were read for a copy comes with its records") {
  VolumeHome a(1, kA, false, true), b(2, kB, true, true);
  a->set_gate(kNameSpace, Gate::kOpen);
  a.create("old");
  join(a, b);
  b.apply_all();
  Stream stream(a, b);
  auto base = a->base_image(kNameSpace);
  REQUIRE(base);
  stream.skip_to_end();
  const ObjectId made = a.create("new");
  a.write(*a.open_image(made), 0, "its bytes");
  auto give = [&](RecordType type, Bytes payload) {
    give_base(b, type, base->state, 0, payload);
    publish(b);
  };
  give(RecordType::kBaseBegin, encode(BaseBegin{.whole = true, .ranges = {}, .history = base->state.history,
                                                .stat = base->stat, .owner = base->state.owner,
                                                .taker = base->state.taker}));
  give(RecordType::kBaseData, encode(*a->base_names()));
  CHECK(b->group(made)->inconsistent);
  REQUIRE(stream.receive());
  publish(b);
  give(RecordType::kBaseEnd, {});
  CHECK_FALSE(b->group(made)->inconsistent);
  CHECK(b->durable_position(made) == a->durable_position(made));
  CHECK(b.read(*b.open_path("new", false), 0, 20) == "its bytes");
  b.kill_and_open();
  CHECK(b.read(*b.open_path("new", false), 0, 20) == "its bytes");
}

TEST_CASE("what a failed sync took is put back as it is, also when received records wait to be shown") {
  VolumeHome a(1, kA, false, true), b(2, kB, true, true);
  a->set_gate(kNameSpace, Gate::kOpen);
  ObjectId x = a.create("x"), y = a.create("y");
  join(a, b);
  Stream stream(a, b);
  stream.skip_to_end();
  REQUIRE(b->take(y, EpochCause::kForced));
  auto mine = b.open_image(y);
  b.write(*mine, 0, std::string(100'000, 'y'));
  a.write(*a.open_image(x), 0, "not shown yet");
  REQUIRE(stream.receive());
  REQUIRE(b->set_attributes({}, y, {.set = {}, .size = 1000}));
  REQUIRE(b->set_attributes({}, y, {.set = {}, .size = 50'000}));
  const std::string expected = std::string(1000, 'y') + std::string(49'000, '\0');
  b.disk.fail_calls("store.checkpoint", sim::Operation::kSync, 1, EIO, false);
  bool failed = false;
  for (int i = 0; i < 5; ++i) failed = failed || !b->apply_some(true);
  CHECK(failed);
  CHECK(b.read(*mine, 0, 100'000) == expected);
  publish(b);
  b.apply_all();
  CHECK(b.stored("y") == expected);
}

TEST_CASE("a copy that ends does not make whole what another one has begun to replace since") {
  VolumeHome a(1, kA), b(2, kB, true);
  ObjectId id = a.create("a");
  a.write(*a.open_image(id), 0, std::string(1000, 'a'));
  join(a, b);
  auto base = a->base_image(id);
  REQUIRE(base);
  const Bytes begin = encode(BaseBegin{.whole = true, .ranges = {}, .history = base->state.history,
                                       .stat = base->stat, .owner = base->state.owner, .taker = base->state.taker});
  give_base(b, RecordType::kBaseBegin, base->state, 0, begin);
  give_base(b, RecordType::kBaseEnd, base->state, 0, {});
  give_base(b, RecordType::kBaseBegin, base->state, 0, begin);
  publish(b);
  CHECK(b->group(id)->inconsistent);
  CHECK(b->gate(id) == Gate::kInconsistent);
  CHECK_FALSE(b->take(id, EpochCause::kForced));
  give_base(b, RecordType::kBaseEnd, base->state, 0, {});
  publish(b);
  CHECK_FALSE(b->group(id)->inconsistent);
}

TEST_CASE("a copy replaces nothing that this node alone has and has not given up") {
  VolumeHome a(1, kA), b(2, kB, true);
  ObjectId id = a.create("a");
  a.write(*a.open_image(id), 0, std::string(1000, 'a'));
  join(a, b);
  auto base = a->base_image(id);
  REQUIRE(base);
  REQUIRE(b->take(id, EpochCause::kForced));
  b.write(*b.open_image(id), 0, "only here");
  b->set_gate(id, Gate::kSuspended);  // as after a start
  const Bytes begin = encode(BaseBegin{.whole = true, .ranges = {}, .history = base->state.history,
                                       .stat = base->stat, .owner = base->state.owner, .taker = base->state.taker});
  ReceivedRecord record;
  record.header.type = RecordType::kBaseBegin;
  record.header.group = raw(id);
  record.header.epoch = raw(base->state.history.back().epoch);
  record.header.seq = base->state.seq;
  record.header.payload_size = static_cast<std::uint32_t>(begin.size());
  record.header.payload_hash = hash64(begin);
  record.payload = begin;
  auto refused = b->receive({&record, 1});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().kind == ErrorKind::kProtocol);
  b->set_gate(id, Gate::kInconsistent);
  CHECK(b->receive({&record, 1}));
}

TEST_CASE("going on alone leaves a record in the new epoch, once") {
  VolumeHome a(1, kA);
  ObjectId id = a.create("a");
  auto image = a.open_image(id);
  a.write(*image, 0, "x");
  REQUIRE(a.flush(*image));
  a->begin_epochs(EpochCause::kPeerLost);
  REQUIRE(a->go_on_alone(id));
  const GroupState alone = *a->group(id);
  CHECK(alone.history.back().cause == EpochCause::kPeerLost);
  CHECK(alone.seq == alone.history.back().parent.seq + 2);
  CHECK(a->durable_position(id).seq == alone.seq);
  REQUIRE(a->go_on_alone(id));
  CHECK(a->group(id)->seq == alone.seq);
  CHECK(a->go_on_alone(ObjectId{12345}).error().kind == ErrorKind::kNotFound);
}

TEST_CASE("journal space of a branch that was left says nothing of the one that was followed") {
  VolumeHome a(1, kA), b(2, kB, true);
  ObjectId image = a.create("image"), other = a.create("other");
  join(a, b);
  // The peer's claim keeps the journal from here on, and then up to where the tail ends.
  PeerState peer{.id = kB, .name = "b", .confirmed = a->journal().written_lsn()};
  a->set_peer(peer);
  for (int i = 0; i < 20; ++i) a.write(*a.open_image(image), 0, "alone");
  a.apply_all();
  peer.confirmed = a->journal().written_lsn();
  REQUIRE(b->take(image, EpochCause::kForced));
  a->set_gate(image, Gate::kInconsistent);
  base_copy(b, a, image);
  const Position followed{a->group(image)->history.back().epoch, a->group(image)->seq};
  REQUIRE(followed.seq < 20);
  a->set_peer(peer);
  a.write(*a.open_image(other), 0, "something to apply");
  a.apply_all();
  CHECK((a->group(image)->recycled == followed));
}

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
