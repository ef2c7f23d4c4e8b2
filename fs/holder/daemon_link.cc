#include "fs/holder/daemon_link.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fs/base/log.h"
#include "fs/holder/inherited.h"

namespace vmfs {

struct DaemonLink::State {
  ConnectionMemory memory;
  int control = -1;
  int fuse = -1;
  std::vector<int> clones;
  std::string mountpoint;
  Protection protection;
  std::unique_ptr<Notifier> notifier;
};

DaemonLink::DaemonLink() = default;
DaemonLink::~DaemonLink() {
  if (!state_) return;
  ::close(state_->control);
  ::close(state_->fuse);
  for (int clone : state_->clones) ::close(clone);
}

Result<std::unique_ptr<DaemonLink>> DaemonLink::inherit() {
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) ::signal(signal, SIG_IGN);
  const Protection protection = protect_daemon();
  auto memory = ConnectionMemory::map(kInheritedMemory);
  if (!memory) return pass(memory.error());
  std::unique_ptr<DaemonLink> link(new DaemonLink());
  link->state_ =
      std::make_unique<State>(State{std::move(*memory), kInheritedControl, kInheritedFuse, {}, {}, protection, {}});
  State& state = *link->state_;
  const ConnectionHeader& header = state.memory.header();
  if (header.clone_count == 0 || header.clone_count > kClonesMax) {
    return fail(ErrorKind::kRefused, EINVAL,
                fmt::format("the holder says that it passed {} clones of /dev/fuse", header.clone_count));
  }
  for (std::uint32_t i = 0; i < header.clone_count; ++i)
    state.clones.push_back(kInheritedClones + static_cast<int>(i));
  const int last = state.clones.back();
  for (int descriptor = kInheritedControl; descriptor <= last; ++descriptor) {
    if (::fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0) {
      return fail(ErrorKind::kRefused, errno,
                  fmt::format("the holder did not pass descriptor {}: {}", descriptor, strerror(errno)));
    }
  }
  VMFS_ASSIGN(state.notifier, Notifier::start(state.fuse));
  state.mountpoint = std::string(header.mountpoint, strnlen(header.mountpoint, sizeof header.mountpoint));
  return link;
}

ConnectionId DaemonLink::connection() const {
  return ConnectionId{state_->memory.header().connection};
}
bool DaemonLink::resumed() const { return !state_->memory.init_request().empty(); }
std::vector<std::uint64_t> DaemonLink::unanswered() const { return state_->memory.unanswered(); }

void DaemonLink::report_ready() {
  if (::send(state_->control, &kSaysReady, 1, MSG_NOSIGNAL) < 0)
    log_warning("the holder does not listen ({}): nobody restarts this daemon", strerror(errno));
}

void DaemonLink::report_error(const std::string& message) {
  const std::string text = kSaysError + message.substr(0, kMessageMax - 1);
  if (::send(state_->control, text.data(), text.size(), MSG_NOSIGNAL) < 0)
    log_warning("the holder does not listen: {}", strerror(errno));
}

const std::string& DaemonLink::mountpoint() const { return state_->mountpoint; }
const Protection& DaemonLink::protection() const { return state_->protection; }
int DaemonLink::holder_pid() const {
  return static_cast<int>(state_->memory.header().holder_pid);
}
bool DaemonLink::holder_alive() const {
  pollfd waiting{state_->control, 0, 0};
  return ::poll(&waiting, 1, 0) == 0;
}
std::uint64_t DaemonLink::starts() const { return state_->memory.header().starts.load(); }

Notifier& DaemonLink::notifier() { return *state_->notifier; }
int DaemonLink::fuse_descriptor() const { return state_->fuse; }
const std::vector<int>& DaemonLink::clones() const { return state_->clones; }
ConnectionMemory& DaemonLink::memory() { return state_->memory; }

}  // namespace vmfs
