"""Scratch directories, loop devices and mounts that are gone afterwards, whatever happened in between."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time


def run(*words, check=True, timeout=60, **options):
    """A command; its output is in .stdout (standard error included). Fails loudly."""
    done = subprocess.run([str(w) for w in words], stdin=options.pop("stdin", subprocess.DEVNULL),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
                          check=False, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(str(w) for w in words)}: exit status {done.returncode}\n{done.stdout}")
    return done


def write_file(path, content):
    """Durable when it returns."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def wait_until(condition, timeout=20, what="the condition"):
    """For what no command can wait for. Returns the condition's value once it is true."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout} s")
        time.sleep(0.02)


def mounts_below(path):
    """Mount points at or below `path`, the innermost first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            point = line.split()[4].encode().decode("unicode_escape")
            if point == path or point.startswith(path + "/"):
                found.append(point)
    return sorted(found, key=len, reverse=True)


def processes_naming(path):
    """Processes with `path` on their command line: started for this scratch directory by us."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                if path.encode() in file.read():
                    found.append(int(entry))
    return found


class Scratch:
    """A directory for one test case. Leaving it ends, detaches, unmounts and removes all that is in it."""

    def __init__(self, keep=False):
        self.path = tempfile.mkdtemp(prefix="vmfs-e2e-", dir="/var/tmp")
        self._keep = keep

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def file_system(self, name, kind, size="1G"):
        """A mounted file system of its own, on a loop device; returns its directory."""
        image, point = self / (name + ".fs"), self / name
        run("truncate", "-s", size, image)
        os.mkdir(point)
        if kind == "xfs":
            run("mkfs.xfs", "-q", image)
        elif kind == "ext4":
            run("mkfs.ext4", "-q", "-F", image)
        else:
            run("mkfs.btrfs", "-q", image)
        run("mount", "-o", "loop", image, point)
        return point

    def clean(self):
        for number in (signal.SIGKILL,):
            for pid in processes_naming(self.path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        # Loop devices on images before the mounts that hold the images.
        for _ in range(3):
            for point in mounts_below(self.path):
                for how in ("-f", "-l"):
                    run("umount", how, point, check=False)
            listed = run("losetup", "--noheadings", "--output", "NAME,BACK-FILE", check=False).stdout
            for line in listed.splitlines():
                name, _, backing = line.strip().partition(" ")
                if backing.strip().startswith(self.path):
                    run("losetup", "-d", name, check=False)
        if mounts_below(self.path):
            print(f"  still mounted, so left alone: {self.path}", flush=True)
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if not self._keep:
            self.clean()


@contextlib.contextmanager
def loop_device(image):
    """`losetup` of an image, with direct I/O; detached afterwards."""
    device = run("losetup", "--find", "--show", "--direct-io=on", image).stdout.strip()
    try:
        # Where the file system cannot, the device works all the same, through the page cache.
        direct = run("losetup", "--noheadings", "--output", "DIO", device).stdout.strip()
        assert direct == "1", f"{device}: no direct I/O on {image}: DIO is {direct!r}"
        yield device
    finally:
        run("losetup", "-d", device, check=False)


@contextlib.contextmanager
def mounted(device, point, *options):
    os.makedirs(point, exist_ok=True)
    run("mount", *options, device, point)
    try:
        yield point
    finally:
        if point in mounts_below(point):
            run("umount", point, check=False)
