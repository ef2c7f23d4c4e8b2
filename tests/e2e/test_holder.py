"""The holder: what it inherits from whoever mounts, and a mount that goes on without it."""

import os
import signal
import subprocess

from lib.nodes import VMFS, Node, alive
from lib.runner import case
from lib.scratch import read_file, wait_until, write_file
from lib.steady import Steady
from test_bad_configuration import Edited, answer, holder_of


@case()
def mounted_by_a_script_that_ignores_signals(scratch):
    """What a caller ignores is not ignored by the holder: it hears of its daemon's end."""
    node = Node(scratch.path, "a").init()

    def ignore():
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    subprocess.run([VMFS, "mount", node.store, node.mnt], preexec_fn=ignore, stdin=subprocess.DEVNULL, timeout=60, check=True)
    with Steady(node / "x.img") as client:
        node.wait_for_another_daemon(node.kill_daemon())
        client.goes_on()
        client.finish()
    node.umount(timeout=20)
    client.check(node.stored("x.img"))


@case()
def a_mount_whose_holder_was_killed(scratch):
    """Its daemon closes the volume: `vmfs umount` returns when that is done, and nobody misses the holder afterwards."""
    node = Node(scratch.path, "a").init().mount()
    daemon = node.status()["daemon"]
    os.kill(daemon["holder_pid"], signal.SIGKILL)
    wait_until(lambda: not alive(daemon["holder_pid"]), what="the holder's end")
    content = os.urandom(20 << 20)
    write_file(node / "x.img", content)
    status, text = answer("status", node.mnt)
    assert status == 3 and "holder" in text, text
    node.umount()
    assert read_file(node.stored("x.img")) == content
    assert not alive(daemon["pid"])
    status, text = answer("status")
    assert node.store not in text, text
    status, text = answer("umount", node.store)
    assert status == 1 and "is not mounted" in text, text
    # And one whose volume cannot be closed.
    node.mount()
    daemon = node.status()["daemon"]
    os.kill(daemon["holder_pid"], signal.SIGKILL)
    os.mkdir(os.path.join(node.store, "state.new"))
    write_file(node / "y.img", content)
    status, text = answer("umount", node.mnt)
    assert status == 1 and "not complete" in text and f"vmfs recover {node.store}" in text, text
    status, text = answer("status")
    assert status == 3 and node.store in text, text


@case()
def mounted_again_in_vain(scratch):
    """A volume that was given up stays one that somebody must look after, until it is mounted or recovered."""
    node = Node(scratch.path, "a").init().mount("-o", "pretend-no-resend")
    node.kill_daemon()
    wait_until(lambda: holder_of(node)["state"] == "gave-up", what="giving up")
    wait_until(lambda: not node.mounted(), what="the mount's end")
    edited = Edited(node)
    edited.edit('journal = "journal"', 'journal = "images"')
    status, text = answer("mount", node.store, node.mnt)
    assert status != 0 and "images" in text, text
    status, told = answer("status")
    assert status == 3 and node.store in told and text.splitlines()[0].removeprefix("error: ") in told, (text, told)
    edited.mend()
    node.mount()
    assert answer("status", node.mnt)[0] == 0
    node.umount()
    # Where there was nothing to look after, there is nothing either after an attempt in vain.
    edited.edit('journal = "journal"', 'journal = "images"')
    assert answer("mount", node.store, node.mnt)[0] != 0
    assert node.store not in answer("status")[1]
