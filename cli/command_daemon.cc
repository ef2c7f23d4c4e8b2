// vmfs daemon: hidden; the holder starts it
#include <memory>

#include "cli/commands.h"
#include "cli/daemon.h"

namespace vmfs {

void add_daemon_command(CommandLine& line) {
  auto arguments = std::make_shared<DaemonArguments>();
  line.add("daemon", "Serve a mount; started by its holder")
      .hidden()
      .required("STORE", arguments->store)
      .flag("--pretend-no-resend", arguments->pretend_no_resend)
      .runs([arguments] { return run_daemon(*arguments); });
}

}  // namespace vmfs
