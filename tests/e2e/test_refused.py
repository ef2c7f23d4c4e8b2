"""What a volume does not have is refused with the errno that the manual's table says, and changes nothing."""

import ctypes
import errno
import fcntl
import os
import re
import socket
import stat

from lib.nodes import ROOT, Node
from lib.runner import case
from lib.twins import KEEP_SIZE, fallocate

RENAME_EXCHANGE, RENAME_WHITEOUT = 2, 4
COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE = 8, 32, 64
FICLONE, FS_IOC_FIEMAP, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x40049409, 0xC020660B, 0x80086601, 0x40086602
AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)


def table_of_manual():
    """{operation: errno's name}, from the table of vmfs(1)."""
    with open(os.path.join(ROOT, "docs/man/vmfs.1.scd"), encoding="utf-8") as file:
        section = file.read().split("\n# WHAT IS REFUSED\n")[1].split("\n# ")[0]
    rows = re.findall(r"^\|\s+(.+)\n:\s+(E[A-Z0-9]+)$", section, re.MULTILINE)
    return {operation.replace("\\_", "_").replace("*", ""): number for operation, number in rows}


def rename_with(flags):
    def operate(node):
        if _libc.renameat2(AT_FDCWD, os.fsencode(node / "file"), AT_FDCWD, os.fsencode(node / "other"), flags) != 0:
            raise OSError(ctypes.get_errno(), "renameat2")
    return operate


def with_file(operate, flags=os.O_RDWR):
    """operate(descriptor) on an image that holds something."""
    def opened(node):
        descriptor = os.open(node / "file", flags)
        try:
            operate(descriptor)
        finally:
            os.close(descriptor)
    return opened


def bind_socket(node):
    here = os.open(node.mnt, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"/proc/self/fd/{here}/socket")  # the mount's own path may be too long for an address
    finally:
        os.close(here)


def clone(node):
    with open(node / "file", "rb") as source, open(node / "other", "r+b") as target:
        fcntl.ioctl(target, FICLONE, source.fileno())


BEYOND = 1 << 44  # the largest file on ext4 ends a page before

# By the words of the manual's table.
OPERATIONS = {
    "hard link": lambda n: os.link(n / "file", n / "new"),
    "block device": lambda n: os.mknod(n / "new", stat.S_IFBLK | 0o600, os.makedev(7, 0)),
    "character device": lambda n: os.mknod(n / "new", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "FIFO": lambda n: os.mkfifo(n / "new"),
    "socket": bind_socket,
    "rename with RENAME_EXCHANGE": rename_with(RENAME_EXCHANGE),
    "rename with RENAME_WHITEOUT": rename_with(RENAME_WHITEOUT),
    "rename with an unknown flag": rename_with(1 << 10),
    "setxattr, an ACL too": [
        lambda n: os.setxattr(n / "file", "user.x", b"y"), lambda n: os.setxattr(n / "file", "trusted.x", b"y"),
        lambda n: os.setxattr(n / "file", "security.selinux", b"y"),
        lambda n: os.setxattr(n / "file", "system.posix_acl_access", b"\2\0\0\0")],
    "getxattr": [lambda n: os.getxattr(n / "file", "user.x"), lambda n: os.getxattr(n / "file", "security.capability")],
    "listxattr": [lambda n: os.listxattr(n / "file"), lambda n: os.listxattr(n.mnt)],
    "removexattr": lambda n: os.removexattr(n / "file", "user.x"),
    "open with O_TMPFILE": lambda n: os.close(os.open(n.mnt, os.O_TMPFILE | os.O_RDWR)),
    "fallocate with FALLOC_FL_COLLAPSE_RANGE": with_file(lambda d: fallocate(d, COLLAPSE_RANGE, 0, 4096)),
    "fallocate with FALLOC_FL_INSERT_RANGE": with_file(lambda d: fallocate(d, INSERT_RANGE, 0, 4096)),
    "fallocate with FALLOC_FL_UNSHARE_RANGE": with_file(lambda d: fallocate(d, UNSHARE_RANGE, 0, 4096)),
    "reflink (FICLONE)": clone,
    "extents (FS_IOC_FIEMAP)": with_file(lambda d: fcntl.ioctl(d, FS_IOC_FIEMAP, bytes(32))),
    "file flags (chattr, lsattr)": [
        with_file(lambda d: fcntl.ioctl(d, FS_IOC_GETFLAGS, bytes(8))),
        with_file(lambda d: fcntl.ioctl(d, FS_IOC_SETFLAGS, bytes(8)))],
    "symbolic link to more than 1023 bytes": lambda n: os.symlink("x" * 1024, n / "new"),
    "name of more than 255 bytes": [
        lambda n: os.mkdir(n / ("x" * 256)), lambda n: os.close(os.open(n / ("x" * 256), os.O_CREAT)),
        lambda n: os.symlink("there", n / ("x" * 256)), lambda n: os.rename(n / "file", n / ("x" * 256)),
        lambda n: os.stat(n / ("x" * 256))],
    "image beyond the store's largest file": [
        lambda n: os.truncate(n / "file", BEYOND + 1),
        with_file(lambda d: os.pwrite(d, b"x", BEYOND)), with_file(lambda d: os.pwrite(d, b"x", BEYOND), os.O_RDWR | os.O_DIRECT),
        with_file(lambda d: fallocate(d, 0, BEYOND, 4096)), with_file(lambda d: fallocate(d, KEEP_SIZE, BEYOND, 4096))],
    "any change below .snapshots, or of it": [
        lambda n: os.mkdir(n / ".snapshots"), lambda n: os.rename(n / "file", n / ".snapshots"),
        lambda n: os.close(os.open(n / ".snapshots", os.O_CREAT | os.O_RDWR))],
}


@case(seconds=60)
def refused_operations(scratch):
    """Each operation of the manual's table, and no other; afterwards the tree is as it was."""
    table = table_of_manual()
    assert set(table) == set(OPERATIONS), f"in one of manual and test only: {set(table) ^ set(OPERATIONS)}"
    node = Node(scratch.file_system("ext4", "ext4"), "a").init(journal_size="32MiB").mount()
    for name in ("file", "other"):
        with open(node / name, "wb") as file:
            file.write(name.encode() * 5000)

    def tree():
        found = {}
        for name in sorted(os.listdir(node.mnt)):
            with open(node / name, "rb") as file:
                found[name] = file.read()
        return found

    before, wrong = tree(), []
    for name, operate in OPERATIONS.items():
        for number, one in enumerate(operate if isinstance(operate, list) else [operate]):
            try:
                one(node)
                wrong.append(f"{name}, number {number}: not refused with {table[name]}")
            except OSError as error:
                if error.errno != getattr(errno, table[name]):
                    wrong.append(f"{name}, number {number}: {errno.errorcode[error.errno]} instead of {table[name]}")
    assert not wrong, "\n".join(wrong)
    assert tree() == before, "something that was refused has changed the volume"
    # Just within the limits is not refused.
    os.symlink("x" * 1023, node / "link")
    assert os.readlink(node / "link") == "x" * 1023
    os.mkdir(node / ("x" * 255))
    node.umount()
    assert os.readlink(node.stored("link")) == "x" * 1023 and os.path.isdir(node.stored("x" * 255))
