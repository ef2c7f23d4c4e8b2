"""A mistake in vmfs.toml, or an address that cannot be had, never hurts what runs already."""

import os
import re
import socket
import subprocess

from lib.nodes import VMFS, Node, alive, vmfs
from lib.runner import case
from lib.scratch import wait_until
from lib.steady import Steady
from lib.wan import free_port


class Edited:
    """vmfs.toml with an edit of a person's, until mended."""

    def __init__(self, node):
        self.path = os.path.join(node.store, "vmfs.toml")
        with open(self.path, encoding="utf-8") as file:
            self.good = file.read()

    def edit(self, old, new):
        text, count = re.subn(old, new, self.good)
        assert count == 1, f"{old} is {count} times in {self.good}"
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)

    def mend(self):
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(self.good)


def answer(*words):
    done = subprocess.run([VMFS, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=60, check=False)
    return done.returncode, done.stdout


def holder_of(node):
    """What the holder says of itself."""
    with open(os.path.join(node.store, "run/holder"), encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(" ", 1) for line in file if " " in line)


def log_of(node):
    with open(os.path.join(node.store, "run/daemon.log"), encoding="utf-8") as file:
        return file.read()


@case()
def at_a_planned_restart(scratch):
    """`vmfs restart` refuses, and says why; the daemon, the client and the mount do not notice."""
    node = Node(scratch.path, "a").init().mount()
    daemon = node.daemon_pid()
    edited = Edited(node)
    with Steady(node / "x.img") as client:
        secret = os.path.join(node.store, "secret")
        for old, new, said in (("threads = 0", "threads = 0\nthread = 4", "thread"),
                               ("memory = ", "memory == ", "not TOML"),
                               ('journal = "journal"', 'journal = "images"', "no journal here"),
                               ('journal-size = "[^"]*"', 'journal-size = "1KiB"', "journal-size"),
                               ('tls = "on"', 'tls = "yes"', "tls")):
            edited.edit(old, new)
            status, text = answer("restart", node.mnt)
            assert status in (1, 2) and said in text and "nothing was done" in text, text
            status, text = answer("status", node.mnt)
            assert status == 3 and said in text and "next daemon" in text, text
            client.goes_on()
        edited.mend()
        os.chmod(secret, 0o644)
        status, text = answer("restart", node.mnt)
        assert status == 2 and secret in text, text
        os.chmod(secret, 0o600)
        client.goes_on()
        assert node.daemon_pid() == daemon, "the daemon was restarted after all"
        status, text = answer("status", node.mnt)
        assert status == 0, text
        vmfs("restart", node.mnt)
        client.goes_on()
        assert node.daemon_pid() != daemon
        client.finish()
    node.umount()
    client.check(node.stored("x.img"))


@case(seconds=90)
def when_the_daemon_dies(scratch):
    """Guests wait while the next daemon cannot start, however often it is tried, and go on when the file is mended."""
    node = Node(scratch.path, "a").init().mount()
    edited = Edited(node)
    with Steady(node / "x.img") as client:
        edited.edit("threads = 0", "threads = 0\nthread = 4")
        node.kill_daemon()
        # More often than crashes within a minute would be borne.
        wait_until(lambda: int(holder_of(node)["starts"]) >= 7, 30, "the seventh start")
        wait_until(lambda: holder_of(node)["state"] == "start-failed", what="its failure")
        assert int(holder_of(node)["crashes"]) == 1
        for path in (node.mnt, node.store):
            status, text = answer("status", path)
            assert status == 3 and "cannot start" in text and "unknown key" in text and "vmfs restart" in text, text
            assert answer("status", path, "--json")[0] == 3
        assert "unknown key" in log_of(node) and log_of(node).count("cannot start") == 1, log_of(node)
        status, text = answer("restart", node.mnt)
        assert status == 2 and "unknown key" in text, text
        waits_at = client.flushed
        assert client.error is None and node.mounted()
        edited.mend()
        vmfs("restart", node.mnt)
        client.goes_on()
        assert client.flushed > waits_at
        # And without being asked.
        edited.edit("threads = 0", "threads = many")
        node.kill_daemon()
        wait_until(lambda: holder_of(node)["state"] == "start-failed", what="a daemon that cannot start")
        edited.mend()
        client.goes_on()
        status, text = wait_until(lambda: (lambda out: out[0] == 0 and out)(answer("status", node.mnt)), what="health")
        client.finish()
    node.umount()
    client.check(node.stored("x.img"))


@case()
def unmounted_while_it_cannot_start(scratch):
    """Then nothing hangs, what was not done is said, and nothing is lost."""
    node = Node(scratch.path, "a").init().mount()
    edited = Edited(node)
    with Steady(node / "x.img") as client:
        client.finish()
    edited.edit("threads = 0", "threads = 0\nthread = 4")
    holder = node.status()["daemon"]["holder_pid"]
    node.kill_daemon()
    wait_until(lambda: holder_of(node)["state"] == "start-failed", what="a daemon that cannot start")
    # Whose users still wait for the journal's records: those are not cut off.
    for words in ([], ["--until", "1"]):
        status, text = answer("recover", node.store, *words)
        assert status == 1 and f"vmfs umount {node.mnt}" in text, text
    status, text = answer("umount", node.mnt)
    assert status == 1 and "not complete" in text and "unknown key" in text and "vmfs recover" in text, text
    assert not node.mounted() and not alive(holder)
    edited.mend()
    vmfs("recover", node.store)
    client.check(node.stored("x.img"))


@case()
def address_that_cannot_be_had(scratch):
    """The volume is mounted, used and restarted all the same; `status` says it, and it is listened on when it can."""
    port = free_port()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        node = Node(scratch.path, "a", port=port).init().mount()
        with Steady(node / "x.img") as client:
            for _ in range(2):
                status, text = answer("status", node.mnt)
                assert status == 3 and f"cannot listen on 127.0.0.1:{port}" in text and "node.listen" in text, text
                vmfs("restart", node.mnt)
            node.wait_for_another_daemon(node.kill_daemon())
            client.goes_on()
            client.finish()
    wait_until(lambda: answer("status", node.mnt)[0] == 0, 20, "a free port that is taken")
    socket.create_connection(("127.0.0.1", port)).close()
    node.umount()
