// The daemon's end of the holder: what it inherits (see holder.h), and how it reports.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "fs/fuse/connection_memory.h"
#include "fs/fuse/notifier.h"
#include "fs/holder/protection.h"

namespace vmfs {

class DaemonLink {
 public:
  // Takes over the descriptors that the holder passed at fixed numbers. kRefused if this process was
  // not started by a holder. Call it once, first of all, before any other descriptor is opened and any thread started:
  // it forks (see Notifier). Also
  // sets PR_SET_IO_FLUSHER and ignores SIGTERM, SIGINT, SIGHUP and SIGPIPE: the holder unmounts, and
  // then the daemon ends by itself.
  static Result<std::unique_ptr<DaemonLink>> inherit();
  ~DaemonLink();

  // This mount's life: the same for every daemon of one holder.
  ConnectionId connection() const;
  // A daemon served this connection before: pass connection() and unanswered() to Volume::open. If
  // not, the kernel's INIT is still to be answered.
  bool resumed() const;
  // Requests which were read and may not have been answered, by this daemon or the one before, as of now; in
  // ascending order, FUSE_UNIQUE_RESEND masked. Any thread.
  std::vector<std::uint64_t> unanswered() const;

  // Ready to serve; relayed to `vmfs mount`. Called once, after Front::start().
  void report_ready();
  // Why this start fails, or the volume cannot be closed; then exit with kDaemonStartFailed or kDaemonNotClosed.
  void report_error(const std::string& message);

  const std::string& mountpoint() const;
  const Protection& protection() const;
  int holder_pid() const;
  bool holder_alive() const;  // if not, nobody restarts this daemon
  std::uint64_t starts() const;  // how many daemons this connection has seen, this one included

  // For Front.
  int fuse_descriptor() const;
  Notifier& notifier();
  const std::vector<int>& clones() const;
  ConnectionMemory& memory();

 private:
  DaemonLink();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vmfs
