// What the daemon answers on its control socket.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cli/config_keeper.h"
#include "cli/control.h"
#include "cli/listening.h"
#include "cli/posted_work.h"
#include "fs/fuse/front.h"
#include "fs/volume/volume.h"
#include "net/link/asio_shell.h"
#include "net/node/node.h"

namespace vmfs {

// The daemon's parts, as its commands use them; all live longer.
struct DaemonParts {
  std::string store;
  ConfigKeeper& config;
  DaemonLink& link;
  Volume& volume;
  Node& node;
  AsioShell& shell;
  Front& front;
  Listening& listening;
};

class DaemonCommands {
 public:
  explicit DaemonCommands(DaemonParts parts);
  // After the control server that uses handle(), and while the node's thread runs: waits for what is queued there.
  ~DaemonCommands();

  // ControlServer::Handler.
  std::function<void()> handle(const nlohmann::json& request, ControlServer::Reply reply);

  // Once the front has drained: waits until whoever asked for it has been answered.
  void finish_restart();

 private:
  using Reply = ControlServer::Reply;
  Result<std::vector<GroupId>> groups_of(const nlohmann::json& request);
  Result<> collect(ObjectId directory, std::vector<GroupId>& out);
  void status(const nlohmann::json& request, Reply reply);
  std::function<void()> wait(const nlohmann::json& request, Reply reply);
  void change_ownership(const std::string& command, const nlohmann::json& request, Reply reply);
  void remove_peer(const nlohmann::json& request, Reply reply);
  void set(const nlohmann::json& request, Reply reply);
  void restart(Reply reply);
  void listen(const std::string& address, Reply reply);

  DaemonParts parts_;
  const std::int64_t started_wall_ns_;
  std::mutex restart_mutex_;
  std::thread restarter_;  // guarded by restart_mutex_ until it runs
  std::atomic<bool> restarting_{false};  // false: it was refused
  PostedWork posted_;      // first to go: what it waits for uses the others
};

}  // namespace vmfs
