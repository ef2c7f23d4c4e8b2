"""The mount beside a local file system: the same operations give the same results, also while daemons die."""

import fcntl
import os
import shutil
import subprocess
import threading
import time

from lib.nodes import VMFS, Node, Pair, vmfs
from lib.runner import Settings, case
from lib.scratch import run
from lib.twins import TwinFile, TwinTrees


def one_node(scratch, **options):
    return Node(scratch.path, "a").init(**options).mount()


class Killer(threading.Thread):
    """Kills the daemon now and then, as long as the test body runs."""

    def __init__(self, node, pause):
        super().__init__()
        self.node, self.pause, self.kills = node, pause, 0
        self.ended = threading.Event()
        self.failure = None

    def run(self):
        try:
            while not self.ended.wait(self.pause):
                self.node.wait_for_another_daemon(self.node.kill_daemon())
                self.kills += 1
        except BaseException as error:  # pylint: disable=broad-except
            self.failure = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *unused):
        self.ended.set()
        self.join()
        if kind is None and self.failure:
            raise self.failure


@case(seconds=120)
def random_operations_on_one_file(scratch):
    """Reads, writes, mappings, truncations, holes and appends from several threads, through handles of every kind,
    beside a twin on a local file system; the daemon is killed meanwhile. Then the file in the store is the twin."""
    node = one_node(scratch, journal_size="32MiB")
    for seed in range(int(time.time()), int(time.time()) + (20 if Settings.long else 1)):
        for direct in ("none", "some", "all"):
            name = f"file-{seed}-{direct}"
            file = TwinFile(node / name, scratch / "twin", 4, seed, direct)
            deadline = time.monotonic() + 3
            with Killer(node, 0.7) as killer:
                file.run(lambda end=deadline: time.monotonic() > end)
            file.close_all()
            node.umount()
            run("cmp", node.stored(name), scratch / "twin")
            node.mount()
            print(f"        seed {seed}: {file.operations} operations, {file.opens} opens, {killer.kills} kills")


@case(seconds=120)
def random_operations_replicated(scratch):
    """The same on the owner of two, whose link breaks meanwhile: both stores end as the twin."""
    with Pair(scratch).start() as pair:
        seed = int(time.time())
        file = TwinFile(pair.a / "file", scratch / "twin", 3, seed)
        deadline = time.monotonic() + (60 if Settings.long else 6)
        with Killer(pair.a, 1.3), Killer(pair.b, 1.9) as killer:
            mender = threading.Thread(target=break_and_mend, args=(pair.wan, killer.ended))
            mender.start()
            file.run(lambda: time.monotonic() > deadline)
        mender.join()
        file.close_all()
        pair.settle()
        pair.stop()
        for node in (pair.a, pair.b):
            run("cmp", node.stored("file"), scratch / "twin")
        print(f"        seed {seed}: {file.operations} operations")


def break_and_mend(wan, ended):
    while not ended.wait(0.9):
        wan.cut()
        ended.wait(0.3)
        wan.mend()


