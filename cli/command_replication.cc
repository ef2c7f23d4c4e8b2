// vmfs promote, vmfs demote, vmfs resolve, vmfs peer, vmfs set
#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/config.h"

namespace vmfs {

namespace {

struct ReplicationArguments {
  std::vector<std::string> paths, assignments;
  std::string path, keep, node;
  bool force = false;
};

// Sends a command about PATHs and prints what the daemon says.
Result<> change(const std::vector<std::string>& paths, nlohmann::json request) {
  VMFS_ASSIGN(Targets targets, resolve_targets(paths));
  request["paths"] = targets.paths;
  VMFS_ASSIGN(nlohmann::json reply, ask(targets.volume, request, kChangeNs));
  if (std::string text = reply.value("text", ""); !text.empty()) fmt::print("{}\n", text);
  return {};
}

Result<> list_peers(const std::string& path) {
  VMFS_ASSIGN(Targets targets, resolve_targets({path}));
  VMFS_ASSIGN(nlohmann::json reply,
              ask(targets.volume, {{"command", "status"}, {"paths", targets.paths}}, kQuestionNs));
  const nlohmann::json& peers = reply["status"]["peers"];
  if (peers.empty()) {
    fmt::print("no peers\nto add one:  vmfs token {}   and join with it on the other machine\n",
               targets.volume.store);
    return {};
  }
  fmt::print("{:<20} {:<16} {:<24} {:<12} {}\n", "NODE", "ID", "ADDRESS", "LINK", "STATE");
  for (const nlohmann::json& peer : peers)
    fmt::print("{:<20} {:<16} {:<24} {:<12} {}\n", peer.value("node", ""), peer.value("node_id", ""),
               peer.value("address", "").empty() ? "(it calls)" : peer.value("address", ""),
               peer.value("link", ""), peer.value("state", ""));
  return {};
}

Result<> set_settings(const ReplicationArguments& arguments) {
  VMFS_ASSIGN(Targets targets, resolve_targets({arguments.path}));
  // A wrong word is found before anything is asked of anybody.
  VolumeSettings scratch;
  for (const std::string& assignment : arguments.assignments)
    VMFS_TRY(change_setting(scratch, assignment));
  VMFS_ASSIGN(nlohmann::json reply,
              ask(targets.volume, {{"command", "set"}, {"assignments", arguments.assignments}},
                  kChangeNs));
  for (const char* key : {"mode", "on-peer-loss", "compression"})
    fmt::print("{}={}\n", key, reply.value(key, ""));
  return {};
}

}  // namespace

void add_replication_commands(CommandLine& line) {
  auto arguments = std::make_shared<ReplicationArguments>();
  auto choose = [&line, arguments](CLI::App* command, Result<> (*run)(const ReplicationArguments&)) {
    command->callback([&line, arguments, run] { line.run = [=] { return report(run(*arguments)); }; });
  };
  const char* paths_help = "mount point (the whole volume), or files and directories under one";

  CLI::App* promote = line.app.add_subcommand("promote", "Make this node the one that may write");
  promote->add_option("PATH", arguments->paths, paths_help)->required();
  promote->add_flag("--force", arguments->force,
                    "also when the other node cannot be asked. It may still be running guests!");
  choose(promote, [](const ReplicationArguments& a) {
    return change(a.paths, {{"command", "promote"}, {"force", a.force}});
  });

  CLI::App* demote = line.app.add_subcommand("demote", "Hand the right to write to a peer in sync");
  demote->add_option("PATH", arguments->paths, paths_help)->required();
  demote->add_flag("--force", arguments->force, "also when something here still has it open for writing");
  choose(demote, [](const ReplicationArguments& a) {
    return change(a.paths, {{"command", "demote"}, {"force", a.force}});
  });

  CLI::App* resolve = line.app.add_subcommand("resolve", "End a split brain: choose which side survives");
  resolve->add_option("PATH", arguments->paths, paths_help)->required();
  resolve->add_option("--keep", arguments->keep,
                      "local or peer; the other side is kept read-only under .snapshots/")
      ->required()
      ->check(CLI::IsMember({"local", "peer"}));
  choose(resolve, [](const ReplicationArguments& a) {
    return change(a.paths, {{"command", "resolve"}, {"keep", a.keep}});
  });

  CLI::App* peer = line.app.add_subcommand("peer", "List the other nodes, or remove one");
  peer->require_subcommand(1);
  CLI::App* list = peer->add_subcommand("list", "List the other nodes of a volume");
  list->add_option("MOUNTPOINT", arguments->path, "where it is mounted")->required();
  choose(list, [](const ReplicationArguments& a) { return list_peers(a.path); });
  CLI::App* remove = peer->add_subcommand(
      "remove", "Forget a node for good: it is refused from then on, and must join anew");
  remove->add_option("MOUNTPOINT", arguments->path, "where it is mounted")->required();
  remove->add_option("NODE", arguments->node, "its name or id")->required();
  choose(remove, [](const ReplicationArguments& a) {
    return change({a.path}, {{"command", "peer-remove"}, {"node", a.node}});
  });

  CLI::App* set = line.app.add_subcommand("set", "Change the volume's settings on all nodes");
  set->add_option("MOUNTPOINT", arguments->path, "where it is mounted")->required();
  set->add_option("SETTING", arguments->assignments,
                  "mode=sync|semisync|async, on-peer-loss=continue|freeze, "
                  "compression=auto|off|zstd:N; without any: print them");
  choose(set, set_settings);
}

}  // namespace vmfs
