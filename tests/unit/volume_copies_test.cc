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

TEST_SUITE_END();

}  // namespace
}  // namespace vmfs
