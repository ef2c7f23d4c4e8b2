"""PostgreSQL on the mount (with --long): taken over in the middle of pgbench, checked."""

import glob
import os
import re
import subprocess
import time

from lib.nodes import Pair, kill_at_once
from lib.runner import Skip, case
from lib.scratch import run


def binary(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    if not found:
        raise Skip("PostgreSQL is not installed")
    return found[-1]


AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
COMMITS = 500


def as_postgres(*words, **options):
    return run(*AS_POSTGRES, *words, **options)


@case(seconds=300, long=True)
def pgbench_taken_over(scratch):
    """The server's machine dies while pgbench works: each commit that returned is on the node that takes over, the data
    directory is clean by pg_checksums there, and the dead node follows."""
    os.chmod(scratch.path, 0o755)
    with Pair(scratch, journal_size="512MiB").start() as pair:
        for node in (pair.a, pair.b):
            os.chmod(node.directory, 0o755)
        data, sockets = pair.a / "pg", scratch / "sockets"
        for path in (data, sockets):
            os.mkdir(path, 0o700)
            run("chown", "postgres:postgres", path)
        as_postgres(binary("initdb"), "--data-checksums", "-D", data, "-A", "trust", timeout=240)
        settings = f"-k {sockets} -c listen_addresses= -c fsync=on -c full_page_writes=on"
        server = subprocess.Popen([*AS_POSTGRES, binary("postgres"), "-D", data, *settings.split()],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while as_postgres(binary("pg_isready"), "-h", sockets, check=False).returncode != 0:
                assert time.monotonic() < deadline, "PostgreSQL does not start"
            as_postgres(binary("pgbench"), "-h", sockets, "-q", "-i", "-s", "5", "postgres", timeout=240)
            as_postgres(binary("psql"), "-h", sockets, "-q", "-c", "create table promised(n int primary key)", "postgres")
            pair.settle()
            load = subprocess.Popen([*AS_POSTGRES, binary("pgbench"), "-h", sockets, "-c", "4", "-T", "600", "postgres"],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Each line that psql prints is a commit that has returned.
            client = subprocess.Popen([*AS_POSTGRES, "stdbuf", "-oL", binary("psql"), "-h", sockets, "-AtqX", "-v",
                                       "ON_ERROR_STOP=1", "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True)
            promised = 0
            for _ in range(COMMITS):
                client.stdin.write(f"insert into promised values({promised}) returning n;\n")
                client.stdin.flush()
                assert client.stdout.readline() == f"{promised}\n", "an insertion failed while a lived"
                promised += 1
            # One more is under way, and pgbench's are.
            client.stdin.write("".join(f"insert into promised values({n}) returning n;\n"
                                       for n in range(promised, promised + 1000)))
            client.stdin.flush()
            assert load.poll() is None, "pgbench has ended"
        finally:
            pair.a.kill_node()
            # The one of its processes that sees the disk fail ends, and the server then ends the others, which may wait
            # for that one's locks; it does not come up again without its disk. Nobody else would end them.
            server.wait(timeout=60)
        for line in client.stdout:
            assert line == f"{promised}\n", line
            promised += 1
        for process in (client, load):
            process.kill()
            process.wait()
        pair.b.promote("--force")
        data = pair.b / "pg"
        for stale in ("postmaster.pid",):
            if os.path.exists(os.path.join(data, stale)):
                os.unlink(os.path.join(data, stale))
        # Single-user mode recovers from the write-ahead log and stops cleanly.
        said = as_postgres(binary("postgres"), "--single", "-D", data, "postgres", stdin=None, timeout=240,
                           input="select count(*) as rows, max(n) as last from promised;\n"
                                 "select count(*) as history from pgbench_history;\n").stdout
        rows, last, history = (int(re.search(rf'{name} = "(\d+)"', said)[1]) for name in ("rows", "last", "history"))
        assert rows == last + 1 and promised <= rows <= promised + 1, f"{promised} rows were committed: {said}"
        assert history > 0, said
        print(f"        {promised} rows promised, {rows} there, and {history} of pgbench")
        as_postgres(binary("pg_checksums"), "--check", "-D", data, timeout=240)
        pair.a.mount()
        pair.settle(timeout=120)
        kill_at_once([pair.a, pair.b])
        pair.start()
        pair.stop()
        run("diff", "-r", "--no-dereference", pair.a.stored("pg"), pair.b.stored("pg"), timeout=240)
