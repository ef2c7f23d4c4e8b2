// The FUSE front: the kernel's requests, from several threads, as calls of Volume. It knows nothing
// of the network.
//
// A daemon uses it like this:
//
//   auto link = DaemonLink::inherit();
//   auto volume = Volume::open(..., {link->connection(), link->unanswered()});  // if link->resumed()
//   auto front = Front::start(*volume, *link, options);
//   link->report_ready();
//   switch (front->wait()) {
//     case Front::End::kUnmounted: front.reset(); volume->close(); exit(kDaemonUnmounted);
//     case Front::End::kDrained:   front.reset(); volume.reset();  exit(kDaemonRestart);
//     ...
//
// What the kernel may cache: while the name space's gate is kOpen or kFrozen, names and the attributes of directories are
// given long lifetimes; while an image's is, its attributes one of at most a second, and opens keep the page cache.
// Otherwise lifetimes are 0 and handles do direct I/O for life. So when a group's token is lost, and again before it is gained,
// its caches are to be invalidated with the functions below.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "fs/holder/daemon_link.h"
#include "fs/volume/volume.h"

namespace vmfs {

struct ConnectionParts;  // core.h

struct FrontOptions {
  unsigned threads = 8;             // at most the holder's clones
  bool pretend_no_resend = false;   // as HolderOptions
  double cache_seconds = 3600;      // lifetime of attributes and names in the kernel, when owned here
};

struct FrontStatistics {
  std::uint64_t parked = 0;    // waiting for a token, space or the link now
  std::uint64_t open_handles = 0;
};

class Front {
 public:
  // Serves the connection: answers the kernel's INIT (or, on a connection that goes on, restores the
  // opens and asks the kernel to send unanswered requests again), then starts the threads.
  // `volume` and `link` must outlive the front.
  static Result<std::unique_ptr<Front>> start(Volume& volume, DaemonLink& link,
                                              const FrontOptions& options);
  // The same without a holder: for tests, over socket pairs.
  static Result<std::unique_ptr<Front>> start(Volume& volume, const ConnectionParts& parts,
                                              const FrontOptions& options);
  // Only after wait() returned. Requests that are still parked are dropped without an answer.
  ~Front();
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;

  enum class End {
    kUnmounted,  // the kernel closed the connection
    kDrained,    // after drain()
    kFailed,     // the connection broke in a way that is a bug; it was logged
  };
  // Returns when no thread serves any more.
  End wait();

  // For `vmfs restart`, from any thread: stops reading, lets what was read be answered, after which
  // wait() returns kDrained. On kernels that can resend, requests that still wait after `patience_ns`
  // are left to the next daemon; on others, the front goes on serving and this fails with kBusy.
  Result<> drain(std::int64_t patience_ns);
  // After wait() has returned kDrained: what still waits is not answered any more, whatever comes of it.
  void answer_no_more();

  // --- The kernel's caches. From any thread, also from one that serves a request: the work is done by
  // threads which serve none, each name and image once however often it was asked for.

  // Attributes and pages of an image.
  void invalidate_image(ObjectId image);
  // One name in a directory: what it leads to, or that it does not exist; and that directory's own
  // attributes.
  void invalidate_name(ObjectId parent, const std::string& name);
  // All names and attributes of directories and symlinks: when the name space's token moves.
  void invalidate_names();
  // `done` is called, from another thread, once everything that was asked for before is out of the
  // kernel's caches. Pages (or directories) that are locked by a request which is parked are left out
  // and follow when it is answered: else a hand-over which that request asked for could not go on.
  void when_invalidated(std::function<void()> done);
  void wait_until_invalidated();  // the same, waiting; never from a thread that serves a request

  // The image was handed over, or follows another node: handles that were opened for writing before
  // get EIO when they change it, and never ask for the token again. Until reopened.
  void expire_write_handles(ObjectId image);

  // Whether any process holds a lock on this image that marks it as in use for writing: see locks.h.
  bool holds_lock(ObjectId image) const;

  // Whether the kernel sends requests that this daemon has not answered to the next one.
  bool kernel_resends() const;
  FrontStatistics statistics() const;

 private:
  Front();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmfs
