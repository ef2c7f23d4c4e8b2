"""A guest that is idle keeps its image: its lock says that it is there."""

import errno
import fcntl
import json
import os
import struct
import subprocess

from lib.nodes import Pair
from lib.runner import case
from lib.scratch import read_file, run


def lock(descriptor, kind):
    """A lock on the whole file, of this open file description."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))


def write_error(path, content):
    """The errno that writing there meets; None: it is written, durably."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, content, 0)
        os.fsync(descriptor)
        return None
    except OSError as error:
        return error.errno
    finally:
        os.close(descriptor)


def refuses(pair, path):
    """a keeps `path`, which somebody has locked there: b may neither write it nor be promoted, and learns why."""
    why = f"{pair.a / path}: b may not take it: it is in use on a"
    assert write_error(pair.b / path, b"from b") == errno.EBUSY
    for words in ({"path": pair.b / path}, {}):
        refused = pair.b.promote(check=False, **words)
        assert refused.returncode == 5 and why in refused.stdout, refused.stdout
    assert why in pair.a.logs(), pair.a.logs()
    assert pair.a.image(path)["role"] == "primary"


def equal_afterwards(pair, path):
    pair.settle()
    pair.stop()
    run("cmp", pair.a.stored(path), pair.b.stored(path))


@case(seconds=60)
def kept_by_a_lock(scratch):
    """All that it wrote is flushed, and it has locked the image, which no other on its machine can now: b is refused
    until the lock is gone."""
    with Pair(scratch).start() as pair:
        mine = os.open(pair.a / "x.img", os.O_CREAT | os.O_RDWR, 0o600)
        os.pwrite(mine, b"from a, and more", 0)
        os.fsync(mine)
        lock(mine, fcntl.F_WRLCK)
        other = os.open(pair.a / "x.img", os.O_RDWR)
        try:
            lock(other, fcntl.F_WRLCK)
            raise AssertionError("locked twice")
        except BlockingIOError:
            pass
        os.close(other)
        refuses(pair, "x.img")
        lock(mine, fcntl.F_UNLCK)
        # Still open: it was the lock that said so.
        assert write_error(pair.b / "x.img", b"from b") is None
        assert pair.b.image("x.img")["role"] == "primary"
        os.close(mine)
        equal_afterwards(pair, "x.img")
        assert read_file(pair.a.stored("x.img")) == b"from b, and more"


class Qemu:
    """A QEMU with a disk, whose guest does not run: whatever is read and written is done by its monitor."""

    def __init__(self, image):
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio",
             "-drive", f"file={image},format=raw,if=none,id=disk,cache=none", "-device", "virtio-blk-pci,drive=disk"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask(self, command, **arguments):
        """Answered once the machine has been made: its disk is open by then."""
        self.process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if not line.startswith("{"):
                continue  # what write() prints comes this way too, when it likes
            answer = json.loads(line)
            if "return" in answer or "error" in answer:
                assert "return" in answer, answer
                return answer["return"]
        raise AssertionError(f"it ended: {self.process.stderr.read()}")

    def write(self, pattern, place):
        """64 KiB, flushed, through the machine's own handle."""
        command = f'qemu-io disk "write -f -P {pattern} {place} 64k"'
        said = self.ask("human-monitor-command", **{"command-line": command})
        assert said == "", said

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@case(seconds=60)
def kept_by_a_guest(scratch):
    """The same with QEMU's own locks, which another QEMU on that machine meets as well."""
    with Pair(scratch).start() as pair:
        run("qemu-img", "create", "-q", "-f", "raw", pair.a / "web01.img", "16M")
        with Qemu(pair.a / "web01.img") as idle:
            idle.ask("qmp_capabilities")
            idle.write(0x5a, 0)
            assert read_file(pair.a / "web01.img")[:65536] == b"\x5a" * 65536
            with Qemu(pair.a / "web01.img") as second:
                said = second.process.communicate(timeout=30)[1]
                assert second.process.returncode == 1 and 'Failed to get "write" lock' in said, said
            refuses(pair, "web01.img")
            # It goes on.
            idle.write(0x5b, 65536)
            idle.ask("quit")
            idle.process.wait(timeout=30)
        assert write_error(pair.b / "web01.img", b"from b") is None
        equal_afterwards(pair, "web01.img")
        run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x5a 4k 60k", "-c", "read -P 0x5b 64k 64k",
            pair.b.stored("web01.img"))
