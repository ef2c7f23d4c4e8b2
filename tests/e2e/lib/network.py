"""Two network name spaces and a cable between them, for what a proxy on loopback cannot show: silence."""

import subprocess

from lib.runner import Skip
from lib.scratch import run


class Cable:
    """One end stays here, the other is in a name space of its own. Use as a context manager."""

    HERE, THERE = "10.211.55.1", "10.211.55.2"

    def __init__(self):
        if subprocess.run(["unshare", "-n", "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
            raise Skip("this machine makes no network name spaces")
        # A process that does nothing keeps the name space; its pid names it.
        self.keeper = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        self.name = f"vmfs{self.keeper.pid % 100000}"

    def inside(self, *words, **options):
        """Runs a command in the other name space, with this one's mounts."""
        return run("nsenter", f"--net=/proc/{self.keeper.pid}/ns/net", *words, **options)

    def cut(self):
        """The far end goes down: nothing arrives any more, nothing is reset."""
        self.inside("ip", "link", "set", "cable", "down")

    def mend(self):
        self.inside("ip", "link", "set", "cable", "up")

    def __enter__(self):
        try:
            # Only once the keeper has a name space of its own can the link be put there.
            here = run("readlink", "/proc/self/ns/net").stdout
            while run("readlink", f"/proc/{self.keeper.pid}/ns/net").stdout == here:
                assert self.keeper.poll() is None
            run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "cable", "netns", self.keeper.pid)
            run("ip", "address", "add", self.HERE + "/24", "dev", self.name)
            run("ip", "link", "set", self.name, "up")
            self.inside("ip", "address", "add", self.THERE + "/24", "dev", "cable")
            self.inside("ip", "link", "set", "lo", "up")
            self.mend()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused):
        run("ip", "link", "del", self.name, check=False)
        self.keeper.kill()
        self.keeper.wait()
