"""When the daemon cannot be kept alive: its clients get an error and do not hang, and everybody is told."""

import ctypes
import os
import signal
import threading

from lib.nodes import Node, Pair, alive, vmfs
from lib.runner import case
from lib.scratch import read_file, run, wait_until, write_file
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
def a_volume_that_cannot_be_closed(scratch):
    """An unmount whose store is not complete fails and says why, as `status` does until that is mended."""
    node = Node(scratch.path, "a").init().mount()
    in_the_way = os.path.join(node.store, "state.new")
    os.mkdir(in_the_way)
    write_file(node / "x", b"x" * 100_000)
    status, text = answer("umount", node.mnt)
    assert status == 1 and "not complete" in text and in_the_way in text and f"vmfs recover {node.store}" in text, text
    everybody_is_told(node, in_the_way)
    os.rmdir(in_the_way)
    vmfs("recover", node.store)
    assert read_file(node.stored("x")) == b"x" * 100_000
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


@case()
def a_restart_that_was_refused(scratch):
    """Where a request still waits and the kernel cannot send it again, a restart is refused; later it is done."""
    with Pair(scratch) as pair:
        pair.a.mount("-o", "pretend-no-resend")
        pair.b.mount()
        pair.settle()
        vmfs("set", pair.a.mnt, "on-peer-loss=freeze")
        write_file(pair.a / "x.img", b"before")
        pair.wan.cut()
        wait_until(lambda: pair.a.image("x.img")["role"] == "frozen", what="writes that are held")
        writer = threading.Thread(target=write_file, args=(pair.a / "x.img", b"held"))
        writer.start()
        wait_until(lambda: pair.a.status()["daemon"]["parked_requests"], what="a request that waits")
        status, text = answer("restart", pair.a.mnt)
        assert status == 1 and "requests still wait" in text, text
        pair.wan.mend()
        writer.join(30)
        assert not writer.is_alive()
        pair.settle()
        vmfs("restart", pair.a.mnt)
        assert read_file(pair.a / "x.img") == b"held"
        pair.stop()


@case()
def a_setting_that_could_not_be_kept(scratch):
    """`vmfs set` that fails changes nothing, then or later."""
    node = Node(scratch.path, "a").init(mode="sync").mount()
    in_the_way = os.path.join(node.store, "vmfs.toml.new")
    os.mkdir(in_the_way)
    status, text = answer("set", node.mnt, "mode=async")
    assert status == 1 and "vmfs.toml" in text, text
    os.rmdir(in_the_way)
    vmfs("set", node.mnt, "compression=off")
    assert node.status()["mode"] == "sync"
    node.umount()
    assert 'mode = "sync"' in read_file(os.path.join(node.store, "vmfs.toml")).decode()


@case()
def whoever_comes_after_an_unmounted_volume(scratch):
    """While a daemon still closes its volume, another volume is mounted at the same place, and gets the number that the
    kernel had given to the first: it is not what the first one's holder ends."""
    ours = run("mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections", check=False).returncode == 0
    try:
        first, second = Node(scratch.path, "a").init().mount(), Node(scratch.path, "c").init()
        number = os.stat(first.mnt).st_dev
        daemon = first.status()["daemon"]
        os.kill(daemon["pid"], signal.SIGSTOP)
        # (umount(8) would look at it first, which nobody answers.)
        assert ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(first.mnt), 0) == 0, ctypes.get_errno()
        vmfs("mount", second.store, first.mnt)
        assert os.stat(first.mnt).st_dev == number, "the kernel gave it another number: this shows nothing"
        os.kill(daemon["pid"], signal.SIGCONT)
        wait_until(lambda: not alive(daemon["holder_pid"]), what="the first one's end")
        write_file(first / "x", b"goes on")
        assert os.path.ismount(first.mnt) and read_file(second.stored("x")) in (b"", b"goes on")
        vmfs("umount", first.mnt)
        assert read_file(second.stored("x")) == b"goes on"
    finally:
        if ours:
            run("umount", "/sys/fs/fuse/connections", check=False)
