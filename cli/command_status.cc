// vmfs status, vmfs wait
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <ctime>
#include <memory>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/json_fields.h"
#include "cli/registry.h"
#include "cli/run_directory.h"
#include "cli/status_json.h"
#include "cli/status_text.h"
#include "fs/seam/clock.h"

namespace vmfs {

namespace {

constexpr std::int64_t kWatchNs = 1'000'000'000;

struct StatusArguments {
  std::vector<std::string> paths;
  bool json = false, watch = false;
};

// One volume that is asked about, and what of it.
struct Question {
  Target volume;
  std::vector<std::string> paths;
};

Result<std::vector<Question>> questions(const std::vector<std::string>& paths) {
  std::vector<Question> out;
  if (paths.empty()) {
    for (Target& target : mounted_volumes()) out.push_back({std::move(target), {}});
    for (std::string& store : lost_mounts()) out.push_back({{std::move(store), "", ""}, {}});
  }
  for (const std::string& path : paths) {
    VMFS_ASSIGN(Target target, resolve_target(path, StoreAllowed::kYes));
    Question* question = nullptr;
    for (Question& other : out)
      if (other.volume.store == target.store) question = &other;
    if (question == nullptr) {
      out.push_back({{target.store, target.mountpoint, ""}, {}});
      question = &out.back();
      if (!target.path.empty()) question->paths.push_back(target.path);
    } else if (target.path.empty()) {
      question->paths.clear();
    } else if (!question->paths.empty()) {
      question->paths.push_back(target.path);
    }
  }
  return out;
}

// What is known of a volume whose daemon does not tell.
nlohmann::json unanswered(const Target& volume, std::string why) {
  auto config = read_config(volume.store);
  if (config) return offline_status(volume.store, volume.mountpoint, *config, why);
  // The daemon may not be there for this very reason, and then it has been said.
  auto holder = read_holder_status(holder_status_path(volume.store));
  if (!holder || holder->reason.find(config.error().message) == std::string::npos)
    why += "\n" + config.error().message;
  nlohmann::json status = offline_status(volume.store, volume.mountpoint, std::nullopt, why);
  if (holder) status["volume"] = holder->volume_name;
  return status;
}

Result<nlohmann::json> answer(const Question& question) {
  auto client = ControlClient::connect(question.volume.store);
  if (client) {
    VMFS_ASSIGN(nlohmann::json reply,
                (*client)->request({{"command", "status"}, {"paths", question.paths}}, kQuestionNs));
    return reply["status"];
  }
  if (client.error().kind != ErrorKind::kNotFound) return pass(std::move(client.error()));
  return unanswered(question.volume, why_not_served(question.volume.store, question.volume.mountpoint));
}

// On a terminal each round takes the place of the one before.
void clear_screen(const StatusArguments& arguments) {
  if (arguments.watch && !arguments.json && ::isatty(STDOUT_FILENO) == 1) fmt::print("\033[H\033[2J");
}

// One round; the exit status.
Result<int> show(const std::vector<Question>& all, const StatusArguments& arguments) {
  bool healthy = true;
  std::string text;
  for (const Question& question : all) {
    auto answered = answer(question);
    // One whose daemon does not answer hides no other; what was asked wrongly, or by the wrong user, is an error.
    const bool silent = !answered && answered.error().number != EACCES &&
                        (question.paths.empty() || answered.error().number == ETIMEDOUT);
    if (!answered && !silent)
      return pass(std::move(answered.error()));
    const nlohmann::json status =
        answered ? *answered
                 : unanswered(question.volume, fmt::format("{}\nthe log may tell why:  {} (or journalctl)",
                                                           answered.error().message, log_path(question.volume.store)));
    healthy = healthy && flag_of(status, "healthy");
    if (arguments.json) {
      text += control_line(status);
    } else {
      if (!text.empty()) text += "\n";
      text += status_text(status, {.colour = ::isatty(STDOUT_FILENO) == 1});
    }
  }
  clear_screen(arguments);
  fmt::print("{}", text);
  if (std::fflush(stdout) != 0) return fail(ErrorKind::kIo, errno, "standard output: cannot write");
  return healthy ? kSuccess : kNotHealthy;
}

// What is asked about, and the answers: the exit status.
Result<int> look(const StatusArguments& arguments) {
  VMFS_ASSIGN(std::vector<Question> all, questions(arguments.paths));
  if (!all.empty()) return show(all, arguments);
  if (!arguments.json) {
    clear_screen(arguments);
    fmt::print("no vmfs volume is mounted here\nmount one with:  vmfs mount STORE MOUNTPOINT\n");
    if (std::fflush(stdout) != 0) return fail(ErrorKind::kIo, errno, "standard output: cannot write");
  }
  return kSuccess;
}

int run_status(const StatusArguments& arguments) {
  for (bool first = true;; first = false) {
    // In a pipe or a file the rounds follow each other, an empty line between them.
    if (!first && !arguments.json && ::isatty(STDOUT_FILENO) != 1) fmt::print("\n");
    auto status = look(arguments);
    if (!arguments.watch) return status ? *status : report(status.error());
    if (!status) {
      // What cannot be answered at the first look is asked wrongly. Later a volume may be unmounted, or its daemon
      // be about to start: whoever watches wants to see it come back. Without a reader there is nobody to watch.
      int exit_status = report(status.error());
      if (first || std::ferror(stdout) != 0) return exit_status;
    }
    // A watcher wants a picture every second, whether or not anything happens.
    timespec interval{kWatchNs / 1'000'000'000, kWatchNs % 1'000'000'000};
    ::nanosleep(&interval, nullptr);
  }
}

struct WaitArguments {
  std::string path, condition;
  double timeout = -1;
};

Result<> wait_for(const WaitArguments& arguments) {
  VMFS_ASSIGN(Target target, resolve_target(arguments.path, StoreAllowed::kYes));
  nlohmann::json request{{"command", "wait"}, {"for", arguments.condition}};
  request["paths"] = nlohmann::json::array();
  if (!target.path.empty()) request["paths"].push_back(target.path);
  std::int64_t start = system_clock().monotonic_ns();
  auto left = [&]() -> std::int64_t {
    if (arguments.timeout < 0) return -1;
    auto all = static_cast<std::int64_t>(arguments.timeout * 1e9);
    return std::max<std::int64_t>(start + all - system_clock().monotonic_ns(), 0);
  };
  auto timed_out = [&](const std::string& evidence) {
    return fail(ErrorKind::kIo, ETIMEDOUT,
                fmt::format("{} is not {} after {} s{}{}\nwhat it waits for:  vmfs status {}", arguments.path,
                            arguments.condition, arguments.timeout, evidence.empty() ? "" : ": ",
                            evidence, arguments.path));
  };
  // The daemon may be restarted meanwhile, and the volume may be mounted only later: then ask the next.
  RunDirectoryWatch watch(target.store);
  for (;;) {
    auto client = ControlClient::connect(target.store);
    if (client) {
      // What holds already is answered at once: with --timeout 0 too one learns whether it does.
      constexpr std::int64_t kAnswerNs = 500'000'000;
      const std::int64_t patience = left();
      auto reply = (*client)->request(request, patience < 0 ? patience : std::max(patience, kAnswerNs));
      if (reply) return {};
      if (reply.error().number == ETIMEDOUT) return timed_out("");
      bool ended = reply.error().number == EPIPE || reply.error().number == ECANCELED;
      if (!ended) return pass(std::move(reply.error()));
    } else if (client.error().kind != ErrorKind::kNotFound) {
      return pass(std::move(client.error()));
    }
    auto holder = read_holder_status(holder_status_path(target.store));
    if (holder && holder->state == HolderStatus::State::kGaveUp)
      return fail(ErrorKind::kIo, EIO, why_not_served(target.store, target.mountpoint));
    if (!watch.wait(left())) return timed_out(why_not_served(target.store, target.mountpoint));
  }
}

}  // namespace

void add_status_commands(CommandLine& line) {
  auto status_arguments = std::make_shared<StatusArguments>();
  line.add("status", "Show whether all is well, and what to do if not; exit status 3: it is not")
      .optional("PATH", status_arguments->paths, "STORE or PATH...; without it: every volume mounted here")
      .flag("--json", status_arguments->json, "one line of JSON per volume; keys: see vmfs(1)")
      .flag("--watch", status_arguments->watch, "again every second, until interrupted")
      .runs([status_arguments] { return run_status(*status_arguments); });

  auto wait_arguments = std::make_shared<WaitArguments>();
  line.add("wait", "Wait until a volume is in some state")
      .required("MOUNTPOINT", wait_arguments->path, "a mount point or PATH")
      .required("STATE", wait_arguments->condition, {"connected", "in-sync", "ready", "primary"},
                "connected: to every peer; in-sync: every peer has everything; ready: guests may be "
                "started; primary: this node may write")
      .optional("--timeout", wait_arguments->timeout, "seconds (default: for ever); exit status 4")
      .runs([wait_arguments] { return report(wait_for(*wait_arguments)); });
}

}  // namespace vmfs
