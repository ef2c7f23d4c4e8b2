// The program's commands, by group. Each function adds its subcommands to the application; what the
// command line chose is run after parsing.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "cli/exit_status.h"
#include "fs/base/result.h"

namespace vmfs {

struct CommandLine {
  CLI::App app{"vmfs keeps disk images on two machines: put them under a mount point, and everything "
               "written there is on the other machine too.",
               "vmfs"};
  std::function<int()> run;  // what was chosen; its value is the exit status
};

void add_setup_commands(CommandLine& line);        // init, token, join
void add_mount_commands(CommandLine& line);        // mount, umount, restart
void add_status_commands(CommandLine& line);       // status, wait
void add_replication_commands(CommandLine& line);  // promote, demote, resolve, peer, set
void add_offline_commands(CommandLine& line);      // recover, inspect
void add_daemon_command(CommandLine& line);        // daemon, hidden: the holder starts it

void add_all_commands(CommandLine& line);

// As mount(8) calls a helper: mount.vmfs STORE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE].
int run_mount_helper(int argc, char** argv);

// "error: ..." on standard error; the exit status that goes with the kind of error.
int report(const Error& error);
int report(const Result<>& result);

}  // namespace vmfs
