"""The README's first command on a fresh Debian (with --long)."""

import os

from lib.debian import copy_tree, inside, make_tree
from lib.nodes import ROOT
from lib.runner import case
from lib.scratch import run

TREE = "/var/tmp/vmfs-test-fresh"  # made once a machine; nothing of ours is in it

# Twice: it leaves nothing behind, or with --keep two mounts that work.
SCRIPT = """
set -eu
mount | sort >/before
began=$(date +%s)
/vmfs/packaging/quickstart >/vmfs/first.log 2>&1
echo $(($(date +%s) - began)) >/vmfs/seconds
mount | sort | diff /before -
if ls -d /var/tmp/vmfs-quickstart.*; then exit 1; fi
/vmfs/packaging/quickstart --keep >/vmfs/second.log 2>&1
cd /var/tmp/vmfs-quickstart.*
echo hello >alpha/mnt/note
sync alpha/mnt/note
[ "$(cat beta/mnt/note)" = hello ]
for node in alpha beta; do /vmfs/build/release/vmfs umount $node/mnt; done
"""


@case(seconds=1200, long=True)
def quickstart_on_a_fresh_debian(scratch):
    make_tree(TREE)
    root = scratch / "root"
    copy_tree(TREE, root)
    os.mkdir(os.path.join(root, "vmfs"))
    sources = [name for name in os.listdir(ROOT) if name not in ("build", ".git")]
    run("cp", "-a", *(os.path.join(ROOT, name) for name in sources), os.path.join(root, "vmfs"))
    try:
        inside(root, "sh", "-c", SCRIPT, options=["--bind=/dev/fuse", "--capability=all", "--tmpfs=/tmp:mode=1777"], timeout=1100)
    finally:
        for name in ("first.log", "second.log"):
            path = os.path.join(root, "vmfs", name)
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    said = file.read()
                print("        " + "\n        ".join(said.splitlines()[-3:]))
    with open(os.path.join(root, "vmfs/first.log"), encoding="utf-8") as file:
        assert "0 are missing" in file.read()
    with open(os.path.join(root, "vmfs/seconds"), encoding="ascii") as file:
        seconds = int(file.read())
    print(f"        the first took {seconds} s")
    assert seconds < 600, "the README promises ten minutes at most"
    assert "vmfs promote alpha/mnt" in said, "--keep does not say what to try"
