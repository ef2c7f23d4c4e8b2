"""What administrators and hypervisors do with images: copy them sparsely, synchronize them, map them, convert them."""

import mmap
import os
import subprocess
import sys

from lib.nodes import Node, Pair, kill_at_once
from lib.runner import case
from lib.scratch import run


def one_node(scratch, **options):
    return Node(scratch.path, "a").init(**options).mount()


def sparse_image(path, size=256 << 20):
    """A few pieces of data, one of them at the very end."""
    with open(path, "wb") as file:
        for place in (0, 5 << 20, (90 << 20) + 4096, size - 70_000):
            file.seek(place)
            file.write(os.urandom(70_000))
        file.truncate(size)


def allocated(path):
    return os.stat(path).st_blocks * 512


@case(seconds=60)
def sparse_copies(scratch):
    """cp and rsync keep holes, into the mount, out of it, and within it."""
    node = one_node(scratch)
    sparse_image(scratch / "image")
    run("cp", "--sparse=auto", scratch / "image", node / "in")
    run("cp", "--sparse=always", node / "in", node / "within")
    run("cp", "--sparse=auto", node / "within", scratch / "out")
    for path in (node / "in", node / "within", scratch / "out"):
        run("cmp", scratch / "image", path)
        assert allocated(path) < 2 << 20, f"{path} takes {allocated(path)} bytes"
    node.umount()
    for name in ("in", "within"):
        run("cmp", scratch / "image", node.stored(name))
        assert allocated(node.stored(name)) < 2 << 20, "a hole was filled in the store"


@case(seconds=60)
def rsync_both_ways(scratch):
    """A tree with modes, owners, times and links; then only what changed, in place; then back."""
    node = one_node(scratch)
    tree = scratch / "tree"
    os.makedirs(os.path.join(tree, "d/e"))
    sparse_image(os.path.join(tree, "d/disk.img"), 150 << 20 | 1)
    for number in range(50):
        with open(os.path.join(tree, f"d/e/{number}"), "wb") as file:
            file.write(os.urandom(number * 100))
    os.chmod(os.path.join(tree, "d/e"), 0o2750)
    os.chmod(os.path.join(tree, "d/e/7"), 0o600)
    os.chown(os.path.join(tree, "d/e/8"), 1000, 1001)
    os.utime(os.path.join(tree, "d/e/9"), ns=(10**18 + 1, 10**18 + 2))
    os.symlink("e/9", os.path.join(tree, "d/link"))

    def same():
        # By checksum; prints what it would change.
        differs = run("rsync", "-aSc", "--delete", "--dry-run", "--itemize-changes", tree + "/", node / "copy/").stdout
        assert differs == "", differs

    run("rsync", "-aS", tree + "/", node / "copy/")
    same()
    with open(os.path.join(tree, "d/disk.img"), "r+b") as file:
        file.seek(100 << 20)
        file.write(b"changed" * 1000)
    # rsync looks at whole seconds, and all of this takes less than one.
    os.utime(os.path.join(tree, "d/disk.img"), (2 * 10**9, 2 * 10**9))
    os.unlink(os.path.join(tree, "d/e/3"))
    run("rsync", "-a", "--inplace", "--no-whole-file", "--delete", tree + "/", node / "copy/")
    same()
    assert not os.path.exists(node / "copy/d/e/3")
    node.umount()
    node.mount()
    same()
    run("rsync", "-aS", node / "copy/", scratch / "back/")
    run("diff", "-r", "--no-dereference", tree, scratch / "back")


MAPPER = """
import mmap, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
memory = mmap.mmap(descriptor, 1 << 20)
for line in sys.stdin:
    word, place, text = line.split()
    if word == "put":
        memory[int(place):int(place) + len(text)] = text.encode()
        memory.flush()
        print("done", flush=True)
    else:
        print(memory[int(place):int(place) + int(text)].decode(), flush=True)
"""


