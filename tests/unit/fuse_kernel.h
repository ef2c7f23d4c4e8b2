// Plays the kernel's side of a FUSE connection over socket pairs: no mount, no root.
#pragma once

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fs/fuse/core.h"
#include "fs/fuse/front.h"
#include "fs/fuse/kernel.h"
#include "fs/seam/clock.h"
#include "fs/seam/disk.h"
#include "fs/volume/volume.h"

namespace vmfs::test {

struct KernelAnswer {
  fuse_out_header header{};
  Bytes body;

  template <class Body>
  Body as() const {
    Body value{};
    REQUIRE(body.size() >= sizeof value);
    std::memcpy(&value, body.data(), sizeof value);
    return value;
  }
};

// The kernel's end of a connection with a given number of clones.
class FakeKernel {
 public:
  explicit FakeKernel(unsigned clones) {
    for (unsigned i = 0; i <= clones; ++i) {
      int ends[2];
      REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
      ours_.push_back(ends[0]);
      theirs_.push_back(ends[1]);
    }
  }
  ~FakeKernel() {
    close();
    for (int descriptor : theirs_) ::close(descriptor);
  }
  FakeKernel(const FakeKernel&) = delete;
  FakeKernel& operator=(const FakeKernel&) = delete;

  ConnectionParts parts(ConnectionMemory& memory) const {
    ConnectionParts parts;
    parts.memory = &memory;
    parts.descriptor = theirs_[0];
    parts.clones = {theirs_.begin() + 1, theirs_.end()};
    return parts;
  }
  // As an unmount, or the end of the daemon's process, looks to the front.
  void close() {
    for (int& descriptor : ours_)
      if (descriptor >= 0) ::close(std::exchange(descriptor, -1));
  }

  static constexpr unsigned kMain = 0;  // the connection's first descriptor; 1 and up are clones

  template <class Body>
  static Bytes message(std::uint32_t opcode, std::uint64_t unique, std::uint64_t node,
                       const Body& body, std::string_view more = {},
                       std::uint32_t process = static_cast<std::uint32_t>(::getpid())) {
    fuse_in_header header{};
    header.opcode = opcode;
    header.unique = unique;
    header.nodeid = node;
    header.pid = process;
    header.len = static_cast<std::uint32_t>(sizeof header + sizeof body + more.size());
    Bytes bytes(header.len);
    std::memcpy(bytes.data(), &header, sizeof header);
    std::memcpy(bytes.data() + sizeof header, &body, sizeof body);
    std::memcpy(bytes.data() + sizeof header + sizeof body, more.empty() ? "" : more.data(), more.size());
    return bytes;
  }
  static std::string text(std::string_view name) { return std::string(name) + '\0'; }

  void send(unsigned where, const Bytes& bytes) {
    REQUIRE(::send(ours_[where], bytes.data(), bytes.size(), 0) ==
            static_cast<ssize_t>(bytes.size()));
  }
  std::optional<KernelAnswer> answer(unsigned where, int milliseconds = 10'000) {
    pollfd waiting{ours_[where], POLLIN, 0};
    if (::poll(&waiting, 1, milliseconds) <= 0) return std::nullopt;
    Bytes bytes(1 << 20);
    const ssize_t got = ::recv(ours_[where], bytes.data(), bytes.size(), 0);
    KernelAnswer answer;
    if (got < static_cast<ssize_t>(sizeof answer.header)) return std::nullopt;
    std::memcpy(&answer.header, bytes.data(), sizeof answer.header);
    CHECK(answer.header.len == static_cast<std::uint32_t>(got));
    answer.body.assign(bytes.begin() + sizeof answer.header, bytes.begin() + got);
    return answer;
  }
  // Sends and expects the answer to exactly that.
  KernelAnswer ask(unsigned where, const Bytes& bytes) {
    fuse_in_header header;
    std::memcpy(&header, bytes.data(), sizeof header);
    send(where, bytes);
    auto got = answer(where);
    REQUIRE(got);
    CHECK(got->header.unique == header.unique);
    return std::move(*got);
  }

  static Bytes init(std::uint64_t flags = kInitExtended | kInitHasResend | kInitDirectIoAllowMmap |
                                          FUSE_MAX_PAGES | FUSE_BIG_WRITES | FUSE_ASYNC_READ) {
    fuse_init_in body{};
    body.major = 7;
    body.minor = 38;
    body.max_readahead = 131072;
    body.flags = static_cast<std::uint32_t>(flags);
    body.flags2 = static_cast<std::uint32_t>(flags >> 32);
    return message(FUSE_INIT, 2, 0, body);
  }

 private:
  std::vector<int> ours_, theirs_;
};

// A volume in a directory of its own, removed at the end.
class ScratchVolume {
 public:
  explicit ScratchVolume(const std::string& name)
      : root_(std::filesystem::temp_directory_path() / ("vmfs-test-" + name + std::to_string(::getpid()))) {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_ / "store");
    std::filesystem::create_directories(root_ / "journal");
    store_ = std::move(*open_posix_disk((root_ / "store").string()));
    journal_ = std::move(*open_posix_disk((root_ / "journal").string()));
    options_.journal.volume[0] = std::byte{1};
    options_.journal.node = NodeId{7};
    options_.journal.segment_size = 1u << 20;
    options_.journal.size_max = 8u << 20;
    REQUIRE(Volume::create(*store_, *journal_, system_clock(), options_));
    open({}, {});
  }
  ~ScratchVolume() {
    volume_.reset();
    std::filesystem::remove_all(root_);
  }
  // As a new daemon would after the last one died: nothing was closed.
  void open(ConnectionId connection, std::vector<std::uint64_t> unanswered) {
    volume_.reset();
    Volume::OpenArguments arguments;
    arguments.connection = connection;
    arguments.unanswered = std::move(unanswered);
    auto opened = Volume::open(*store_, *journal_, system_clock(), options_, arguments);
    REQUIRE_MESSAGE(opened, opened.error().message);
    volume_ = std::move(*opened);
  }
  Volume& operator*() { return *volume_; }
  Volume* operator->() { return volume_.get(); }

 private:
  std::filesystem::path root_;
  std::unique_ptr<Disk> store_, journal_;
  VolumeOptions options_;
  std::unique_ptr<Volume> volume_;
};

}  // namespace vmfs::test
