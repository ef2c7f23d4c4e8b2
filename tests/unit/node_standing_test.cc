// What a node says of itself and its peers while all goes well, while it is copied to, and afterwards; copies and
// commands in odd moments.
#include <doctest/doctest.h>

#include "fs/base/hash.h"
#include "tests/unit/two_nodes.h"

using namespace vmfs;
using namespace vmfs::sim;

TEST_SUITE("node") {
  TEST_CASE("nobody lags for ever: in records, bytes and seconds it comes to nothing") {
    for (ReplicationMode mode : {ReplicationMode::kSync, ReplicationMode::kAsync}) {
      TwoNodes t(90, mode);
      REQUIRE(ok(t.a().make("web.img")) == "");
      REQUIRE(ok(t.a().write("web.img", 0, std::string(50000, 'x'))) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
      t.settle();
      t.cluster.run(5 * kSecond);
      for (Member* member : {&t.a(), &t.b()}) {
        NodeStatus status = member->status();
        PeerStatus& peer = status.peers.at(0);
        CHECK(peer.lag.records == 0);
        CHECK(peer.lag.bytes == 0);
        CHECK(peer.lag.ns == 0);
        CHECK(status.lost.records == 0);
        CHECK(status.lost.bytes == 0);
        CHECK(status.lost_images == 0);
        for (const ImageStatus& image : status.images) CHECK(image.peers.at(0).lag.records == 0);
      }
      // Received, durable and applied come together.
      PeerStatus peer = t.a().status().peers.at(0);
      CHECK(peer.durable == peer.received);
      CHECK(peer.applied == peer.durable);
      // While it is away, all three grow, and come back to nothing.
      t.cluster.network.cut("a", "b");
      t.cluster.run(10 * kSecond);
      REQUIRE(ok(t.a().write("web.img", 0, "more")) == "");
      REQUIRE(ok(t.a().flush("web.img")) == "");
      t.cluster.run(3 * kSecond);
      NodeStatus alone = t.a().status();
      CHECK(alone.peers.at(0).lag.records > 0);
      CHECK(alone.peers.at(0).lag.bytes > 0);
      CHECK(alone.peers.at(0).lag.ns >= 3 * kSecond);
      CHECK(alone.peers.at(0).lag.ns <= 5 * kSecond);
      CHECK(alone.lost.records == alone.peers.at(0).lag.records);
      bool told = false;
      for (const std::string& problem : alone.problems)
        told |= problem.find("last heard") != std::string::npos && problem.find("vmfs peer remove") != std::string::npos;
      CHECK(told);
      t.cluster.network.mend("a", "b");
      t.settle();
      CHECK(t.a().status().peers.at(0).lag.records == 0);
      CHECK(t.a().status().lost.records == 0);
    }
  }

  TEST_CASE("lag and loss are each image's own, and count what was changed") {
    for (ReplicationMode mode : {ReplicationMode::kSync, ReplicationMode::kAsync}) {
      TwoNodes t(97, mode);
      const std::string block(4096, 'x');
      for (const char* name : {"busy.img", "idle.img"}) {
        REQUIRE(ok(t.a().make(name)) == "");
        REQUIRE(ok(t.a().write(name, 0, block)) == "");
        REQUIRE(ok(t.a().flush(name)) == "");
      }
      t.settle();
      t.cluster.run(kSecond);
      t.cluster.network.cut("a", "b");
      t.cluster.run(10 * kSecond);
      const GroupId busy = t.a().group("busy.img"), idle = t.a().group("idle.img");
      auto image = [&](GroupId group) {
        NodeStatus status = t.a().status();
        for (ImageStatus& each : status.images)
          if (each.group == group) return std::pair(std::move(each), std::move(status));
        FAIL("not listed");
        return std::pair(ImageStatus{}, NodeStatus{});
      };
      // A flush alone is nobody's loss.
      REQUIRE(ok(t.a().flush("busy.img")) == "");
      CHECK(image(busy).first.peers.at(0).lag.records == 0);
      CHECK(image(busy).first.peers.at(0).lag.bytes == 0);
      CHECK(image(busy).second.lost.records == 0);
      for (int i = 0; i < 3; ++i) {
        REQUIRE(ok(t.a().write("busy.img", 0, block)) == "");
        REQUIRE(ok(t.a().flush("busy.img")) == "");
        t.cluster.run(2 * kSecond);
      }
      const std::uint64_t bytes = 3 * record_size(4096);
      auto [found, whole] = image(busy);
      const Lag& lag = found.peers.at(0).lag;
      CHECK(lag.records == 3);
      CHECK(lag.bytes == bytes);
      CHECK(lag.ns >= 6 * kSecond);
      CHECK(lag.ns < 7 * kSecond);
      CHECK(found.lost.records == 3);
      CHECK(found.lost.bytes == bytes);
      CHECK(found.lost.ns == lag.ns);
      CHECK_FALSE(found.lost_whole);
      auto [other, unused] = image(idle);
      CHECK(other.peers.at(0).lag.records == 0);
      CHECK(other.peers.at(0).lag.bytes == 0);
      CHECK(other.peers.at(0).lag.ns == 0);
      CHECK(other.lost.records == 0);
      // The volume's are their sum.
      CHECK(whole.peers.at(0).lag.records == 3);
      CHECK(whole.peers.at(0).lag.bytes == bytes);
      CHECK(whole.lost.records == 3);
      CHECK(whole.lost.bytes == bytes);
      // Another life that has not met the peer knows bounds only.
      t.a().kill();
      t.a().start({"b"});
      t.cluster.run(kSecond);
      auto [after, all] = image(busy);
      CHECK_FALSE(after.lost.records);
      CHECK_FALSE(all.lost.records);
      CHECK(after.lost.bytes >= bytes);
      CHECK(all.lost.bytes == after.lost.bytes);
      CHECK(after.lost.ns >= 6 * kSecond);
      // What the last life wrote is read from the journal, and lag is told exactly again once they have met.
      t.cluster.network.mend("a", "b");
      t.settle();
      CHECK(image(busy).second.lost.records == 0);
      t.cluster.network.cut("a", "b");
      t.cluster.run(10 * kSecond);
      REQUIRE(ok(t.a().write("idle.img", 0, "0123456789")) == "");
      CHECK(image(idle).first.lost.bytes == record_size(10));
      CHECK(image(busy).first.lost.bytes == 0);
    }
  }

  TEST_CASE("copies are counted, on whatever connection they were made") {
    TwoNodes t(98);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, std::string(50000, 'x'))) == "");
    t.settle();
    const std::uint64_t before = t.a().status().peers.at(0).copies_whole;
    auto cut_and_mend = [&](int records) {
      t.cluster.network.cut("a", "b");
      t.cluster.run(10 * kSecond);
      for (int i = 0; i < records; ++i) {
        REQUIRE(ok(t.a().write("web.img", 0, std::string(200000, 'y'))) == "");
        t.cluster.run(20 * kMillisecond);
      }
      t.cluster.network.mend("a", "b");
      t.settle();
    };
    cut_and_mend(3);
    CHECK(t.a().status().peers.at(0).copies_whole == before);
    cut_and_mend(200);  // many times what the journal keeps
    CHECK(t.a().status().peers.at(0).copies_whole == before + 1);
    CHECK(t.a().status().peers.at(0).copy_bytes_total == 0);
    cut_and_mend(3);
    CHECK(t.a().status().peers.at(0).copies_whole == before + 1);
    CHECK(t.a().status().peers.at(0).copies_partial == 0);
    CHECK(t.b().status().peers.at(0).copies_whole == 0);
  }

  TEST_CASE("while it is copied to, a node is not in sync on either side, and counts for nothing") {
    Cluster cluster(91);
    Member& a = cluster.add("a", false);
    a.start({});
    for (int i = 0; i < 4; ++i) {
      std::string name = "image-" + std::to_string(i);
      REQUIRE(ok(a.make(name)) == "");
      for (int j = 0; j < 4; ++j) REQUIRE(ok(a.write(name, j * 200000, std::string(200000, 'd'))) == "");
      REQUIRE(ok(a.flush(name)) == "");
      cluster.run(kSecond);
    }
    Member& b = cluster.add("b", true);
    cluster.network.set_path("a", "b", {.bytes_per_second = 400'000});
    b.start({"a"});
    int copying = 0;
    REQUIRE(cluster.until([&] {
      NodeStatus there = b.status();
      bool whole = there.images.size() == 5;
      for (const ImageStatus& image : there.images)
        whole &= image.role != Role::kInconsistent && image.position.seq != 0;
      if (there.peers.empty() || a.status().peers.empty()) return false;
      if (!whole) {
        CHECK(there.peers.at(0).sync != PeerSync::kInSync);
        CHECK(a.status().peers.at(0).sync != PeerSync::kInSync);
        // All of it is lost if a dies now: at least one image has no other copy.
        NodeStatus here = a.status();
        if (here.peers.at(0).sync == PeerSync::kFullCopy) {
          ++copying;
          CHECK(here.lost.records > 0);
          CHECK(here.lost_images > 0);
        }
      }
      return cluster.in_sync();
    }));
    CHECK(copying > 0);
    cluster.run(5 * kSecond);
    CHECK(a.status().lost.records == 0);
    CHECK(a.status().lost_images == 0);
    CHECK((a.stored() == b.stored()));
  }

  TEST_CASE("a copy that the journal cannot keep up with begins again, and ends") {
    Cluster cluster(92);
    Member& a = cluster.add("a", false);
    a.start({});
    REQUIRE(ok(a.make("web.img")) == "");
    for (int j = 0; j < 20; ++j) REQUIRE(ok(a.write("web.img", j * 200000, std::string(200000, 'd'))) == "");
    cluster.run(3 * kSecond);
    Member& b = cluster.add("b", true);
    cluster.network.set_path("a", "b", {.bytes_per_second = 500'000});
    b.start({"a"});
    REQUIRE(cluster.until([&] {
      NodeStatus here = a.status();
      return !here.peers.empty() && here.peers.at(0).copy_bytes_done > 400'000;
    }));
    // Many times what the journal keeps for a peer.
    for (int i = 0; i < 200; ++i) {
      REQUIRE(ok(a.write("web.img", (i % 20) * 200000, std::string(200000, static_cast<char>('a' + i % 26)))) == "");
      cluster.run(20 * kMillisecond);
    }
    REQUIRE(cluster.until([&] { return cluster.in_sync(); }, 600 * kSecond));
    cluster.run(5 * kSecond);
    CHECK((a.stored() == b.stored()));
  }

  TEST_CASE("a failed primary that had changed very many places follows") {
    TwoNodes t(93, ReplicationMode::kAsync);
    REQUIRE(ok(t.a().make("web.img")) == "");
    REQUIRE(ok(t.a().write("web.img", 0, "common")) == "");
    REQUIRE(ok(t.a().flush("web.img")) == "");
    t.settle();
    t.cluster.network.cut("a", "b");
    auto image = t.a().volume->open_image(t.a().group("web.img"), true);
    REQUIRE(image);
    for (std::uint64_t i = 0; i < 18000; ++i)
      REQUIRE(ok(t.a().volume->write(**image, t.a().caller, i << 17, as_bytes("x"))) == "");
    t.a().kill();
    t.cluster.network.mend("a", "b");
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("", true)) == "");
    REQUIRE(ok(t.b().write("web.img", 8, "b went on")) == "");
    t.a().start({"b"});
    t.settle();
    CHECK(t.a().read("web.img", 0, 17) == std::string("common\0\0b went on", 17));
    CHECK(t.a().volume->attributes(t.a().group("web.img"))->stat.size == 17);
  }

  TEST_CASE("freeze: what is promoted by force is owned, once, and its writes are held") {
    TwoNodes t(94);
    VolumeSettings settings = t.a().settings;
    settings.on_peer_loss = OnPeerLoss::kFreeze;
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->set_settings(settings, std::move(done)); })) == "");
    REQUIRE(ok(t.a().make("web.img")) == "");
    t.settle();
    t.a().kill();
    t.cluster.run(10 * kSecond);
    std::uint64_t before = t.b().volume->group(t.b().group("web.img"))->seq;
    auto promoted = t.b().promote("web.img", true);
    REQUIRE(ok(promoted) == "");
    CHECK(promoted->find("on-peer-loss=continue") != std::string::npos);
    CHECK(t.b().volume->group(t.b().group("web.img"))->seq == before + 1);
    CHECK(t.b().volume->gate(t.b().group("web.img")) == Gate::kFrozen);
    settings.on_peer_loss = OnPeerLoss::kContinue;
    REQUIRE(ok(t.b().command([&](Node::Done done) { t.b().node->set_settings(settings, std::move(done)); })) == "");
    REQUIRE(ok(t.b().write("web.img", 0, "goes on")) == "");
  }

  TEST_CASE("demote gives nothing that the peer does not have") {
    TwoNodes t(95);
    REQUIRE(ok(t.a().make("split.img")) == "");
    REQUIRE(ok(t.a().make("good.img")) == "");
    REQUIRE(ok(t.a().write("split.img", 0, "common")) == "");
    REQUIRE(ok(t.a().flush("split.img")) == "");
    t.settle();
    t.cluster.network.cut("a", "b");
    t.cluster.run(10 * kSecond);
    REQUIRE(ok(t.b().promote("split.img", true)) == "");
    REQUIRE(ok(t.a().write("split.img", 0, "from a")) == "");
    REQUIRE(ok(t.a().flush("split.img")) == "");
    REQUIRE(ok(t.b().write("split.img", 0, "from b")) == "");
    REQUIRE(ok(t.b().flush("split.img")) == "");
    t.cluster.network.mend("a", "b");
    GroupId split = t.a().group("split.img");
    REQUIRE(t.cluster.until([&] { return t.a().volume->group(split)->split && t.in_sync(); }));
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->demote({}, false, std::move(done)); })) == "");
    t.cluster.run(kSecond);
    CHECK(t.a().volume->group(split)->owner == t.a().id);
    CHECK(t.b().volume->group(t.b().group("good.img"))->owner == t.b().id);
    auto refused = t.a().command([&](Node::Done done) { t.a().node->demote({split}, false, std::move(done)); });
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("split brain") != std::string::npos);
  }

  TEST_CASE("who joins takes the volume's settings") {
    Cluster cluster(96);
    Member& a = cluster.add("a", false);
    a.settings.mode = ReplicationMode::kAsync;
    a.settings.compression = 3;
    a.settings.changed_wall_ns = 1;
    a.start({});
    Member& b = cluster.add("b", true);
    b.settings.mode = ReplicationMode::kSync;
    b.start({"a"});
    REQUIRE(cluster.until([&] { return cluster.in_sync() && !b.status().peers.empty(); }));
    CHECK(b.status().settings == a.status().settings);
  }

  TEST_CASE("what the journal keeps for a peer is free once it is removed") {
    TwoNodes t(97);
    REQUIRE(ok(t.a().make("web.img")) == "");
    t.settle();
    t.b().kill();
    t.cluster.run(6 * kSecond);
    for (int i = 0; i < 15; ++i) {
      REQUIRE(ok(t.a().write("web.img", i * 200000, std::string(200000, 'x'))) == "");
      t.cluster.run(200 * kMillisecond);
    }
    t.cluster.run(5 * kSecond);
    CHECK(t.a().volume->usage().unapplied_bytes == 0);
    const std::uint64_t kept = t.a().volume->usage().journal_used;
    CHECK(kept > 2'900'000);
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->remove_peer(NodeId{2}, std::move(done)); })) == "");
    t.cluster.run(kSecond);
    CHECK(t.a().volume->usage().journal_used + 1'900'000 < kept);
  }

  TEST_CASE("what is still to be shown when a volume closes is told to no node that has gone") {
    TwoNodes t(99);
    REQUIRE(ok(t.a().make("web.img")) == "");
    t.settle();
    Member& b = t.b();
    const GroupId group = b.group("web.img");
    b.node->stop();
    REQUIRE(t.cluster.until([&] { return b.node->idle(); }));
    ++b.life;
    t.cluster.network.process_died("b");
    b.volume->set_hooks(nullptr);
    b.node.reset();
    // Received, and not yet shown.
    const auto state = b.volume->group(group);
    REQUIRE(state);
    EpochChange change;
    change.entry = {EpochId{77}, t.a().id, {state->history.back().epoch, state->seq}, EpochCause::kPeerLost, 1};
    const Bytes payload = encode(change);
    ReceivedRecord record;
    record.header.type = RecordType::kEpoch;
    record.header.group = raw(group);
    record.header.epoch = raw(change.entry.epoch);
    record.header.seq = state->seq + 1;
    record.header.payload_size = static_cast<std::uint32_t>(payload.size());
    record.header.payload_hash = hash64(payload);
    record.payload = payload;
    REQUIRE(ok(b.volume->receive({&record, 1})) == "");
    CHECK(ok(b.volume->close()) == "");
    CHECK(b.volume->group(group)->history.back().epoch == change.entry.epoch);
    b.volume.reset();
    b.shell.reset();
  }

  TEST_CASE("a hand-over whose record was reused is known to the taker by its copy") {
    TwoNodes t(98);
    REQUIRE(ok(t.a().make("given.img")) == "");
    REQUIRE(ok(t.a().make("busy.img")) == "");
    REQUIRE(ok(t.a().write("given.img", 0, "content")) == "");
    REQUIRE(ok(t.a().flush("given.img")) == "");
    t.settle();
    GroupId given = t.a().group("given.img");
    t.cluster.network.cut("a", "b");
    REQUIRE(ok(t.a().command([&](Node::Done done) { t.a().node->demote({given}, false, std::move(done)); })) == "");
    t.cluster.run(10 * kSecond);
    CHECK(raw(t.a().volume->group(given)->owner) == 0);
    for (int i = 0; i < 150; ++i) {
      REQUIRE(ok(t.a().write("busy.img", (i % 20) * 200000, std::string(200000, static_cast<char>('a' + i % 26)))) == "");
      t.cluster.run(50 * kMillisecond);
    }
    t.cluster.network.mend("a", "b");
    REQUIRE(t.cluster.until([&] { return t.b().volume->group(given)->owner == t.b().id; }));
    REQUIRE(ok(t.b().write("given.img", 0, "CONTENT")) == "");
    t.check_equal();
    CHECK(t.a().read("given.img", 0, 7) == "CONTENT");
  }

  TEST_CASE("what a peer was when it was last heard is known after a restart, too") {
    for (bool power : {false, true}) {
      TwoNodes t(99);
      REQUIRE(ok(t.a().make("web.img")) == "");
      t.settle();
      t.a().kill();
      t.cluster.run(6 * kSecond);
      const PeerStatus before = t.b().status().peers.at(0);
      CHECK(before.was_in_sync);
      power ? t.b().power_loss() : t.b().kill();
      t.b().start({"a"});
      t.cluster.run(kSecond);
      const PeerStatus after = t.b().status().peers.at(0);
      CHECK(after.was_in_sync);
      CHECK(after.last_contact_wall_ns != 0);
      CHECK(after.last_contact_wall_ns >= before.last_contact_wall_ns - kSecond);
      auto refused = t.b().promote("web.img", false);
      REQUIRE_FALSE(refused);
      CHECK(refused.error().message.find("in sync then") != std::string::npos);
    }
  }

  TEST_CASE("promote of the whole volume takes what was made there a moment ago, too") {
    TwoNodes t(100);
    REQUIRE(ok(t.a().make("old.img")) == "");
    t.settle();
    t.cluster.network.set_path("a", "b", {.delay_ns = 50 * kMillisecond});
    REQUIRE(ok(t.a().make("new.img")) == "");
    // Its creation is still on its way.
    CHECK_FALSE(t.b().volume->lookup(kRootObject, "new.img"));
    REQUIRE(ok(t.b().promote("", false)) == "");
    for (const ImageStatus& image : t.b().status().images) {
      CAPTURE(image.path);
      CHECK(image.role == Role::kPrimary);
    }
    CHECK(t.b().status().images.size() == 3);
  }

  TEST_CASE("a full copy gets its share while the stream has all it can carry") {
    Cluster cluster(101);
    Member& a = cluster.add("a", false);
    a.settings.mode = ReplicationMode::kAsync;
    a.settings.changed_wall_ns = 1;
    a.start({});
    REQUIRE(ok(a.make("busy.img")) == "");
    REQUIRE(ok(a.make("cold.img")) == "");
    for (int i = 0; i < 25; ++i) REQUIRE(ok(a.write("cold.img", i * 200000, std::string(200000, 'c'))) == "");
    cluster.run(3 * kSecond);
    Member& b = cluster.add("b", true);
    cluster.network.set_path("a", "b", {.bytes_per_second = 1'000'000});
    b.start({"a"});
    auto cold_is_there = [&] {
      for (const ImageStatus& image : b.status().images)
        if (image.path == "cold.img") return image.role == Role::kSecondary && image.position.seq != 0;
      return false;
    };
    // Twice what the line carries, for as long as it takes.
    int writes = 0;
    while (!cold_is_there() && writes < 600) {
      std::string noise(100'000, '\0');
      for (char& c : noise) c = static_cast<char>(cluster.random.next());
      REQUIRE(ok(a.write("busy.img", (writes++ % 20) * 100'000, noise)) == "");
      cluster.run(50 * kMillisecond);
    }
    CHECK(writes < 600);
    REQUIRE(cluster.until([&] { return cluster.in_sync(); }, 300 * kSecond));
  }
}
