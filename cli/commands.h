// The program's commands, by group. Each function adds its own to the command line.
#pragma once

#include "cli/command_line.h"
#include "fs/base/result.h"

namespace vmfs {

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
