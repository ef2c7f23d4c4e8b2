// vmfs daemon: hidden; the holder starts it
#include <memory>

#include "cli/commands.h"
#include "cli/daemon.h"

namespace vmfs {

void add_daemon_command(CommandLine& line) {
  auto arguments = std::make_shared<DaemonArguments>();
  // An empty group hides it from the help.
  CLI::App* daemon = line.app.add_subcommand("daemon", "Serve a mount; started by its holder")->group("");
  daemon->add_option("STORE", arguments->store)->required();
  daemon->add_flag("--pretend-no-resend", arguments->pretend_no_resend);
  daemon->callback([&line, arguments] { line.run = [arguments] { return run_daemon(*arguments); }; });
}

}  // namespace vmfs
