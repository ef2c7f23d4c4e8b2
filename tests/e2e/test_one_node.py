"""One node without a peer: a mount that clients can use like a local file system, and that loses nothing."""

import errno
import hashlib
import mmap
import os
import sqlite3
import time

from lib.nodes import Node, seconds_of, vmfs
from lib.runner import Settings, case
from lib.scratch import loop_device, mounted, run
from lib.work import fio, fio_under_faults


def one_node(scratch, **options):
    return Node(scratch.path, "a").init(**options).mount()


def md5(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def refused(number, action):
    """Whether the action fails with that errno."""
    try:
        action()
    except OSError as error:
        assert error.errno == number, f"{error} instead of {errno.errorcode[number]}"
        return
    raise AssertionError(f"not refused with {errno.errorcode[number]}")


@case()
def files_and_directories(scratch):
    """What every program takes for granted, and, after the unmount, the same tree as plain files."""
    node = one_node(scratch)
    os.makedirs(node / "d/e")
    with open(node / "d/one", "wb") as file:
        file.write(b"first" * 1000)
        os.fsync(file.fileno())
    os.symlink("d/one", node / "link")
    assert os.readlink(node / "link") == "d/one"
    with open(node / "link", "rb") as file:
        assert file.read(5) == b"first"
    os.rename(node / "d/one", node / "d/e/two")
    refused(errno.ENOENT, lambda: os.stat(node / "d/one"))
    refused(errno.EEXIST, lambda: os.open(node / "d/e/two", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    refused(errno.ENOTEMPTY, lambda: os.rmdir(node / "d/e"))
    refused(errno.EISDIR, lambda: os.open(node / "d", os.O_WRONLY))
    os.chmod(node / "d/e/two", 0o640)
    os.chown(node / "d/e/two", 1234, 2345)
    os.utime(node / "d/e/two", ns=(1_600_000_000_000_000_001, 1_600_000_000_000_000_002))
    with open(node / "gone", "wb") as file:
        os.unlink(node / "gone")
        file.write(b"still writable")
        file.flush()
        assert os.fstat(file.fileno()).st_size == 14
    with open(node / "appended", "ab") as file:
        file.write(b"a")
    with open(node / "appended", "ab") as file:
        file.write(b"b")
    for number in range(300):
        with open(node / f"d/many-{number:03}", "wb"):
            pass
    assert len(os.listdir(node / "d")) == 301
    for number in range(0, 300, 2):
        os.unlink(node / f"d/many-{number:03}")
    assert len(os.listdir(node / "d")) == 151
    node.umount()
    stat = os.stat(node.stored("d/e/two"))
    assert (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (0o640, 1234, 2345)
    assert stat.st_mtime_ns == 1_600_000_000_000_000_002
    with open(node.stored("d/e/two"), "rb") as file:
        assert file.read() == b"first" * 1000
    with open(node.stored("appended"), "rb") as file:
        assert file.read() == b"ab"
    assert not os.path.exists(node.stored("gone"))
    # And again, as it was.
    node.mount()
    assert len(os.listdir(node / "d")) == 151
    assert os.stat(node / "d/e/two").st_mtime_ns == 1_600_000_000_000_000_002
    node.umount()


@case()
def sparse_files(scratch):
    """Holes stay holes: size, SEEK_DATA and SEEK_HOLE, punching, zeroing, mmap, truncate."""
    node = one_node(scratch)
    path = node / "sparse.img"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 1 << 28)
    os.pwrite(descriptor, b"x" * 8192, 1 << 20)
    os.pwrite(descriptor, b"end", (1 << 28) - 3)
    assert os.lseek(descriptor, 0, os.SEEK_DATA) == 1 << 20
    assert os.lseek(descriptor, 1 << 20, os.SEEK_HOLE) <= (1 << 20) + 65536
    refused(errno.ENXIO, lambda: os.lseek(descriptor, 1 << 28, os.SEEK_DATA))
    run("fallocate", "--punch-hole", "--offset", (1 << 20) + 4096, "--length", 4096, path)
    assert os.pread(descriptor, 8192, 1 << 20) == b"x" * 4096 + bytes(4096)
    run("fallocate", "--zero-range", "--offset", 1 << 20, "--length", 1024, path)
    assert os.pread(descriptor, 4096, 1 << 20) == bytes(1024) + b"x" * 3072
    with mmap.mmap(descriptor, 1 << 21) as memory:
        memory[5:10] = b"mmap!"
        memory.flush()
    assert os.pread(descriptor, 5, 5) == b"mmap!"
    os.fsync(descriptor)
    os.close(descriptor)
    run("cp", "--sparse=always", path, node / "copy.img")
    before = md5(path)
    assert md5(node / "copy.img") == before
    with open(path, "r+b") as file:
        file.truncate((1 << 20) + 2048)
        file.truncate(1 << 28)
        assert os.pread(file.fileno(), 4096, 1 << 20) == bytes(1024) + b"x" * 1024 + bytes(2048)
    node.umount()
    assert md5(node.stored("copy.img")) == before
    stat = os.stat(node.stored("copy.img"))
    assert stat.st_size == 1 << 28 and stat.st_blocks * 512 < 1 << 20, "the copy in the store is not sparse"


@case(seconds=90)
def fio_verify(scratch):
    """Random and mixed writes, checked through the mount and then in the store."""
    node = one_node(scratch)
    many = 4 if Settings.long else 1
    fio(node / "disk.img", size="24m", loops=many, rw="randrw", bs="4k", iodepth=16, direct=1, verify="xxhash", fsync=32)
    fio(node / "other.img", size="24m", loops=many, rw="randwrite", bsrange="512-128k", iodepth=4, direct=0,
        verify="xxhash", end_fsync=1)
    shown = md5(node / "disk.img"), md5(node / "other.img")
    node.umount()
    assert (md5(node.stored("disk.img")), md5(node.stored("other.img"))) == shown


@case(seconds=150)
def daemon_killed_under_fio(scratch):
    """kill -9 of the daemon, again and again: the client sees a pause, no error, and every byte is there."""
    node = one_node(scratch)
    pauses = []

    def fault(number):
        old = node.kill_daemon()
        # The next one answers: a change of the name space goes through the whole of it.
        pauses.append(seconds_of(lambda: os.mkdir(node / f"round-{number}")))
        node.wait_for_another_daemon(old)

    fio_under_faults(node / "disk.img", fault, 200 if Settings.long else 20, 2500, size="24m", loops=2, rw="randwrite",
                     bs="4k", iodepth=8, direct=1, verify="xxhash", rate_iops=4000)
    pauses.sort()
    print(f"        {len(pauses)} rounds, pause {pauses[len(pauses) // 2]:.2f} s (median), {pauses[-1]:.2f} s (longest)")
    assert len([n for n in os.listdir(node.mnt) if n.startswith("round-")]) == len(pauses)
    shown = md5(node / "disk.img")
    node.umount()
    assert md5(node.stored("disk.img")) == shown


@case(seconds=400, long=True)
def short_pause_with_much_unapplied(scratch):
    """The daemon dies while a GiB is in the journal alone, in records of 4 KiB each: every time a client's write waits for
    less than a second."""
    gib = 1 << 30
    file_system = scratch.file_system("store-disk", "xfs", "6G")
    node = Node(file_system, "a")
    node.mnt = scratch / "mnt"  # not on what is frozen: fio makes the directories above its file, if it has to
    os.mkdir(node.mnt)
    vmfs("init", node.store, "--name", "test", "--node", "a", "--journal", scratch / "journal", "--journal-size",
         "4GiB")
    pauses = []
    for turn in range(3):
        node.mount()  # with an empty journal: what is recovered is what was written since its last checkpoint
        descriptor = os.open(node / "disk.img", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        os.ftruncate(descriptor, 2 * gib)
        # Frozen, the store takes nothing.
        run("fsfreeze", "--freeze", file_system)
        try:
            # Each block of a GiB once: none replaces another that is not applied yet.
            fio(node / "disk.img", rw="randwrite", size="1g", bs="4k", iodepth=16, direct=1, end_fsync=1, randseed=turn + 1,
                buffer_pattern=f"0x{0x51 + turn:x}")
            status = node.status()
            assert status["journal"]["unapplied_bytes"] >= gib, status["journal"]
            killed = time.monotonic()
            os.kill(status["daemon"]["pid"], 9)
        finally:
            run("fsfreeze", "--unfreeze", file_system)
        os.pwrite(descriptor, b"y" * 4096, 5 * 4096)
        pauses.append(time.monotonic() - killed)
        assert os.pread(descriptor, 4096, 5 * 4096) == b"y" * 4096
        assert os.pread(descriptor, 1 << 20, 8 << 20) == bytes([0x51 + turn]) * (1 << 20)
        node.wait_for_another_daemon(status["daemon"]["pid"])
        os.close(descriptor)
        node.umount(timeout=120)
        with open(node.stored("disk.img"), "rb") as file:
            for block in range(gib >> 20):
                expected = bytes([0x51 + turn]) * (1 << 20)
                if block == 0:
                    expected = expected[:5 * 4096] + b"y" * 4096 + expected[6 * 4096:]
                assert file.read(1 << 20) == expected, f"MiB {block}"
    print(f"        pauses: {', '.join(f'{pause:.2f} s' for pause in pauses)}")
    assert max(pauses) < 1, pauses


@case(seconds=90)
def machine_processes_killed(scratch):
    """Daemon and holder die at once, nothing is unmounted: what was fsynced, and more, is in the next mount."""
    node = one_node(scratch)
    written = {}
    for number in range(40):
        name = f"file-{number}"
        content = os.urandom(20000 + number)
        with open(node / name, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        written[name] = content
        if number == 10:
            os.rename(node / "file-3", node / "renamed")
            written["renamed"] = written.pop("file-3")
    node.kill_node()
    node.mount()
    for name, content in written.items():
        with open(node / name, "rb") as file:
            assert file.read() == content, name
    node.kill_node()
    # Without a mount: the store is brought up to its journal, and is then plain files.
    vmfs("recover", node.store)
    for name, content in written.items():
        with open(node.stored(name), "rb") as file:
            assert file.read() == content, f"{name} in the store"
    assert not os.path.exists(node.stored("file-3"))


@case(seconds=60)
def planned_restart(scratch):
    """`vmfs restart` under I/O: the handles stay good."""
    node = one_node(scratch)
    with open(node / "held", "w+b") as held:
        held.write(b"before")
        held.flush()
        for _ in range(3):
            before = node.daemon_pid()
            vmfs("restart", node.mnt)
            node.wait_for_another_daemon(before)
            held.write(b" and after")
            held.flush()
        os.fsync(held.fileno())
        held.seek(0)
        assert held.read() == b"before" + b" and after" * 3
    node.umount()


@case(seconds=90)
def loop_device_with_xfs(scratch):
    """A loop device with direct I/O on an image, XFS in it."""
    node = one_node(scratch, journal_size="128MiB")
    run("truncate", "-s", "400M", node / "disk.img")
    with loop_device(node / "disk.img") as device:
        run("mkfs.xfs", "-q", device)
        with mounted(device, scratch / "inner") as inner:
            for number in range(20):
                with open(os.path.join(inner, f"f{number}"), "wb") as file:
                    file.write(os.urandom(200_000))
                    os.fsync(file.fileno())
            sums = {n: md5(os.path.join(inner, n)) for n in os.listdir(inner)}
    node.umount()
    with mounted(node.stored("disk.img"), scratch / "again", "-o", "loop,ro") as again:
        assert {n: md5(os.path.join(again, n)) for n in os.listdir(again)} == sums
    run("xfs_repair", "-n", "-f", node.stored("disk.img"))


@case(seconds=90)
def qemu_img_on_qcow2(scratch):
    """create, convert, check and commit of qcow2 images on the mount."""
    node = one_node(scratch)
    with open(scratch / "raw", "wb") as file:
        for _ in range(8):
            file.write(os.urandom(1 << 20))
            file.seek(3 << 20, os.SEEK_CUR)
        file.truncate(64 << 20)
    run("qemu-img", "create", "-q", "-f", "qcow2", node / "empty.qcow2", "10G")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", scratch / "raw", node / "base.qcow2")
    run("qemu-img", "check", "-q", node / "base.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", node / "base.qcow2", node / "top.qcow2")
    run("qemu-io", "-c", "write -P 0x5a 1M 2M", "-c", "flush", node / "top.qcow2")
    run("qemu-img", "commit", "-q", node / "top.qcow2")
    run("qemu-img", "check", "-q", node / "base.qcow2")
    with open(scratch / "raw", "r+b") as file:
        file.seek(1 << 20)
        file.write(b"\x5a" * (2 << 20))
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", scratch / "raw", node / "base.qcow2")
    node.umount()
    run("qemu-img", "check", "-q", node.stored("base.qcow2"))
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", scratch / "raw", node.stored("base.qcow2"))


@case(seconds=60)
def sqlite_in_wal_mode(scratch):
    """Its shared memory file needs MAP_SHARED; the daemon dies in the middle."""
    node = one_node(scratch)
    connection = sqlite3.connect(node / "test.db", isolation_level=None, timeout=20)
    assert connection.execute("pragma journal_mode=wal").fetchone() == ("wal",)
    connection.execute("pragma synchronous=full")
    connection.execute("create table t(n integer primary key, x blob)")
    for number in range(200):
        connection.execute("insert into t values(?, ?)", (number, os.urandom(500)))
        if number in (60, 120):
            node.kill_daemon()
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    # As after a crash: the store's copy, with its WAL, has every committed row.
    node.kill_node()
    connection.close()
    vmfs("recover", node.store)
    copy = sqlite3.connect(node.stored("test.db"))
    assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
    assert copy.execute("select count(*) from t").fetchone() == (200,)
    copy.close()
