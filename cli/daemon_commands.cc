#include "cli/daemon_commands.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <future>

#include "cli/json_fields.h"
#include "cli/setup.h"
#include "cli/status_json.h"
#include "fs/base/log.h"
#include "fs/seam/clock.h"

namespace vmfs {

namespace {

using nlohmann::json;

// How long a restart waits for requests that are being answered before it leaves them to the next
// daemon.
constexpr std::int64_t kDrainPatienceNs = 5'000'000'000;

json good(json values = json::object()) {
  values["ok"] = true;
  return values;
}

Node::Done answer_with(ControlServer::Reply reply) {
  return [reply = std::move(reply)](Result<std::string> outcome) {
    reply(outcome ? good({{"text", *outcome}}) : error_to_json(outcome.error()));
  };
}

}  // namespace

DaemonCommands::DaemonCommands(DaemonParts parts)
    : parts_(std::move(parts)), started_wall_ns_(system_clock().wall_ns()), posted_(parts_.shell) {}

DaemonCommands::~DaemonCommands() { finish_restart(); }

std::function<void()> DaemonCommands::handle(const json& request, Reply reply) {
  std::string command = text_of(request, "command");
  if (command == "ping") {
    reply(good({{"pid", ::getpid()}, {"version", VMFS_VERSION}}));
  } else if (command == "status") {
    status(request, std::move(reply));
  } else if (command == "wait") {
    return wait(request, std::move(reply));
  } else if (command == "promote" || command == "demote" || command == "resolve") {
    change_ownership(command, request, std::move(reply));
  } else if (command == "peer-remove") {
    remove_peer(request, std::move(reply));
  } else if (command == "set") {
    set(request, std::move(reply));
  } else if (command == "restart") {
    restart(std::move(reply));
  } else if (command == "listen") {
    listen(text_of(request, "address"), std::move(reply));
  } else {
    reply(error_to_json({ErrorKind::kUnsupported, ENOSYS,
                         fmt::format("this daemon (version {}) does not know the command \"{}\"\n"
                                     "start the installed version with:  vmfs restart {}",
                                     VMFS_VERSION, command, parts_.link.mountpoint())}));
  }
  return {};
}

Result<> DaemonCommands::collect(ObjectId directory, std::vector<GroupId>& out) {
  VMFS_ASSIGN(auto entries, parts_.volume.list(directory));
  for (const ListedEntry& entry : entries) {
    if (entry.type == FileType::kRegular) out.push_back(entry.object);
    if (entry.type == FileType::kDirectory) VMFS_TRY(collect(entry.object, out));
  }
  return {};
}

// Empty: the whole volume.
Result<std::vector<GroupId>> DaemonCommands::groups_of(const json& request) {
  std::vector<GroupId> out;
  for (const std::string& path : texts_of(request, "paths")) {
    auto found = parts_.volume.resolve(path);
    if (!found)
      return fail(found.error().kind, found.error().number,
                  found.error().message.empty()
                      ? fmt::format("{}/{}: no such file or directory in the volume",
                                    parts_.link.mountpoint(), path)
                      : found.error().message);
    if (found->object == kRootObject) return std::vector<GroupId>{};
    if (found->stat.type == FileType::kDirectory) {
      std::size_t before = out.size();
      VMFS_TRY(collect(found->object, out));
      if (out.size() == before)
        return fail(ErrorKind::kNotFound, ENOENT,
                    fmt::format("{}/{}: there is no image in this directory", parts_.link.mountpoint(), path));
    } else if (found->stat.type == FileType::kRegular) {
      out.push_back(found->object);
    } else {
      return fail(ErrorKind::kInvalid, EINVAL,
                  fmt::format("{}/{}: is a symlink; name what it leads to", parts_.link.mountpoint(), path));
    }
  }
  return out;
}

void DaemonCommands::status(const json& request, Reply reply) {
  auto groups = groups_of(request);
  if (!groups) return reply(error_to_json(groups.error()));
  DaemonFacts facts;
  Config config = parts_.config.config();
  facts.store = parts_.store;
  facts.mountpoint = parts_.link.mountpoint();
  facts.journal_directory = journal_directory(parts_.store, config);
  facts.listen = config.listen;
  facts.pid = ::getpid();
  facts.holder_pid = parts_.link.holder_pid();
  facts.starts = parts_.link.starts();
  facts.started_wall_ns = started_wall_ns_;
  FrontStatistics front = parts_.front.statistics();
  facts.parked_requests = front.parked;
  facts.protection = parts_.link.protection();
  facts.open_handles = front.open_handles;
  facts.now_wall_ns = system_clock().wall_ns();
  VolumeUsage usage = parts_.volume.usage();
  std::vector<std::string> problems = parts_.volume.problems();
  if (std::string problem = parts_.config.problem(); !problem.empty()) problems.push_back(problem);
  // Said now, while nobody is disturbed by it.
  if (auto next = check_start(parts_.store); !next)
    problems.push_back(fmt::format("the next daemon could not start, and guests would wait: {}\n"
                                   "this one goes on with what it read at its start",
                                   next.error().message));
  if (!parts_.link.holder_alive())
    problems.push_back(fmt::format(
        "the holder (process {}) has died: if the daemon dies too, nobody starts it again\n"
        "unmount and mount again when the guests allow it",
        facts.holder_pid));
  posted_.post([this, facts, config, usage, problems, groups = *groups, reply = std::move(reply)]() mutable {
    NodeStatus node = parts_.node.status(groups);
    if (std::string problem = parts_.listening.problem(); !problem.empty()) problems.push_back(problem);
    reply(good({{"status", status_to_json(facts, config, node, usage, problems)}}));
  });
}

std::function<void()> DaemonCommands::wait(const json& request, Reply reply) {
  std::string name = text_of(request, "for");
  Condition condition{};
  if (name == "connected")
    condition = Condition::kConnected;
  else if (name == "in-sync")
    condition = Condition::kInSync;
  else if (name == "ready")
    condition = Condition::kReady;
  else if (name == "primary")
    condition = Condition::kPrimary;
  else {
    reply(error_to_json({ErrorKind::kInvalid, EINVAL, fmt::format("\"{}\" cannot be waited for", name)}));
    return {};
  }
  auto groups = groups_of(request);
  if (!groups) {
    reply(error_to_json(groups.error()));
    return {};
  }
  // Only touched on the node's thread.
  auto number = std::make_shared<std::uint64_t>(0);
  posted_.post([this, condition, groups = *groups, number, reply = std::move(reply)] {
    *number = parts_.node.wait(condition, groups, answer_with(reply));
  });
  return [this, number] {
    posted_.post([this, number] { parts_.node.cancel_wait(*number); });
  };
}

void DaemonCommands::change_ownership(const std::string& command, const json& request, Reply reply) {
  auto groups = groups_of(request);
  if (!groups) return reply(error_to_json(groups.error()));
  bool force = flag_of(request, "force");
  bool keep_local = text_of(request, "keep") == "local";
  posted_.post([this, command, force, keep_local, groups = *groups, reply = std::move(reply)] {
    log_notice("command: {}{} of {}", command, force ? " --force" : "",
               groups.empty() ? "the whole volume" : fmt::format("{} images", groups.size()));
    if (command == "promote")
      parts_.node.promote(groups, force, answer_with(reply));
    else if (command == "demote")
      parts_.node.demote(groups, force, answer_with(reply));
    else
      parts_.node.resolve(groups, keep_local, answer_with(reply));
  });
}

void DaemonCommands::remove_peer(const json& request, Reply reply) {
  posted_.post([this, name = text_of(request, "node"), reply = std::move(reply)] {
    auto peer = peer_called(parts_.node.peers(), name);
    if (!peer) return reply(error_to_json(peer.error()));
    if (peer->id == NodeId{})
      return reply(error_to_json(
          {ErrorKind::kRefused, EINVAL,
           fmt::format("the node at {} was never met, so it has no id that could be refused later\nunmount, take "
                       "its [[peer]] table out of {}/vmfs.toml, and mount again",
                       peer->address, parts_.store)}));
    log_notice("command: remove peer {} ({})", peer->name, peer->id);
    parts_.node.remove_peer(peer->id, answer_with(reply));
  });
}

void DaemonCommands::set(const json& request, Reply reply) {
  posted_.post([this, assignments = texts_of(request, "assignments"), reply = std::move(reply)] {
    VolumeSettings settings = parts_.node.settings();
    auto described = [](const VolumeSettings& values) {
      return good({{"mode", mode_name(values.mode)},
                   {"on-peer-loss", peer_loss_name(values.on_peer_loss)},
                   {"compression", compression_name(values.compression)}});
    };
    if (assignments.empty()) return reply(described(settings));
    for (const std::string& assignment : assignments)
      if (auto changed = change_setting(settings, assignment); !changed)
        return reply(error_to_json(changed.error()));
    // The later change wins on all nodes, also if this machine's clock has gone back since the last.
    settings.changed_wall_ns = std::max(system_clock().wall_ns(), settings.changed_wall_ns + 1);
    if (auto kept = parts_.config.update([&](Config& config) { config.settings = settings; }); !kept)
      return reply(error_to_json(kept.error()));
    std::string all;
    for (const std::string& assignment : assignments) all += " " + assignment;
    log_notice("command: set{}", all);
    parts_.node.set_settings(settings, [reply, described, settings](Result<std::string> outcome) {
      reply(outcome ? described(settings) : error_to_json(outcome.error()));
    });
  });
}

// Opens the port, and notes it for the next start.
void DaemonCommands::listen(const std::string& address, Reply reply) {
  posted_.post([this, address, reply = std::move(reply)] {
    Result<> done;
    if (!parts_.listening.listens_on(address)) {
      done = parts_.listening.open(address);
      if (done) done = parts_.config.update([&](Config& config) { config.listen = address; });
    }
    reply(done ? good() : error_to_json(done.error()));
  });
}

void DaemonCommands::restart(Reply reply) {
  std::lock_guard lock(restart_mutex_);
  if (restarter_.joinable() && restarting_.load())
    return reply(error_to_json({ErrorKind::kBusy, EBUSY, "a restart is under way already"}));
  if (!parts_.link.holder_alive())
    return reply(error_to_json({ErrorKind::kRefused, ECHILD,
                                "the holder has died, nobody would start the next daemon\n"
                                "unmount and mount again instead"}));
  if (restarter_.joinable()) restarter_.join();  // it was refused before
  log_notice("command: restart");
  restarting_.store(true);
  // Draining waits for requests, so it has a thread of its own.
  restarter_ = std::thread([this, reply = std::move(reply)] {
    auto drained = parts_.front.drain(kDrainPatienceNs);
    restarting_.store(drained.has_value());
    reply(drained ? good() : error_to_json(drained.error()));
  });
}

void DaemonCommands::finish_restart() {
  std::lock_guard lock(restart_mutex_);
  if (restarter_.joinable()) restarter_.join();
}

}  // namespace vmfs
