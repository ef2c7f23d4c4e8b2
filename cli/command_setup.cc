// vmfs init, vmfs token, vmfs join
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "cli/commands.h"
#include "cli/control.h"
#include "cli/file_system.h"
#include "cli/setup.h"
#include "cli/target.h"
#include "fs/base/sizes.h"
#include "net/link/address.h"

namespace vmfs {

namespace {

constexpr std::int64_t kAnswerNs = 30'000'000'000;

struct SetupArguments {
  std::string store, name, node, journal, journal_size, listen, mode = "sync", token, address;
};

Result<NewStore> wish_from(const SetupArguments& arguments) {
  NewStore wish;
  wish.store = arguments.store;
  wish.volume_name = arguments.name;
  wish.node_name = arguments.node;
  wish.listen = arguments.listen;
  wish.journal = arguments.journal;
  VMFS_ASSIGN(wish.mode, parse_mode(arguments.mode));
  if (!arguments.journal_size.empty()) {
    VMFS_ASSIGN(wish.journal_size, parse_size(arguments.journal_size));
  }
  return wish;
}

void print_made(const SetupArguments& arguments, const Config& config) {
  fmt::print("volume {}, node {}: made in {}\n", config.volume_name, config.node_name, arguments.store);
  const std::string journal = journal_directory(arguments.store, config);
  fmt::print("  journal of {} in {}\n", human_size(config.journal_size), journal);
  std::fflush(stdout);
  fmt::print(stderr, "{}", file_system_warning(arguments.store, "store"));
  if (!arguments.journal.empty()) fmt::print(stderr, "{}", file_system_warning(journal, "journal"));
}

Result<> run_init(const SetupArguments& arguments) {
  VMFS_ASSIGN(NewStore wish, wish_from(arguments));
  VMFS_ASSIGN(Config config, create_store(wish));
  print_made(arguments, config);
  fmt::print("next:\n"
             "  vmfs mount {0} MOUNTPOINT       use it\n"
             "  vmfs token {0}                  what a second machine needs to join\n",
             arguments.store);
  return {};
}

// Reads the token from the argument, or, for "-", from standard input: arguments can be seen by every
// user of the machine.
Result<JoinToken> token_from(const std::string& argument) {
  std::string text = argument;
  if (argument == "-") {
    if (::isatty(STDIN_FILENO) == 1) fmt::print(stderr, "token: ");
    std::getline(std::cin, text);
  }
  return decode_token(text);
}

Result<> run_join(const SetupArguments& arguments) {
  VMFS_ASSIGN(NewStore wish, wish_from(arguments));
  VMFS_ASSIGN(wish.token, token_from(arguments.token));
  VMFS_ASSIGN(Config config, create_store(wish));
  print_made(arguments, config);
  fmt::print("  it will fetch the volume from {} once it is mounted\n"
             "next:\n"
             "  vmfs mount {} MOUNTPOINT\n"
             "  vmfs wait MOUNTPOINT in-sync\n",
             wish.token->address, arguments.store);
  return {};
}

bool is_any_address(const std::string& host) { return host == "0.0.0.0" || host == "::" || host.empty(); }

// Where the other node is to find this one.
Result<std::string> address_for_token(const SetupArguments& arguments, const Config& config) {
  if (!arguments.address.empty()) {
    VMFS_ASSIGN(HostPort address, parse_address(arguments.address));
    return to_string(address);
  }
  VMFS_ASSIGN(HostPort listen, parse_address(config.listen));
  if (is_any_address(listen.host)) {
    listen.host = guess_address();
    if (listen.host.empty())
      return fail(ErrorKind::kInvalid, EINVAL,
                  "this machine has no address but loopback; say where the other node is to find it, "
                  "with --address HOST:PORT");
    fmt::print(stderr,
               "note: the other node is told to find this one at {}; if that is wrong, make another "
               "token with --address HOST:PORT\n",
               to_string(listen));
  }
  return to_string(listen);
}

Result<> run_token(const SetupArguments& arguments) {
  VMFS_ASSIGN(std::string store, resolve_store(arguments.store));
  VMFS_ASSIGN(Config config, read_config(store));
  VMFS_ASSIGN(Secret secret, read_secret(store));
  if (config.listen.empty()) {
    // Nobody could call so far; from here on the volume is meant to have a second node.
    std::string listen = fmt::format("0.0.0.0:{}", kDefaultPort);
    auto client = ControlClient::connect(store);
    if (client) {
      VMFS_TRY((*client)->request({{"command", "listen"}, {"address", listen}}, kAnswerNs));
    } else if (client.error().kind == ErrorKind::kNotFound) {
      config.listen = listen;
      VMFS_TRY(write_config(store, config));
    } else {
      return pass(std::move(client.error()));
    }
    config.listen = listen;
    fmt::print(stderr, "note: this node listens on {} from now on (vmfs.toml: node.listen)\n", listen);
  }
  VMFS_ASSIGN(std::string address, address_for_token(arguments, config));
  VMFS_ASSIGN(std::string token, encode_token({config.volume, config.volume_name, address, secret}));
  fmt::print("{}\n", token);
  if (::isatty(STDOUT_FILENO) == 1)
    fmt::print(stderr,
               "on the other machine:  vmfs join STORE {}...\n"
               "Whoever has the token can read and change the volume. Keep it like a password.\n",
               kTokenPrefix);
  return {};
}

}  // namespace

void add_setup_commands(CommandLine& line) {
  auto arguments = std::make_shared<SetupArguments>();
  const char* journal_help = "directory for the journal, maybe on a faster disk (default: STORE/journal)";
  const char* listen_help = "address on which this node's peers may call it (default: none)";
  const char* node_help = "this node's name (default: the machine's name)";

  line.add("init", "Make a new volume with its first store")
      .required("STORE", arguments->store, "directory for the store; empty or new")
      .optional("--name", arguments->name, "the volume's name (default: the directory's)")
      .optional("--node", arguments->node, node_help)
      .optional("--journal", arguments->journal, journal_help)
      .optional("--journal-size", arguments->journal_size,
                "as 4GiB (default: 1/16 of the file system, 256MiB to 16GiB, at most 1/4 of what is free)")
      .optional("--listen", arguments->listen, listen_help)
      .optional("--mode", arguments->mode, "sync, semisync or async: what a guest's flush waits for")
      .runs([arguments] { return report(run_init(*arguments)); });

  line.add("token", "Print what another machine needs to join")
      .required("STORE", arguments->store, "the store on this machine")
      .optional("--address", arguments->address, "HOST:PORT where the other node finds this one")
      .runs([arguments] { return report(run_token(*arguments)); });

  line.add("join", "Make a store for a volume of another machine")
      .required("STORE", arguments->store, "directory for the store; empty or new")
      .required("TOKEN", arguments->token, "what `vmfs token` printed there; -: read it here")
      .optional("--node", arguments->node, node_help)
      .optional("--listen", arguments->listen, listen_help)
      .optional("--journal", arguments->journal, journal_help)
      .runs([arguments] { return report(run_join(*arguments)); });
}

}  // namespace vmfs