class Mapper:
    """A process that has mapped the file, MAP_SHARED."""

    def __init__(self, path):
        self.process = subprocess.Popen([sys.executable, "-c", MAPPER, path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def ask(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def put(self, place, text):
        assert self.ask("put", place, text) == "done"

    def get(self, place, size):
        return self.ask("get", place, size)

    def end(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@case(seconds=60)
def shared_mapping(scratch):
    """Two processes map one image and see each other; so do read and write; it survives the daemon's death, is on the
    peer after msync, and in the store."""
    with Pair(scratch).start() as pair:
        with open(pair.a / "x.img", "wb") as file:
            file.truncate(1 << 20)
        first, second = Mapper(pair.a / "x.img"), Mapper(pair.a / "x.img")
        first.put(5000, "hello")
        assert second.get(5000, 5) == "hello"
        descriptor = os.open(pair.a / "x.img", os.O_RDWR)
        assert os.pread(descriptor, 5, 5000) == b"hello"
        os.pwrite(descriptor, b"written", 70_000)
        assert first.get(70_000, 7) == "written"
        old = pair.a.kill_daemon()
        second.put(9000, "afterwards")
        pair.a.wait_for_another_daemon(old)
        assert first.get(9000, 10) == "afterwards"
        pair.a.wait("in-sync")
        second.put(9000, "replicated")
        with open(pair.b / "x.img", "rb") as file:
            assert file.read()[9000:9010] == b"replicated"
            # Mapped on the secondary, too: what was there at the time.
            with mmap.mmap(file.fileno(), 1 << 20, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as memory:
                assert memory[5000:5005] == b"hello"
        os.close(descriptor)
        first.end()
        second.end()
        pair.stop()
        run("cmp", pair.a.stored("x.img"), pair.b.stored("x.img"))


class PatternWriter:
    """A qemu-io that writes one pattern after the other into an image, each to its own place and flushed (FUA) before
    it prints that it was written."""

    COUNT = 1500  # commands that fit into a pipe

    def __init__(self, image):
        self.process = subprocess.Popen(["qemu-io", "-t", "none", "-f", "qcow2", image], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.process.stdin.write("".join(f"write -f {self.place(number)}\n" for number in range(self.COUNT)))
        self.process.stdin.flush()
        self._flushed, self._said = [], []

    @staticmethod
    def place(number):
        """Across clusters, every third in another table of them."""
        return f"-P {number % 251 + 1} {number * 68 + number % 3 * 307200}k 64k"

    def _read_line(self):
        """False at the end."""
        line = self.process.stdout.readline()
        self._said.append(line)
        if "wrote 65536/65536" in line:
            self._flushed.append(len(self._flushed))
        return line != ""

    def wait_for(self, count):
        while len(self._flushed) < count:
            assert self._read_line(), f"it ended: {self._said[-5:]}"

    def all_flushed(self):
        """The numbers of all that it said, after its end."""
        while self._read_line():
            pass
        return self._flushed

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()


@case(seconds=90)
def qcow2_taken_over(scratch):
    """qemu-img create, convert and commit on a, which dies right after, while another image is written; on b all are
    whole, and what was flushed of the last is there."""
    with Pair(scratch, journal_size="128MiB").start() as pair:
        with open(scratch / "raw", "wb") as file:
            for _ in range(8):
                file.write(os.urandom(1 << 20))
                file.seek(3 << 20, os.SEEK_CUR)
            file.truncate(64 << 20)
        a = pair.a
        run("qemu-img", "create", "-q", "-f", "qcow2", a / "empty.qcow2", "10G")
        run("qemu-img", "convert", "-t", "none", "-f", "raw", "-O", "qcow2", scratch / "raw", a / "base.qcow2")
        # By a relative name, so that it is found on b too.
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", a / "top.qcow2")
        run("qemu-io", "-t", "none", "-c", "write -P 0x5a 1M 2M", "-c", "flush", a / "top.qcow2")
        run("qemu-img", "commit", "-q", "-t", "none", a / "top.qcow2")
        run("qemu-io", "-t", "none", "-c", "write -P 0x77 9M 1M", "-c", "flush", a / "top.qcow2")
        for number in range(3):
            run("qemu-img", "snapshot", "-c", f"s{number}", a / "top.qcow2")
        run("sync", a / "base.qcow2", a / "top.qcow2", a / "empty.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", a / "busy.qcow2", "1G")
        with PatternWriter(a / "busy.qcow2") as busy:
            busy.wait_for(60)
            kill_at_once([a], [busy.process])
            flushed = busy.all_flushed()
        assert len(flushed) < busy.COUNT, "it had ended before a died"
        pair.b.promote("--force")
        b = pair.b
        # Clusters that were taken and not used yet may be left over, as after a machine's crash.
        checked = run("qemu-img", "check", "-q", b / "busy.qcow2", check=False)
        assert checked.returncode in (0, 3), checked.stdout
        reads = [word for number in flushed for word in ("-c", "read " + PatternWriter.place(number))]
        found = run("qemu-io", "-r", "-f", "qcow2", *reads, b / "busy.qcow2").stdout
        assert "failed" not in found and found.count("\nread ") + found.startswith("read ") == len(flushed), found
        print(f"        {len(flushed)} flushed writes")
        for name in ("empty.qcow2", "base.qcow2", "top.qcow2"):
            run("qemu-img", "check", "-q", b / name)
        with open(scratch / "raw", "r+b", buffering=0) as file:
            file.seek(1 << 20)
            file.write(b"\x5a" * (2 << 20))
            run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", scratch / "raw", b / "base.qcow2")
            file.seek(9 << 20)
            file.write(b"\x77" * (1 << 20))
        run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", scratch / "raw", b / "top.qcow2")
        # And b goes on with them.
        run("qemu-img", "commit", "-q", "-t", "none", b / "top.qcow2")
        run("qemu-img", "convert", "-t", "none", "-f", "qcow2", "-O", "qcow2", b / "base.qcow2", b / "copy.qcow2")
        run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", scratch / "raw", b / "copy.qcow2")
        pair.a.mount()
        pair.settle()
        kill_at_once([a, b])
        pair.start()
        pair.stop()
        run("cmp", a.stored("busy.qcow2"), b.stored("busy.qcow2"))
        for name in ("base.qcow2", "top.qcow2", "copy.qcow2"):
            run("cmp", a.stored(name), b.stored(name))
            run("qemu-img", "check", "-q", a.stored(name))