@case(seconds=90)
def several_disks_of_qemu(scratch):
    """QEMU writes to raw and qcow2 disks at once, flushing, while the daemon dies: it never sees an error."""
    node = one_node(scratch, journal_size="128MiB")
    disks = {"one.raw": "raw", "two.raw": "raw", "three.qcow2": "qcow2"}
    for name, form in disks.items():
        run("qemu-img", "create", "-q", "-f", form, node / name, "64M")
    count = 100_000 if Settings.long else 12_000
    with Killer(node, 0.6):
        writers = [subprocess.Popen(["qemu-img", "bench", "-q", "-w", "-f", form, "-t", cache, "-c", str(count), "-d", "8",
                                     "-s", "4096", "-S", "12288", f"--flush-interval={flush}", f"--pattern={pattern}",
                                     node / name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
                   for (name, form), cache, flush, pattern in
                   zip(disks.items(), ("none", "writeback", "none"), (16, 64, 32), (0x11, 0x22, 0x33))]
        for writer in writers:
            assert writer.wait(timeout=80) == 0, "QEMU saw an error"
    run("qemu-img", "check", "-q", node / "three.qcow2")
    for (name, form), pattern in zip(disks.items(), (0x11, 0x22, 0x33)):
        run("qemu-io", "-r", "-f", form, "-c", f"read -q -P {pattern} 0 4096", "-c", f"read -q -P {pattern} 12288 4096",
            node / name)
    node.umount()
    run("qemu-img", "check", "-q", node.stored("three.qcow2"))


@case(seconds=120, long=True)
def trees_of_programs(scratch):
    """git and tar, while the daemon dies."""
    node = one_node(scratch, journal_size="256MiB")
    with Killer(node, 1.5):
        run("git", "init", "-q", node / "repository")
        run("sh", "-c", f"tar -C /usr/include/linux -cf - . | tar -C {node.mnt} --one-top-level=include -xf -")
        run("cp", "-a", node / "include", node / "repository/linux")
        for turn in range(3):
            with open(node / "repository/linux/turn", "w", encoding="ascii") as file:
                file.write(str(turn))
            run("git", "-C", node / "repository", "add", "-A")
            run("git", "-C", node / "repository", "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", str(turn))
        run("git", "-C", node / "repository", "gc", "-q", "--prune=now")
        run("git", "-C", node / "repository", "fsck", "--full", "--strict")
        assert run("git", "-C", node / "repository", "status", "--short").stdout == ""
        run("git", "clone", "-q", node / "repository", node / "clone")
        run("diff", "-r", "--no-dereference", node / "include", node / "clone/linux", "-x", "turn")
    run("diff", "-r", "--no-dereference", "/usr/include/linux", node / "include")
    run("rm", "-rf", node / "clone")
    node.umount()
    run("diff", "-r", "--no-dereference", "/usr/include/linux", node.stored("include"))


@case(seconds=90)
def random_names_and_attributes(scratch):
    """Names, permissions, owners and times by several users beside a local file system."""
    node = one_node(scratch)
    for seed in range(int(time.time()), int(time.time()) + (50 if Settings.long else 4)):
        trees = TwinTrees(node / f"t{seed}", scratch / f"t{seed}", seed)
        for _ in range(1500):
            trees.step()
        trees.compare()
    shown = sorted(os.listdir(node.mnt))
    node.umount()
    assert sorted(os.listdir(node.stored(""))) == shown


@case(seconds=90)
def names_while_daemons_die(scratch):
    """Exclusive creations, renames, removals and appends, each of which can be made only once, from several threads:
    none fails, and all are there, however often the daemon dies in the middle."""
    node = one_node(scratch)
    deadline = time.monotonic() + (120 if Settings.long else 5)
    failures, rounds = [], [0] * 4

    def work(number):
        place = node / f"thread-{number}"
        os.mkdir(place)
        try:
            while time.monotonic() < deadline and not failures:
                turn = rounds[number]
                one, two = f"{place}/one-{turn}", f"{place}/two-{turn}"
                descriptor = os.open(one, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o640)
                for text in (b"first ", b"second ", b"third"):
                    assert os.write(descriptor, text) == len(text)
                os.rename(one, two)
                os.mkdir(one)
                os.symlink(two, f"{one}/link")
                os.rename(two, f"{one}/file")
                os.truncate(f"{one}/file", 12)
                os.chmod(f"{one}/file", 0o600)
                os.fsync(descriptor)
                os.unlink(f"{one}/link")
                os.rename(one, two)
                if turn % 2 == 0:
                    os.unlink(f"{two}/file")
                    os.rmdir(two)
                assert os.pread(descriptor, 100, 0) == b"first second", "the file's content"
                assert os.fstat(descriptor).st_nlink == turn % 2, "the file's links"
                os.close(descriptor)
                rounds[number] += 1
        except BaseException as error:  # pylint: disable=broad-except
            failures.append(f"thread {number}, round {rounds[number]}: {error!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(rounds))]
    with Killer(node, 0.25) as killer:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures, "\n".join(failures)
    print(f"        {sum(rounds)} rounds, {killer.kills} kills")
    for number, turns in enumerate(rounds):
        assert sorted(os.listdir(node / f"thread-{number}")) == sorted(f"two-{turn}" for turn in range(1, turns, 2))
    node.umount()
    stored = sum(len(files) for _, _, files in os.walk(node.stored("")))
    assert stored == sum(turns // 2 for turns in rounds), "files of removed names are left in the store"


@case(seconds=60)
def an_upgrade_that_cannot_go_on(scratch):
    """The new program does not even start: the one that the volume was mounted with goes on, and no client sees it."""
    program = scratch / "vmfs"
    shutil.copy(VMFS, program)
    node = Node(scratch.path, "a").init()
    run(program, "mount", node.store, node.mnt)
    with open(node / "held", "w+b") as held:
        held.write(b"before")
        held.flush()
        with open(scratch / "new", "w", encoding="ascii") as file:
            file.write("#!/bin/sh\nexit 76\n")
        os.chmod(scratch / "new", 0o755)
        os.rename(scratch / "new", program)
        before = node.daemon_pid()
        vmfs("restart", node.mnt)
        assert node.daemon_pid() != before
        held.write(b" and after")
        held.flush()
        os.fsync(held.fileno())
        held.seek(0)
        assert held.read() == b"before and after"
        # One that dies is started again as well, and a good program is taken when it is there.
        node.wait_for_another_daemon(node.kill_daemon())
        shutil.copy(VMFS, scratch / "new")
        os.rename(scratch / "new", program)
        vmfs("restart", node.mnt)
        assert os.readlink(f"/proc/{node.daemon_pid()}/exe") == program
    node.umount()


@case(seconds=30)
def what_the_caller_had_open(scratch):
    """Holder and daemon keep nothing of who mounted: a lock on a file ends with that process, its umask and its limit
    of open files are not theirs."""
    node = Node(scratch.path, "a").init()
    with open(scratch / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)
        subprocess.run(["sh", "-c", f"umask 077; ulimit -Sn 64; exec {VMFS} mount {node.store} {node.mnt}"], check=True,
                       close_fds=False, stdin=subprocess.DEVNULL, timeout=30)
    with open(scratch / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    held = []
    for number in range(200):
        held.append(os.open(node / f"file-{number}", os.O_CREAT | os.O_RDWR, 0o644))
        os.write(held[-1], b"x")
    for descriptor in held:
        os.close(descriptor)
    os.mkdir(node / "open", 0o755)
    node.umount()
    for name, permissions in (("open", 0o755), ("file-0", 0o644)):
        assert os.stat(node.stored(name)).st_mode & 0o777 == permissions, name
