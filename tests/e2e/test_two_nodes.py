"""Two nodes: what is written on one is on the other, whatever happens to the link, and either may take over."""

import errno
import glob
import os
import random
import re
import shutil

from lib.nodes import Pair, kill_at_once, vmfs
from lib.runner import Settings, case
from lib.scratch import read_file, run, wait_until, write_file
from lib.work import Fio, fio, fio_under_faults


def same(first, second):
    run("cmp", first, second)


@case(seconds=90)
def written_here_and_read_there(scratch):
    """Data, names and attributes; the stores are equal after clean unmounts."""
    with Pair(scratch).start() as pair:
        os.mkdir(pair.a / "guests")
        content = os.urandom(3_000_000)
        write_file(pair.a / "guests/one.img", content)
        os.chmod(pair.a / "guests/one.img", 0o640)
        os.symlink("guests/one.img", pair.a / "link")
        assert read_file(pair.b / "guests/one.img") == content
        # Nobody asked for the link to be durable, so it is shown there a moment later.
        wait_until(lambda: os.path.lexists(pair.b / "link"), what="the link on b")
        assert os.readlink(pair.b / "link") == "guests/one.img"
        # Who asks for it, by the directory's fsync, has it there when that returns.
        os.symlink("guests", pair.a / "second")
        directory = os.open(pair.a.mnt, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
        assert os.readlink(pair.b / "second") == "guests"
        assert os.stat(pair.b / "guests/one.img").st_mode & 0o777 == 0o640
        write_file(pair.a / "guests/one.img", content[::-1])
        assert read_file(pair.b / "guests/one.img") == content[::-1]
        os.rename(pair.a / "guests/one.img", pair.a / "two.img")
        run("sync", "-f", pair.a.mnt)
        wait_until(lambda: os.path.exists(pair.b / "two.img"), what="the renamed image on b")
        assert pair.a.image("two.img")["role"] == "primary"
        assert pair.b.image("two.img")["role"] == "secondary"
        pair.stop()
        same(pair.a.stored("two.img"), pair.b.stored("two.img"))
        assert sorted(os.listdir(pair.a.stored(""))) == sorted(os.listdir(pair.b.stored("")))


@case(seconds=90)
def promoted_and_read_through_the_cache(scratch):
    """cat on b, write on a, promote b, buffered read on b: the new bytes. And b's write asks for the token."""
    with Pair(scratch).start() as pair:
        write_file(pair.a / "x.img", b"old" * 100_000)
        assert read_file(pair.b / "x.img") == b"old" * 100_000
        write_file(pair.a / "x.img", b"new" * 100_000)
        pair.b.promote(path=pair.b / "x.img")
        assert read_file(pair.b / "x.img") == b"new" * 100_000
        assert pair.b.image("x.img")["role"] == "primary"
        assert pair.a.image("x.img")["role"] == "secondary"
        # The first write takes it back by itself.
        with open(pair.a / "x.img", "r+b") as file:
            file.write(b"again")
            file.flush()
            os.fsync(file.fileno())
        assert pair.a.image("x.img")["role"] == "primary"
        assert read_file(pair.b / "x.img")[:5] == b"again"
        pair.stop()
        same(pair.a.stored("x.img"), pair.b.stored("x.img"))


@case(seconds=150)
def link_cut_twenty_times_under_fio(scratch):
    """Random writes and, on another image, mixed reads and writes, both with verify, while the link breaks and comes
    back; both stores end byte for byte equal, and nothing was copied whole."""
    with Pair(scratch, journal_size="256MiB").start() as pair:
        before = [pair.a.copies(), pair.b.copies()]
        pair.wan.rate(40_000_000)
        dice = random.Random(1)
        mixed = None

        def cut_and_mend(_):
            pair.wan.cut()
            mixed.goes_on(dice.randrange(20, 300))
            passed = pair.wan.bytes_passed()
            pair.wan.mend()
            # So that the next cut breaks a link which was there.
            wait_until(lambda: pair.wan.bytes_passed() > passed, what="bytes on the mended link")

        options = {"bs": "4k", "iodepth": 8, "direct": 1, "verify": "xxhash", "fsync": 64, "rate_iops": 2500}
        cuts = 0
        while cuts < (100 if Settings.long else 20):
            with Fio(pair.a / "mixed.img", rw="randrw", size="32m", randseed=cuts + 1, **options) as mixed:
                cuts += fio_under_faults(pair.a / "disk.img", cut_and_mend, 1, 200, rw="randwrite",
                                         size="32m", **options)
                mixed.finish()
        print(f"        {cuts} cuts")
        pair.settle()
        assert [pair.a.copies(), pair.b.copies()] == before, "something was copied, where the journal had all of it"
        for name in ("disk.img", "mixed.img"):
            same(pair.a / name, pair.b / name)
        pair.stop()
        for name in ("disk.img", "mixed.img"):
            same(pair.a.stored(name), pair.b.stored(name))


@case(seconds=120)
def journal_outgrown_while_cut(scratch):
    """More is written than the journal keeps for an absent peer: a full copy brings it back, by itself. Until it ends,
    its target cannot be promoted."""
    with Pair(scratch, journal_size="32MiB").start() as pair:
        write_file(pair.a / "disk.img", os.urandom(24 << 20))  # all of it: fio would replace a smaller one by another
        pair.wan.cut()
        for number in range(6):
            fio(pair.a / "disk.img", size="24m", rw="randwrite", bs="64k", iodepth=4, direct=1, fsync=50,
                randseed=number + 1)
        before = pair.a.copies()
        told = "the journal does not hold all of that any more"
        wait_until(lambda: any(told in problem for problem in pair.a.status()["problems"]), what="that it is outgrown")
        assert pair.a.status()["peers"][0]["journal_reused"]
        wait_until(lambda: "<4>b: has been away for longer than the journal keeps records for it" in pair.a.logs(),
                   what="the log's word on it")
        pair.wan.rate(4_000_000)
        pair.wan.mend()
        wait_until(lambda: pair.b.image("disk.img")["role"] == "inconsistent", what="the copy's beginning")
        for words in ((), ("--force",)):
            refused = pair.b.promote(*words, path=pair.b / "disk.img", check=False)
            assert refused.returncode != 0 and "a copy is under way" in refused.stdout, refused.stdout
        assert pair.b.image("disk.img")["role"] == "inconsistent", "the copy had ended: the refusals prove nothing"
        pair.wan.rate(0)
        pair.settle(timeout=60)
        assert not pair.a.status()["peers"][0]["journal_reused"]
        assert pair.a.copies() > before and pair.b.copies() == 0
        said = f"<4>{pair.a / 'disk.img'}: is copied whole to b: the journal space of what it lacks was reused"
        assert said in pair.a.logs().splitlines(), pair.a.logs()
        pair.stop()
        same(pair.a.stored("disk.img"), pair.b.stored("disk.img"))


@case(seconds=60)
def journals_elsewhere(scratch):
    """--journal on both nodes: nothing of it is in the store, and `vmfs recover` finds it."""
    journals = {name: scratch / f"journal-{name}" for name in "ab"}
    with Pair(scratch, journals=journals).start() as pair:
        content = os.urandom(3_000_000)
        write_file(pair.a / "x.img", content)
        pair.settle()
        for node in (pair.b, pair.a):
            node.kill_node()
            assert not os.path.exists(os.path.join(node.store, "journal"))
            assert glob.glob(os.path.join(journals[node.name], "*.seg"))
            vmfs("recover", node.store)
            assert read_file(node.stored("x.img")) == content, node.name


@case(seconds=120)
def owner_dies_and_comes_back(scratch):
    """a is killed; b refuses to be promoted without --force and says why; with it, everything flushed is there; a
    follows by itself, and what only it had is kept. What was removed on b meanwhile goes on a, too."""
    with Pair(scratch).start() as pair:
        content = os.urandom(1_000_000)
        write_file(pair.a / "x.img", content)
        write_file(pair.a / "removed.img", content)
        pair.a.wait("in-sync")
        # A write that is acknowledged, and that the network swallows before a can know that it is alone.
        pair.wan.stall()
        with open(pair.a / "x.img", "r+b", buffering=0) as file:
            file.seek(500_000)
            file.write(b"only a has this")
        os.mkdir(pair.a / "only-on-a")
        os.chown(pair.a / "only-on-a", 12, 34)
        os.symlink("where it leads", pair.a / "link-on-a")
        pair.a.kill_node()
        pair.wan.cut()
        pair.wan.flow()
        only_a = content[:500_000] + b"only a has this" + content[500_015:]
        wait_until(lambda: pair.b.status()["peers"][0]["link"] != "connected", what="b's notice of the loss")
        try:
            with open(pair.b / "x.img", "r+b") as file:
                file.write(b"no")
            raise AssertionError("written without the token")
        except OSError as error:
            assert error.errno == errno.EROFS, error
        refusal = pair.b.promote(check=False)
        assert refusal.returncode == 5, refusal.stdout
        for part in (r"a: last contact 20\d\d-\S+ \S+ UTC \(\d+ s ago\), in sync then",
                     "may be lost: what it acknowledged alone", "may still be alive, and may have gone on alone", "--force"):
            assert re.search(part, refusal.stdout), f"{part!r} is not in: {refusal.stdout}"
        pair.b.promote("--force")
        assert read_file(pair.b / "x.img") == content
        with open(pair.b / "x.img", "r+b") as file:
            file.write(b"written on b")
            file.flush()
            os.fsync(file.fileno())
        os.unlink(pair.b / "removed.img")
        pair.wan.mend()
        pair.a.mount()
        pair.settle()
        names = [set(os.listdir(node.mnt)) - {".snapshots"} for node in (pair.a, pair.b)]
        assert names == [{"x.img"}] * 2, names
        assert read_file(pair.a / "x.img") == b"written on b" + content[12:]
        assert pair.b.image("x.img")["role"] == "primary"
        kept = glob.glob(pair.a / ".snapshots/left-a-*/x.img")
        assert len(kept) == 1 and read_file(kept[0]) == only_a, f"what only a had is not kept: {kept}"
        try:
            os.close(os.open(kept[0], os.O_WRONLY))
            raise AssertionError("what is kept can be written to")
        except OSError as error:
            assert error.errno == errno.EROFS, error
        pair.stop()
        same(pair.a.stored("x.img"), pair.b.stored("x.img"))
        listed = vmfs("inspect", os.path.join(pair.a.store, "kept-names")).stdout
        for line in (r"[0-9a-f]{16} directory 0755 12:34 \d{10} only-on-a", r"[0-9a-f]{16} symlink +0777 0:0 \d{10} link-on-a "
                     r"-> where it leads", r"[0-9a-f]{16} image +0\d{3} 0:0 \d{10} x\.img"):
            assert re.search(line, listed), f"{line} is not in: {listed}"
        # Whoever has seen what was kept has the space back.
        shutil.rmtree(pair.a.stored(".snapshots"))
        pair.a.mount()
        assert os.listdir(pair.a.mnt) == ["x.img"]
        pair.stop()


@case(seconds=90)
def async_is_a_prefix(scratch):
    """Async mode over a slow link: of two images that were written in turn, b has a beginning of what was promised."""
    with Pair(scratch, mode="async").start() as pair:
        images = [os.open(pair.a / name, os.O_RDWR | os.O_CREAT) for name in ("x.img", "y.img")]
        pair.settle()
        pair.wan.delay(0.02)
        pair.wan.rate(200_000)
        blocks = [os.urandom(4096) for _ in range(1000)]
        for number, block in enumerate(blocks):
            os.pwrite(images[number % 2], block, number * 4096)
            os.fsync(images[number % 2])
        wait_until(lambda: os.stat(pair.b / "x.img").st_size > 0, what="something on b")
        pair.a.kill_node()
        pair.wan.cut()
        pair.b.promote("--force")
        there = [read_file(pair.b / name) for name in ("x.img", "y.img")]
        present = [there[number % 2][number * 4096:][:4096] == block for number, block in enumerate(blocks)]
        count = sum(present)
        assert present == [True] * count + [False] * (len(blocks) - count), f"a gap: {present}"
        assert 0 < count < len(blocks), f"{count} of {len(blocks)}: the link was not as slow as meant"
        # It comes back with what it alone had: that is kept, and b's state is everybody's.
        pair.wan.mend()
        pair.wan.rate(0)
        pair.a.mount()
        pair.settle()
        same(pair.a / "x.img", pair.b / "x.img")
        same(pair.a / "y.img", pair.b / "y.img")
        kept = [read_file(path) for name in ("x.img", "y.img") for path in glob.glob(pair.a / f".snapshots/*/{name}")]
        assert len(kept) == 2, "what only a had is not kept"
        for number, block in enumerate(blocks):
            assert kept[number % 2][number * 4096:][:4096] == block, f"block {number} is not in what was kept"
        pair.stop()
        same(pair.a.stored("x.img"), pair.b.stored("x.img"))
        same(pair.a.stored("y.img"), pair.b.stored("y.img"))


@case(seconds=120)
def both_die_at_once(scratch):
    """After a site's power cut the two settle between themselves who owns what, without a person."""
    with Pair(scratch).start() as pair:
        content = os.urandom(500_000)
        write_file(pair.a / "x.img", content)
        write_file(pair.b / "y.img", content)
        kill_at_once([pair.a, pair.b])
        pair.start()
        for node in (pair.a, pair.b):
            assert read_file(node / "x.img") == content
            assert read_file(node / "y.img") == content
        write_file(pair.a / "x.img", content[::-1])
        assert read_file(pair.b / "x.img") == content[::-1]
        pair.stop()
        same(pair.a.stored("x.img"), pair.b.stored("x.img"))


@case(seconds=150)
def split_brain_is_told_and_settled(scratch):
    """Both sides go on alone; replication of these images stops, both are kept; resolve settles it either way."""
    with Pair(scratch).start() as pair:
        for name in ("x.img", "y.img"):
            write_file(pair.a / name, b"common" * 1000)
        write_file(pair.a / "other.img", b"other")
        pair.wan.cut()
        wait_until(lambda: pair.b.status()["peers"][0]["link"] != "connected", what="b's notice of the loss")
        for name in ("x.img", "y.img"):
            pair.b.promote("--force", path=pair.b / name)
            write_file(pair.a / name, b"from a" * 1000)
            write_file(pair.b / name, b"from b" * 1000)
        pair.wan.mend()
        pair.a.wait("connected")
        for node in (pair.a, pair.b):
            for name in ("x.img", "y.img"):
                wait_until(lambda node=node, name=name: node.image(name)["state"] == "split", what="the split's notice")
        for name in ("x.img", "y.img"):
            assert read_file(pair.a / name) == b"from a" * 1000
            assert read_file(pair.b / name) == b"from b" * 1000
            assert any(f"vmfs resolve {pair.a / name}" in problem for problem in pair.a.status()["problems"])
        vmfs("resolve", pair.a / "x.img", "--keep", "local")
        wait_until(lambda: pair.b.image("x.img")["state"] == "in-sync", timeout=30, what="the copy to b")
        assert read_file(pair.b / "x.img") == b"from a" * 1000
        kept = glob.glob(pair.b / ".snapshots/*/x.img")
        assert kept and read_file(kept[0]) == b"from b" * 1000, f"the loser is not kept: {kept}"
        vmfs("resolve", pair.a / "y.img", "--keep", "peer")
        wait_until(lambda: pair.a.image("y.img")["state"] == "in-sync", timeout=30, what="the copy to a")
        assert read_file(pair.a / "y.img") == b"from b" * 1000
        kept = glob.glob(pair.a / ".snapshots/left-a-*/y.img")
        assert kept and read_file(kept[0]) == b"from a" * 1000, f"the loser is not kept: {kept}"
        assert read_file(pair.b / "other.img") == b"other"
        pair.stop()
        same(pair.a.stored("x.img"), pair.b.stored("x.img"))


@case(seconds=180)
def daemons_killed_under_fio(scratch):
    """kill -9 of either daemon in turn: no error in the client, both stores equal."""
    with Pair(scratch, journal_size="128MiB").start() as pair:

        def fault(number):
            node = (pair.a, pair.b)[number % 2]
            # A daemon that dies again and again without ever answering anybody is given up.
            os.listdir(node.mnt)
            node.wait_for_another_daemon(node.kill_daemon())

        deaths = fio_under_faults(pair.a / "disk.img", fault, 200 if Settings.long else 20, 1200, size="24m", rw="randrw",
                                  bs="4k", iodepth=8, direct=1, verify="xxhash", fsync=64, rate_iops=2000)
        print(f"        {deaths} deaths")
        pair.settle()
        pair.stop()
        same(pair.a.stored("disk.img"), pair.b.stored("disk.img"))


@case(seconds=90)
def joining_a_volume_with_data(scratch):
    """What was there before the second node came is copied to it."""
    with Pair(scratch) as pair:
        pair.a.mount()
        os.mkdir(pair.a / "d")
        content = os.urandom(5_000_000)
        write_file(pair.a / "d/before.img", content)
        with open(pair.a / "sparse.img", "wb") as file:
            file.truncate(10 << 30)
            file.seek(5 << 30)
            file.write(b"middle")
        pair.b.mount()
        pair.settle()
        assert read_file(pair.b / "d/before.img") == content
        pair.stop()
        same(pair.a.stored("d/before.img"), pair.b.stored("d/before.img"))
        stat = os.stat(pair.b.stored("sparse.img"))
        assert stat.st_size == 10 << 30 and stat.st_blocks * 512 < 1 << 20, "the hole was filled"


@case(seconds=60)
def clean_unmount_hands_over(scratch):
    """a is unmounted: b owns everything and writes at once, without force."""
    with Pair(scratch).start() as pair:
        write_file(pair.a / "x.img", b"from a")
        pair.a.umount()
        write_file(pair.b / "x.img", b"from b")
        assert pair.b.image("x.img")["role"] == "primary"
        pair.a.mount()
        pair.settle()
        assert read_file(pair.a / "x.img") == b"from b"
