"""Bad input gets a clear error and changes nothing."""

import glob
import os
import random
import re
import signal
import socket
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor

from lib.nodes import Node, Pair, VMFS, vmfs
from lib.runner import case
from lib.scratch import run, wait_until


def tree_of(directory):
    """Every file's name and content; run/ tells of the mount alone."""
    found = {}
    for path, below, names in os.walk(directory):
        if path == directory and "run" in below:
            below.remove("run")
        for name in names:
            full = os.path.join(path, name)
            if os.path.isfile(full):
                with open(full, "rb") as file:
                    found[full] = hash(file.read())
    return found


def refused(words, *parts, status=None):
    """The command fails, prints these parts, and is not killed by a signal."""
    done = vmfs(*words, check=False, timeout=30)
    assert done.returncode > 0, f"not refused: {words}\n{done.stdout}"
    if status is not None:
        assert done.returncode == status, f"exit status {done.returncode} instead of {status}: {done.stdout}"
    for part in parts:
        assert part in done.stdout, f"{part!r} is not in: {done.stdout}"
    return done.stdout


def content_of(number):
    return random.Random(number).randbytes(100_000)


def whole(directory):
    """All that node_with_data() wrote is there."""
    assert sorted(os.listdir(directory)) == sorted(f"f{number}" for number in range(20))
    for number in range(20):
        with open(os.path.join(directory, f"f{number}"), "rb") as file:
            assert file.read() == content_of(number), f"f{number}"


def node_with_data(scratch, clean=True):
    node = Node(scratch.path, "a").init(journal_size="32MiB").mount()
    for number in range(20):
        with open(node / f"f{number}", "wb") as file:
            file.write(content_of(number))
            os.fsync(file.fileno())
    if clean:
        node.umount()
    else:
        node.kill_node()
    return node


def refused_mount(node, *parts, status=1):
    """A mount is refused and leaves the store as it was."""
    before = tree_of(node.store)
    text = refused(["mount", node.store, node.mnt], *parts, status=status)
    assert not node.mounted()
    assert tree_of(node.store) == before, "the refused mount changed the store"
    return text


def segments(node):
    return sorted(glob.glob(os.path.join(node.store, "journal/*.seg")))


@case()
def configuration(scratch):
    """An unknown key, an unknown value, and a line that is no TOML: file, line and key are named."""
    node = node_with_data(scratch)
    path = os.path.join(node.store, "vmfs.toml")
    with open(path, encoding="utf-8") as file:
        good = file.read()
    for bad, part in (("\n[nonsense]\nkey = 1\n", "nonsense"), ("\nthis is no toml\n", "vmfs.toml"),
                      (None, "mode")):
        with open(path, "w", encoding="utf-8") as file:
            file.write(good.replace('mode = "sync"', 'mode = "sometimes"') if bad is None else good + bad)
        refused_mount(node, part, "vmfs.toml", status=2)
    with open(path, "w", encoding="utf-8") as file:
        file.write(good)
    node.mount().umount()


@case()
def state_file(scratch):
    """Of a newer version, and damaged."""
    node = node_with_data(scratch)
    path = os.path.join(node.store, "state")
    with open(path, "rb") as file:
        good = file.read()
    with open(path, "wb") as file:
        file.write(good[:4] + struct.pack("<I", 99) + good[8:])
    refused_mount(node, "version 99", path)
    with open(path, "wb") as file:
        file.write(good[:60] + bytes([good[60] ^ 1]) + good[61:])
    refused_mount(node, "damaged", path)
    with open(path, "wb") as file:
        file.write(good)
    node.mount().umount()


