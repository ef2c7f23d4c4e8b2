"""What an installation puts where, and the volume mounted as mount(8) and fstab do it."""

import os
import re
import shlex
import shutil
import subprocess

from lib.nodes import ROOT, VMFS, Node
from lib.runner import Skip, case
from lib.scratch import run, wait_until

PREFIX = "usr/local"


class MountNamespace:
    """mount(8) looks for its helpers in /sbin: here that is a directory which holds mount.vmfs alone, a link to the program,
    in a mount name space of its own. The machine's own /sbin stays as it is."""

    def __init__(self, scratch):
        helpers = scratch / "sbin"
        os.mkdir(helpers)
        os.symlink(VMFS, os.path.join(helpers, "mount.vmfs"))
        self.setup = f"mount --bind {shlex.quote(helpers)} {os.path.realpath('/sbin')}"
        if subprocess.run(["unshare", "--mount", "sh", "-c", self.setup], check=False,
                          stderr=subprocess.DEVNULL).returncode != 0:
            raise Skip("this machine makes no mount name spaces")

    def run(self, script, check=True):
        """A shell script inside; mounts that it leaves go with it."""
        return run("unshare", "--mount", "sh", "-euc", self.setup + "\n" + script, check=check)


@case(seconds=60)
def mount_helper(scratch):
    """mount.vmfs as mount(8) calls it: by hand, through an fstab entry, and with `mount -a`."""
    node = Node(scratch.path, "a").init(journal_size="32MiB")
    space = MountNamespace(scratch)
    # How mount(8) calls its helpers; and what it has not understood itself.
    helper = f"/sbin/mount.vmfs {node.store} {node.mnt}"
    assert space.run(f"{helper} -f -n -o ro,nofail; {not_mounted(node)}").stdout == ""
    done = space.run(f"{helper} -o rw,nonsense", check=False)
    assert done.returncode != 0 and "nonsense" in done.stdout, done.stdout
    done = space.run(f"{helper} -s -X", check=False)
    assert done.returncode != 0 and "-X" in done.stdout, done.stdout
    done = space.run(f"/sbin/mount.vmfs {node.store}", check=False)
    assert done.returncode != 0 and "usage" in done.stdout, done.stdout
    space.run(f"""
        {helper} -n -v -o rw,nofail,_netdev,x-systemd.requires=network.target
        echo first >{node.mnt}/file
        umount {node.mnt}""")
    node_is_free(node)
    shown = space.run(f"""
        {helper} -n -o ro,nofail,noexec
        cat {node.mnt}/file
        findmnt -n -o FSTYPE,OPTIONS {node.mnt}
        touch {node.mnt}/new || true
        umount {node.mnt}""").stdout
    assert shown.startswith("first\n") and "fuse.vmfs" in shown and "Read-only file system" in shown, shown
    options = re.search(r"fuse\.vmfs\s+(\S+)", shown)[1].split(",")
    assert {"ro", "noexec", "nosuid", "nodev"} <= set(options), options
    # By type, and by both kinds of fstab entry. One of them must not be mounted by `mount -a`.
    other = Node(scratch.path, "c").init(journal_size="32MiB")
    fstab = scratch / "fstab"
    with open(fstab, "w", encoding="ascii") as file:
        file.write(f"{node.store}  {node.mnt}  vmfs  nofail,_netdev  0  0\n"
                   f"{other.store}  {other.mnt}  vmfs  noauto,ro  0  0\n")
    node_is_free(node)
    space.run(f"""
        mount -t vmfs {node.store} {node.mnt}
        echo second >>{node.mnt}/file
        {VMFS} umount {node.mnt}
        mount -T {fstab} {node.mnt}
        echo third >>{node.mnt}/file
        {VMFS} umount {node.mnt}
        mount -T {fstab} -a
        echo fourth >>{node.mnt}/file
        {not_mounted(other)}
        mount -T {fstab} {other.mnt}
        findmnt -n -o OPTIONS {other.mnt} | grep -q ^ro,
        {VMFS} umount {other.mnt}
        {VMFS} status {node.mnt}
        {VMFS} umount {node.mnt}""")
    with open(node.stored("file"), encoding="ascii") as file:
        assert file.read() == "first\nsecond\nthird\nfourth\n"
    # What cannot be mounted is an error of `mount`, with the reason.
    shutil.rmtree(other.store)
    done = space.run(f"mount -T {fstab} {other.mnt}", check=False)
    assert done.returncode != 0 and other.store in done.stdout, done.stdout


def not_mounted(node):
    """For a script, which a failing `! command` does not end."""
    return f"if mountpoint -q {node.mnt}; then echo {node.mnt} is mounted; exit 9; fi"


def node_is_free(node):
    """Returns once the holder of the mount before has gone: umount(8) does not wait for it."""
    wait_until(lambda: run(VMFS, "recover", node.store, check=False).returncode == 0, what="the end of the mount")


@case(seconds=60)
def installation(scratch):
    """`cmake --install`: the program, its manual, the helper as a link to it, and the units, which name it."""
    build = os.path.dirname(os.path.abspath(VMFS))
    if not os.path.exists(os.path.join(build, "cmake_install.cmake")) or not shutil.which("cmake"):
        raise Skip("the program does not come from a build directory")
    if shutil.which("scdoc"):
        run("cmake", "--build", build, "--target", "man", timeout=50)
    staging = scratch / "staging"
    run("cmake", "--install", build, "--prefix", "/" + PREFIX, "--strip", env=dict(os.environ, DESTDIR=staging))
    found = {os.path.relpath(os.path.join(place, name), staging)
             for place, _, names in os.walk(staging) for name in names}
    expected = {f"{PREFIX}/bin/vmfs", "sbin/mount.vmfs", "lib/systemd/system/vmfs@.service",
                "lib/systemd/system/vmfs-ready@.service", "lib/systemd/system/libvirt-guests.service.d/vmfs.conf"}
    manual = {f"{PREFIX}/share/man/man1/vmfs.1", f"{PREFIX}/share/man/man5/vmfs.toml.5"}
    if shutil.which("scdoc"):
        expected |= manual
    assert found == expected, f"missing: {expected - found}, besides: {found - expected}"
    program = os.path.join(staging, PREFIX, "bin/vmfs")
    assert run(program, "--version").stdout == run(VMFS, "--version").stdout
    assert os.readlink(os.path.join(staging, "sbin/mount.vmfs")) == f"/{PREFIX}/bin/vmfs"
    for unit in ("vmfs@.service", "vmfs-ready@.service"):
        with open(os.path.join(staging, "lib/systemd/system", unit), encoding="utf-8") as file:
            text = file.read()
        with open(os.path.join(ROOT, "packaging/systemd", unit), encoding="utf-8") as file:
            assert text == file.read().replace("/usr/bin/vmfs", f"/{PREFIX}/bin/vmfs")
        assert f"/{PREFIX}/bin/vmfs " in text, f"{unit} does not start the program"
    # And it mounts, by the name that the link gives it.
    node = Node(scratch.path, "a").init(journal_size="32MiB")
    os.symlink(program, scratch / "mount.vmfs")
    run(scratch / "mount.vmfs", node.store, node.mnt, "-o", "rw")
    assert os.readlink(f"/proc/{node.daemon_pid()}/exe") == program
    node.umount()
