// The program. It is `vmfs COMMAND ...`, and mount.vmfs when it is called by that name.
#include <cstring>
#include <string_view>

#include "cli/commands.h"

int main(int argc, char** argv) {
  std::string_view name = argc > 0 ? argv[0] : "vmfs";
  if (std::size_t slash = name.find_last_of('/'); slash != std::string_view::npos)
    name.remove_prefix(slash + 1);
  if (name == "mount.vmfs") return vmfs::run_mount_helper(argc, argv);
  vmfs::CommandLine line;
  vmfs::add_all_commands(line);
  return line.run(argc, argv);
}