@case()
def journal_damage(scratch):
    """A damaged header, a damaged record in the middle (segment, offset and the ways out are named), a torn tail."""
    node = node_with_data(scratch, clean=False)
    first = segments(node)[0]
    with open(first, "rb") as file:
        good = file.read()
    with open(first, "r+b") as file:
        file.seek(20)
        file.write(b"\xff\xff\xff")
    refused_mount(node, os.path.basename(first))
    with open(first, "r+b") as file:
        file.write(good)
    middle = 600_000
    with open(first, "r+b") as file:
        file.seek(middle)
        file.write(bytes(64))
    text = refused_mount(node, os.path.basename(first), "--until")
    assert "recover" in text, text
    with open(first, "r+b") as file:
        file.write(good)
    # With nothing damaged but what follows the last record it mounts, and everything is there.
    end = len(good.rstrip(b"\0"))
    assert 2_000_000 < end < len(good) - 8192, "the log does not end in the first segment"
    for torn in (end, (end + 4095) // 4096 * 4096):
        with open(first, "r+b") as file:
            file.seek(torn)
            file.write(good[4096:4096 + 100])
    node.mount()
    whole(node.mnt)
    node.umount()


@case()
def mount_point_and_store_in_use(scratch):
    """A second daemon on the same store, a mount point in use, one that does not exist, a store that is none."""
    node = Node(scratch.path, "a").init().mount()
    other = scratch / "elsewhere"
    os.mkdir(other)
    refused(["mount", node.store, other], node.store)
    refused(["mount", node.store, node.mnt])
    second = Node(scratch.path, "c").init()
    refused(["mount", second.store, node.mnt], node.mnt)
    refused(["mount", second.store, scratch / "missing"], "missing")
    refused(["mount", other, second.mnt], other)
    refused(["init", node.store], node.store)
    # Nor one that holds the store, by whatever name.
    link = scratch / "link"
    os.symlink(second.directory, link)
    refused(["mount", second.store, link], "must not contain", status=2)
    assert os.path.ismount(node.mnt)
    with open(node / "works", "wb") as file:
        file.write(b"x")
    node.umount()


@case()
def mounted_twice_at_once(scratch):
    """As fstab and the unit may: one mounts, the others say why they do not, and nothing is left of them."""
    node = Node(scratch.path, "a").init()
    for _ in range(10):
        with ThreadPoolExecutor(6) as threads:
            done = list(threads.map(lambda _: vmfs("mount", node.store, node.mnt, check=False), range(6)))
        assert sorted(each.returncode for each in done) == [0, 1, 1, 1, 1, 1], [each.stdout for each in done]
        for each in done:
            assert each.returncode == 0 or "is being mounted" in each.stdout or "mounted on" in each.stdout, each.stdout
        with open(node / "works", "wb") as file:
            file.write(b"x")
        node.umount()


@case()
def mounted_in_the_foreground(scratch):
    """Another is refused at once meanwhile; once holder and daemon are killed, the next may mount."""
    node = Node(scratch.path, "a").init()
    for _ in range(3):
        with open(scratch / "log", "wb") as log:
            holder = subprocess.Popen([VMFS, "mount", "--foreground", node.store, node.mnt], stderr=log)
        try:
            wait_until(lambda: node.mounted() and os.path.exists(os.path.join(node.store, "run/control")), what="mounted")
            daemon = node.status()["daemon"]["pid"]
            # By the daemon's lock: what is said after the patience with a holder that may be about to end is another text.
            refused(["mount", node.store, node.mnt], "in use", f"mounted on {node.mnt}")
            os.kill(holder.pid, signal.SIGKILL)
            os.kill(daemon, signal.SIGKILL)
        finally:
            holder.kill()
            holder.wait()
        wait_until(lambda: not os.path.exists(f"/proc/{daemon}"), what="the daemon's end")
        if node.mounted():
            run("umount", "-l", node.mnt)
        node.mount()
        node.umount()


@case()
def command_line(scratch):
    """Wrong words: usage, exit status 2, nothing done."""
    refused(["nonsense"], status=2)
    refused(["mount"], status=2)
    refused(["init", scratch / "s", "--mode", "sometimes"], "sometimes", status=2)
    refused(["init", scratch / "s", "--journal-size", "many"], "many", status=2)
    assert not os.path.exists(scratch / "s/vmfs.toml")
    refused(["join", scratch / "s", "no-token"], status=2)
    refused(["status", scratch / "nothing"])


@case(seconds=60)
def garbage_on_the_port(scratch):
    """Noise, oversized frames and half-open connections do not disturb the volume."""
    with Pair(scratch).start() as pair:
        held = []
        for noise in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(5000), b"\xff" * 64, struct.pack("<I", 0xffffffff) * 16, b""):
            connection = socket.create_connection(("127.0.0.1", pair.a.port))
            connection.sendall(noise)
            held.append(connection)
        with open(pair.a / "x.img", "wb") as file:
            file.write(b"x" * 100_000)
            os.fsync(file.fileno())
        with open(pair.b / "x.img", "rb") as file:
            assert file.read() == b"x" * 100_000
        assert pair.a.status()["peers"][0]["link"] == "connected"
        for connection in held:
            connection.close()


