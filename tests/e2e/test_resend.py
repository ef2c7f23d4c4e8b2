"""The daemon dies after it has done what was asked and before it says so: the kernel asks the next daemon again, and
the client gets the first answer.

strace ends the daemon when it is about to give the kernel its answer number N, for every N that an operation has. The
node has one thread for requests, so that the answers have an order.
"""

import ctypes
import os
import subprocess

from lib.nodes import Node
from lib.runner import case
from lib.scratch import run

RENAME_NOREPLACE = 1
AT_FDCWD = -100


def rename_no_replace(old, new):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), RENAME_NOREPLACE) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), new)


def put(path, content=b""):
    with open(path, "wb") as file:
        file.write(content)


def get(path):
    with open(path, "rb") as file:
        return file.read()


def create_exclusively(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def append(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        assert os.write(descriptor, b" and again") == 10
    finally:
        os.close(descriptor)


# Name: what there is before, the operation, and whether it has happened exactly once.
OPERATIONS = {
    "exclusive creation": (lambda p: None, create_exclusively, lambda p: get(p) == b""),
    "mkdir": (lambda p: None, os.mkdir, lambda p: os.listdir(p) == []),
    "symlink": (lambda p: None, lambda p: os.symlink("there", p), lambda p: os.readlink(p) == "there"),
    "rename": (lambda p: put(p, b"x"), lambda p: os.rename(p, p + ".new"),
               lambda p: not os.path.lexists(p) and get(p + ".new") == b"x"),
    "rename over": (lambda p: (put(p, b"x"), put(p + ".new", b"old")), lambda p: os.rename(p, p + ".new"),
                    lambda p: not os.path.lexists(p) and get(p + ".new") == b"x"),
    "rename without replacing": (lambda p: put(p, b"x"), lambda p: rename_no_replace(p, p + ".new"),
                                 lambda p: not os.path.lexists(p) and get(p + ".new") == b"x"),
    "unlink": (put, os.unlink, lambda p: not os.path.lexists(p)),
    "rmdir": (os.mkdir, os.rmdir, lambda p: not os.path.lexists(p)),
    "append": (lambda p: put(p, b"once"), append, lambda p: get(p) == b"once and again"),
    "truncate": (lambda p: put(p, b"longer"), lambda p: os.truncate(p, 4), lambda p: get(p) == b"long"),
    "chmod": (put, lambda p: os.chmod(p, 0o604), lambda p: os.stat(p).st_mode & 0o777 == 0o604),
}


class DeathBeforeAnswer:
    """The daemon dies instead of giving the kernel its answer number `number`, counted from now on."""

    def __init__(self, pid, number):
        self.tracer = subprocess.Popen(
            ["strace", "-f", "-p", str(pid), "-o", "/dev/null", "-e", "trace=writev", "-e",
             f"inject=writev:error=EIO:signal=SIGKILL:when={number}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        line = self.tracer.stderr.readline()
        assert "attached" in line, line

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        # Lets the daemon go, if it lives. (Were it asked to: a tracer that does so while its process dies waits for the first
        # thread, which waits for the others, which wait for the tracer.)
        self.tracer.kill()
        self.tracer.communicate(timeout=20)


@case(seconds=120)
def repeated_requests_get_the_first_answer(scratch):
    node = Node(scratch.path, "a").init(journal_size="64MiB")
    run("sed", "-i", "s/^threads = .*/threads = 1/", os.path.join(node.store, "vmfs.toml"))
    node.mount()
    deaths = {}
    for name, (prepare, operate, happened) in OPERATIONS.items():
        # More answers than an operation can have: then the daemon has survived it long before.
        for number in range(1, 10):
            path = node / f"{name.replace(' ', '-')}-{number}"
            prepare(path)
            pid = node.daemon_pid()
            with DeathBeforeAnswer(pid, number):
                operate(path)
            assert happened(path), f"{name}, the daemon killed before answer {number}: not done exactly once"
            if node.daemon_pid() == pid:
                break
            node.wait_for_another_daemon(pid)
            deaths[name] = number
        else:
            raise AssertionError(f"{name}: the daemon dies however many answers it gives")
    print(f"        deaths: {', '.join(f'{name} {count}' for name, count in deaths.items())}")
    assert set(deaths) == set(OPERATIONS), f"never killed: {set(OPERATIONS) - set(deaths)}"
    node.umount()
