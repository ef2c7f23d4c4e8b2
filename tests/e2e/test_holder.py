"""The holder: what it inherits from whoever mounts, and a mount that goes on without it."""

import json
import os
import signal
import subprocess

from lib.nodes import VMFS, Node, alive
from lib.runner import case
from lib.scratch import read_file, run, wait_until, write_file
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
def a_busy_mount_is_detached(scratch):
    """Whoever has a file open goes on, and with the last close the volume ends as it does with an unmount."""
    node = Node(scratch.path, "a").init().mount()
    daemon = node.status()["daemon"]
    before, after = os.urandom(1 << 20), os.urandom(1 << 20)
    with open(node / "x.img", "w+b", buffering=0) as image:
        image.write(before)
        status, text = answer("umount", node.mnt)
        assert status == 1 and f"vmfs umount --lazy {node.mnt}" in text, text
        assert node.mounted() and os.path.exists(node / "x.img")
        status, text = answer("umount", "--lazy", node.mnt)
        assert status == 0 and not text, text
        assert not node.mounted() and not os.listdir(node.mnt)
        image.write(after)
        os.fsync(image.fileno())
        assert os.pread(image.fileno(), 2 << 20, 0) == before + after
        assert alive(daemon["pid"]) and alive(daemon["holder_pid"])
    for process in ("pid", "holder_pid"):
        wait_until(lambda process=process: not alive(daemon[process]), what=f"the end of {process}")
    assert read_file(node.stored("x.img")) == before + after
    status, text = answer("status")
    assert node.store not in text, text
    node.mount().umount()
    assert read_file(node.stored("x.img")) == before + after


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


@case()
def bound_elsewhere(scratch):
    """mount --bind of a directory of a volume: commands mean what is seen there, and it is no volume of its own."""
    node = Node(scratch.path, "a").init().mount()
    os.mkdir(node / "g")
    for path in ("g/web01.img", "web01.img"):
        write_file(node / path, b"x")
    bound, whole = scratch / "bound", scratch / "whole"
    for source, place in ((node / "g", bound), (node.mnt, whole)):
        os.mkdir(place)
        run("mount", "--bind", source, place)
    images = {path: [image["path"] for image in json.loads(answer("status", path, "--json")[1])["images"]]
              for path in (bound, os.path.join(bound, "web01.img"), os.path.join(whole, "web01.img"))}
    assert images == {bound: ["g/web01.img"], os.path.join(bound, "web01.img"): ["g/web01.img"],
                      os.path.join(whole, "web01.img"): ["web01.img"]}, images
    stores = [json.loads(line)["store"] for line in answer("status", "--json")[1].splitlines()]
    assert stores.count(node.store) == 1, stores
    for place in (bound, whole):
        status, text = answer("umount", place)
        assert status == 2 and f"umount {place}" in text and f"vmfs umount {node.mnt}" in text, text
        run("umount", place)
    node.umount()
    assert not node.mounted()


@case(seconds=60)
def a_daemon_that_does_not_answer(scratch):
    """It hides neither itself nor another volume."""
    nodes = [Node(scratch.path, name).init().mount() for name in ("a", "b")]
    stopped = nodes[0].daemon_pid()
    os.kill(stopped, signal.SIGSTOP)
    try:
        status, text = answer("status", "--json")
        found = {line["store"]: line for line in map(json.loads, text.splitlines())}
        assert status == 3 and found[nodes[1].store]["healthy"], text
        assert not found[nodes[0].store]["healthy"] and "did not answer" in found[nodes[0].store]["problems"][0], text
    finally:
        os.kill(stopped, signal.SIGCONT)
    for node in nodes:
        node.umount()
