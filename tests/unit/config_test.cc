#include "cli/config.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "cli/config_keeper.h"
#include "cli/file.h"
#include "cli/journal_size.h"

using namespace vmfs;

namespace {

Config sample() {
  Config config;
  config.volume = VolumeId{std::byte{0xab}, std::byte{0x01}};
  config.volume_name = "guests";
  config.settings.mode = ReplicationMode::kSemisync;
  config.settings.on_peer_loss = OnPeerLoss::kFreeze;
  config.settings.compression = -3;
  config.settings.changed_wall_ns = 1234567890123456789;
  config.node_name = "host-a";
  config.node = NodeId{0x1122334455667788};
  config.listen = "[::1]:7411";
  config.encryption = Encryption::kOffOnLoopback;
  config.journal = "/fast/journal \"odd\" \\ name";
  config.journal_size = 1u << 30;
  config.peer_journal_size = 256u << 20;
  config.memory = 64u << 20;
  config.threads = 12;
  config.joining = true;
  config.start_alone_after_ns = 60'000'000'000;
  config.removed = {NodeId{0x99}};
  config.peers = {{NodeId{0xb}, "host-b", "192.0.2.2:7411"}, {NodeId{0xc}, "host-c", ""}};
  return config;
}

std::string error_of(const std::string& text) {
  auto parsed = parse_config(text, "/s/vmfs.toml");
  REQUIRE_FALSE(parsed);
  return parsed.error().message;
}

// The text of a good file with one line in the place of another.
std::string with(const std::string& line, const std::string& instead) {
  std::string text = format_config(sample());
  std::size_t at = text.find("\n" + line);
  REQUIRE(at != std::string::npos);
  std::size_t end = text.find('\n', at + 1);
  return text.replace(at + 1, end - at - 1, instead);
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_SUITE("config") {
  TEST_CASE("what is written is read back") {
    Config config = sample();
    auto read = parse_config(format_config(config), "f");
    REQUIRE_MESSAGE(read, read.error().message);
    CHECK(read->volume == config.volume);
    CHECK(read->volume_name == config.volume_name);
    CHECK(read->settings == config.settings);
    CHECK(read->node_name == config.node_name);
    CHECK(read->node == config.node);
    CHECK(read->listen == config.listen);
    CHECK(read->encryption == config.encryption);
    CHECK(read->journal == config.journal);
    CHECK(read->journal_size == config.journal_size);
    CHECK(read->peer_journal_size == config.peer_journal_size);
    CHECK(read->memory == config.memory);
    CHECK(read->threads == config.threads);
    CHECK(read->joining == config.joining);
    CHECK(read->start_alone_after_ns == config.start_alone_after_ns);
    CHECK(read->removed == config.removed);
    CHECK(read->peers == config.peers);
    CHECK(format_config(*read) == format_config(config));
  }

  TEST_CASE("an unknown key names file, line, key and what there is") {
    std::string error = error_of(with("listen =", "lisen = \"x:1\""));
    CHECK(contains(error, "/s/vmfs.toml:18: node.lisen: unknown key"));
    CHECK(contains(error, "listen"));
    CHECK(contains(error_of(with("format =", "format = 1\nfromat = 1")), "fromat: unknown key"));
    CHECK(contains(error_of(with("[[peer]]", "[[peer]]\naddr = \"x\"")), "peer.addr: unknown key"));
    CHECK(contains(error_of(with("[node]", "[nodes]\nx = 1\n[node]")), "nodes: unknown key"));
  }

  TEST_CASE("a bad value names what is allowed") {
    struct Bad {
      const char *line, *instead, *expected;
    };
    const Bad bad[] = {
        {"mode =", "mode = \"synchronous\"", "allowed: async, semisync, sync"},
        {"mode =", "mode = 3", "must be a string"},
        {"on-peer-loss =", "on-peer-loss = \"stop\"", "allowed: continue, freeze"},
        {"compression =", "compression = \"zstd:99\"", "zstd:N with N from -7 to 19"},
        {"compression =", "compression = \"zstd:\"", "zstd:N"},
        {"settings-changed =", "settings-changed = -1", "whole number"},
        {"name = \"guests\"", "name = \"../x\"", "cannot be the name of a volume"},
        {"name = \"host-a\"", "name = \"\"", "cannot be the name of a node"},
        {"id = \"1122", "id = \"12\"", "16 hexadecimal digits"},
        {"listen =", "listen = \"host:99999\"", "node.listen"},
        {"tls =", "tls = \"maybe\"", "allowed: on, off, off-forced"},
        {"journal =", "journal = \"\"", "must name a directory"},
        {"journal-size =", "journal-size = \"1KiB\"", "at least 32M"},
        {"journal-size =", "journal-size = \"much\"", "node.journal-size"},
        {"peer-journal-size =", "peer-journal-size = \"2GiB\"", "cannot be more than journal-size"},
        {"memory =", "memory = \"1M\"", "at least 16M"},
        {"threads =", "threads = 1000", "from 0 to 64"},
        {"threads =", "threads = \"8\"", "whole number"},
        {"start-alone =", "start-alone = \"soon\"", "never, after:SECONDS"},
        {"joining =", "joining = \"yes\"", "true or false"},
        {"removed-peers =", "removed-peers = [1]", "list of strings"},
        {"removed-peers =", "removed-peers = [\"x\"]", "16 hexadecimal digits"},
        {"id = \"000000000000000c\"", "id = \"000000000000000b\"", "already listed"},
        {"format =", "format = 2", "newer version"},
        {"format =", "", "format: this key is missing"},
        {"[volume]", "[volume", "not TOML"},
    };
    for (const Bad& each : bad) {
      CAPTURE(each.instead);
      std::string error = error_of(with(each.line, each.instead));
      CHECK(contains(error, each.expected));
      CHECK(contains(error, "/s/vmfs.toml"));
    }
    CHECK(contains(error_of(with("id = \"ab01", "")), "volume.id: this key is missing"));
    CHECK(contains(error_of("format = 1\n[volume]\n"), "[node] is missing"));
    CHECK(contains(error_of("format = 1\nvolume = 2\n[node]\n"), "must be a table"));
  }

  TEST_CASE("a line that is no TOML names file and line, whatever it begins with") {
    CHECK(contains(error_of("format = 1\n\xff\xff = 1\n"), "/s/vmfs.toml:2: not TOML: this line is not UTF-8"));
    for (const char* line : {"\xc3\xa9 = 1", "a = 1 \xef\xb5\xbf", "a\xe3\x80\x80= 1", "a = \"x\"\xc2\xa0", "a = 'x\\'\xc2\xa0'",
                             "a = \"\\\"\" \xc2\xa0 \"", "a = 12'\xcb\x9b'"}) {
      CAPTURE(line);
      const std::string error = error_of("\n" + std::string(line) + "\n");
      CHECK(contains(error, "/s/vmfs.toml:2: not TOML: "));
      CHECK(contains(error, "('?' is text beyond ASCII, which may be in quotes only)"));
    }
    CHECK(contains(error_of("a = \"\"\"\n\xc3\xa9\"\"\""), "/s/vmfs.toml:1: not TOML: \"\"\" begins a string of several lines"));
    CHECK(parse_config("\xef\xbb\xbf" + with("format =", "format = 1"), "/s/vmfs.toml"));
    // In comments and quotes it may stand.
    CHECK(parse_config(with("journal =", "journal = \"/srv/d\xc3\xa9p\xc3\xb4t\"  # \xe2\x82\xac"), "/s/vmfs.toml"));
    for (const char* line : {"[:", "[[!", "[ ", "=", "a.=1", "\"a\n\"=1", "[[[]", "\x1b"}) {
      CAPTURE(line);
      CHECK(contains(error_of("\n" + std::string(line) + "\n"), "/s/vmfs.toml"));
    }
  }

  TEST_CASE("files: no store, atomic replacement, modes, a secret that others can read") {
    char name[] = "/tmp/vmfs-config-XXXXXX";
    std::string store = ::mkdtemp(name);
    auto none = read_config(store);
    REQUIRE_FALSE(none);
    CHECK(contains(none.error().message, "is not a store"));
    CHECK(contains(none.error().message, "vmfs init " + store));
    REQUIRE(write_config(store, sample()));
    REQUIRE(write_config(store, sample()));
    auto read = read_config(store);
    REQUIRE(read);
    CHECK(format_config(*read) == format_config(sample()));

    Secret secret = new_secret();
    REQUIRE(write_secret(store, secret));
    struct stat status {};
    REQUIRE(::stat((store + "/secret").c_str(), &status) == 0);
    CHECK((status.st_mode & 07777) == 0600);
    auto same = read_secret(store);
    REQUIRE(same);
    CHECK(*same == secret);
    ::chmod((store + "/secret").c_str(), 0640);
    auto open = read_secret(store);
    REQUIRE_FALSE(open);
    CHECK(contains(open.error().message, "chmod 600"));
    REQUIRE(replace_small_file(store + "/secret", "abc\n", 0600));
    auto broken = read_secret(store);
    REQUIRE_FALSE(broken);
    CHECK(contains(broken.error().message, "64 hexadecimal digits"));
    // Sixty-four characters of which some are none, though a lenient reader makes numbers of them.
    for (const char* pair : {" a", "-1", "+1", "0x", "a "}) {
      std::string text = format_secret(secret);
      text.replace(10, 2, pair);
      CHECK_FALSE(parse_secret(text, "secret"));
    }
    std::filesystem::remove_all(store);
  }

  TEST_CASE("the manual's example is a good file") {
    auto manual = read_small_file(VMFS_SOURCE_DIR "/docs/man/vmfs.toml.5.scd");
    REQUIRE(manual);
    std::size_t begin = manual->find("```\n", manual->find("# EXAMPLE")) + 4;
    auto parsed = parse_config(manual->substr(begin, manual->find("```", begin) - begin), "/s/vmfs.toml");
    REQUIRE_MESSAGE(parsed, parsed.error().message);
    CHECK(parsed->journal == "/nvme/vmfs-journal");
    CHECK(parsed->peers.size() == 1);
  }

  TEST_CASE("settings that `vmfs set` takes") {
    VolumeSettings settings;
    REQUIRE(change_setting(settings, "mode=async"));
    REQUIRE(change_setting(settings, "on-peer-loss=freeze"));
    REQUIRE(change_setting(settings, "compression=zstd:5"));
    CHECK(settings.mode == ReplicationMode::kAsync);
    CHECK(settings.on_peer_loss == OnPeerLoss::kFreeze);
    CHECK(settings.compression == 5);
    REQUIRE(change_setting(settings, "compression=off"));
    CHECK(settings.compression == 0);
    REQUIRE(change_setting(settings, "compression=auto"));
    CHECK_FALSE(settings.compression.has_value());
    auto unknown = change_setting(settings, "colour=red");
    REQUIRE_FALSE(unknown);
    CHECK(contains(unknown.error().message, "mode, on-peer-loss, compression"));
    CHECK_FALSE(change_setting(settings, "mode"));
    CHECK_FALSE(change_setting(settings, "mode=Sync"));
  }

  TEST_CASE("a running daemon's changes keep what a person edited meanwhile") {
    char name[] = "/tmp/vmfs-config-XXXXXX";
    std::string store = ::mkdtemp(name);
    Config config = sample();
    config.peers = {{NodeId{}, "", "192.0.2.2:7411"}};
    REQUIRE(write_config(store, config));
    ConfigKeeper keeper(store, config);
    Config edited = config;
    edited.memory = 1u << 30;
    REQUIRE(write_config(store, edited));
    // The peer that so far had only an address is now known by name.
    PeerInfo met{NodeId{0xb}, "host-b", "192.0.2.2:7411"};
    REQUIRE(keeper.update([&](Config& c) { record_peer(c, met); }));
    auto read = read_config(store);
    REQUIRE(read);
    CHECK(read->memory == 1u << 30);
    CHECK(read->peers == std::vector<PeerInfo>{met});
    CHECK(keeper.config().memory == config.memory);
    REQUIRE(keeper.update([&](Config& c) { forget_peer(c, met.id); }));
    CHECK(keeper.config().peers.empty());
    CHECK(keeper.config().removed.back() == met.id);
    CHECK(keeper.problem().empty());
    // A file that cannot be read is a problem to show, and the change holds for as long as we run.
    REQUIRE(replace_small_file(store + "/vmfs.toml", "nonsense", 0644));
    CHECK_FALSE(keeper.update([&](Config& c) { record_peer(c, met); }));
    CHECK(keeper.config().peers.size() == 1);
    CHECK(contains(keeper.problem(), "vmfs.toml"));
    CHECK_FALSE(contains(keeper.problem(), "free space"));
    std::filesystem::remove_all(store);
  }

  TEST_CASE("a machine that was made anew joins under its old name, before the old one is removed") {
    Config config = sample();
    config.peers = {};
    record_peer(config, {NodeId{0xb}, "host-b", "192.0.2.2:7411"});
    record_peer(config, {NodeId{0xc}, "host-b", "192.0.2.2:7411"});
    auto read = parse_config(format_config(config), "f");
    REQUIRE_MESSAGE(read, read.error().message);
    CHECK(read->peers == config.peers);
    for (const char* name : {"host-b", "192.0.2.2:7411"}) {
      auto which = peer_called(config.peers, name);
      REQUIRE_FALSE(which);
      CHECK(contains(which.error().message, "ambiguous"));
      CHECK(contains(which.error().message, fmt::format("{}, {}", NodeId{0xb}, NodeId{0xc})));
    }
    CHECK(peer_called(config.peers, fmt::format("{}", NodeId{0xb}))->id == NodeId{0xb});
    forget_peer(config, NodeId{0xb});
    CHECK(peer_called(config.peers, "host-b")->id == NodeId{0xc});
    CHECK(contains(peer_called(config.peers, "host-x").error().message, "there are: host-b"));
    CHECK(contains(peer_called({}, "host-b").error().message, "there are none"));
    // The same id twice is a mistake whatever the names.
    config.peers.push_back({NodeId{0xc}, "host-d", ""});
    CHECK(contains(error_of(format_config(config)), "already listed"));
    // A person named it before its id was known; it dials from elsewhere.
    config.peers = {{NodeId{}, "host-e", "192.0.2.5:7411"}};
    record_peer(config, {NodeId{0xe}, "host-e", "198.51.100.5:7411"});
    CHECK(config.peers.size() == 1);
  }

  TEST_CASE("the journal's default size follows the store's") {
    auto size = [](std::uint64_t total_gib, std::uint64_t available_gib) {
      DiskSpace store{total_gib << 30, available_gib << 30, 0, 0};
      auto chosen = default_journal_size(store, store);
      REQUIRE(chosen);
      return *chosen;
    };
    CHECK(size(64, 64) == 4ull << 30);
    CHECK(size(1, 1) == 256u << 20);       // never below 256 MiB ...
    CHECK(size(8000, 8000) == 16ull << 30);  // ... or above 16 GiB ...
    CHECK(size(64, 2) == 512u << 20);      // ... or more than a quarter of what is free
    DiskSpace full{1ull << 40, 100u << 20, 0, 0};
    auto none = default_journal_size(full, full);
    REQUIRE_FALSE(none);
    CHECK(none.error().kind == ErrorKind::kNoSpace);
    CHECK(contains(none.error().message, "--journal DIR"));
    CHECK(segment_size_for(32u << 20) == 4u << 20);
    CHECK(segment_size_for(256u << 20) == 16u << 20);
    CHECK(segment_size_for(300u << 20) == 16u << 20);
    CHECK(segment_size_for(16ull << 30) == 64u << 20);
  }
}
