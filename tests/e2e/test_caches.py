"""What a node's kernel has cached never outlives what it was taken from: names, attributes, pages, sizes."""

import errno
import os
import random
import signal
import threading
import time

from lib.nodes import Pair, vmfs
from lib.runner import case
from lib.scratch import read_file, run, wait_until, write_file


def content_of(descriptor):
    return os.pread(descriptor, 1 << 20, 0)


def is_there(path):
    """Asks the kernel for the name, and nothing else."""
    try:
        os.lstat(path)
        return True
    except OSError as error:
        assert error.errno == errno.ENOENT, error
        return False


@case(seconds=60)
def names_that_another_node_makes(scratch):
    """A name that was looked for in vain while this node owned the names, and a directory that was looked at, are seen
    as the other node makes them."""
    with Pair(scratch).start() as pair:
        os.mkdir(pair.a / "empty")
        wait_until(lambda: is_there(pair.b / "empty"), what="the directory on b")
        assert not is_there(pair.a / "new.img") and not is_there(pair.a / "empty/new.img")
        held = os.open(pair.a / "empty", os.O_RDONLY)
        before = os.fstat(held).st_mode & 0o7777
        os.mkdir(pair.b / "token")  # b owns the names from here on
        assert not is_there(pair.a / "later.img")
        for name in ("new.img", "later.img", "empty/new.img"):
            write_file(pair.b / name, b"x")
            wait_until(lambda path=pair.a / name: is_there(path), timeout=5, what=f"{name} on a")
        os.chmod(pair.b / "empty", 0o710)
        wait_until(lambda: os.fstat(held).st_mode & 0o7777 == 0o710, timeout=5, what=f"the mode (was {before:o}) on a")
        os.unlink(pair.b / "new.img")
        wait_until(lambda: not is_there(pair.a / "new.img"), timeout=5, what="the removal on a")
        os.close(held)
        pair.stop()


@case(seconds=60)
def appending_on_both_nodes(scratch):
    """A handle for appending adds to what is there when the write is made, whatever its node knew before."""
    with Pair(scratch).start() as pair:
        write_file(pair.a / "log", b"one\n")
        wait_until(lambda: read_file(pair.b / "log") == b"one\n", what="the file on b")
        there = os.open(pair.b / "log", os.O_WRONLY | os.O_APPEND)
        with open(pair.a / "log", "ab") as here:
            here.write(b"two, which is a longer line\n")
            here.flush()
            os.fsync(here.fileno())
        os.write(there, b"three\n")
        os.write(there, b"four\n")
        os.fsync(there)
        os.close(there)
        with open(pair.a / "log", "ab") as here:
            here.write(b"five\n")
        expected = b"one\ntwo, which is a longer line\nthree\nfour\nfive\n"
        assert read_file(pair.a / "log") == expected, read_file(pair.a / "log")
        wait_until(lambda: read_file(pair.b / "log") == expected, timeout=10, what="all lines on b")
        pair.stop()


@case(seconds=90)
def handles_from_before_a_forced_promotion(scratch):
    """a loses the link; b is promoted by force and changes names and content. When a is back, neither an open handle
    nor a name there shows what a had cached."""
    with Pair(scratch).start() as pair:
        write_file(pair.a / "x.img", b"old" * 10_000)
        held = os.open(pair.a / "x.img", os.O_RDONLY)
        assert content_of(held) == b"old" * 10_000
        assert not is_there(pair.a / "new.img")
        pair.wan.cut()
        wait_until(lambda: pair.b.status()["peers"][0]["link"] != "connected", what="b's notice of the loss")
        pair.b.promote("--force")
        write_file(pair.b / "x.img", b"new" * 10_000)
        write_file(pair.b / "new.img", b"x")
        os.rename(pair.b / "x.img", pair.b / "y.img")
        assert content_of(held) == b"old" * 10_000
        pair.wan.mend()
        pair.a.wait("connected")
        pair.settle()
        wait_until(lambda: is_there(pair.a / "new.img"), timeout=10, what="the new name on a")
        wait_until(lambda: not is_there(pair.a / "x.img"), timeout=10, what="the old name's end on a")
        wait_until(lambda: read_file(pair.a / "y.img") == b"new" * 10_000, timeout=10, what="the new content on a")
        wait_until(lambda: content_of(held) == b"new" * 10_000, timeout=10, what="the new content through the old handle")
        os.close(held)
        pair.stop()
        run("cmp", pair.a.stored("y.img"), pair.b.stored("y.img"))


@case(seconds=120)
def daemon_dies_while_caches_are_dropped(scratch):
    """On a node that gave an image away, programs read through the kernel's cache what the other node writes, so that
    pages are dropped while reads of them are under way. Each time its daemon dies, or is restarted, the next one
    serves: nothing that waits in the kernel is waited for."""
    def read(ended):
        while not ended.is_set():
            with open(pair.a / "x.img", "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                for held in handles:
                    os.preadv(held, buffers, random.randrange(32) << 20)
                while file.read(1 << 20):
                    pass

    def write(ended):
        with open(pair.b / "x.img", "r+b", buffering=0) as file:
            while not ended.is_set():
                os.pwrite(file.fileno(), os.urandom(4096), random.randrange(8000) * 4096)
                os.fsync(file.fileno())

    with Pair(scratch).start() as pair:
        write_file(pair.a / "x.img", os.urandom(32 << 20))
        # From when a owned it: through the cache, for ever.
        handles = [os.open(pair.a / "x.img", os.O_RDONLY) for _ in range(3)]
        buffers = [bytearray(1 << 20)]
        pair.b.promote(path=pair.b / "x.img")
        ended = threading.Event()
        workers = [threading.Thread(target=work, args=(ended,)) for work in (read, read, read, write)]
        for worker in workers:
            worker.start()
        try:
            for number in range(12):
                old = pair.a.daemon_pid()
                if number % 3 == 2:
                    vmfs("restart", pair.a.mnt)
                else:
                    pair.a.kill_daemon()
                pair.a.wait_for_another_daemon(old)
                time.sleep(0.2)  # some of its life is spent reading
        finally:
            ended.set()
        for worker in workers:
            worker.join(30)
            assert not worker.is_alive(), "a client hangs"
        for held in handles:
            os.close(held)
        pair.settle()
        pair.stop()


@case(seconds=60)
def caches_are_cleared_without_the_process_that_does_it(scratch):
    """The daemon's notifier is killed: what the other node writes is seen all the same, and a restart brings another."""
    def notifier():
        listed = run("ps", "-o", "pid=,comm=", "--ppid", pair.a.daemon_pid()).stdout.split()
        assert listed[1] == "vmfs-notifier" and len(listed) == 2, listed
        return int(listed[0])

    with Pair(scratch).start() as pair:
        write_file(pair.a / "x.img", b"of a")
        held = os.open(pair.a / "x.img", os.O_RDONLY)  # through the cache
        assert content_of(held) == b"of a"
        for number in range(2):
            if number == 0:
                os.kill(notifier(), signal.SIGKILL)
            else:
                vmfs("restart", pair.a.mnt)
                notifier()
            with open(pair.b / "x.img", "r+b") as file:
                file.write(b"of b, %d" % number)
                file.flush()
                os.fsync(file.fileno())
            wait_until(lambda: content_of(held) == b"of b, %d" % number, timeout=10, what="what b wrote, on a")
        os.close(held)
        pair.stop()
