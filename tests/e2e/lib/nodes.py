"""Nodes of a volume: stores, mounts, and what one can do to them."""

import collections
import contextlib
import glob
import json
import os
import signal
import subprocess
import time

from lib.scratch import mounts_below, run, wait_until
from lib.wan import Wan, free_port

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
VMFS = os.environ.get("VMFS", os.path.join(ROOT, "build/release/vmfs"))


def vmfs(*words, check=True, timeout=60, **options):
    return run(VMFS, *words, check=check, timeout=timeout, **options)


class Node:
    """One store and its mount point, in a directory of their own."""

    def __init__(self, directory, name, port=None):
        self.name = name
        self.directory = os.path.join(directory, name)
        self.store = os.path.join(self.directory, "store")
        self.mnt = os.path.join(self.directory, "mnt")
        self.port = port
        self.deaths = collections.deque(maxlen=95)  # of daemons: when
        os.makedirs(self.mnt)

    def __truediv__(self, name):
        """A path under the mount."""
        return os.path.join(self.mnt, name)

    def stored(self, name):
        """The image's plain file in the store."""
        return os.path.join(self.store, "images", name)

    def _places(self, journal):
        listen = ["--listen", f"127.0.0.1:{self.port}"] if self.port else []
        return listen + (["--journal", journal] if journal else [])

    def init(self, mode="sync", journal_size="64MiB", journal=None):
        vmfs("init", self.store, "--name", "test", "--node", self.name, "--mode", mode, "--journal-size",
             journal_size, *self._places(journal))
        return self

    def join(self, token, journal=None):
        vmfs("join", self.store, "-", "--node", self.name, *self._places(journal), stdin=None, input=token)
        return self

    def mount(self, *options, timeout=60):
        vmfs("mount", self.store, self.mnt, *options, timeout=timeout)
        return self

    def umount(self, timeout=60):
        vmfs("umount", self.mnt, timeout=timeout)

    def mounted(self):
        return bool(mounts_below(self.mnt))

    def status(self):
        """Exit status 3 says that something is not healthy: it is an answer all the same."""
        done = subprocess.run([VMFS, "status", self.mnt if self.mounted() else self.store, "--json"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode not in (0, 3):
            raise AssertionError(f"status of {self.name}: exit status {done.returncode}: {done.stderr}")
        status = json.loads(done.stdout)
        for problem in status["problems"]:
            assert "\n" in problem, f"a problem without a next step: {problem}"
        return status

    def image(self, path):
        for image in self.status()["images"]:
            if image["path"] == path:
                return image
        raise AssertionError(f"{self.name} does not list {path}")

    def copies(self):
        """Copies to its peers, whole or of ranges, that were begun since its daemon's start."""
        return sum(peer["copies_whole"] + peer["copies_partial"] for peer in self.status()["peers"])

    def wait(self, condition, timeout=30):
        vmfs("wait", self.mnt, condition, "--timeout", timeout, timeout=timeout + 10)
        return self

    def promote(self, *words, path=None, **options):
        return vmfs("promote", path or self.mnt, *words, **options)

    def daemon_pid(self):
        return self.status()["daemon"]["pid"]

    def kill_daemon(self):
        """Only the daemon: its holder starts the next one. (It serves guests a moment before it answers commands.)"""
        pid = wait_until(self.daemon_pid, what="a daemon that answers")
        # A holder gives up after a hundred ends within a minute.
        if len(self.deaths) == self.deaths.maxlen:
            time.sleep(max(0, self.deaths[0] + 60 - time.monotonic()))
        self.deaths.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for_another_daemon(self, old, timeout=20):
        """Returns once a daemon other than `old` answers."""
        def another():
            with contextlib.suppress(AssertionError):  # none answers just now
                return self.daemon_pid() not in (None, old)
            return False
        wait_until(another, timeout, "a new daemon")

    def kill_node(self):
        """As when the machine's processes all die; nothing is left mounted."""
        kill_at_once([self])

    def logs(self):
        """The end of what holder and daemon wrote, for a failure's report."""
        text = ""
        for path in sorted(glob.glob(os.path.join(self.store, "run/*log*"))):
            if os.path.isfile(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    text += f"--- {path}\n" + "".join(file.readlines()[-25:])
        return text


def kill_at_once(nodes, clients=()):
    """kill -9, without a moment in between, of these nodes' holders and daemons and of the processes that use them; nothing
    is left mounted."""
    daemons = [node.status()["daemon"] for node in nodes]
    pids = [daemon[which] for daemon in daemons for which in ("holder_pid", "pid")] + [client.pid for client in clients]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # The machine's programs have gone, so nothing in its kernel waits for them any more.
    for node in nodes:
        for how in ("-f", "-l"):
            run("umount", how, node.mnt, check=False)
    wait_until(lambda: not any(alive(pid) for pid in pids), what="the nodes' end")


def alive(pid):
    """A zombie is as good as dead, but for its threads: one may be in the middle of a write."""
    for path in glob.glob(f"/proc/{pid}/task/*/stat"):
        with contextlib.suppress(OSError):
            with open(path, encoding="ascii", errors="replace") as file:
                if file.read().rpartition(")")[2].split()[0] not in ("Z", "X"):
                    return True
    return False


class Pair:
    """Two nodes on this machine, the network between them a Wan; b dials a."""

    def __init__(self, scratch, mode="sync", journal_size="64MiB", directories=None, journals=None):
        first, second = directories or (scratch.path, scratch.path)
        journals = journals or {}
        self.a = Node(first, "a", port=free_port()).init(mode=mode, journal_size=journal_size, journal=journals.get("a"))
        self.wan = Wan(self.a.port)
        token = vmfs("token", self.a.store, "--address", f"127.0.0.1:{self.wan.port}").stdout.strip().splitlines()[-1]
        self.b = Node(second, "b").join(token, journal=journals.get("b"))

    def start(self):
        self.a.mount()
        self.b.mount()
        return self.settle()

    def settle(self, timeout=40):
        """Both are connected, caught up, and know who owns what."""
        for node in (self.a, self.b):
            node.wait("in-sync", timeout).wait("ready", timeout)
        return self

    def stop(self):
        """Clean unmounts, so that both stores have everything."""
        for node in (self.a, self.b):
            if node.mounted():
                node.umount()

    def __enter__(self):
        return self

    def __exit__(self, kind, *unused):
        if kind:
            for node in (self.a, self.b):
                print(node.logs(), flush=True)
                print(vmfs("status", node.store, check=False).stdout, flush=True)
        self.wan.close()


def seconds_of(action):
    start = time.monotonic()
    action()
    return time.monotonic() - start
