"""Disks that are full: the client gets ENOSPC before anything is acknowledged, nothing acknowledged is lost, status
says what is missing, and it goes on by itself when there is space again."""

import errno
import os

from lib.nodes import Node, Pair, vmfs
from lib.runner import case
from lib.scratch import read_file, run, wait_until


def write_file(path, content):
    with open(path, "wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())


def fits(path, content):
    """Whether it can be written; anything but ENOSPC is a failure."""
    try:
        write_file(path, content)
        return True
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        return False


class Hog:
    """Another program that takes all space of a file system."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "hog")
        size = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
        for piece in (1 << 20, 1 << 16, 1 << 12):
            with open(self.path, "ab", buffering=0) as file:
                while size > 0:
                    try:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, piece)
                    except OSError as error:
                        assert error.errno == errno.ENOSPC, error
                        break
        self.free = os.statvfs(directory).f_bavail

    def leave(self):
        os.unlink(self.path)


def problems(node):
    return "\n".join(node.status()["problems"])


@case(seconds=60)
def preallocated_image_on_a_full_store(scratch):
    """An image whose blocks were all allocated in advance can be written though nothing is left for guests, and no other can."""
    small = scratch.file_system("small", "xfs", "400M")
    node = Node(small, "a").init(journal_size="32MiB").mount()
    run("fallocate", "-l", "64M", node / "thick.img")
    write_file(node / "thin.img", b"t" * 4096)
    run("truncate", "-s", "64M", node / "thin.img")
    # Applied, and so in the store.
    wait_until(lambda: os.stat(node.stored("thick.img")).st_blocks * 512 >= 64 << 20, what="the blocks in the store")
    hog = Hog(small)
    # What vmfs needs for itself.
    os.truncate(hog.path, os.path.getsize(hog.path) - (8 << 20))
    content = os.urandom(16 << 20)
    with open(node / "thick.img", "r+b", buffering=0) as image:
        assert image.write(content) == len(content)
        os.fsync(image.fileno())
    try:
        with open(node / "thin.img", "r+b", buffering=0) as image:
            for place in range(1 << 20, 64 << 20, 1 << 20):
                os.pwrite(image.fileno(), b"x" * (1 << 20), place)
        raise AssertionError("a full disk took 63 MiB more")
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    hog.leave()
    node.umount()
    assert read_file(node.stored("thick.img"))[:16 << 20] == content


@case(seconds=60)
def store_fills_up(scratch):
    """By the guests themselves: ENOSPC for who writes more, and after a removal it goes on."""
    small = scratch.file_system("small", "xfs", "400M")
    node = Node(small, "a").init(journal_size="32MiB").mount()
    write_file(node / "kept", b"k" * 1_000_000)
    try:
        with open(node / "big", "wb", buffering=0) as file:
            for _ in range(500):
                file.write(os.urandom(1 << 20))
        raise AssertionError("500 MiB fit into 400")
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    assert read_file(node / "kept") == b"k" * 1_000_000
    os.unlink(node / "big")
    wait_until(lambda: fits(node / "after", b"a" * (10 << 20)), what="space after the removal")
    node.umount()
    assert os.path.getsize(node.stored("kept")) == 1_000_000


@case(seconds=60)
def journal_disk_filled_by_others(scratch):
    """The journal's own file system is full before all its segments are made: it goes on with those that it has,
    status says so, and it grows when there is space."""
    small = scratch.file_system("small", "ext4", "200M")
    node = Node(scratch.path, "a")
    vmfs("init", node.store, "--name", "test", "--node", "a", "--journal", os.path.join(small, "journal"),
         "--journal-size", "128MiB")
    hog = Hog(small)
    node.mount()
    content = {}
    for number in range(8):
        content[f"f{number}"] = os.urandom(24 << 20)
        write_file(node / f"f{number}", content[f"f{number}"])
    text = wait_until(lambda: problems(node), what="the problem in status")
    assert "journal" in text and ("space" in text.lower()), text
    node.kill_node()
    node.mount()
    hog.leave()
    for number in range(8, 12):
        content[f"f{number}"] = os.urandom(24 << 20)
        write_file(node / f"f{number}", content[f"f{number}"])
    wait_until(lambda: not problems(node), what="the end of the problem")
    for name, bytes_ in content.items():
        assert read_file(node / name) == bytes_, name
    node.umount()
    for name, bytes_ in content.items():
        assert read_file(node.stored(name)) == bytes_, name


@case(seconds=90)
def disk_of_the_peer_fills_up(scratch):
    """The peer's disk, by another program: it counts as lost, and flushes go on without it; with space again it gets
    what it missed, from the journal."""
    small = scratch.file_system("small", "xfs", "500M")
    with Pair(scratch, directories=(scratch.path, small)).start() as pair:
        write_file(pair.a / "x.img", b"before" * 1000)
        pair.settle()
        copies = pair.a.copies()
        hog = Hog(small)

        def state():
            return pair.a.status()["peers"][0]["state"]

        for number in range(300):
            write_file(pair.a / f"f{number}", os.urandom(1 << 20))
            if state() == "full":
                break
        assert state() == "full", pair.a.status()["peers"]
        text = problems(pair.a)
        assert "space" in text and "df" in text and "b" in text, text
        write_file(pair.a / "alone", b"without the peer")
        assert pair.a.image("alone")["peers"][0]["state"] != "in-sync"
        hog.leave()
        pair.settle(timeout=60)
        assert not problems(pair.a) and pair.a.copies() == copies
        pair.stop()
        run("diff", "-r", pair.a.stored(""), pair.b.stored(""))


@case(seconds=60)
def no_room_for_a_store(scratch):
    """A store on a full disk: a clear error, and nothing is left behind."""
    small = scratch.file_system("small", "ext4", "100M")
    hog = Hog(small)
    for words in ([], ["--journal-size", "64MiB"]):
        done = vmfs("init", os.path.join(small, "store"), *words, check=False)
        assert done.returncode == 1, done.stdout
        assert small in done.stdout and ("free" in done.stdout or "space" in done.stdout), done.stdout
    assert sorted(os.listdir(small)) == ["hog", "lost+found"], os.listdir(small)
    hog.leave()
    vmfs("init", os.path.join(small, "store"), "--journal-size", "32MiB")


@case(seconds=60)
def no_room_to_complete_the_store(scratch):
    """At an unmount, because of another program: the command says so and fails, as `status` does, until there is room."""
    small = scratch.file_system("small", "ext4", "200M")
    node = Node(small, "a").init(journal=scratch / "journal").mount()
    content = os.urandom(20 << 20)
    write_file(node / "x", content)
    hog = Hog(small)
    done = vmfs("umount", node.mnt, check=False)
    assert done.returncode == 1 and "not complete" in done.stdout and f"vmfs recover {node.store}" in done.stdout, done.stdout
    assert "space" in done.stdout.lower() and not node.mounted(), done.stdout
    text = problems(node)
    assert "could not be closed" in text and "space" in text.lower(), text
    hog.leave()
    vmfs("recover", node.store)
    assert read_file(node.stored("x")) == content
