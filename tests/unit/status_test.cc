#include <doctest/doctest.h>

#include <set>

#include "cli/file.h"
#include "cli/status_json.h"
#include "cli/status_text.h"

using namespace vmfs;
using nlohmann::json;

namespace {

DaemonFacts facts() {
  DaemonFacts out;
  out.store = "/srv/vm.store";
  out.mountpoint = "/srv/vm";
  out.journal_directory = "/srv/vm.store/journal";
  out.listen = "0.0.0.0:7411";
  out.pid = 4711;
  out.holder_pid = 4710;
  out.started_wall_ns = 1'700'000'000'000'000'000;
  out.now_wall_ns = out.started_wall_ns + 7'500'000'000'000;
  return out;
}

Config config() {
  Config out;
  out.volume_name = "guests";
  out.node_name = "host-a";
  out.node = NodeId{1};
  return out;
}

NodeStatus healthy_pair() {
  NodeStatus node;
  node.node = NodeId{1};
  node.node_name = "host-a";
  node.settings.mode = ReplicationMode::kSync;
  node.ready = true;
  PeerStatus peer;
  peer.peer = {NodeId{2}, "host-b", "192.0.2.2:7411"};
  peer.link = LinkState::kConnected;
  peer.remote = "192.0.2.2:7411";
  peer.link_since_wall_ns = facts().started_wall_ns;
  peer.last_contact_wall_ns = facts().now_wall_ns;
  peer.sync = PeerSync::kInSync;
  peer.was_in_sync = true;
  node.peers.push_back(peer);
  ImageStatus names;
  names.group = kNameSpace;
  names.role = Role::kPrimary;
  node.images.push_back(names);
  ImageStatus image;
  image.group = GroupId{77};
  image.path = "web01.img";
  image.role = Role::kPrimary;
  image.owner = NodeId{1};
  image.position = {EpochId{0xe}, 41208};
  image.peers.push_back({.node = NodeId{2}, .position = {EpochId{0xe}, 41208}, .state = "in-sync"});
  node.images.push_back(image);
  return node;
}

// All keys, with those of objects and lists below them as "a.b" and "a[].b".
void keys_of(const json& value, const std::string& path, std::set<std::string>& out) {
  if (value.is_object())
    for (auto& [key, child] : value.items()) {
      out.insert(path + "." + key);
      keys_of(child, path + "." + key, out);
    }
  if (value.is_array())
    for (const json& child : value) keys_of(child, path + "[]", out);
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_SUITE("status") {
  TEST_CASE("the keys that others rely on") {
    json status = status_to_json(facts(), config(), healthy_pair(), {}, {});
    CHECK(status["volume"] == "guests");
    CHECK(status["node"] == "host-a");
    CHECK(status["mode"] == "sync");
    CHECK(status["healthy"] == true);
    CHECK(status["daemon"]["pid"] == 4711);
    CHECK(status["journal"]["bytes_used"].is_number());
    CHECK(status["journal"]["bytes_max"].is_number());
    CHECK(status["journal"]["unapplied_bytes"].is_number());
    REQUIRE(status["peers"].size() == 1);
    CHECK(status["peers"][0]["node"] == "host-b");
    CHECK(status["peers"][0]["link"] == "connected");
    CHECK(status["peers"][0]["mode"] == "sync");
    REQUIRE(status["images"].size() == 1);
    const json& image = status["images"][0];
    CHECK(image["path"] == "web01.img");
    CHECK(image["role"] == "primary");
    CHECK(image["state"] == "in-sync");
    CHECK(image["epoch"] == "000000000000000e");
    CHECK(image["seq"] == 41208);
    CHECK(image["peers"][0]["node"] == "host-b");
    CHECK(image["peers"][0]["seq"] == 41208);
    CHECK(image["peers"][0]["lag_bytes"] == 0);
    CHECK(image["peers"][0]["state"] == "in-sync");
    CHECK(status["problems"].empty());
  }

  TEST_CASE("every key is in the manual page") {
    auto manual = read_small_file(VMFS_SOURCE_DIR "/docs/man/vmfs.1.scd");
    REQUIRE(manual);
    std::set<std::string> keys;
    keys_of(status_to_json(facts(), config(), healthy_pair(), {}, {}), "", keys);
    keys_of(offline_status("/s", "", config(), "x"), "", keys);
    keys_of(offline_status("/s", "/m", std::nullopt, "x"), "", keys);
    for (const std::string& key : keys) {
      // The name space has an image's keys.
      if (key.starts_with(".name_space.")) continue;
      CAPTURE(key);
      CHECK(manual->find("*" + key + "*") != std::string::npos);
    }
  }

  TEST_CASE("an image's state is that of its worst peer") {
    ImageStatus image;
    CHECK(image_state(image) == "alone");
    image.peers.push_back({.state = "in-sync"});
    CHECK(image_state(image) == "in-sync");
    image.peers.push_back({.state = "full-copy"});
    image.peers.push_back({.state = "catching-up"});
    CHECK(image_state(image) == "full-copy");
    image.peers.push_back({.state = "has-open-writer"});
    CHECK(image_state(image) == "has-open-writer");
    image.role = Role::kSplit;
    CHECK(image_state(image) == "split");
  }

  TEST_CASE("one glance tells that all is well") {
    std::string text = status_text(status_to_json(facts(), config(), healthy_pair(), {}, {}), {});
    CHECK(text.starts_with("guests on host-a, /srv/vm: healthy\n"));
    CHECK(contains(text, "if host-a dies now:  nothing is lost"));
    CHECK(contains(text, "peer host-b  in sync"));
    CHECK(contains(text, "web01.img"));
    CHECK_FALSE(contains(text, "\033"));
  }

  TEST_CASE("what goes in clear is said") {
    Config clear = config();
    CHECK_FALSE(contains(status_text(status_to_json(facts(), clear, healthy_pair(), {}, {}), {}), "in clear"));
    clear.encryption = Encryption::kOffEverywhere;
    json status = status_to_json(facts(), clear, healthy_pair(), {}, {});
    CHECK(status["tls"] == "off-forced");
    CHECK(contains(status_text(status, {}), "what guests write goes over the network in clear"));
  }

  TEST_CASE("a volume whose vmfs.toml cannot be read is shown all the same") {
    json status = offline_status("/s", "/m", std::nullopt, "/m: the daemon cannot start: /s/vmfs.toml:3: ...");
    CHECK(status["healthy"] == false);
    CHECK(status["volume"].is_null());
    CHECK(status["mountpoint"] == "/m");
    CHECK(contains(status_text(status, {}), "/m: 1 problem"));
    CHECK(contains(status_text(status, {}), "vmfs.toml:3"));
  }

  TEST_CASE("problems come first, with what to do") {
    NodeStatus node = healthy_pair();
    node.peers[0].link = LinkState::kRefused;
    node.peers[0].link_reason = "the secret is wrong";
    node.peers[0].sync = PeerSync::kLost;
    node.peers[0].lag_bytes = 3u << 20;
    node.problems = {"host-b is lost\nsee there:  vmfs status"};
    node.lost_records = 12;
    node.lost_bytes = 3u << 20;
    node.ready = false;
    node.ready_reason = "host-b has not been heard";
    json status = status_to_json(facts(), config(), node, {}, {"the store is full"});
    CHECK(status["healthy"] == false);
    CHECK(status["problems"].size() == 3);
    std::string text = status_text(status, {});
    CHECK(text.starts_with("guests on host-a, /srv/vm: 3 problems\n  1. host-b is lost\n     see there:"));
    CHECK(contains(text, "refused: the secret is wrong"));
    CHECK(contains(text, "vmfs wait /srv/vm ready"));
    CHECK(contains(text, "the last 12 records are lost"));
  }

  TEST_CASE("of many images only those are listed that need a look") {
    NodeStatus node = healthy_pair();
    for (int i = 0; i < 100; ++i) {
      ImageStatus image = node.images[1];
      image.path = "disk" + std::to_string(i);
      if (i == 42) image.role = Role::kSplit;
      node.images.push_back(image);
    }
    std::string text = status_text(status_to_json(facts(), config(), node, {}, {}), {});
    CHECK(contains(text, "101 images; 1 of them"));
    CHECK(contains(text, "disk42"));
    CHECK_FALSE(contains(text, "disk43"));
  }

  TEST_CASE("a store that no daemon serves") {
    json status = offline_status("/s", "", config(), "/s is not mounted\nmount it with:  vmfs mount /s M");
    CHECK(status["healthy"] == false);
    CHECK(status["daemon"]["pid"].is_null());
    std::string text = status_text(status, {});
    CHECK(text.starts_with("guests on host-a, not mounted: 1 problem\n"));
    CHECK(contains(text, "vmfs mount /s M"));
  }
}
