"""A journal that is damaged in its middle: both ways out that the error names, as it names them."""

import glob
import os
import re

from lib.nodes import Node, vmfs
from lib.runner import case
from lib.scratch import run, wait_until
from lib.wan import free_port

COUNT = 30
SEGMENT = 4 << 20  # of a journal of 64 MiB


def content(number, written):
    return bytes([number, written]) * 50_000


def replayed_from(node):
    text = vmfs("inspect", os.path.join(node.store, "state")).stdout
    # Before the first checkpoint: the journal's beginning.
    return max(int(re.search(r"replay from +LSN (\d+)", text).group(1)), SEGMENT + 4096)


def missing(path_of, rounds):
    """The files that are not as they were written last."""
    out = []
    for number in range(COUNT):
        path = path_of(f"f{number}")
        found = b""
        if os.path.exists(path):
            with open(path, "rb") as file:
                found = file.read()
        if found != content(number, rounds):
            out.append(number)
    return out


def damaged_owner(scratch):
    """Two nodes in sync; the owner is killed, and its journal damaged. Both nodes, how
    often all files were written, and what the owner's mount says."""
    a = Node(scratch.path, "a", port=free_port()).init()
    token = vmfs("token", a.store).stdout.strip().splitlines()[-1]
    b = Node(scratch.path, "b", port=free_port()).join(token)
    for node in (a, b):
        node.mount()
    for node in (a, b):
        node.wait("in-sync", 40).wait("ready", 40)
    # Enough that is in the journal alone: what the store has already is not read again.
    written = rounds = 0
    while written - replayed_from(a) < 2_000_000:
        rounds += 1
        for number in range(COUNT):
            with open(a / f"f{number}", "wb") as file:
                file.write(content(number, rounds))
                os.fsync(file.fileno())
        written = a.status()["journal"]["written_lsn"]
    a.kill_node()
    assert written - replayed_from(a) > 1_000_000, "all was applied in a moment"
    place = (written + replayed_from(a)) // 2
    with open(os.path.join(a.store, f"journal/{place // SEGMENT:016x}.seg"), "r+b") as file:
        file.seek(place % SEGMENT)
        file.write(b"rotten" * 100)
    text = vmfs("mount", a.store, a.mnt, check=False).stdout
    assert "is damaged at offset" in text and not a.mounted(), text
    return a, b, rounds, text


@case()
def made_anew_from_the_peer(scratch):
    a, b, rounds, text = damaged_owner(scratch)
    # In the order of the message, with its words.
    steps = [line.strip().split("   ")[0] for line in text.splitlines() if re.match(r" +(vmfs|mv) ", line)]
    token = None
    for step in steps:
        if step.startswith("vmfs recover"):
            break
        there = token is None
        node = b if there else a
        words = [{"STORE": node.store, "STORE.damaged": node.store + ".damaged", "MOUNTPOINT": node.mnt,
                  "THIS-NODE": "a", "TOKEN": token}.get(word, word) for word in step.split()]
        if words[:2] == ["vmfs", "join"]:
            words += ["--node", "a"]
        done = vmfs(*words[1:]) if words[0] == "vmfs" else run(*words)
        if words[:2] == ["vmfs", "token"]:
            token = done.stdout.strip().splitlines()[-1]
    assert steps[-1].startswith("vmfs recover") and a.mounted(), steps
    for node in (a, b):
        node.wait("in-sync", 40).wait("ready", 40)
        assert not missing(node.__truediv__, rounds)
    assert [peer["node"] for peer in b.status()["peers"]] == ["a"]
    a.promote()
    with open(a / "f0", "ab") as file:
        file.write(b"goes on")
    a.umount()
    b.umount()
    run("cmp", a.stored("f0"), b.stored("f0"))


@case()
def cut_off(scratch):
    """What is cut off is kept; the node mounts, and gets from its peer what it has lost."""
    a, b, rounds, text = damaged_owner(scratch)
    until = re.search(r"vmfs recover STORE --until (\d+)", text).group(1)
    text = vmfs("recover", a.store, "--until", until).stdout
    kept = re.search(r"is kept in (\S+)", text).group(1)
    assert glob.glob(os.path.join(kept, "*.seg")), text
    for segment in glob.glob(os.path.join(kept, "*.seg")):
        assert vmfs("inspect", segment).stdout
    assert missing(a.stored, rounds), "nothing was cut off"
    a.mount()
    for node in (a, b):
        node.wait("in-sync", 40).wait("ready", 40)
    assert not missing(a.__truediv__, rounds)
    assert wait_until(lambda: a.status()["healthy"], what="health")
    with open(a / "f0", "ab") as file:
        file.write(b"goes on")
    a.umount()
    b.umount()
    for number in range(COUNT):
        run("cmp", a.stored(f"f{number}"), b.stored(f"f{number}"))
