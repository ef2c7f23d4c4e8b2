#include "fs/fuse/locks.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdio>

TEST_SUITE("fuse locks") {
  using vmfs::shows_write_lock;

  TEST_CASE("write locks of any kind count, on that inode only") {
    CHECK(shows_write_lock("1: POSIX  ADVISORY  WRITE 812 00:2a:9007199254740993 0 EOF\n", 0, 0x2a,
                           9007199254740993u));
    CHECK(shows_write_lock("1: FLOCK  ADVISORY  WRITE 812 00:2a:77 0 EOF\n", 0, 0x2a, 77));
    CHECK(shows_write_lock("1: OFDLCK ADVISORY  WRITE -1 00:2a:77 5 9", 0, 0x2a, 77));
    CHECK_FALSE(shows_write_lock("1: POSIX  ADVISORY  WRITE 812 00:2a:77 0 EOF\n", 0, 0x2a, 7));
    CHECK_FALSE(shows_write_lock("1: POSIX  ADVISORY  WRITE 812 00:2b:77 0 EOF\n", 0, 0x2a, 77));
    CHECK_FALSE(shows_write_lock("1: POSIX  ADVISORY  WRITE 812 01:2a:77 0 EOF\n", 0, 0x2a, 77));
  }
  TEST_CASE("readers and those who wait do not count") {
    CHECK_FALSE(shows_write_lock("1: POSIX  ADVISORY  READ  812 00:2a:77 0 EOF\n", 0, 0x2a, 77));
    CHECK_FALSE(shows_write_lock("1: FLOCK  ADVISORY  READ  812 00:2a:77 0 EOF\n"
                                 "1: -> FLOCK  ADVISORY  WRITE 813 00:2a:77 0 EOF\n",
                                 0, 0x2a, 77));
    CHECK_FALSE(shows_write_lock("1: OFDLCK ADVISORY  READ  -1 00:2a:77 0 EOF\n", 0, 0x2a, 77));
    CHECK_FALSE(shows_write_lock("", 0, 0x2a, 77));
    CHECK_FALSE(shows_write_lock("garbage\n1:\n\n1: POSIX\n2: POSIX ADVISORY WRITE 1 x:y 0 EOF", 0, 0, 0));
  }
  TEST_CASE("QEMU's shared locks on the bytes that stand for writing count") {
    CHECK(shows_write_lock("3: OFDLCK ADVISORY  READ  -1 00:2a:77 100 101\n", 0, 0x2a, 77));
    CHECK(shows_write_lock("3: OFDLCK ADVISORY  READ  -1 00:2a:77 103 103\n", 0, 0x2a, 77));
    // A reader: consistent read (byte 100), and what it does not share (bytes from 200 on).
    CHECK_FALSE(shows_write_lock("3: OFDLCK ADVISORY  READ  -1 00:2a:77 100 100\n"
                                 "4: OFDLCK ADVISORY  READ  -1 00:2a:77 201 201\n",
                                 0, 0x2a, 77));
  }
  TEST_CASE("a real lock of this process is seen") {
    std::FILE* file = std::tmpfile();
    REQUIRE(file != nullptr);
    struct stat status {};
    REQUIRE(::fstat(::fileno(file), &status) == 0);
    const unsigned device_major = major(status.st_dev), device_minor = minor(status.st_dev);
    CHECK(vmfs::has_write_lock(device_major, device_minor, status.st_ino) == false);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    REQUIRE(::fcntl(::fileno(file), F_OFD_SETLK, &lock) == 0);
    CHECK(vmfs::has_write_lock(device_major, device_minor, status.st_ino) == true);
    std::fclose(file);
  }
}
