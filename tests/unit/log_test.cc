// The log: what each line looks like, and how the file is turned over.
#include "fs/base/log.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

namespace vmfs {
namespace {

// Standard error goes to a file as long as this lives.
class LogInFile {
 public:
  LogInFile() {
    REQUIRE(log_ >= 0);
    take();
  }
  ~LogInFile() {
    ::dup2(error_output_, STDERR_FILENO);
    ::close(error_output_);
    ::close(log_);
    ::unlink(path.c_str());
    ::unlink((path + ".old").c_str());
  }
  // Again the file that it went to at first, whatever that is called by now.
  void take() { ::dup2(log_, STDERR_FILENO); }
  std::string text() const {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const std::string path = fmt::format("/tmp/vmfs-log-test-{}", ::getpid());

 private:
  const int error_output_ = ::dup(STDERR_FILENO);
  const int log_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
};

}  // namespace

TEST_SUITE("log") {
  TEST_CASE("every line of an event bears its priority, and none but the first looks like an event") {
    std::string text;
    {
      LogInFile log;
      log_error("x");
      log_error("{}: it broke\nmend it", "/vm/a\n<6>all is well\x1b[2J\r.img");
      text = log.text();
    }
    // "<3>", or "error: " where the tests run on a terminal.
    const std::string front = text.substr(0, text.find('x'));
    REQUIRE_FALSE(front.empty());
    CHECK(text == front + "x\n" + front + "/vm/a\n" + front + "  <6>all is well\\x1b[2J\\x0d.img: it broke\n" +
                      front + "  mend it\n");
  }

  TEST_CASE("a log that grows becomes the old one, and whoever shares it follows") {
    auto size_of = [](const std::string& name) {
      struct stat status {};
      return ::stat(name.c_str(), &status) == 0 ? status.st_size : -1;
    };
    LogInFile log;
    const std::string old_path = log.path + ".old";
    set_log_file(log.path, 4096, false);
    for (int i = 0; i < 100; ++i) log_error("line {} of a log that is to be turned over", i);
    const auto now = size_of(log.path), old = size_of(old_path);
    // Another process had it open before.
    log.take();
    set_log_file(log.path, 0, true);
    log_error("the follower's line");
    const auto after = size_of(log.path), old_after = size_of(old_path);
    set_log_file("", 0, false);
    CHECK(now > 0);
    CHECK(now < 4096 + 100);
    CHECK(old >= 4096);
    CHECK(after > now);
    CHECK(old_after == old);
  }
}

}  // namespace vmfs
