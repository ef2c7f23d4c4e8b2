#include "cli/command_line.h"

#include <CLI/CLI.hpp>

namespace vmfs {

namespace {

void describe_commands(const CLI::App& app, const std::string& path,
                       std::vector<CommandLine::Described>& into) {
  const auto all = [](const CLI::App*) { return true; };
  for (const CLI::App* command : app.get_subcommands(all)) {
    if (command->get_group().empty()) continue;  // hidden
    CommandLine::Described described;
    described.name = path + command->get_name();
    described.has_commands = !command->get_subcommands(all).empty();
    for (const CLI::Option* option : command->get_options())
      described.words.push_back(option->get_lnames().empty() ? option->get_name()
                                                             : "--" + option->get_lnames().front());
    into.push_back(described);
    describe_commands(*command, described.name + " ", into);
  }
}

}  // namespace

Command& Command::required(const char* name, std::string& value, const char* help) {
  app_->add_option(name, value, help)->required();
  return *this;
}

Command& Command::required(const char* name, std::vector<std::string>& several, const char* help) {
  app_->add_option(name, several, help)->required();
  return *this;
}

Command& Command::required(const char* name, std::string& value, std::vector<std::string> choices,
                           const char* help) {
  app_->add_option(name, value, help)->required()->check(CLI::IsMember(std::move(choices)));
  return *this;
}

Command& Command::optional(const char* name, std::string& value, const char* help) {
  app_->add_option(name, value, help);
  return *this;
}

Command& Command::optional(const char* name, std::vector<std::string>& several, const char* help) {
  CLI::Option* option = app_->add_option(name, several, help);
  // The word after an option's value is not another value.
  if (!option->get_positional()) option->allow_extra_args(false);
  return *this;
}

Command& Command::optional(const char* name, double& not_negative, const char* help) {
  app_->add_option(name, not_negative, help)->check(CLI::NonNegativeNumber);
  return *this;
}

Command& Command::flag(const char* name, bool& value, const char* help) {
  app_->add_flag(name, value, help);
  return *this;
}

Command& Command::hidden() {
  app_->group("");
  return *this;
}

Command& Command::runs(std::function<int()> run) {
  app_->callback([chosen = chosen_, run = std::move(run)] { *chosen = run; });
  return *this;
}

Command Command::add(const char* name, const char* help) {
  app_->require_subcommand(1);
  return {app_->add_subcommand(name, help), chosen_};
}

CommandLine::CommandLine()
    : app_(std::make_unique<CLI::App>(
          "vmfs keeps disk images on two machines: put them under a mount point, and everything "
          "written there is on the other machine too.",
          "vmfs")) {
  app_->set_version_flag("--version", "vmfs " VMFS_VERSION);
  app_->require_subcommand(1);
  app_->get_formatter()->column_width(34);
  app_->footer(
      "A PATH is a mount point (the whole volume) or a file or directory under one.\n"
      "Exit status: 0 done or healthy, 1 failed, 2 wrong command line or configuration,\n"
      "3 not healthy, 4 timeout, 5 refused by a rule that a person may overrule.\n"
      "Manual pages: vmfs(1), vmfs.toml(5).");
}

CommandLine::~CommandLine() = default;

Command CommandLine::add(const char* name, const char* help) {
  return {app_->add_subcommand(name, help), &chosen_};
}

int CommandLine::run(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Help and version are "errors" too, with status 0.
    return app_->exit(error) == 0 ? kSuccess : kUsage;
  }
  return chosen_();
}

std::vector<CommandLine::Described> CommandLine::describe() const {
  std::vector<Described> commands;
  describe_commands(*app_, "", commands);
  return commands;
}

}  // namespace vmfs
