"""Reading directories, and the file system's numbers."""

import ctypes
import errno
import os

from lib.nodes import Node, Pair, seconds_of
from lib.runner import case
from lib.scratch import read_file, wait_until, write_file

LIBC = ctypes.CDLL(None, use_errno=True)


class Dirent(ctypes.Structure):
    _fields_ = [("inode", ctypes.c_uint64), ("offset", ctypes.c_int64), ("length", ctypes.c_ushort),
                ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]


LIBC.opendir.restype = ctypes.c_void_p
LIBC.readdir.restype = ctypes.POINTER(Dirent)
LIBC.readdir.argtypes = LIBC.telldir.argtypes = LIBC.closedir.argtypes = LIBC.rewinddir.argtypes = [ctypes.c_void_p]
LIBC.telldir.restype = ctypes.c_long
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Reading:
    """An open directory."""

    def __init__(self, path):
        self.stream = LIBC.opendir(os.fsencode(path))
        assert self.stream

    def next(self, most):
        names = []
        while len(names) < most:
            entry = LIBC.readdir(self.stream)
            if not entry:
                break
            if entry.contents.name not in (b".", b".."):
                names.append(entry.contents.name.decode())
        return names

    def place(self):
        return LIBC.telldir(self.stream)

    def go_to(self, place):
        LIBC.seekdir(self.stream, place)

    def rewind(self):
        LIBC.rewinddir(self.stream)

    def close(self):
        LIBC.closedir(self.stream)


@case()
def places_in_a_directory(scratch):
    """What was there all the time is read once and only once, whatever comes and goes meanwhile; a place is gone back
    to, also by another daemon."""
    node = Node(scratch.path, "a").init().mount()
    os.mkdir(node / "d")
    names = {f"name-{number:04}-{'x' * (number % 50)}" for number in range(2000)}
    for name in names:
        os.mkdir(node / f"d/{name}")
    reading = Reading(node / "d")
    first = reading.next(700)
    place = reading.place()
    rest = reading.next(5000)
    assert sorted(first + rest) == sorted(names)

    gone = set(first[::7]) | set(rest[::5])
    for name in gone:
        os.rmdir(node / f"d/{name}")
    added = {f"new-{number}" for number in range(300)}
    for name in added:
        os.mkdir(node / f"d/{name}")
    reading.go_to(place)
    again = reading.next(5000)
    assert len(again) == len(set(again)) and set(again) >= set(rest) - gone and not set(again) & set(first), again[:10]

    node.wait_for_another_daemon(node.kill_daemon())
    reading.go_to(place)
    after = reading.next(5000)
    assert set(after) >= set(rest) - gone and not set(after) & set(first), after[:10]
    reading.rewind()
    assert sorted(reading.next(5000)) == sorted((names - gone) | added)
    reading.close()
    node.umount()


@case()
def numbers_of_the_file_system(scratch):
    """statfs: the store's, less what was promised and is not in the store yet."""
    small = scratch.file_system("small", "xfs", "600M")
    node = Node(small, "a").init(journal=scratch / "journal").mount()
    mine, below = os.statvfs(node.mnt), os.statvfs(small)
    assert mine.f_blocks * mine.f_frsize == below.f_blocks * below.f_frsize
    assert 0 < mine.f_bavail * mine.f_frsize <= below.f_bavail * below.f_frsize
    assert mine.f_namemax == 255 and 0 < mine.f_ffree <= below.f_ffree

    def available():
        return os.statvfs(node.mnt).f_bavail * mine.f_frsize

    before = available()
    write_file(node / "x", b"x" * (32 << 20))
    # From the acknowledgement on, not from when it is applied.
    assert before - available() >= 32 << 20, (before, available())
    os.unlink(node / "x")
    wait_until(lambda: available() > before - (4 << 20), what="the space of what was removed")
    node.umount()


@case(seconds=60)
def a_directory_that_is_moved_by_another_node(scratch):
    """While the name space comes over, the kernel holds what is moved or removed locked, and can be told to drop nothing
    in it: nobody waits for that."""
    with Pair(scratch).start() as pair:
        a, b = pair.a, pair.b
        for name in ("from/moved", "from/removed", "to/taken"):
            os.makedirs(a / name)
        write_file(a / "from/moved/child", b"x")
        a.promote()
        pair.settle()

        def known_to_the_other_kernel():
            for directory, _, names in os.walk(b.mnt):
                for name in names:
                    os.stat(os.path.join(directory, name))
        known_to_the_other_kernel()
        moves = seconds_of(lambda: os.rename(b / "from/moved", b / "to/taken"))
        assert read_file(b / "to/taken/child") == b"x"
        a.promote()
        pair.settle()
        write_file(a / "from/removed/child", b"x")
        pair.settle()
        known_to_the_other_kernel()
        removes = seconds_of(lambda: is_not_empty(b / "from/removed"))
        assert moves < 5 and removes < 5, (moves, removes)
        pair.stop()


def is_not_empty(path):
    try:
        os.rmdir(path)
    except OSError as error:
        assert error.errno == errno.ENOTEMPTY, error
        return
    raise AssertionError(f"{path} was removed")