@case()
def inspect_and_recover(scratch):
    """`vmfs inspect` reads every file that vmfs writes and changes none."""
    node = node_with_data(scratch, clean=False)
    assert "state of a store" in vmfs("inspect", os.path.join(node.store, "state")).stdout
    for segment in segments(node):
        assert vmfs("inspect", segment).stdout
    refused(["inspect", "/bin/true"])
    # What a crash, a failed sync or a moment's work may leave beside what is there always.
    journal = os.path.join(node.store, "journal")
    left = {"spare-000000000000001d": "spare", "sync-failed": "a sync of the journal has failed",
            "prepare.tmp": "being made", "rewrite.tmp": "being made"}
    for name in left:
        with open(os.path.join(journal, name), "wb"):
            pass
    before = tree_of(node.store)
    for path, below, names in os.walk(node.store):
        for name in below + names:
            text = vmfs("inspect", os.path.join(path, name)).stdout
            assert text and left.get(name, "") in text, f"{name}: {text}"
    text = vmfs("inspect", journal).stdout
    for name, said in left.items():
        assert f"{name}:" in text and said in text, text
    for name, said in (("run/lock", "fuser"), ("run/daemon.log", "log"), ("run/holder", "dead"),
                       (os.path.relpath(glob.glob(node.stored("f*"))[0], node.store), "an image")):
        assert said in vmfs("inspect", os.path.join(node.store, name)).stdout
    assert tree_of(node.store) == before
    for name in left:
        os.unlink(os.path.join(journal, name))
    vmfs("recover", node.store)
    whole(node.stored(""))


@case()
def inspect_images_of_any_name(scratch):
    """What is in the volume is told as that, though its name or content is like that of a file of vmfs."""
    node = Node(scratch.path, "a").init(journal_size="32MiB").mount()
    with open(segments(node)[0], "rb") as segment, open(os.path.join(node.store, "state"), "rb") as state:
        contents = {"disk.img": segment.read(8192), "disk2.img": state.read(), "disk3.img": b"vmfs1-" + bytes(100)}
    images = ["web01.new", "sync-failed", "prepare.tmp", "rewrite.tmp", "spare-000000000000001d", "x.seg", "state",
              "secret", "holder", "run/lock", "run/daemon.log", "unlinked/foreign-1", "kept-names/y",
              "store/vmfs.toml", *contents]
    directories = sorted({os.path.dirname(name) for name in images if "/" in name})
    for name in directories:
        os.mkdir(node / name)
    for name in images:
        with open(node / name, "wb") as image:
            image.write(contents.get(name, b"a guest's"))
    os.symlink("x.seg", node / "link.new")

    def inspected(path):
        return vmfs("inspect", path).stdout

    with open(node / "gone.new", "wb") as image:
        image.write(contents["disk.img"])
        image.flush()
        os.fsync(image.fileno())
        os.unlink(node / "gone.new")
        assert re.search("stored object [0-9a-f]{16}: an image", inspected(os.path.join(node.store, "unlinked")))
    node.umount()
    for names, said in ((images, "an image"), (directories, "a directory"), (["link.new"], "a symlink")):
        for name in names:
            text = inspected(node.stored(name))
            assert re.match(f"stored object [0-9a-f]{{16}}: {said} of ", text), f"{name}: {text}"
    kept = node.stored(".snapshots/left-b-1")
    os.makedirs(kept)
    for name in images[:9]:
        with open(os.path.join(kept, name), "wb") as image:
            image.write(contents["disk.img"])
        text = inspected(os.path.join(kept, name))
        assert text.startswith("kept by this node as it was: a copy"), f"{name}: {text}"
    for name in ("foreign-2", "foreign-3"):
        os.mkdir(os.path.join(node.store, "unlinked", name))
    os.setxattr(os.path.join(node.store, "unlinked/foreign-2"), "trusted.vmfs.id", bytes(8))
    assert inspected(os.path.join(node.store, "unlinked")).count("what somebody else had put") == 2
