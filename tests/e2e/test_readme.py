"""The commands of README.md, as they stand there, with this machine in the place of both."""

import os
import re
import subprocess

from lib.nodes import ROOT, VMFS, Node
from lib.runner import case
from lib.scratch import run
from lib.wan import free_port


@case(seconds=90)
def two_machines(scratch):
    """What follows "## Two machines", line by line; "host-a dies" kills what host-a runs."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        section = file.read().split("\n## Two machines\n")[1].split("\n## ")[0]
    hosts = {name: Node(scratch.path, name, port=free_port()) for name in ("host-a", "host-b")}
    for name, node in hosts.items():
        os.makedirs(scratch / f"{name}/srv/vm")
        node.store, node.mnt = scratch / f"{name}/srv/vm.store", scratch / f"{name}/srv/vm"

    def there(host, words):
        """A command line as it would be typed on that host."""
        words = words.replace("/srv/vm", scratch / f"{host}/srv/vm")
        words = re.sub(r"vmfs (init|join) ", rf"vmfs \1 --node {host} ", words)
        for number, node in enumerate(hosts.values(), 1):
            words = words.replace(f"10.0.0.{number}:7411", f"127.0.0.1:{node.port}")
        return words

    commands = 0
    environment = dict(os.environ, PATH=os.path.dirname(VMFS) + ":" + os.environ["PATH"])
    for line in section.splitlines():
        if line == "host-a dies:":
            hosts["host-a"].kill_node()
        typed = re.match(r"    (host-[ab])\$ (.*?)(\s+#.*)?$", line)
        if not typed:
            assert not line.startswith("    "), f"not run: {line}"
            continue
        here, _, far = typed[2].partition("ssh host-b ")
        done = subprocess.run(["bash", "-o", "pipefail", "-c", there(typed[1], here) + there("host-b", far)],
                              env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        refused = "refuses" in (typed[3] or "")
        assert done.returncode == (5 if refused else 0), f"{line}\nexit status {done.returncode}: {done.stdout}"
        assert not refused or "--force" in done.stdout, done.stdout
        commands += 1
    assert commands >= 10, f"only {commands} commands in the README"
    assert hosts["host-a"].image("web01.qcow2")["role"] == "primary"
    for node in hosts.values():
        node.umount()
    run("cmp", *[node.stored("web01.qcow2") for node in hosts.values()])
