// A process of its own that tells the kernel what to drop from its caches.
//
// Such a write may wait in the kernel for a page or a directory that a request holds locked until it is answered, and
// nothing ends that wait, not even SIGKILL. A daemon with a thread in it could die and still not be gone: nobody
// would be told, no other daemon would answer the request, and the mount would hang for ever. So the daemon only
// waits for this process, which holds nothing but the connection, and which nobody waits for.
#pragma once

#include <sys/uio.h>

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

#include "fs/base/result.h"

namespace vmfs {

class Notifier {
 public:
  // Notifications at once; with so many in the kernel the next one waits.
  static constexpr int kThreadsMax = 80;
  static constexpr std::size_t kMessageMax = 4096;  // bytes; a name and two headers are less

  // Forks, so it is called while this process has one thread. `connection`: the descriptor; the new process has a
  // copy, and no other descriptor of this one but standard error. It ends with this object, or with this process, and
  // what then still waits in the kernel with its request's answer.
  static Result<std::unique_ptr<Notifier>> start(int connection);
  ~Notifier();
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  // As writev(2) on the connection: returns when that has. errno ESHUTDOWN: stop() was called, or the process was killed.
  // Any thread.
  ssize_t write(std::span<const iovec> pieces);
  // It was killed: what write() refuses is to be written by somebody else.
  bool lost() const;
  // Whoever waits in write() returns, now and later.
  void stop();

 private:
  struct Waiting {
    bool answered = false;
    std::int32_t error = 0;  // errno
  };
  explicit Notifier(int socket);
  void hear();
  void was_lost();

  const int socket_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, Waiting> waiting_;  // guarded by mutex_
  std::uint64_t last_ = 0;                    // guarded by mutex_
  bool stopped_ = false, lost_ = false;       // guarded by mutex_
  std::thread listener_;
};

}  // namespace vmfs
