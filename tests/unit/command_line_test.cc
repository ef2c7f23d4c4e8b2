// Targets, mount options, the control socket, and the command line against its manual.
#include <doctest/doctest.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/control.h"
#include "cli/file.h"
#include "cli/mount_options.h"
#include "cli/posted_work.h"
#include "cli/run_directory.h"
#include "cli/target.h"
#include "fs/holder/holder.h"
#include "fs/holder/status.h"
#include "net/link/asio_shell.h"

using namespace vmfs;

TEST_SUITE("command_line") {
  TEST_CASE("paths are made normal from their text alone") {
    CHECK(normal_path("/a/b", "/c") == "/a/b");
    CHECK(normal_path("a/./b//c/", "/c/d") == "/c/d/a/b/c");
    CHECK(normal_path("../x", "/c/d") == "/c/x");
    CHECK(normal_path("../../../..", "/c/d") == "/");
    CHECK(normal_path(".", "/") == "/");
  }

  TEST_CASE("the mount that holds a path: the longest, whole names, the later of two") {
    std::vector<MountEntry> mounts(4);
    mounts[0].mountpoint = "/vm";
    mounts[1].mountpoint = "/vm/inner";
    mounts[2].mountpoint = "/other";
    mounts[2].source = "first";
    mounts[3].mountpoint = "/other";
    mounts[3].source = "second";
    CHECK(mount_of("/vm", mounts) == &mounts[0]);
    CHECK(mount_of("/vm/web01.img", mounts) == &mounts[0]);
    CHECK(mount_of("/vm/inner/x", mounts) == &mounts[1]);
    CHECK(mount_of("/vmware", mounts) == nullptr);
    CHECK(mount_of("/", mounts) == nullptr);
    REQUIRE(mount_of("/other/x", mounts) != nullptr);
    CHECK(mount_of("/other/x", mounts)->source == "second");
  }

  TEST_CASE("mount options") {
    MountOptions options;
    REQUIRE(apply_mount_options(options, "defaults,nofail,_netdev,x-systemd.after=a.mount,allow_other"));
    CHECK_FALSE(options.read_only);
    CHECK(options.no_atime);
    REQUIRE(apply_mount_options(options, "ro,noexec,relatime,"));
    CHECK(options.read_only);
    CHECK(options.no_exec);
    CHECK_FALSE(options.no_atime);
    // The last one counts, as everywhere.
    REQUIRE(apply_mount_options(options, "rw"));
    CHECK_FALSE(options.read_only);
    auto unknown = apply_mount_options(options, "ro,quota");
    REQUIRE_FALSE(unknown);
    CHECK(unknown.error().message.find("\"quota\"") != std::string::npos);
  }

  TEST_CASE("requests and answers over the control socket") {
    char name[] = "/tmp/vmfs-control-XXXXXX";
    std::string store = ::mkdtemp(name);
    auto nobody = ControlClient::connect(store);
    REQUIRE_FALSE(nobody);
    CHECK(nobody.error().kind == ErrorKind::kNotFound);

    // A store whose path is longer than a socket's address can be.
    std::string deep = store + "/" + std::string(120, 'd');
    REQUIRE(make_directory_durably(deep, 0700));
    REQUIRE(make_directory_durably(control_directory(deep), 0700));
    std::atomic<int> cancelled{0};
    std::thread later;
    auto server = ControlServer::start(
        deep, [&](const nlohmann::json& request, ControlServer::Reply reply) -> std::function<void()> {
          std::string command = request.value("command", "");
          if (command == "echo") {
            reply({{"ok", true}, {"text", request.value("text", "")}});
          } else if (command == "later") {
            later = std::thread([reply] { reply({{"ok", true}, {"text", "late"}}); });
          } else if (command == "never") {
            return [&] { ++cancelled; };
          } else {
            reply(error_to_json({ErrorKind::kRefused, EROFS, "no:\nnever"}));
          }
          return {};
        });
    REQUIRE_MESSAGE(server, server.error().message);
    auto client = ControlClient::connect(deep);
    REQUIRE_MESSAGE(client, client.error().message);
    constexpr std::int64_t kSoon = 10'000'000'000;
    std::string large(100000, 'x');
    auto echoed = (*client)->request({{"command", "echo"}, {"text", large}}, kSoon);
    REQUIRE(echoed);
    CHECK((*echoed)["text"] == large);
    auto late = (*client)->request({{"command", "later"}}, kSoon);
    REQUIRE(late);
    CHECK((*late)["text"] == "late");
    later.join();
    auto refused = (*client)->request({{"command", "what"}}, kSoon);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == ErrorKind::kRefused);
    CHECK(refused.error().number == EROFS);
    CHECK(refused.error().message == "no:\nnever");
    auto impatient = (*client)->request({{"command", "never"}}, 20'000'000);
    REQUIRE_FALSE(impatient);
    CHECK(impatient.error().number == ETIMEDOUT);
    auto too_long = (*client)->request({{"command", "echo"}, {"text", std::string(kControlRequestMax, 'x')}}, kSoon);
    REQUIRE_FALSE(too_long);
    CHECK(too_long.error().number == E2BIG);
    // A client that goes away, and a server that ends, cancel what is under way.
    client->reset();
    auto second = ControlClient::connect(deep);
    REQUIRE(second);
    std::thread asking([&] {
      auto ended = (*second)->request({{"command", "never"}}, kSoon);
      CHECK_FALSE(ended);
    });
    while (cancelled == 0) std::this_thread::yield();
    server->reset();
    asking.join();
    CHECK_FALSE(ControlClient::connect(deep));
    std::filesystem::remove_all(store);
  }

  TEST_CASE("a request whose fields are not what they must be is refused, not taken for another") {
    auto good = parse_control_request(R"({"command": "promote", "paths": ["a"], "force": true, "newer": [1]})");
    REQUIRE(good);
    CHECK((*good)["paths"] == nlohmann::json{"a"});
    // Without paths the whole volume is meant: paths that cannot be read must not become none.
    for (const char* bad : {R"({"command": "promote", "paths": "web01.img", "force": true})",
                            R"({"command": "promote", "paths": [1]})", R"({"paths": {"a": "b"}})",
                            R"({"command": "promote", "force": "yes"})", R"({"command": 1})", R"({"keep": null})",
                            R"(["promote"])", R"({"command": "promote")", ""}) {
      auto refused = parse_control_request(bad);
      REQUIRE_MESSAGE(!refused, bad);
      CHECK(refused.error().kind == ErrorKind::kInvalid);
      CHECK(refused.error().message.starts_with("the request"));
    }
    CHECK_FALSE(parse_control_request("{\"x\": " + std::string(100, '[') + std::string(100, ']') + "}"));
  }

  TEST_CASE("an answer of any kind is an answer, its error, or none") {
    CHECK(parse_control_answer(R"({"ok": true, "text": 5})"));
    for (const char* none : {R"({"ok": 1})", R"({"ok": "yes"})", R"({})", "[]", "1", "", R"({"ok": true)"}) {
      auto refused = parse_control_answer(none);
      REQUIRE_MESSAGE(!refused, none);
      CHECK(refused.error().kind == ErrorKind::kProtocol);
    }
    const Error error{ErrorKind::kRefused, EROFS, "no:\nnever"};
    auto refused = parse_control_answer(error_to_json(error).dump());
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == error.kind);
    CHECK(refused.error().number == error.number);
    CHECK(refused.error().message == error.message);
    for (const char* odd : {R"({"ok": false})", R"({"ok": false, "error": "x"})",
                            R"({"ok": false, "error": {"kind": 7, "number": "x", "message": []}})",
                            R"({"ok": false, "error": {"number": 1e300}})"}) {
      refused = parse_control_answer(odd);
      REQUIRE_MESSAGE(!refused, odd);
      CHECK(refused.error().kind == ErrorKind::kIo);
      CHECK(refused.error().number == EIO);
      CHECK_FALSE(refused.error().message.empty());
    }
  }

  TEST_CASE("commands that are queued when the daemon ends are answered, and have run before what they use is gone") {
    char name[] = "/tmp/vmfs-control-XXXXXX";
    const std::string store = ::mkdtemp(name);
    REQUIRE(make_directory_durably(control_directory(store), 0700));
    AsioShellOptions options;
    options.credentials.encryption = Encryption::kOffOnLoopback;
    auto shell = AsioShell::create(options);
    REQUIRE_MESSAGE(shell, (shell ? "" : shell.error().message));
    (*shell)->start([] {});
    // The node's thread has something to do that takes as long as the test says.
    std::promise<void> go_on;
    std::atomic<bool> gone{false};
    std::atomic<int> queued{0}, ran{0}, cancelled{0}, ran_too_late{0}, ended{0};
    constexpr int kCommands = 5;
    {
      auto posted = std::make_unique<PostedWork>(**shell);
      posted->post([&, wait = go_on.get_future().share()] { wait.wait(); });
      auto server = ControlServer::start(
          store, [&](const nlohmann::json&, ControlServer::Reply reply) -> std::function<void()> {
            posted->post([&, reply] {
              ran_too_late += gone.load();
              ++ran;
              reply({{"ok", true}});
            });
            ++queued;
            return [&] { posted->post([&] { ++cancelled; }); };
          });
      REQUIRE_MESSAGE(server, (server ? "" : server.error().message));
      std::vector<std::thread> clients;
      for (int i = 0; i < kCommands; ++i)
        clients.emplace_back([&] {
          auto client = ControlClient::connect(store);
          auto answer = (*client)->request({{"command", "x"}}, -1);
          ended += !answer && answer.error().message == "the daemon ends";
        });
      while (queued != kCommands) std::this_thread::yield();
      server->reset();
      for (std::thread& client : clients) client.join();
      CHECK(ended == kCommands);
      CHECK(ran == 0);
      // Whoever commands belong to goes now; the node's thread comes to them only then.
      std::thread frees([&] { go_on.set_value(); });
      posted.reset();
      gone = true;
      frees.join();
      CHECK(ran == kCommands);
      CHECK(cancelled == kCommands);
    }
    (*shell)->stop();
    CHECK(ran_too_late == 0);
    std::filesystem::remove_all(store);
  }

  TEST_CASE("what is unmounted, and not closed yet, is not being started") {
    char name[] = "/tmp/vmfs-closing-XXXXXX";
    const std::string store = ::mkdtemp(name);
    REQUIRE(make_directory_durably(control_directory(store), 0700));
    char before[16] = {};
    ::prctl(PR_GET_NAME, before);
    ::prctl(PR_SET_NAME, "vmfs");  // as a daemon's process is called
    HolderStatus status;
    status.state = HolderStatus::State::kRunning;
    status.holder_pid = status.daemon_pid = ::getpid();
    status.holder_started = process_start(::getpid());
    status.mountpoint = "/mnt/vm";
    REQUIRE(write_holder_status(holder_status_path(store), status));
    CHECK(why_not_served(store, "").find("closing the volume") != std::string::npos);
    CHECK(why_not_served(store, "/mnt/vm").find("being started") != std::string::npos);
    status.state = HolderStatus::State::kRestarting;
    REQUIRE(write_holder_status(holder_status_path(store), status));
    CHECK(why_not_served(store, "").find("being started") != std::string::npos);
    ::prctl(PR_SET_NAME, before);
    std::filesystem::remove_all(store);
  }

  TEST_CASE("whoever waits for a change looks again, also where none can be noticed") {
    RunDirectoryWatch watch("/nonexistent");
    CHECK(watch.wait(-1));
    CHECK(watch.wait(5'000'000'000));
    CHECK_FALSE(watch.wait(1'000'000));
  }

  TEST_CASE("every command and option is in the manual page") {
    auto manual = read_small_file(VMFS_SOURCE_DIR "/docs/man/vmfs.1.scd");
    REQUIRE(manual);
    CommandLine line;
    add_all_commands(line);
    const auto commands = line.describe();
    CHECK(commands.size() > 10);
    for (const CommandLine::Described& command : commands) {
      CAPTURE(command.name);
      CHECK((command.has_commands || manual->find("*vmfs " + command.name + "*") != std::string::npos));
      for (const std::string& word : command.words) {
        if (word == "--help") continue;
        CAPTURE(word);
        CHECK(manual->find(word) != std::string::npos);
      }
    }
  }

  TEST_CASE("every key of vmfs.toml is in its manual page") {
    auto manual = read_small_file(VMFS_SOURCE_DIR "/docs/man/vmfs.toml.5.scd");
    REQUIRE(manual);
    // A key that is unknown is refused with all that are known.
    Config config;
    config.volume = new_volume_id();
    config.volume_name = config.node_name = "x";
    config.node = new_node_id();
    config.journal_size = 1u << 30;
    const std::string text = format_config(config) + "[[peer]]\n";
    std::size_t keys = 0;
    for (const std::string table : {"format", "[volume]", "[node]", "[[peer]]"}) {
      CAPTURE(table);
      std::string odd = text;
      const std::size_t at = odd.find("\n" + table);
      REQUIRE(at != std::string::npos);
      odd.insert(table == "format" ? at + 1 : odd.find('\n', at + 1) + 1, "odd = 1\n");
      auto refused = parse_config(odd, "f");
      REQUIRE_FALSE(refused);
      std::string allowed = refused.error().message;
      REQUIRE_MESSAGE(allowed.find("unknown key; allowed ") != std::string::npos, allowed);
      allowed.erase(0, allowed.rfind(": ") + 2);
      for (std::size_t start = 0; start < allowed.size(); ++keys) {
        const std::size_t end = std::min(allowed.find(", ", start), allowed.size());
        const std::string key = allowed.substr(start, end - start);
        start = end + 2;
        CAPTURE(key);
        const bool is_table = text.find("[" + key + "]") != std::string::npos;
        CHECK(manual->find(is_table ? "[" + key + "]" : "*" + key + "*") != std::string::npos);
      }
    }
    CHECK(keys > 20);
  }
}
