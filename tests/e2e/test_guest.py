"""Real guests: Debian's kernel under QEMU with its disk on the mount."""

import contextlib
import os

from lib import guest
from lib.nodes import Pair, kill_at_once, vmfs
from lib.runner import Settings, case
from lib.scratch import run

KERNEL = "/var/tmp/vmfs-test-guest"  # made once a machine; nothing of ours is in it but the init script


def make_disk(path, size="128M"):
    run("truncate", "-s", size, path)
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", path)


@contextlib.contextmanager
def checked_copy(path):
    """Its file system is clean apart from journal recovery: replayed first, then nothing is left to mend. On a copy: a
    check must not change what the guest will boot from."""
    copy = path + ".checked"
    run("cp", "--sparse=always", path, copy)
    replayed = run("e2fsck", "-fp", "-E", "journal_only", copy, check=False)
    assert replayed.returncode in (0, 1), replayed.stdout
    run("e2fsck", "-fn", copy)
    yield copy
    os.unlink(copy)


def check_file_system(path):
    with checked_copy(path):
        pass


def check_promised(promised, found, prefix_only=False):
    """Every printed file is there with the right content (sync), or what is there is a prefix (async)."""
    for name, md5 in found.items():
        if name in promised:
            assert md5 == guest.expected_md5(name), f"{name} has the wrong content"
    present = [name in found for name in promised]
    if prefix_only:
        # What is there of the promised is a prefix of them.
        assert present == sorted(present, reverse=True), f"a gap: {[n for n in promised if n not in found]}"
    else:
        assert all(present), f"lost: {[n for n in promised if n not in found]}"
    return sum(present)


@case(seconds=120)
def guest_survives_daemon_deaths(scratch):
    """kill -9 of either node's daemon in turn under a running guest: it does not notice, and both nodes have what it
    was promised."""
    files = guest.build(KERNEL)
    rounds = 200 if Settings.long else 20
    with Pair(scratch, journal_size="128MiB").start() as pair:
        make_disk(pair.a / "web01.img")
        with guest.Guest(files, pair.a / "web01.img", "write") as running:
            running.wait_for("guest: mounted")
            for number in range(rounds):
                running.wait_for("guest: wrote", count=2)
                node = (pair.a, pair.b)[number % 2]
                node.wait_for_another_daemon(node.kill_daemon())
            running.wait_for("guest: wrote", count=5)
            running.kill()
        promised = running.wrote()
        assert not [line for line in running.lines if "error" in line.lower()], running.lines
        check_file_system(pair.a / "web01.img")
        check_promised(promised, guest.check_image(files, pair.a / "web01.img"))
        pair.settle()
        pair.stop()
        run("cmp", pair.a.stored("web01.img"), pair.b.stored("web01.img"))


@case(seconds=180)
def guest_taken_over(scratch):
    """Sync mode: a's holder, daemon and QEMU die in the middle; b has every file that was promised; a follows; then
    both die at once and settle it between themselves."""
    files = guest.build(KERNEL)
    with Pair(scratch, journal_size="128MiB").start() as pair:
        make_disk(pair.a / "web01.img")
        with guest.Guest(files, pair.a / "web01.img", "write") as running:
            running.wait_for("guest: wrote", count=30)
            kill_at_once([pair.a], [running.process])
            running.kill()
        promised = running.wrote()
        pair.b.promote("--force")
        # Before anything writes there: the guest would make again what is missing after the last name that it finds.
        with checked_copy(pair.b / "web01.img") as copy:
            check_promised(promised, guest.check_image(files, copy))
        # It goes on where it was.
        with guest.Guest(files, pair.b / "web01.img", "write") as running:
            running.wait_for("guest: wrote", count=10)
            running.kill()
        again = set(promised) & set(running.wrote())
        assert not again, f"written a second time: {sorted(again)}"
        promised += running.wrote()
        pair.a.mount()
        pair.settle()
        kill_at_once([pair.a, pair.b])
        pair.start()
        check_promised(promised, guest.check_image(files, pair.b / "web01.img"))
        pair.stop()
        run("cmp", pair.a.stored("web01.img"), pair.b.stored("web01.img"))


@case(seconds=120)
def guest_taken_over_async(scratch):
    """Async mode over a slow link: what is on b is a prefix of what was promised, and a consistent file system."""
    files = guest.build(KERNEL)
    with Pair(scratch, mode="async", journal_size="128MiB").start() as pair:
        make_disk(pair.a / "web01.img")
        pair.settle()
        vmfs("set", pair.a.mnt, "compression=off")  # the guest's files are repetitive
        pair.wan.delay(0.05)
        pair.wan.rate(250_000)
        with guest.Guest(files, pair.a / "web01.img", "write") as running:
            running.wait_for("guest: wrote", count=40)
            kill_at_once([pair.a], [running.process])
            running.kill()
        promised = running.wrote()
        pair.wan.cut()  # what is still in the network is lost
        pair.b.promote("--force")
        check_file_system(pair.b / "web01.img")
        there = check_promised(promised, guest.check_image(files, pair.b / "web01.img"), prefix_only=True)
        print(f"        {there} of {len(promised)} promised files are on b")
        assert 0 < there < len(promised), "the link was too fast or too slow to show anything"
