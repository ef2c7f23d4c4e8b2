"""Stores on each file system that they are meant for, and a warning on others."""

import glob
import os

from lib.nodes import Node, Pair, vmfs
from lib.runner import case
from lib.scratch import read_file, run, wait_until
from lib.work import fio

MIB = 1 << 20


def write_file(path, content, offset=0):
    with open(path, "r+b" if os.path.exists(path) else "wb", buffering=0) as file:
        file.seek(offset)
        file.write(content)
        os.fsync(file.fileno())


def holes_of(path):
    """What the file takes up, and where its data begins."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_blocks * 512, os.lseek(file.fileno(), 0, os.SEEK_DATA)


def life_cycle(scratch, kind):
    """Mount, write, die, take over, keep what only the dead one had, come back, die, recover."""
    directories = [scratch.file_system(f"{kind}-{name}", kind) for name in "ab"]
    with Pair(scratch, directories=directories).start() as pair:
        fio(pair.a / "disk.img", size="6m", rw="randrw", bs="4k", iodepth=8, direct=1, verify="xxhash",
            fsync=32)
        # Sparse, with holes made in every way.
        run("truncate", "-s", "64M", pair.a / "sparse.img")
        content = bytearray(os.urandom(4 * MIB))
        write_file(pair.a / "sparse.img", content, 8 * MIB)
        run("fallocate", "--punch-hole", "--offset", 9 * MIB, "--length", MIB, pair.a / "sparse.img")
        run("fallocate", "--zero-range", "--offset", 10 * MIB, "--length", 5000, pair.a / "sparse.img")
        content[MIB:2 * MIB + 5000] = bytes(MIB + 5000)
        run("sync", pair.a / "sparse.img")
        os.rename(pair.a / "disk.img", pair.a / "renamed.img")
        disk = read_file(pair.a / "renamed.img")
        pair.settle()
        # What is acknowledged and does not reach b any more.
        pair.wan.stall()
        with open(pair.a / "renamed.img", "r+b", buffering=0) as file:
            file.seek(MIB)
            file.write(b"only a has this")
        pair.a.kill_node()
        pair.wan.cut()
        pair.wan.flow()
        wait_until(lambda: pair.b.status()["peers"][0]["link"] != "connected", what="b's notice of the loss")
        pair.b.promote("--force")
        assert read_file(pair.b / "renamed.img") == disk
        with open(pair.b / "sparse.img", "rb") as file:
            file.seek(8 * MIB)
            assert file.read(4 * MIB) == content
        write_file(pair.b / "renamed.img", b"b goes on")
        pair.wan.mend()
        pair.a.mount()
        pair.settle()
        kept = glob.glob(pair.a / ".snapshots/left-a-*/renamed.img")
        assert [read_file(path) for path in kept] == [disk[:MIB] + b"only a has this" + disk[MIB + 15:]], kept
        # Both die; without a mount each store is brought up to its journal, and is then plain files.
        write_file(pair.b / "renamed.img", b"b's last words", 2 * MIB)
        pair.settle()
        for node in (pair.a, pair.b):
            node.kill_node()
        expected = b"b goes on" + disk[9:2 * MIB] + b"b's last words" + disk[2 * MIB + 14:]
        for node in (pair.a, pair.b):
            vmfs("recover", node.store)
            assert read_file(node.stored("renamed.img")) == expected, f"{node.name}'s image on {kind}"
            taken, begin = holes_of(node.stored("sparse.img"))
            assert taken <= 4 * MIB and begin == 8 * MIB, f"{taken} bytes on {kind}, from {begin}"
        run("cmp", pair.a.stored("sparse.img"), pair.b.stored("sparse.img"))
        pair.start()
        assert read_file(pair.a / "renamed.img") == expected
        pair.stop()


@case(seconds=60)
def life_on_xfs(scratch):
    life_cycle(scratch, "xfs")


@case(seconds=60)
def life_on_btrfs(scratch):
    life_cycle(scratch, "btrfs")


@case(seconds=60)
def life_on_ext4(scratch):
    life_cycle(scratch, "ext4")


@case(seconds=60)
def stores_elsewhere(scratch):
    """init and join warn of a file system that stores are not meant for, by its name, and work all the same; on one that
    they are meant for they say nothing."""
    for name in ("tmpfs", "lower", "upper", "overlay"):
        os.mkdir(scratch / name)
    run("mount", "-t", "tmpfs", "-o", "size=300m", "none", scratch / "tmpfs")
    upper = scratch.file_system("beneath", "ext4")
    for name in ("upper", "work"):
        os.mkdir(os.path.join(upper, name))
    run("mount", "-t", "overlay", "-o", f"lowerdir={scratch / 'lower'},upperdir={upper}/upper,workdir={upper}/work", "none",
        scratch / "overlay")
    for directory, name in ((scratch / "tmpfs", "tmpfs"), (scratch / "overlay", "overlayfs")):
        node = Node(directory, "a")
        said = vmfs("init", node.store, "--journal-size", "64MiB", "--listen", "127.0.0.1:7411").stdout
        assert f"warning: {node.store}: this store is on {name}, not on XFS, btrfs or ext4" in said, said
        token = vmfs("token", node.store).stdout
        joined = os.path.join(directory, "joined")
        said = vmfs("join", joined, "-", "--node", "b", stdin=None, input=token).stdout
        assert f"warning: {joined}: this store is on {name}" in said, said
        node.mount()
        write_file(node / "x.img", b"x" * 100_000)
        node.umount()
        assert read_file(node.stored("x.img")) == b"x" * 100_000
    # The journal alone.
    store = os.path.join(upper, "store")
    said = vmfs("init", store, "--journal-size", "32MiB", "--journal", scratch / "tmpfs/journal").stdout
    assert f"warning: {scratch / 'tmpfs/journal'}: this journal is on tmpfs" in said and said.count("warning") == 1, said
    said = vmfs("init", os.path.join(upper, "another"), "--journal-size", "32MiB").stdout
    assert "warning" not in said, said
