#include <doctest/doctest.h>

#include <set>

#include "cli/file.h"
#include "cli/status_json.h"
#include "cli/status_text.h"
#include "net/ownership/decisions.h"

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

  TEST_CASE("every word for a link, a role or a state is in the manual page, where its key is explained") {
    auto manual = read_small_file(VMFS_SOURCE_DIR "/docs/man/vmfs.1.scd");
    REQUIRE(manual);
    // From the key's name to that of the next key of its object.
    auto explained = [&](const std::string& object, const std::string& key, const std::string& word) {
      std::size_t from = manual->find("*" + object + key + "*");
      REQUIRE(from != std::string::npos);
      std::string text = manual->substr(from + object.size() + key.size() + 2);
      text.resize(std::min(text.size(), text.find("*" + object)));
      CAPTURE(key);
      CAPTURE(word);
      CHECK(text.find("*" + word + "*") != std::string::npos);
    };
    int words = 0;
    auto all = [&](auto first, const std::string& object, const std::string& key) {
      using Word = decltype(first);
      for (int i = 0; std::string(to_string(static_cast<Word>(i))) != "?"; ++i, ++words) {
        std::string word = to_string(static_cast<Word>(i));
        // Where records merely flow, the peer's state is told.
        if (word != to_string(Course::kNothing) && word != to_string(Course::kSend)) explained(object, key, word);
      }
    };
    all(LinkState{}, ".peers[].", "link");
    Config known = config();
    known.peers.push_back({NodeId{2}, "host-b", ""});
    explained(".peers[].", "link", offline_status("/s", "/m", known, "x")["peers"][0]["link"].get<std::string>());
    all(PeerSync{}, ".peers[].", "state");
    all(Role{}, ".images[].", "role");
    all(PeerSync{}, ".images[].", "state");
    all(Course{}, ".images[].", "state");
    CHECK(words == 3 + 5 + 7 + 5 + 10);
    // Beside the peers' own: see image_state().
    ImageStatus image;
    explained(".images[].", "state", image_state(image));
    image.role = Role::kInconsistent;
    explained(".images[].", "state", image_state(image));
    image.role = Role::kSplit;
    explained(".images[].", "state", image_state(image));
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
    node.peers[0].lag.bytes = 3u << 20;
    node.problems = {"host-b is lost\nsee there:  vmfs status"};
    node.lost.records = 12;
    node.lost.bytes = 3u << 20;
    json status = status_to_json(facts(), config(), node, {}, {"the store is full"});
    CHECK(status["healthy"] == false);
    CHECK(status["problems"].size() == 2);
    std::string text = status_text(status, {});
    CHECK(text.starts_with("guests on host-a, /srv/vm: 2 problems\n  1. host-b is lost\n     see there:"));
    CHECK(contains(text, "refused: the secret is wrong"));
    CHECK(contains(text, "if host-a dies now:  lost: 12 records, 3.00 MiB"));
  }

  TEST_CASE("each image's state, lag and loss have a column") {
    NodeStatus node = healthy_pair();
    node.images.reserve(8);  // `web` stays where it is
    ImageStatus& web = node.images[1];
    web.peers[0].state = "lost";
    web.peers[0].lag = {12, 3u << 20, 1'500'000'000};
    web.lost = web.peers[0].lag;
    ImageStatus db = web;
    db.path = "db01.img";
    db.peers[0].lag = db.lost = {std::nullopt, 5u << 20, 4'000'000'000};
    node.images.push_back(db);
    ImageStatus young = web;
    young.path = "new.img";
    young.peers[0].state = "copy-to-peer";
    young.peers[0].lag = young.lost = {7, 1u << 30, 0};
    young.peers[0].copy_due = young.lost_whole = true;
    node.images.push_back(young);
    ImageStatus theirs = healthy_pair().images[1];
    theirs.path = "theirs.img";
    theirs.role = Role::kSecondary;
    theirs.owner = NodeId{2};
    node.images.push_back(theirs);
    json status = status_to_json(facts(), config(), node, {}, {});
    CHECK(status["images"][0]["lost_records"] == 12);
    CHECK(status["images"][0]["lost_bytes"] == 3u << 20);
    CHECK(status["images"][0]["lost_seconds"] == 1.5);
    CHECK(status["images"][1]["lost_records"].is_null());
    std::string text = status_text(status, {});
    // Words only: how wide the columns are depends on what stands in them.
    auto line_of = [&](const std::string& name) {
      std::string line = text.substr(text.find("  " + name + " ") + 2), words;
      line.resize(line.find('\n'));
      for (char c : line)
        if (c != ' ' || !words.ends_with(' ')) words += c;
      return words;
    };
    CHECK(line_of("IMAGE") == "IMAGE ROLE STATE LAG LOST IF THIS NODE DIES");
    CHECK(line_of("web01.img") == "web01.img primary lost 12 records, 3.00 MiB, 1.5 s 12 records, 3.00 MiB, 1.5 s");
    CHECK(line_of("db01.img") == "db01.img primary lost at most 5.00 MiB, 4.0 s at most 5.00 MiB, 4.0 s");
    CHECK(line_of("new.img") == "new.img primary copy-to-peer all of it all of it");
    CHECK(line_of("theirs.img") == "theirs.img secondary in-sync none nothing (owner: host-b)");
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

  TEST_CASE("what a daemon of another version tells is shown as far as it goes") {
    const json status = status_to_json(facts(), config(), healthy_pair(), {}, {});
    // Each key in turn of a type that it has not.
    for (auto& [key, value] : status.items()) {
      for (const json& other : {json(nullptr), json("text"), json(1e300), json(-1e300),
                                json::array({1, "x", json::array()}), json{{"pid", true}, {"healthy", 3}}}) {
        json changed = status;
        changed[key] = other;
        CHECK_FALSE(status_text(changed, {}).empty());
      }
    }
    for (const char* list : {"peers", "images"}) {
      for (auto& [key, value] : status[list][0].items()) {
        for (const json& other : {json(nullptr), json("text"), json(1e300), json(-1e300), json::array()}) {
          json changed = status;
          changed[list][0][key] = other;
          CHECK_FALSE(status_text(changed, {}).empty());
        }
      }
    }
    CHECK_FALSE(status_text(json(5), {}).empty());
  }

  TEST_CASE("names are shown, and do not command the terminal") {
    json status = status_to_json(facts(), config(), healthy_pair(), {}, {"first\nsecond \033[2J"});
    status["images"][0]["path"] = "a\nb\r\033]0;x\a\u009b31mz\u00e4";
    const std::string text = status_text(status, {});
    CHECK(contains(text, "a\\x0ab\\x0d\\x1b]0;x\\x07\\x9b31mz\u00e4"));
    CHECK(contains(text, "first\n     second \\x1b[2J"));
    CHECK(text.find('\033') == text.npos);
    CHECK(status_text(status, {.colour = true}).find("\033[2J") == text.npos);
  }

  TEST_CASE("the volume's settings are shown with and without a peer") {
    NodeStatus node = healthy_pair();
    const std::string line = "\n  mode sync, when a peer is lost: continue, compression auto\n";
    CHECK(contains(status_text(status_to_json(facts(), config(), node, {}, {}), {}), line));
    node.peers.clear();
    CHECK(contains(status_text(status_to_json(facts(), config(), node, {}, {}), {}), line));
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
