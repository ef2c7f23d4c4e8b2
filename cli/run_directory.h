// STORE/run: what lives as long as a mount does. control (the socket), holder (the holder's status),
// daemon.log (when nobody else takes the log), and a way to wait until something there changes.
#pragma once

#include <cstdint>
#include <string>

#include "fs/base/result.h"

namespace vmfs {

std::string holder_status_path(const std::string& store);
std::string log_path(const std::string& store);

// A log larger than this becomes daemon.log.old, and a new one begins.
inline constexpr std::uint64_t kLogMax = 16u << 20;

// Makes STORE/run.
Result<> prepare_run_directory(const std::string& store);

// Notices entries that come, go or are replaced in STORE/run, from its construction on.
class RunDirectoryWatch {
 public:
  explicit RunDirectoryWatch(const std::string& store);
  ~RunDirectoryWatch();
  RunDirectoryWatch(const RunDirectoryWatch&) = delete;
  RunDirectoryWatch& operator=(const RunDirectoryWatch&) = delete;

  // Returns after a change, or after a second: look again. False: `timeout_ns` is over (negative: it never is).
  bool wait(std::int64_t timeout_ns);

 private:
  int fd_;
};

}  // namespace vmfs
