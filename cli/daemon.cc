#include "cli/daemon.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <thread>

#include "cli/control.h"
#include "cli/daemon_commands.h"
#include "cli/listening.h"
#include "cli/run_directory.h"
#include "cli/setup.h"
#include "cli/store_lock.h"
#include "fs/base/log.h"
#include "fs/fuse/front.h"
#include "fs/holder/daemon_link.h"
#include "fs/holder/holder.h"
#include "fs/seam/clock.h"
#include "fs/seam/disk.h"
#include "fs/volume/volume.h"
#include "fs/volume/workers.h"
#include "net/link/address.h"
#include "net/link/asio_shell.h"
#include "net/node/node.h"

namespace vmfs {

namespace {

// A clean unmount gives what is owned here to a peer in sync; how long it may take.
constexpr std::int64_t kHandOverNs = 10'000'000'000;

class Daemon {
 public:
  Daemon(const DaemonArguments& arguments, DaemonLink& link) : arguments_(arguments), link_(link) {}

  Result<> start();
  int serve();  // until the end; the exit status

 private:
  Result<> open_volume();
  Result<> open_node();
  NodeCallbacks callbacks();
  void on_node(const std::function<void()>& work);  // runs it on the node's thread, and waits
  void stop_parts(bool hand_over);

  // What a peer's records change is no longer what this kernel has cached of the names. (Attributes and
  // pages of what others own it does not keep.)
  struct NamesWatch : Volume::Observer {
    explicit NamesWatch(std::unique_ptr<Front>& which) : front(which) {}
    void group_changed(GroupId, RecordType) override {}
    void names_changed(ObjectId parent, const std::string& name) override {
      front->invalidate_name(parent, name);
    }
    std::unique_ptr<Front>& front;
  };

