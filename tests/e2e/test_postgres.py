"""PostgreSQL on the mount (with --long): pgbench, taken over, checked."""

import glob
import os
import subprocess
import time

from lib.nodes import Pair
from lib.runner import Skip, case
from lib.scratch import run


def binary(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    if not found:
        raise Skip("PostgreSQL is not installed")
    return found[-1]


def as_postgres(*words, **options):
    return run("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words, **options)


@case(seconds=300, long=True)
def pgbench_taken_over(scratch):
    """Its data directory is clean by pg_checksums after a recovery on the node that took over."""
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
        server = subprocess.Popen(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups",
                                   binary("postgres"), "-D", data, *settings.split()],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while as_postgres(binary("pg_isready"), "-h", sockets, check=False).returncode != 0:
                assert time.monotonic() < deadline, "PostgreSQL does not start"
            as_postgres(binary("pgbench"), "-h", sockets, "-q", "-i", "-s", "5", "postgres", timeout=240)
            done = as_postgres(binary("pgbench"), "-h", sockets, "-c", "4", "-T", "30", "postgres", timeout=120)
            print("        " + [line for line in done.stdout.splitlines() if "tps" in line][0])
            counted = as_postgres(binary("psql"), "-h", sockets, "-At", "-c", "select count(*) from pgbench_history",
                                  "postgres").stdout.strip()
        finally:
            pair.a.kill_node()
            server.kill()
            server.wait()
        pair.b.promote("--force")
        data = pair.b / "pg"
        for stale in ("postmaster.pid",):
            if os.path.exists(os.path.join(data, stale)):
                os.unlink(os.path.join(data, stale))
        # Single-user mode recovers from the write-ahead log and stops cleanly.
        count = as_postgres(binary("postgres"), "--single", "-D", data, "postgres", stdin=None,
                            input="select count(*) from pgbench_history;\n", timeout=240).stdout
        assert f'"{counted}"' in count, f"{counted} rows were committed: {count}"
        as_postgres(binary("pg_checksums"), "--check", "-D", data, timeout=240)
