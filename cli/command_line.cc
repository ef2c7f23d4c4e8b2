#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/commands.h"

namespace vmfs {

void add_all_commands(CommandLine& line) {
  line.app.set_version_flag("--version", "vmfs " VMFS_VERSION);
  line.app.require_subcommand(1);
  line.app.get_formatter()->column_width(34);
  line.app.footer(
      "A PATH is a mount point (the whole volume) or a file or directory under one.\n"
      "Exit status: 0 done or healthy, 1 failed, 2 wrong command line or configuration,\n"
      "3 not healthy, 4 timeout, 5 refused by a rule that a person may overrule.\n"
      "Manual pages: vmfs(1), vmfs.toml(5).");
  add_setup_commands(line);
  add_mount_commands(line);
  add_status_commands(line);
  add_replication_commands(line);
  add_offline_commands(line);
  add_daemon_command(line);
}

int report(const Error& error) {
  fmt::print(stderr, "error: {}\n", error.message.empty() ? std::strerror(error.number) : error.message);
  if (error.number == ETIMEDOUT) return kTimeout;
  if (error.kind == ErrorKind::kInvalid) return kUsage;
  if (error.kind == ErrorKind::kRefused) return kRefused;
  return kFailure;
}

int report(const Result<>& result) { return result ? kSuccess : report(result.error()); }

}  // namespace vmfs
