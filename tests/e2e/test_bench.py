"""The benchmark itself (with --long): it runs, compares, and leaves nothing behind."""

import json
import os
import subprocess
import sys

from lib.nodes import ROOT
from lib.runner import case
from lib.scratch import run


@case(seconds=120, long=True)
def bench(scratch):
    """All kinds of systems and of rows, as small as they can be: ratios, a table and JSON."""
    result = scratch / "result.json"
    done = run(sys.executable, os.path.join(ROOT, "tests/bench/run"), "--systems", "native,pass-through,vmfs,async,sync-tls",
               "--rows", "fdatasync,fsync32,seqwrite,dirtyread1,sustained", "--repeats", 1, "--seconds", 1,
               "--dirty-seconds", 0.2, "--sustained-seconds", 3, "--image", "64M", "--sustained-image", "128M",
               "--journal", "64M", "--sustained-journal", "32M", "--base", scratch.path, "--json", result, timeout=600)
    with open(result, encoding="utf-8") as file:
        found = json.load(file)
    assert "| row | system | against | ratio |" in done.stdout and "failed" not in done.stdout, done.stdout
    against = {(line["row"], line["system"], line["against"]) for line in found["ratios"]}
    wanted = {("fdatasync", "vmfs", "append"), ("fdatasync", "sync-tls", "vmfs"), ("fsync32", "async", "vmfs"),
              ("seqwrite", "vmfs", "native"), ("dirtyread1", "vmfs", "pass-through"), ("sustained", "vmfs", "native")}
    assert wanted <= against, against
    assert all(line["ratio"] > 0 for line in found["ratios"])
    left = subprocess.run(["losetup", "--noheadings", "--output", "BACK-FILE"], stdout=subprocess.PIPE, text=True, check=True)
    assert scratch.path not in left.stdout and os.listdir(scratch.path) == ["result.json"], left.stdout
