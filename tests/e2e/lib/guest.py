"""A small but real guest: Debian's cloud kernel and a busybox initramfs under QEMU, whose only disk is
an ext4 image. It writes files, prints each name after the file's fsync, and can list what it finds.

The guest's kernel command line says what it does:
  vmfs.do=write   after mounting /dev/vda, write file after file until stopped
  vmfs.do=check   print name and md5 of every file, then power off
"""

import contextlib
import glob
import hashlib
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

FILE_BLOCKS = 5  # 4 KiB blocks a file: small, because each one is a round of fork, write and fsync

INIT = r"""#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /mnt
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod $module; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 200 ]; do usleep 20000; tries=$((tries + 1)); done
mount -t ext4 /dev/vda /mnt || { echo "guest: mount failed"; poweroff -f; }
echo "guest: mounted"
what=$(sed -n 's/.*vmfs.do=\([a-z]*\).*/\1/p' /proc/cmdline)
case "$what" in
write)
  number=$(ls /mnt | sed -n 's/^file-0*\([0-9]\)/\1/p' | sort -n | tail -n 1)
  number=$((${number:-0} + 1))
  while true; do
    name=$(printf 'file-%06d' $number)
    yes "$name" | dd of=/mnt/$name bs=4096 count=BLOCKS iflag=fullblock conv=fsync 2>/dev/null && echo "guest: wrote $name" ||
      { echo "guest: write failed $name"; poweroff -f; }
    number=$((number + 1))
  done ;;
check)
  cd /mnt
  for name in file-*; do [ -f $name ] && echo "guest: found $(md5sum $name)"; done
  cd /
  umount /mnt && echo "guest: checked" ;;
esac
poweroff -f
"""


