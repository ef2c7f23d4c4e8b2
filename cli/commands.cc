#include "cli/commands.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "fs/base/printable.h"

namespace vmfs {

void add_all_commands(CommandLine& line) {
  add_setup_commands(line);
  add_mount_commands(line);
  add_status_commands(line);
  add_replication_commands(line);
  add_offline_commands(line);
  add_daemon_command(line);
}

int report(const Error& error) {
  fmt::print(stderr, "error: {}\n",
             printable(error.message.empty() ? std::strerror(error.number) : error.message));
  if (error.number == ETIMEDOUT) return kTimeout;
  if (error.kind == ErrorKind::kInvalid) return kUsage;
  return kFailure;
}

int report(const Result<>& result) { return result ? kSuccess : report(result.error()); }

}  // namespace vmfs
