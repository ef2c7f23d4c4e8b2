"""When the daemon cannot be kept alive: its clients get an error and do not hang, and everybody is told."""

import os
import signal

from lib.nodes import Node, alive, vmfs
from lib.runner import case
from lib.scratch import wait_until
from lib.steady import Steady
from test_bad_configuration import answer, holder_of, log_of


def kill_the_next(node, old, number):
    """Ends the daemon that comes after `old`, as soon as there is one; its pid."""
    def another():
        pid = int(holder_of(node)["daemon"])
        return pid not in (0, old) and pid
    pid = wait_until(another, what="the next daemon")
    os.kill(pid, number)
    return pid


def everybody_is_told(node, *parts):
    holder = int(holder_of(node)["holder"])
    wait_until(lambda: holder_of(node)["state"] == "gave-up", what="giving up")
    wait_until(lambda: not alive(holder), what="the holder's end")
    assert not node.mounted()
    status, text = answer("status", node.store)
    assert status == 3 and "given up" in text and "vmfs mount" in text, text
    for part in parts:
        assert part in text, f"{part!r} is not in: {text}"
        assert part in log_of(node), f"{part!r} is not in the log"
    # Who names no volume is told as well: a monitoring that asks for all of them sees no health.
    status, text = answer("status")
    assert status == 3 and node.store in text and "given up" in text, text


@case()
def a_daemon_that_crashes_again_and_again(scratch):
    """Five times within a minute: EIO, no hang, the reason in the log and in `status`; a remount has everything."""
    node = Node(scratch.path, "a").init().mount()
    with Steady(node / "x.img") as client:
        daemon = 0
        for _ in range(5):
            daemon = kill_the_next(node, daemon, signal.SIGABRT)
        client.ended_with_an_error()
    everybody_is_told(node, "5 ends within", "signal 6")
    node.mount()
    client.check()
    assert answer("status", node.mnt)[0] == 0
    node.umount()
    assert node.store not in answer("status")[1]


@case()
def a_kernel_that_cannot_resend(scratch):
    """A crash ends the mount with an error at once, and a remount loses nothing; a planned restart is only a pause."""
    node = Node(scratch.path, "a").init().mount("-o", "pretend-no-resend")
    with Steady(node / "x.img") as client:
        for _ in range(3):
            vmfs("restart", node.mnt)
            client.goes_on()
        node.kill_daemon()
        client.ended_with_an_error()
    everybody_is_told(node, "signal 9", "Linux 6.9")
    node.mount("-o", "pretend-no-resend")
    client.check()
    node.umount()
    client.check(node.stored("x.img"))