def expected_md5(name):
    """Of the file that the guest writes under that name."""
    line = (name + "\n").encode()
    size = FILE_BLOCKS * 4096
    return hashlib.md5((line * (size // len(line) + 1))[:size]).hexdigest()


def build(directory):
    """Makes kernel and initramfs in `directory`, once; returns their paths. Needs apt's package lists."""
    kernel, initramfs = os.path.join(directory, "vmlinuz"), os.path.join(directory, "initramfs.gz")
    if os.path.exists(kernel) and os.path.exists(initramfs):
        return kernel, initramfs
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        # apt's own sandbox user must be able to write here.
        os.chmod(scratch, 0o777)
        depends = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], check=True,
                                 capture_output=True, text=True).stdout
        image = re.search(r"Depends: (linux-image-[^\s]+)", depends).group(1)
        subprocess.run(["apt-get", "download", "-qq", image, "busybox-static"], cwd=scratch, check=True,
                       stdout=subprocess.DEVNULL)
        for package in glob.glob(os.path.join(scratch, "*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, os.path.join(scratch, "unpacked")], check=True)
        unpacked = os.path.join(scratch, "unpacked")
        root = os.path.join(scratch, "root")
        os.makedirs(os.path.join(root, "bin"))
        os.makedirs(os.path.join(root, "modules"))
        shutil.copy(os.path.join(unpacked, "bin/busybox"), os.path.join(root, "bin/busybox"))
        # In the order of insmod.
        wanted = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk",
                  "crc16", "mbcache", "jbd2", "crc32c_generic", "libcrc32c", "ext4"]
        number = 0
        for module in wanted:
            found = glob.glob(os.path.join(unpacked, "lib/modules/*/kernel/**", module + ".ko"),
                              recursive=True)
            for path in found:  # what is built into the kernel has no file
                shutil.copy(path, os.path.join(root, "modules", f"{number:02d}-{module}.ko"))
                number += 1
        with open(os.path.join(root, "init"), "w", encoding="ascii") as file:
            file.write(INIT.replace("BLOCKS", str(FILE_BLOCKS)))
        os.chmod(os.path.join(root, "init"), 0o755)
        subprocess.run("find . | cpio --quiet -o -H newc | gzip -1 > " + initramfs + ".new", shell=True,
                       cwd=root, check=True)
        shutil.copy(glob.glob(os.path.join(unpacked, "boot/vmlinuz-*"))[0], kernel)
        os.rename(initramfs + ".new", initramfs)
    return kernel, initramfs


class Guest:
    """One run of the guest. Use as a context manager: the process is ended on leaving."""

    def __init__(self, files, image, do, show=False):
        kernel, initramfs = files
        self._show = show  # print what the guest prints
        self.lines = []
        self._queue = queue.Queue()
        # An emulated processor on a busy machine may miss the few ticks by which the kernel checks its timer at boot.
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "160", "-nographic", "-no-reboot",
             "-nodefaults", "-serial", "stdio", "-monitor", "none", "-kernel", kernel, "-initrd", initramfs,
             "-append", f"console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check vmfs.do={do}",
             "-drive", f"file={image},format=raw,if=none,id=disk,cache=none,aio=threads,werror=report,rerror=report",
             "-device", "virtio-blk-pci,drive=disk"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if show:
            print(f"guest: pid {self.process.pid}", flush=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").strip()
            self.lines.append(line)
            if self._show and line.startswith("guest:"):
                print(line, flush=True)
            self._queue.put(line)
        self._queue.put(None)

    def _threads(self):
        """What each thread of QEMU waits for and how much it runs: tells a guest that spins from one that waits for its
        disk."""
        def text_of(path):
            with open(path, encoding="ascii", errors="replace") as file:
                return file.read()

        def look():
            found = {}
            for task in glob.glob(f"/proc/{self.process.pid}/task/*"):
                with contextlib.suppress(OSError):
                    name, fields = text_of(task + "/stat").split("(", 1)[1].rsplit(")", 1)
                    fields = fields.split()
                    found[f"{name} {os.path.basename(task)}"] = (
                        fields[0], int(fields[11]) + int(fields[12]), text_of(task + "/wchan"))
            return found

        before = look()
        time.sleep(1)  # for the rate
        return "\n".join(f"  {name}: {state} in {place}, {ticks - before.get(name, (state, ticks))[1]} ticks a second"
                         for name, (state, ticks, place) in sorted(look().items()))

    def wait_for(self, pattern, count=1, timeout=90):
        """Waits until `count` further lines match; returns the last match."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._queue.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the guest did not print {pattern!r} in {timeout} s; last lines: {self.lines[-5:]}\n"
                                     f"QEMU's threads:\n{self._threads()}")
            if line is None:
                raise AssertionError(f"the guest ended before it printed {pattern!r}; last lines: {self.lines[-8:]}")
            match = re.search(pattern, line)
            if match:
                count -= 1
                if count == 0:
                    return match

    def wrote(self):
        """Names that were printed after their fsync, in order."""
        return [m.group(1) for m in (re.match(r"guest: wrote (\S+)", line) for line in list(self.lines)) if m]

    def found(self):
        """Of a check: {name: md5}."""
        return {m.group(2): m.group(1)
                for m in (re.match(r"guest: found (\S+)\s+(\S+)", line) for line in list(self.lines)) if m}

    def kill(self):
        """kill -9; what it printed so far can be read afterwards."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.kill()


def check_image(files, image, timeout=120):
    """Boots the guest from the image and returns what it finds: {name: md5}."""
    with Guest(files, image, "check") as guest:
        guest.wait_for(r"guest: checked", timeout=timeout)
        return guest.found()


def main():
    """guest.py build DIR | guest.py write DIR IMAGE | guest.py check DIR IMAGE"""
    words = sys.argv[1:]
    if len(words) == 2 and words[0] == "build":
        build(words[1])
    elif len(words) == 3 and words[0] in ("write", "check"):
        with Guest(build(words[1]), words[2], words[0], show=True) as guest:
            sys.exit(guest.process.wait())
    else:
        sys.exit("usage: " + main.__doc__)


if __name__ == "__main__":
    main()
