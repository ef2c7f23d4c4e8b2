#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "fs/seam/disk.h"

using namespace vmfs;

namespace {

// A scratch directory on the disk of the temporary directory, gone at the end.
struct Scratch {
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "vmfs-disk-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
    disk = *open_posix_disk(path);
  }
  ~Scratch() { std::filesystem::remove_all(path); }
  std::string path;
  std::unique_ptr<Disk> disk;
};

std::string text_of(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

TEST_SUITE("posix disk") {
  TEST_CASE("files are written, read, cut, punched and searched") {
    Scratch s;
    auto file = *s.disk->open("a", OpenMode::kCreate, "test");
    CHECK(s.disk->open("a", OpenMode::kCreate, "test").error().kind == ErrorKind::kExists);
    REQUIRE(file->write(as_bytes("hello"), 1u << 20, "test"));
    Bytes buffer(16);
    CHECK(*file->read(buffer, (1u << 20) - 4, "test") == 9);
    CHECK(text_of(buffer).substr(0, 9) == std::string(4, '\0') + "hello");
    CHECK(*file->read(buffer, 2u << 20, "test") == 0);
    CHECK(**file->seek_data(0, "test") <= 1u << 20);
    CHECK(**file->seek_hole(0, "test") == 0);
    CHECK(!*file->seek_hole(1u << 20, "test"));
    CHECK(!*file->seek_data(2u << 20, "test"));
    REQUIRE(file->allocate(0, 8192, true, "test"));
    CHECK(file->stat("test")->size == (1u << 20) + 5);
    REQUIRE(file->punch_hole(0, 2u << 20, "test"));
    CHECK(*file->read(buffer, 1u << 20, "test") == 5);
    CHECK(text_of(buffer).substr(0, 5) == std::string(5, '\0'));
    REQUIRE(file->truncate(3, "test"));
    CHECK(file->stat("test")->size == 3);
    CHECK(file->sync_data("test"));
    CHECK(file->sync("test"));
  }

  TEST_CASE("which ranges have blocks of their own is known, written or not") {
    Scratch scratch;
    auto file = scratch.disk->open("f", OpenMode::kCreate, "test");
    REQUIRE(file);
    auto owns = [&](std::uint64_t offset, std::uint64_t length) {
      auto owned = (*file)->owns_blocks(offset, length, "test");
      REQUIRE(owned);
      return *owned;
    };
    REQUIRE((*file)->truncate(4 << 20, "test"));
    if (!(*file)->allocate(1 << 20, 1 << 20, true, "test") || !owns(1 << 20, 1 << 20)) {
      MESSAGE("the file system here does not tell");
      return;
    }
    CHECK_FALSE(owns(0, 4096));
    CHECK_FALSE(owns((1 << 20) - 4096, 8192));
    CHECK_FALSE(owns((2 << 20) - 4096, 8192));
    REQUIRE((*file)->write(Bytes(64 << 10, std::byte{1}), 0, "test"));
    REQUIRE((*file)->sync("test"));
    CHECK(owns(0, 64 << 10));
    CHECK(owns(4096, 5000));
    // What is in the page cache alone has none yet, as far as is known.
    REQUIRE((*file)->punch_hole(1 << 20, 8192, "test"));
    CHECK_FALSE(owns(1 << 20, 4096));
    CHECK(owns((1 << 20) + 8192, 4096));
  }

  TEST_CASE("the size that a file can have is known") {
    Scratch s;
    const std::uint64_t most = s.disk->space("test")->file_size_max;
    auto file = *s.disk->open("f", OpenMode::kCreate, "test");
    CHECK(file->write(as_bytes("x"), most - 1, "test"));
    if (most < DiskSpace{}.file_size_max)
      CHECK(file->write(as_bytes("x"), most, "test").error().number == EFBIG);
  }

  TEST_CASE("many pieces are written as one run") {
    Scratch s;
    auto file = *s.disk->open("a", OpenMode::kCreate, "test");
    std::string all;
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < File::kMaxPieces; ++i)
      texts.push_back(std::string(i % 97, 'a' + i % 26));
    std::vector<iovec> pieces;
    for (auto& text : texts) {
      pieces.push_back({text.data(), text.size()});
      all += text;
    }
    REQUIRE(file->write_pieces(pieces, 10, "test"));
    CHECK(text_of(*read_whole_file(*s.disk, "a", "test")).substr(10) == all);
  }

  TEST_CASE("directories, renames and links") {
    Scratch s;
    Disk& disk = *s.disk;
    REQUIRE(disk.make_directory("d", "test"));
    REQUIRE(disk.make_directory("d/e", "test"));
    REQUIRE(disk.open("d/e/f", OpenMode::kCreate, "test"));
    REQUIRE(disk.make_symlink("d/link", "/etc", "test"));
    CHECK(*disk.read_symlink("d/link", "test") == "/etc");
    CHECK(disk.stat("d/link", "test")->type == FileType::kSymlink);
    CHECK(disk.remove_directory("d", "test").error().number == ENOTEMPTY);
    auto entries = *disk.list("d", "test");
    CHECK(entries.size() == 2);
    REQUIRE(disk.open("g", OpenMode::kCreate, "test"));
    CHECK(disk.rename("g", "d/e/f", false, "test").error().kind == ErrorKind::kExists);
    CHECK(disk.rename("g", "d/e/f", true, "test"));
    CHECK(disk.stat("g", "test").error().kind == ErrorKind::kNotFound);
    CHECK(disk.sync_directory("d/e", "test"));
    CHECK(disk.sync_directory("", "test"));
    CHECK(disk.remove("d/e/f", "test"));
    CHECK(disk.remove_directory("d/e", "test"));
    CHECK(disk.space("test")->total > 0);
  }

  TEST_CASE("symlinks lead nowhere") {
    Scratch s;
    Disk& disk = *s.disk;
    REQUIRE(disk.make_symlink("out", "/etc", "test"));
    REQUIRE(disk.make_symlink("file", "/etc/passwd", "test"));
    CHECK(disk.open("out/passwd", OpenMode::kRead, "test").error().number == ENOTDIR);
    CHECK(disk.open("file", OpenMode::kRead, "test").error().number == ELOOP);
    CHECK(!disk.list("out", "test"));
    CHECK(!disk.stat("out/passwd", "test"));
    CHECK(disk.open("../x", OpenMode::kRead, "test").error().number == EINVAL);
    CHECK(disk.open("/etc/passwd", OpenMode::kRead, "test").error().number == EINVAL);
  }

  TEST_CASE("tags stay with files, directories and symlinks through renames") {
    if (::geteuid() != 0) return;  // trusted attributes are root's
    Scratch s;
    Disk& disk = *s.disk;
    REQUIRE(disk.open("f", OpenMode::kCreate, "test"));
    REQUIRE(disk.make_directory("d", "test"));
    REQUIRE(disk.make_symlink("l", "nowhere", "test"));
    for (const char* name : {"f", "d", "l"}) {
      CAPTURE(name);
      CHECK(disk.get_tag(name, "id", "test").error().kind == ErrorKind::kNotFound);
      REQUIRE(disk.set_tag(name, "id", as_bytes(std::string("tag of ") + name), "test"));
      REQUIRE(disk.rename(name, std::string("new-") + name, true, "test"));
      CHECK(text_of(*disk.get_tag(std::string("new-") + name, "id", "test")) ==
            std::string("tag of ") + name);
    }
    std::string large(1000, 'x');
    REQUIRE(disk.set_tag("new-f", "large", as_bytes(large), "test"));
    CHECK(text_of(*disk.get_tag("new-f", "large", "test")) == large);
  }

  TEST_CASE("attributes") {
    Scratch s;
    Disk& disk = *s.disk;
    auto file = *disk.open("f", OpenMode::kCreate, "test");
    FileAttributes set;
    set.permissions = 04711;
    set.mtime_ns = -1;
    REQUIRE(disk.set_attributes("f", set, "test"));
    CHECK(disk.stat("f", "test")->permissions == 04711);
    CHECK(disk.stat("f", "test")->mtime_ns == -1);
    set.mtime_ns = 1'700'000'000'123'456'789;
    set.permissions = 0640;
    REQUIRE(file->set_attributes(set, "test"));
    CHECK(disk.stat("f", "test")->mtime_ns == 1'700'000'000'123'456'789);
    CHECK(file->stat("test")->permissions == 0640);
    REQUIRE(disk.make_symlink("l", "f", "test"));
    set.mtime_ns = 5'000'000'000;
    REQUIRE(disk.set_attributes("l", set, "test"));
    CHECK(disk.stat("l", "test")->mtime_ns == 5'000'000'000);
    CHECK(disk.stat("f", "test")->mtime_ns == 1'700'000'000'123'456'789);
    if (::geteuid() == 0) {
      set = {};
      set.uid = 12;
      set.gid = 34;
      REQUIRE(disk.set_attributes("l", set, "test"));
      CHECK(disk.stat("l", "test")->uid == 12);
      CHECK(disk.stat("f", "test")->uid == 0);
    }
  }

  TEST_CASE("errors name the file, the operation's label and the reason") {
    Scratch s;
    Error error = s.disk->open("no/such", OpenMode::kRead, "state.read").error();
    CHECK(error.kind == ErrorKind::kNotFound);
    CHECK(error.message.find(s.path + "/no") != std::string::npos);
    CHECK(error.message.find("state.read") != std::string::npos);
    CHECK(error.message.find("No such file") != std::string::npos);
    REQUIRE(s.disk->make_directory("d", "test"));
    CHECK(s.disk->open("d", OpenMode::kReadWrite, "test").error().number == EISDIR);
    REQUIRE(::mkfifo((s.path + "/pipe").c_str(), 0600) == 0);
    CHECK(s.disk->open("pipe", OpenMode::kRead, "test").error().kind == ErrorKind::kInvalid);
    CHECK(!open_posix_disk(s.path + "/none"));
  }

  TEST_CASE("a lock excludes others and goes with its holder") {
    Scratch s;
    auto lock = s.disk->lock("lock", "test");
    REQUIRE(lock);
    CHECK(s.disk->lock("lock", "test").error().kind == ErrorKind::kBusy);
    lock = fail(ErrorKind::kIo, EIO);
    CHECK(s.disk->lock("lock", "test"));
    // Another process takes it and dies without a word.
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto held = s.disk->lock("lock", "test");
      char answer = held ? 'y' : 'n';
      (void)!::write(ready[1], &answer, 1);
      for (;;) ::pause();
    }
    char answer = 0;
    CHECK(::read(ready[0], &answer, 1) == 1);
    CHECK(answer == 'y');
    CHECK(s.disk->lock("lock", "test").error().kind == ErrorKind::kBusy);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    CHECK(s.disk->lock("lock", "test"));
    ::close(ready[0]);
    ::close(ready[1]);
  }

  TEST_CASE("small files are replaced whole") {
    Scratch s;
    REQUIRE(s.disk->make_directory("d", "test"));
    CHECK(read_whole_file(*s.disk, "d/state", "test").error().kind == ErrorKind::kNotFound);
    REQUIRE(replace_file(*s.disk, "d/state", as_bytes("one and more"), "test"));
    REQUIRE(replace_file(*s.disk, "d/state", as_bytes("two"), "test"));
    CHECK(text_of(*read_whole_file(*s.disk, "d/state", "test")) == "two");
    CHECK(s.disk->list("d", "test")->size() == 1);
  }
}
