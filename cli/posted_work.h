// Work for the node's thread that refers to whoever gave it: it has been done before its giver goes.
#pragma once

#include <functional>
#include <future>

#include "net/seam/shell.h"

namespace vmfs {

class PostedWork {
 public:
  // The shell's thread runs for as long as this lives.
  explicit PostedWork(Shell& shell) : shell_(shell) {}
  // Waits until everything that was posted has run. Not on the shell's thread; nobody posts any more.
  ~PostedWork() {
    std::promise<void> reached;
    shell_.post([&reached] { reached.set_value(); });
    reached.get_future().wait();
  }
  PostedWork(const PostedWork&) = delete;
  PostedWork& operator=(const PostedWork&) = delete;

  void post(std::function<void()> f) { shell_.post(std::move(f)); }

 private:
  Shell& shell_;
};

}  // namespace vmfs
