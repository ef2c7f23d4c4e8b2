// The command line: commands, their options and words, help. CLI11 reads it; only command_line.cc knows
// that, because its header takes longer to compile than any command.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/exit_status.h"

namespace CLI {
class App;
}

namespace vmfs {

// A handle. What the options fill must live until the command has run.
class Command {
 public:
  // Words at their place ("STORE") and options with a value ("--name"). Without `required` they may be
  // missing; `several` takes as many as there are, an option by being repeated.
  Command& required(const char* name, std::string& value, const char* help = "");
  Command& required(const char* name, std::vector<std::string>& several, const char* help);
  // One of these, and nothing else.
  Command& required(const char* name, std::string& value, std::vector<std::string> choices,
                    const char* help);
  Command& optional(const char* name, std::string& value, const char* help);
  Command& optional(const char* name, std::vector<std::string>& several, const char* help);
  Command& optional(const char* name, double& not_negative, const char* help);
  Command& flag(const char* name, bool& value, const char* help = "");
  // Not in the help.
  Command& hidden();
  // What it does if it was chosen; returns the exit status.
  Command& runs(std::function<int()> run);
  // A command of this command, which does nothing without one.
  Command add(const char* name, const char* help);

 private:
  friend class CommandLine;
  Command(CLI::App* app, std::function<int()>* chosen) : app_(app), chosen_(chosen) {}
  CLI::App* app_;
  std::function<int()>* chosen_;
};

class CommandLine {
 public:
  CommandLine();
  ~CommandLine();

  Command add(const char* name, const char* help);
  // Reads the words and runs what they choose; prints help, or what is wrong with them. The exit status.
  int run(int argc, char** argv);

  // What the help shows, for a comparison with the manual.
  struct Described {
    std::string name;                // "peer list"
    bool has_commands = false;       // of its own, without which it does nothing
    std::vector<std::string> words;  // "MOUNTPOINT", "--timeout"
  };
  std::vector<Described> describe() const;

 private:
  std::unique_ptr<CLI::App> app_;
  std::function<int()> chosen_;
};

}  // namespace vmfs
