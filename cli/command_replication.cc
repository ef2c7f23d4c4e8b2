// vmfs promote, vmfs demote, vmfs resolve, vmfs peer, vmfs set
#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/json_fields.h"
#include "fs/base/printable.h"

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
  if (std::string text = text_of(reply, "text"); !text.empty()) fmt::print("{}\n", printable(text));
  return {};
}

// The exit status of what a node decides.
int decided(const Result<>& result) {
  const int status = report(result);
  const bool refused = !result && (result.error().kind == ErrorKind::kRefused || result.error().kind == ErrorKind::kBusy);
  return refused && status == kFailure ? kRefused : status;
}

Result<> list_peers(const std::string& path) {
  VMFS_ASSIGN(Targets targets, resolve_targets({path}));
  VMFS_ASSIGN(nlohmann::json reply,
              ask(targets.volume, {{"command", "status"}, {"paths", targets.paths}}, kQuestionNs));
  const nlohmann::json& peers = part_of(part_of(reply, "status"), "peers");
  if (peers.empty()) {
    fmt::print("no peers\nto add one:  vmfs token {}   and join with it on the other machine\n",
               targets.volume.store);
    return {};
  }
  fmt::print("{:<20} {:<16} {:<24} {:<12} {}\n", "NODE", "ID", "ADDRESS", "LINK", "STATE");
  for (const nlohmann::json& peer : peers)
    fmt::print("{:<20} {:<16} {:<24} {:<12} {}\n", text_of(peer, "node"), text_of(peer, "node_id"),
               text_of(peer, "address").empty() ? "(it calls)" : text_of(peer, "address"),
               text_of(peer, "link"), text_of(peer, "state"));
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
    fmt::print("{}={}\n", key, text_of(reply, key));
  return {};
}

}  // namespace

void add_replication_commands(CommandLine& line) {
  auto arguments = std::make_shared<ReplicationArguments>();
  const char* paths_help = "mount point (the whole volume), or files and directories under one";

  line.add("promote", "Make this node the one that may write")
      .required("PATH", arguments->paths, paths_help)
      .flag("--force", arguments->force,
            "also when the other node cannot be asked, or a guest uses the image there. It may still be running!")
      .runs([arguments] {
        return decided(change(arguments->paths, {{"command", "promote"}, {"force", arguments->force}}));
      });

  line.add("demote", "Hand the right to write to a peer in sync")
      .required("PATH", arguments->paths, paths_help)
      .flag("--force", arguments->force, "also when something here still has it open for writing")
      .runs([arguments] {
        return decided(change(arguments->paths, {{"command", "demote"}, {"force", arguments->force}}));
      });

  line.add("resolve", "End a split brain: choose which side survives")
      .required("PATH", arguments->paths, paths_help)
      .required("--keep", arguments->keep, {"local", "peer"},
                "local or peer; the other side is kept read-only under .snapshots/ (its names in STORE/kept-names/)")
      .runs([arguments] {
        return report(change(arguments->paths, {{"command", "resolve"}, {"keep", arguments->keep}}));
      });

  Command peer = line.add("peer", "List the other nodes, or remove one");
  peer.add("list", "List the other nodes of a volume")
      .required("MOUNTPOINT", arguments->path, "where it is mounted")
      .runs([arguments] { return report(list_peers(arguments->path)); });
  peer.add("remove", "Forget a node for good: it is refused from then on, and must join anew")
      .required("MOUNTPOINT", arguments->path, "where it is mounted")
      .required("NODE", arguments->node, "its name, id or address")
      .runs([arguments] {
        return report(change({arguments->path}, {{"command", "peer-remove"}, {"node", arguments->node}}));
      });

  line.add("set", "Change the volume's settings on all nodes")
      .required("MOUNTPOINT", arguments->path, "where it is mounted")
      .optional("SETTING", arguments->assignments,
                "mode=sync|semisync|async, on-peer-loss=continue|freeze, "
                "compression=auto|off|zstd:N; without any: print them")
      .runs([arguments] { return report(set_settings(*arguments)); });
}

}  // namespace vmfs
