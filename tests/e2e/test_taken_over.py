"""A node dies while a program works on its volume: the other one has everything that the program was promised until
then. The dead node comes back and follows, and both stores are equal."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading

from lib.nodes import Pair, kill_at_once
from lib.runner import case
from lib.scratch import loop_device, mounted, read_file, run, wait_until, write_file


def comes_back(pair):
    """a, which was killed, does, and follows. Then both are killed at once, and settle by themselves. All files in both
    stores are the same, but for what a alone had."""
    pair.a.mount()
    pair.settle()
    kill_at_once([pair.a, pair.b])
    pair.start()
    pair.stop()
    assert os.listdir(pair.a.stored(""))
    run("diff", "-r", "--no-dereference", "--exclude=.snapshots", pair.a.stored(""), pair.b.stored(""))
    assert not os.path.exists(pair.b.stored(".snapshots"))
    kept = os.listdir(pair.a.stored(".snapshots")) if os.path.exists(pair.a.stored(".snapshots")) else []
    assert all(name.startswith("left-a-") for name in kept), kept


def all_is_there(pair):
    """b has what a has: in async mode too it is promised then."""
    wait_until(lambda: pair.a.status()["peers"][0]["lag_bytes"] == 0, what="that b has all")


def loop_device_with_xfs(scratch, mode):
    with Pair(scratch, mode=mode, journal_size="128MiB").start() as pair:
        run("truncate", "-s", "400M", pair.a / "disk.img")
        contents, news, ended, go_on = {}, threading.Condition(), [], threading.Event()

        def work(inner):
            with contextlib.suppress(OSError):  # a dies
                while len(contents) != 10 or go_on.wait():
                    name, content = f"f{len(contents)}", os.urandom(50_000 + len(contents))
                    write_file(os.path.join(inner, name), content)
                    with news:
                        contents[name] = content
                        news.notify_all()
            ended.append(True)

        with loop_device(pair.a / "disk.img") as device:
            run("mkfs.xfs", "-q", device)
            with mounted(device, scratch / "inner") as inner:
                worker = threading.Thread(target=work, args=(inner,))
                worker.start()
                with news:
                    assert news.wait_for(lambda: len(contents) >= 10, timeout=60), f"only {len(contents)} files"
                all_is_there(pair)
                go_on.set()
                with news:
                    assert news.wait_for(lambda: len(contents) >= 30, timeout=60), f"only {len(contents)} files"
                assert not ended
                pair.a.kill_node()
                worker.join(timeout=60)
                assert ended, "the writer neither goes on nor fails"
                run("umount", "-l", inner, check=False)
        pair.b.promote("--force")
        with loop_device(pair.b / "disk.img") as device, mounted(device, scratch / "taken", "-o", "nouuid") as taken:
            # Of the last one no fsync was answered: some of it may be there.
            there = len(os.listdir(taken))
            assert set(os.listdir(taken)) == {f"f{number}" for number in range(there)}
            assert there <= len(contents) + 1
            assert there >= (10 if mode == "async" else len(contents)), f"{there} files of {len(contents)}"
            for number in range(min(len(contents), there if mode == "sync" else there - 1)):
                assert read_file(os.path.join(taken, f"f{number}")) == contents[f"f{number}"], number
        run("xfs_repair", "-n", "-f", pair.b / "disk.img")
        print(f"        {there} of {len(contents)} files")
        comes_back(pair)


@case(seconds=120)
def loop_device_with_xfs_sync(scratch):
    """A loop device with XFS on a; a dies while files are written there; every fsynced file is in the file system on b,
    and nothing else than these and the one that was under way."""
    loop_device_with_xfs(scratch, "sync")


@case(seconds=120)
def loop_device_with_xfs_async(scratch):
    """The same in async mode: the first so many files are there."""
    loop_device_with_xfs(scratch, "async")


INSERTER = """
import random, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
connection.execute("pragma journal_mode=wal")
connection.execute("pragma synchronous=full")
connection.execute("create table t(n integer primary key, x blob)")
number = 0
while True:
    connection.execute("insert into t values(?, ?)", (number, random.Random(number).randbytes(300)))
    print(number, flush=True)
    number += 1
"""


def sqlite(scratch, mode):
    with Pair(scratch, mode=mode).start() as pair:
        os.mkdir(pair.a / "db")
        # A process of its own: SQLite maps a file, and what is mapped goes away with a.
        inserter = subprocess.Popen([sys.executable, "-c", INSERTER, pair.a / "db/test.db"], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(100):
            assert inserter.stdout.readline() == f"{number}\n", inserter.stderr.read()
        inserter.send_signal(signal.SIGSTOP)
        all_is_there(pair)
        inserter.send_signal(signal.SIGCONT)
        for number in range(100, 150):
            assert inserter.stdout.readline() == f"{number}\n", inserter.stderr.read()
        assert inserter.poll() is None
        pair.a.kill_node()
        more = inserter.communicate(timeout=60)[0].split()
        committed = 150 + len(more)
        assert more == [str(number) for number in range(150, committed)], more
        pair.b.promote("--force")
        copy = sqlite3.connect(pair.b / "db/test.db", timeout=20)
        assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
        rows = copy.execute("select n, x from t order by n").fetchall()
        assert len(rows) <= committed + 1
        assert len(rows) >= (100 if mode == "async" else committed), f"{len(rows)} rows, {committed} were committed"
        assert rows == [(number, random.Random(number).randbytes(300)) for number in range(len(rows))]
        # It goes on there.
        copy.execute("insert into t values(?, ?)", (len(rows), b"on b"))
        copy.commit()
        copy.close()
        print(f"        {len(rows)} of {committed} rows")
        comes_back(pair)
        copy = sqlite3.connect(pair.a.stored("db/test.db"))
        assert copy.execute("select count(*) from t").fetchone() == (len(rows) + 1,)
        copy.close()


@case(seconds=90)
def sqlite_sync(scratch):
    """SQLite in WAL mode with full syncs: every row that was committed when a died is in b's database, and at most the
    one besides that was being committed."""
    sqlite(scratch, "sync")


@case(seconds=90)
def sqlite_async(scratch):
    """The same in async mode: the first so many rows are there."""
    sqlite(scratch, "async")
