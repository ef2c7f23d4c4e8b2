#include "cli/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace vmfs {

namespace {

constexpr std::size_t kSmallFileMax = 1u << 20;

tl::unexpected<Error> failed(const std::string& path, std::string_view doing) {
  int number = errno;
  return fail(number == ENOENT ? ErrorKind::kNotFound : ErrorKind::kIo, number,
              fmt::format("{}: {}: {}", path, doing, std::strerror(number)));
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

std::string parent_of(const std::string& path) {
  std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<> sync_directory_of(const std::string& path) {
  std::string parent = parent_of(path);
  Descriptor directory(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0) return failed(parent, "open");
  if (::fsync(directory.get()) != 0) return failed(parent, "fsync");
  return {};
}

}  // namespace

Result<std::string> read_small_file(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return failed(path, "open");
  std::string content;
  char buffer[4096];
  for (;;) {
    ssize_t got = ::read(file.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(path, "read");
    if (got == 0) return content;
    content.append(buffer, static_cast<std::size_t>(got));
    if (content.size() > kSmallFileMax)
      return fail(ErrorKind::kInvalid, EFBIG, fmt::format("{}: larger than 1 MiB", path));
  }
}

Result<> replace_small_file(const std::string& path, std::string_view content, mode_t mode) {
  std::string beside = path + ".new";
  // A left-over of an earlier attempt may have another mode: a secret must never be in an open file.
  if (::unlink(beside.c_str()) != 0 && errno != ENOENT) return failed(beside, "unlink");
  {
    Descriptor file(::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    if (file.get() < 0) return failed(beside, "create");
    if (::fchmod(file.get(), mode) != 0) return failed(beside, "chmod");
    while (!content.empty()) {
      ssize_t put = ::write(file.get(), content.data(), content.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return failed(beside, "write");
      content.remove_prefix(static_cast<std::size_t>(put));
    }
    if (::fsync(file.get()) != 0) return failed(beside, "fsync");
  }
  if (::rename(beside.c_str(), path.c_str()) != 0) return failed(beside, "rename");
  return sync_directory_of(path);
}

Result<> make_directory_durably(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0) {
    if (errno != EEXIST) return failed(path, "mkdir");
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) return failed(path, "stat");
    if (!S_ISDIR(status.st_mode))
      return fail(ErrorKind::kInvalid, ENOTDIR, fmt::format("{}: is not a directory", path));
    return {};
  }
  return sync_directory_of(path);
}

}  // namespace vmfs