  const DaemonArguments arguments_;
  DaemonLink& link_;
  std::unique_ptr<Disk> store_disk_, journal_disk_;
  std::unique_ptr<DiskLock> store_lock_;
  std::optional<ConfigKeeper> config_;
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<AsioShell> shell_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<Listening> listening_;  // of the node's thread
  std::unique_ptr<VolumeWorkers> workers_;
  std::unique_ptr<Front> front_;
  NamesWatch names_watch_{front_};
  std::atomic<bool> kernel_resends_{false};
  std::unique_ptr<DaemonCommands> commands_;
  std::unique_ptr<ControlServer> control_;
};

Result<> Daemon::open_volume() {
  Config config = config_->config();
  VMFS_ASSIGN(journal_disk_, open_posix_disk(journal_directory(arguments_.store, config)));
  VMFS_ASSIGN(VolumeOptions options, existing_volume_options(arguments_.store, config, *journal_disk_));
  Volume::OpenArguments open;
  if (link_.resumed()) {
    // A daemon died and the kernel's connection lives: ownership goes on, and requests may come again.
    open.connection = link_.connection();
    open.unanswered = link_.unanswered();
  }
  open.unanswered_now = [this] { return link_.unanswered(); };
  VMFS_ASSIGN(volume_, Volume::open(*store_disk_, *journal_disk_, system_clock(),
                                    options, open));
  // What a journal that failed has not answered gets no error: the kernel sends it to the next daemon,
  // which writes the journal's end again first. (Where the kernel cannot, errors are better than an end
  // of the connection.)
  volume_->journal().on_death([this] {
    if (!kernel_resends_.load()) return;
    log_error("the daemon ends, so that the next one opens the journal again");
    ::_exit(kDaemonJournalDied);
  });
  return {};
}

NodeCallbacks Daemon::callbacks() {
  NodeCallbacks out;
  out.holds_lock = [this](GroupId group) { return front_->holds_lock(group); };
  out.invalidate_caches = [this](GroupId group, std::function<void()> done) {
    if (group == kNameSpace)
      front_->invalidate_names();
    else
      front_->invalidate_image(group);
    front_->when_invalidated(std::move(done));
  };
  out.expire_write_handles = [this](GroupId group) {
    // It is somebody else's from here on: what was cached while it was ours is to go as well.
    if (group == kNameSpace) return front_->invalidate_names();
    front_->expire_write_handles(group);
    front_->invalidate_image(group);
  };
  // What cannot be written is logged and shown by `status`; the volume goes on with it.
  auto keep = [this](std::function<void(Config&)> change) {
    [[maybe_unused]] auto shown_by_status = config_->update(change);
  };
  out.peer_changed = [keep](const PeerInfo& peer) {
    keep([&peer](Config& config) { record_peer(config, peer); });
  };
  out.peer_removed = [keep](NodeId peer) { keep([peer](Config& config) { forget_peer(config, peer); }); };
  out.settings_changed = [keep](const VolumeSettings& settings) {
    keep([&settings](Config& config) { config.settings = settings; });
  };
  out.admitted = [keep] { keep([](Config& config) { config.joining = false; }); };
  return out;
}

Result<> Daemon::open_node() {
  Config config = config_->config();
  VMFS_ASSIGN(Secret secret, read_secret(arguments_.store));
  if (config.encryption == Encryption::kOffEverywhere)
    log_warning("tls = \"off-forced\": everything that is written goes over the network in clear, also "
                "to other machines");
  if (config.encryption == Encryption::kOffOnLoopback)
    log_warning("tls = \"off\": what is written goes in clear, and so to loopback addresses only");
  VMFS_ASSIGN(shell_, AsioShell::create({.credentials = {config.volume, secret, config.encryption}}));
  NodeOptions options;
  options.volume = config.volume;
  options.node = config.node;
  options.node_name = config.node_name;
  // What others are told to call. "All addresses" leads them to themselves.
  if (auto listens = parse_address(config.listen); listens && !is_any(*listens)) options.address = config.listen;
  options.joining = config.joining;
  options.peers = config.peers;
  options.removed = config.removed;
  options.settings = config.settings;
  options.start_alone_after_ns = config.start_alone_after_ns;
  options.seed = random_u64();
  options.mountpoint = link_.mountpoint();
  node_ = std::make_unique<Node>(*volume_, *shell_, system_clock(), options, callbacks());
  volume_->set_hooks(node_.get());
  listening_ = std::make_unique<Listening>(*shell_, *node_, system_clock(), arguments_.store);
  if (!config.listen.empty()) listening_->keep(config.listen);
  return {};
}

Result<> Daemon::start() {
  VMFS_ASSIGN(Config config, read_config(arguments_.store));
  config_.emplace(arguments_.store, std::move(config));
  VMFS_ASSIGN(store_disk_, open_posix_disk(arguments_.store));
  VMFS_TRY(prepare_run_directory(arguments_.store));
  VMFS_ASSIGN(store_lock_, lock_store(*store_disk_, arguments_.store));
  VMFS_TRY(open_volume());
  VMFS_TRY(open_node());
  FrontOptions options;
  options.threads = daemon_threads(config_->config());
  options.pretend_no_resend = arguments_.pretend_no_resend;
  VMFS_ASSIGN(front_, Front::start(*volume_, link_, options));
  volume_->add_observer(&names_watch_);
  kernel_resends_.store(front_->kernel_resends());
  // After the front has opened again what was open before a restart: the workers delete unlinked
  // images that nobody has open.
  workers_ = std::make_unique<VolumeWorkers>(*volume_);
  shell_->post([this] { node_->start(); });
  shell_->start([this] {
    node_->tick();
    listening_->tick();
  });
  commands_ = std::make_unique<DaemonCommands>(
      DaemonParts{arguments_.store, *config_, link_, *volume_, *node_, *shell_, *front_, *listening_});
  auto control = ControlServer::start(
      arguments_.store, [this](const nlohmann::json& request, ControlServer::Reply reply) {
        return commands_->handle(request, std::move(reply));
      });
  // The mount works without it; only the commands do not.
  if (control)
    control_ = std::move(*control);
  else
    log_error("{}; `vmfs status` and other commands cannot reach this daemon", control.error().message);
  return {};
}

void Daemon::on_node(const std::function<void()>& work) {
  std::promise<void> done;
  shell_->post([&] {
    work();
    done.set_value();
  });
  done.get_future().wait();
}

void Daemon::stop_parts(bool hand_over) {
  commands_->finish_restart();
  control_.reset();
  commands_.reset();  // what is queued of them on the node's thread comes first
  // Requests that wait for a peer or a token fail when the node stops; on a connection that goes on, they are
  // the next daemon's.
  if (!hand_over) front_->answer_no_more();
  if (hand_over) {
    std::promise<void> handed;
    shell_->post([&] {
      node_->hand_over_all(system_clock().monotonic_ns() + kHandOverNs, [&](Result<std::string> outcome) {
        if (!outcome) log_warning("hand-over at unmount: {}", outcome.error().message);
        handed.set_value();
      });
    });
    handed.get_future().wait();
  }
  on_node([&] { node_->stop(); });
  shell_->stop();
  listening_.reset();
  volume_->remove_observer(&names_watch_);
  front_.reset();
  workers_.reset();  // they may call the node as long as they run
  volume_->set_hooks(nullptr);
  node_.reset();
}

int Daemon::serve() {
  Front::End end = front_->wait();
  switch (end) {
    case Front::End::kUnmounted: {
      log_notice("unmounted; bringing the store up to date");
      stop_parts(true);
      auto closed = volume_->close();
      volume_.reset();
      if (!closed) {
        log_error("at unmount: {}; nothing is lost, the journal has it: it is applied at the next mount, "
                  "or by `vmfs recover {}`",
                  closed.error().message, arguments_.store);
        link_.report_error(closed.error().message);
        return kDaemonNotClosed;
      }
      // Else it is the holder's to take its status with it.
      if (!link_.holder_alive()) ::unlink(holder_status_path(arguments_.store).c_str());
      return kDaemonUnmounted;
    }
    case Front::End::kDrained:
      stop_parts(false);
      volume_.reset();
      return kDaemonRestart;
    case Front::End::kFailed: break;
  }
  // Whatever is wrong in this process, a new one starts from the journal; nothing is tidied up.
  ::_exit(1);
}

}  // namespace

unsigned daemon_threads(const Config& config) {
  if (config.threads != 0) return config.threads;
  // The kernel hands requests to idle threads by turns: each thread more than the CPUs can run costs
  // switches (measured on two CPUs: a third of the rate of small writes with eight instead of four). Some
  // more than there are CPUs, because a flush or a read from the disk keeps its thread waiting.
  return std::clamp(2 * std::thread::hardware_concurrency(), 4u, 64u);
}

int run_daemon(const DaemonArguments& arguments) {
  ::prctl(PR_SET_NAME, "vmfs");  // by whatever path it was started: see daemon_alive()
  auto link = DaemonLink::inherit();
  if (!link) {
    fmt::print(stderr, "error: {}\n", link.error().message);
    return 1;
  }
  set_log_file(log_path(arguments.store), kLogMax, /*follows=*/false);
  Daemon daemon(arguments, **link);
  if (auto started = daemon.start(); !started) {
    (*link)->report_error(started.error().message);
    // Parts that did start have threads; the process ends with them.
    ::_exit(kDaemonStartFailed);
  }
  (*link)->report_ready();
  return daemon.serve();
}

}  // namespace vmfs
