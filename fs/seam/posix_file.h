// Private to fs/seam: what posix_disk.cc and posix_file.cc share.
#pragma once

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "fs/seam/disk.h"

namespace vmfs {

// Owns a file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  explicit operator bool() const { return number_ >= 0; }
  int get() const { return number_; }
  int release() { return std::exchange(number_, -1); }
  // For system calls that take only paths.
  std::string proc_path() const { return "/proc/self/fd/" + std::to_string(number_); }

 private:
  int number_ = -1;
};

// "SHOWN: WHAT (LABEL): strerror".
tl::unexpected<Error> fail_errno(int number, const std::string& shown, const char* what,
                                 Label label);
// Absent: UTIME_OMIT.
timespec to_timespec(const std::optional<std::int64_t>& ns);
FileStat from_stat(const struct stat& s);

std::unique_ptr<File> make_posix_file(Descriptor descriptor, std::string shown);

}  // namespace vmfs
