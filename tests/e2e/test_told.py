"""What a person must know of how a volume runs is said: how it is protected, and whether it is encrypted."""

import os
import re

from lib.nodes import Node, vmfs
from lib.runner import case
from lib.scratch import run
from test_bad_configuration import Edited, answer, log_of


def score_of(pid):
    with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as file:
        return int(file.read())


def may_protect():
    """Whether this machine lets root do it; a container may not."""
    return run("sh", "-c", "echo -1000 > /proc/self/oom_score_adj", check=False).returncode == 0


@case()
def protection_when_memory_is_short(scratch):
    """Holder and daemon, also the second one, are not the out-of-memory killer's; what is not allowed is in the log."""
    allowed = may_protect()
    node = Node(scratch.path, "a").init().mount()
    for _ in range(2):
        daemon = node.status()["daemon"]
        for pid in (daemon["pid"], daemon["holder_pid"]):
            assert score_of(pid) == daemon["oom_score_adj"], daemon
        assert (daemon["oom_score_adj"] == -1000) == allowed, daemon
        # The kernel shows it to nobody else: the flags PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE are all there is.
        with open(f"/proc/{daemon['pid']}/stat", encoding="ascii") as file:
            flags = int(file.read().rpartition(")")[2].split()[6])
        assert bool(flags & 0x00080000) == daemon["io_flusher"], (hex(flags), daemon)
        vmfs("restart", node.mnt)
    assert ("out-of-memory killer" in log_of(node)) == (not allowed)
    warned = re.search(r"^<4>cannot become an I/O flusher", log_of(node), re.MULTILINE)
    assert bool(warned) == (not node.status()["daemon"]["io_flusher"])
    node.umount()


@case()
def in_clear(scratch):
    """`tls = "off"` and "off-forced" stand in the text, in the JSON and in the log."""
    node = Node(scratch.path, "a").init().mount()
    assert node.status()["tls"] == "on" and "in clear" not in answer("status", node.mnt)[1]
    edited = Edited(node)
    for value in ("off", "off-forced"):
        edited.edit('tls = "on"', f'tls = "{value}"')
        vmfs("restart", node.mnt)
        assert node.status()["tls"] == value
        text = answer("status", node.mnt)[1]
        assert f'tls = "{value}"' in text and "in clear" in text, text
        assert f'<4>tls = "{value}"' in log_of(node)
    node.umount()
    assert node.status()["tls"] == "off-forced"
    assert os.path.exists(node.store)
