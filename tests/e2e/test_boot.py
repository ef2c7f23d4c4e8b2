"""A machine that boots with the installed units and with libvirt (with --long): Debian in a container with its own systemd."""

import os
import subprocess

from lib.debian import copy_tree, inside, make_tree
from lib.nodes import VMFS, Node, vmfs
from lib.runner import Skip, case
from lib.scratch import run, wait_until
from lib.wan import free_port

TREE = "/var/tmp/vmfs-test-boot"  # made once a machine; nothing of ours is in it
BASE = ["systemd-sysv", "dbus", "libfuse3-3", "fuse3", "libssl3", "libzstd1", "libxxhash0", "libfmt9"]
LIBVIRT = ["libvirt-daemon-system", "libvirt-clients"]
UNITS = ["vmfs@guests", "vmfs-ready@guests", "libvirtd", "libvirt-guests"]


class Machine:
    """One that boots from a copy of the tree, with this network and its own systemd."""

    def __init__(self, scratch, name):
        self.name, self.root = name, scratch / name
        copy_tree(TREE, self.root)
        build = os.path.dirname(os.path.abspath(VMFS))
        run("cmake", "--install", build, "--prefix", "/usr", env=dict(os.environ, DESTDIR=self.root))
        self.put("etc/vmfs/guests.conf", "STORE=/srv/store\nMOUNTPOINT=/srv/vm\n")
        self.put("etc/hostname", name + "\n")
        os.makedirs(os.path.join(self.root, "srv/vm"), exist_ok=True)
        run("systemctl", f"--root={self.root}", "enable", *(f"{unit}.service" for unit in UNITS))
        run("systemctl", f"--root={self.root}", "set-default", "multi-user.target")
        self.container, self.init = None, None

    def put(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def boot(self):
        """Returns when one can log in: what waits for guests' services alone may still wait."""
        with open(self.root + ".console", "ab") as console:
            self.container = subprocess.Popen(
                ["systemd-nspawn", "-q", "-D", self.root, "--boot", "--register=no", "--keep-unit", "--resolv-conf=off",
                 "--bind=/dev/fuse", "--capability=all", "--console=pipe"], stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        wait_until(self.find_init, what=f"systemd of {self.name}")
        wait_until(lambda: self.states("systemd-user-sessions") == ["active"], timeout=60, what=f"{self.name} up")

    def find_init(self):
        children = run("pgrep", "-P", str(self.container.pid), "-x", "systemd", check=False).stdout.split()
        self.init = children[0] if children else None
        return self.init

    def run(self, *words, **options):
        return run("nsenter", "-t", self.init, "--all", *words, **options)

    def states(self, *units):
        return self.run("systemctl", "is-active", *units, check=False).stdout.split()

    def all_active(self):
        return self.states(*UNITS) == ["active"] * len(UNITS)

    def power_off(self):
        self.run("systemctl", "poweroff", check=False)
        self.container.wait(60)

    def cut_power(self):
        if self.container and self.container.poll() is None:
            run("kill", "-9", self.init, check=False)
            self.container.wait(30)

    def log(self, *words):
        """What systemd and the units said since the last boot, oldest first."""
        place = os.path.join(self.root, "var/log/journal")
        return run("journalctl", "-D", place, "-b", "--no-pager", "--output=cat", *words).stdout.splitlines()


@case(seconds=900, long=True)
def guests_start_after_the_volume_and_stop_before_it(scratch):
    if not os.path.exists(os.path.join(os.path.dirname(os.path.abspath(VMFS)), "cmake_install.cmake")):
        raise Skip("the program does not come from a build directory")
    make_tree(TREE, BASE, LIBVIRT)
    peer = Node(scratch.path, "b")
    machine = Machine(scratch, "a")
    os.makedirs(os.path.join(machine.root, "var/log/journal"), exist_ok=True)
    inside(machine.root, "vmfs", "init", "/srv/store", "--name", "guests", "--node", "a", "--journal-size", "64M",
           "--listen", f"127.0.0.1:{free_port()}", "--mode", "sync")
    try:
        machine.boot()
        wait_until(machine.all_active, timeout=60, what="guests' services")
        peer.join(machine.run("vmfs", "token", "/srv/store").stdout.strip()).mount()
        vmfs("wait", peer.mnt, "in-sync")
        machine.run("dd", "if=/dev/urandom", "of=/srv/vm/web01.img", "bs=1M", "count=8", "conv=fsync")
        # The pool of the README: libvirt finds what is there, and makes a disk that is on the peer too.
        for words in (["pool-define-as", "vm", "dir", "--target", "/srv/vm"], ["pool-start", "vm"],
                      ["pool-autostart", "vm"], ["vol-create-as", "vm", "web02.img", "16M"]):
            machine.run("virsh", *words)
        assert "web01.img" in machine.run("virsh", "vol-list", "vm").stdout
        wait_until(lambda: os.path.exists(peer / "web02.img"), what="libvirt's new disk on the peer")

        # Stopping the volume stops who runs guests, guests first, and is not taken back.
        machine.run("systemctl", "stop", "vmfs@guests")
        assert machine.states(*UNITS) == ["inactive"] * len(UNITS)
        machine.run("systemctl", "start", "libvirtd", "libvirt-guests")
        assert machine.all_active()

        # A power cut; the other side goes on, and is away while this one boots: one can log in, and no guest starts.
        machine.cut_power()
        peer.promote("--force")
        with open(peer / "web01.img", "r+b") as image:
            image.write(b"written by b")
            os.fsync(image.fileno())
        peer.umount()
        machine.boot()
        wait_until(lambda: machine.states("vmfs@guests") == ["active"], timeout=60, what="the mount")
        states = machine.states(*UNITS)
        assert states == ["active", "activating", "inactive", "inactive"], states
        peer.mount()
        wait_until(machine.all_active, timeout=60, what="guests' services")
        assert machine.run("head", "-c", "12", "/srv/vm/web01.img").stdout == "written by b"
        wait_until(lambda: "web02.img" in machine.run("virsh", "vol-list", "vm", check=False).stdout,
                   what="the pool, which starts by itself")

        machine.power_off()
        said = machine.log("-u", "vmfs@guests", "-u", "libvirtd", "-u", "libvirt-guests", "-u", "init.scope")
        order = [line.split()[1].removesuffix(".service") for line in said if line.startswith("Stopped ")]
        assert [unit for unit in order if unit in UNITS] == ["libvirt-guests", "libvirtd", "vmfs-ready@guests",
                                                              "vmfs@guests"], said
        assert not [line for line in said if "Can't connect" in line], said
        peer.umount()
        run("cmp", peer.stored("web01.img"), os.path.join(machine.root, "srv/store/images/web01.img"))
    finally:
        machine.cut_power()
