#include "fs/holder/protection.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "fs/base/log.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace vmfs {

Protection protect_daemon() {
  Protection out;
  out.io_flusher = ::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0;
  std::ifstream("/proc/self/oom_score_adj") >> out.oom_score_adj;
  return out;
}

Protection protect_holder() {
  if (const int file = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); file >= 0) {
    if (::write(file, "-1000", 5) < 0)
      log_warning("not protected from the out-of-memory killer: {}. If it kills this daemon, guests pause; if it "
                  "kills the holder too, they get errors",
                  strerror(errno));
    ::close(file);
  }
  Protection out = protect_daemon();
  if (!out.io_flusher)
    log_warning("cannot become an I/O flusher: {}. When memory is short, this daemon may wait for its own mount",
                strerror(errno));
  return out;
}

}  // namespace vmfs
