"""Two nodes and what a person, a stranger or a bad network does to them."""

import errno
import json
import mmap
import os
import pty
import re
import struct
import subprocess
import threading

from lib.network import Cable
from lib.nodes import VMFS, Node, Pair, vmfs
from lib.runner import case
from lib.scratch import read_file, run, wait_until, write_file
from lib.wan import free_port
from lib.wire import FRAME_MAX, Dialer, frame, node_hello
from lib.work import Fio


def edit(node, *changes):
    """Replaces texts in the node's configuration, each of which must be there."""
    path = os.path.join(node.store, "vmfs.toml")
    content = read_file(path).decode()
    for old, new in changes:
        assert old in content, f"{old!r} is not in {content}"
        content = content.replace(old, new)
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


def peer_of(node):
    return node.status()["peers"][0]


def wait_for_link(node, state, timeout=30):
    """Returns the peer once its link is in that state."""
    return wait_until(lambda: (peer := peer_of(node))["link"] == state and peer, timeout, f"{node.name}'s link {state}")


@case(seconds=60)
def strangers_and_liars(scratch):
    """Whoever does not know the secret or speaks another version is turned away; who knows it and says what cannot be
    loses the connection; the volume does not mind."""
    with Pair(scratch) as pair:
        for node in (pair.a, pair.b):
            edit(node, ('tls = "on"', 'tls = "off"'))
        pair.start()
        write_file(pair.a / "x.img", b"x" * 100_000)
        volume = bytes.fromhex(re.search(r'id = "([0-9a-f]{32})"', read_file(pair.a.store + "/vmfs.toml").decode()).group(1))
        secret = bytes.fromhex(read_file(pair.a.store + "/secret").decode())
        wrong_version, wrong_volume, wrong_secret = 1, 2, 6
        for verdict, words in ((wrong_version, (volume, secret, 99)), (wrong_volume, (bytes(16), secret)),
                               (wrong_secret, (volume, bytes(32)))):
            with Dialer(pair.a.port, *words) as dialer:
                assert dialer.verdict == verdict, (verdict, dialer.verdict)
                assert dialer.receive(1) == b""

        hello = frame(node_hello(volume))
        records = struct.pack("<BBHIQQI", 5, 0, 0, 1, 1, 0, 0)
        for what, lie in (("noise", os.urandom(4096)), ("a frame that is too long", frame(b"", FRAME_MAX + 1)),
                          ("a frame of 4 GiB", frame(b"", 0xffffffff)), ("a damaged body", frame(b"a" * 50)[:-1] + b"b"),
                          ("no message", frame(os.urandom(100))), ("records before the handshake", frame(records)),
                          ("a message before the handshake", frame(struct.pack("<BBHQQ", 10, 0, 0, 0, 0))),
                          ("two hellos", hello + hello)):
            with Dialer(pair.a.port, volume, secret) as dialer:
                assert dialer.verdict == 0, (what, dialer.verdict)
                dialer.socket.sendall(lie)
                assert dialer.ended(), what
        for what, words in (("newer", node_hello(volume, versions=(7, 9))), ("another volume", node_hello(bytes(16))),
                            ("small segments", node_hello(volume, payload_max=4096)),
                            ("not a peer", node_hello(volume, joining=False))):
            with Dialer(pair.a.port, volume, secret) as dialer:
                dialer.socket.sendall(frame(words))
                refusal = 3
                assert dialer.next_frame()[0] == 1  # its own hello
                assert dialer.next_frame()[0] == refusal, what
                assert dialer.ended(), what
        # None of it is a peer now, and the two go on.
        assert [peer["node"] for peer in pair.a.status()["peers"]] == ["b"]
        pair.settle()
        write_file(pair.a / "x.img", b"y" * 100_000)
        assert read_file(pair.b / "x.img") == b"y" * 100_000


@case(seconds=60)
def refusals_are_told(scratch):
    """Another secret, another volume at the address, TLS on one side only: status says which, and what to do."""
    with Pair(scratch) as pair:
        pair.a.mount()
        other = Node(scratch.path, "c", port=free_port()).init().mount()
        secret = os.path.join(pair.b.store, "secret")
        good = read_file(secret)
        for break_it, mend_it, part in (
                (lambda: write_file(secret, b"0" * 64), lambda: write_file(secret, good), "wrong secret"),
                (lambda: edit(pair.b, (str(pair.wan.port), str(other.port))),
                 lambda: edit(pair.b, (str(other.port), str(pair.wan.port))), "wrong volume"),
                (lambda: edit(pair.b, ('tls = "on"', 'tls = "off"')), lambda: edit(pair.b, ('tls = "off"', 'tls = "on"')),
                 "tls = off")):
            break_it()
            pair.b.mount()
            peer = wait_for_link(pair.b, "refused")
            assert part in peer["link_reason"], peer["link_reason"]
            shown = vmfs("status", pair.b.mnt, check=False)
            assert shown.returncode == 3 and part in shown.stdout, shown.stdout
            pair.b.umount()
            mend_it()
        pair.b.mount()
        pair.settle()


@case(seconds=90)
def removed_peer_frees_the_journal(scratch):
    """What is kept for a peer that is away stays until it is removed; then it is refused, and can join anew."""
    with Pair(scratch, journal_size="64MiB").start() as pair:
        pair.wan.cut()
        wait_for_link(pair.a, "connecting")
        for number in range(12):
            write_file(pair.a / "x.img", os.urandom(1 << 20) + bytes([number]))
        kept = wait_until(lambda: (journal := pair.a.status()["journal"])["unapplied_bytes"] == 0 and journal["bytes_used"],
                          what="all of it in the store")
        assert kept > 12 << 20, kept
        status = pair.a.status()
        assert not status["healthy"]
        told = [problem for problem in status["problems"] if "last heard" in problem]
        assert told and f"vmfs peer remove {pair.a.mnt} b" in told[0], status["problems"]
        assert status["loss_if_this_node_dies"]["records"] > 0
        assert status["peers"][0]["lag_bytes"] > 12 << 20 and status["peers"][0]["lag_seconds"] > 0
        vmfs("peer", "remove", pair.a.mnt, "nobody", check=False)
        assert "b" in vmfs("peer", "list", pair.a.mnt).stdout
        vmfs("peer", "remove", pair.a.mnt, "b")
        assert "no peers" in vmfs("peer", "list", pair.a.mnt).stdout
        wait_until(lambda: pair.a.status()["journal"]["bytes_used"] < kept - (8 << 20), what="the journal's space")
        pair.wan.mend()
        peer = wait_for_link(pair.b, "refused")
        assert "removed" in peer["link_reason"], peer
        pair.b.umount()
        token = vmfs("token", pair.a.store, "--address", f"127.0.0.1:{pair.wan.port}").stdout.strip().splitlines()[-1]
        anew = Node(scratch.path, "anew").join(token).mount()
        anew.wait("in-sync")
        assert read_file(anew / "x.img") == read_file(pair.a / "x.img")


@case(seconds=90)
def frozen_while_the_peer_is_away(scratch):
    """on-peer-loss = freeze: a write waits, without an error, until the peer is back or the setting is changed."""
    with Pair(scratch).start() as pair:
        write_file(pair.a / "x.img", b"before")
        vmfs("set", pair.a.mnt, "on-peer-loss=freeze")
        wait_until(lambda: pair.b.status()["on_peer_loss"] == "freeze", what="the setting on b")
        for end in ("mend", "continue"):
            pair.wan.cut()
            wait_until(lambda: pair.a.image("x.img")["role"] == "frozen", what="the freeze")
            assert any("on-peer-loss=continue" in problem for problem in pair.a.status()["problems"])
            failed = []

            def write():
                try:
                    write_file(pair.a / "x.img", end.encode())
                except OSError as error:
                    failed.append(error)
            writer = threading.Thread(target=write, daemon=True)
            writer.start()
            wait_until(lambda: pair.a.status()["daemon"]["parked_requests"] > 0, what="the waiting write")
            if end == "mend":
                # A new daemon finds it waiting, and lets it wait.
                vmfs("restart", pair.a.mnt)
                wait_until(lambda: pair.a.status()["daemon"]["parked_requests"] > 0, what="the waiting write again")
                assert writer.is_alive() and not failed, failed
                pair.wan.mend()
            else:
                vmfs("set", pair.a.mnt, "on-peer-loss=continue")
            writer.join(timeout=30)
            assert not writer.is_alive() and not failed, failed
            pair.wan.mend()
            pair.settle()
            assert read_file(pair.b / "x.img") == end.encode()


@case(seconds=90)
def mode_changed_under_load(scratch):
    """sync, semisync, async and back while fio writes with verify: no error, the peer follows, both end equal."""
    with Pair(scratch, mode="async", journal_size="128MiB").start() as pair:
        assert pair.b.status()["mode"] == "async", "who joins takes the volume's settings"
        with Fio(pair.a / "disk.img", size="32m", rw="randwrite", bs="4k", iodepth=8, direct=1, verify="xxhash",
                 fsync=32, rate_iops=1000) as client:
            wait_until(lambda: os.path.exists(pair.a / "disk.img"), what="fio's file")
            for mode in ("semisync", "sync", "async", "sync", "semisync", "sync"):
                node = pair.b if mode == "semisync" else pair.a
                assert f"mode={mode}" in vmfs("set", node.mnt, f"mode={mode}").stdout
                for each in (pair.a, pair.b):
                    wait_until(lambda each=each, mode=mode: each.status()["mode"] == mode, what=f"{mode} on {each.name}")
                assert client.goes_on(20), f"fio had ended when the mode became {mode}"
            client.finish()
        pair.settle()
        status = pair.a.status()
        assert status["loss_if_this_node_dies"]["records"] == 0, status["loss_if_this_node_dies"]
        assert [peer["lag_records"] for peer in status["peers"]] == [0]
        pair.stop()
        run("cmp", pair.a.stored("disk.img"), pair.b.stored("disk.img"))


@case(seconds=60)
def caches_of_a_secondary(scratch):
    """What b read, and mapped, while a owned it is not what b sees once it owns it itself."""
    with Pair(scratch).start() as pair:
        size = 64 << 10
        write_file(pair.a / "x.img", b"1" * size)
        with open(pair.b / "x.img", "rb") as early:
            assert early.read() == b"1" * size
            with mmap.mmap(early.fileno(), size, prot=mmap.PROT_READ) as view:
                assert view[:] == b"1" * size
                write_file_in_place(pair.a / "x.img", b"2" * size)
                pair.b.promote(path=pair.b / "x.img")
                assert read_file(pair.b / "x.img") == b"2" * size
                assert view[:] == b"2" * size, "a mapping shows what another node had overwritten"
                early.seek(0)
                assert early.read() == b"2" * size
        # The other way round: a cached as the owner, and b has written since.
        assert read_file(pair.a / "x.img") == b"2" * size
        write_file_in_place(pair.b / "x.img", b"3" * size)
        assert read_file(pair.a / "x.img") == b"3" * size
        with open(pair.a / "x.img", "r+b") as back, mmap.mmap(back.fileno(), size) as view:
            view[0:1] = b"4"
            view.flush()
        assert read_file(pair.b / "x.img") == b"4" + b"3" * (size - 1)


def write_file_in_place(path, content):
    with open(path, "r+b") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@case(seconds=90)
def cable_pulled(scratch):
    """A real network between two name spaces goes dead without a word: the guest's flush waits for the seconds that it
    takes to be sure, then goes on; the peer comes back by itself. And `tls = off` does not leave loopback unless forced."""
    with Cable() as cable:
        port = 7411
        a = Node(scratch.path, "a")
        vmfs("init", a.store, "--name", "test", "--node", "a", "--journal-size", "64MiB", "--listen", f"{cable.HERE}:{port}")
        token = vmfs("token", a.store).stdout.strip().splitlines()[-1]
        b = Node(scratch.path, "b").join(token)

        def mount_b():
            cable.inside(VMFS, "mount", b.store, b.mnt)

        for node in (a, b):
            edit(node, ('tls = "on"', 'tls = "off"'))
        a.mount()
        mount_b()
        peer = wait_for_link(b, "refused")
        assert "loopback" in peer["link_reason"], peer["link_reason"]
        for node in (a, b):
            node.umount()
            edit(node, ('tls = "off"', 'tls = "off-forced"'))
        a.mount()
        mount_b()
        for node in (a, b):
            node.wait("in-sync").wait("ready")
        write_file(a / "x.img", b"connected")
        assert read_file(b / "x.img") == b"connected"
        cable.cut()
        write_file(a / "x.img", b"alone")  # returns once b is counted lost
        peer = wait_for_link(a, "connecting")
        assert peer["was_in_sync"] and "silent" in peer["link_reason"], peer
        assert a.image("x.img")["lost_records"] > 0
        wait_for_link(b, "connecting")
        refused = b.promote(check=False)
        assert refused.returncode == 5 and "in sync then" in refused.stdout, refused.stdout
        try:
            write_file_in_place(b / "x.img", b"no")
            raise AssertionError("written without the token")
        except OSError as error:
            assert error.errno == errno.EROFS, error
        cable.mend()
        for node in (a, b):
            node.wait("in-sync", timeout=60)
        assert read_file(b / "x.img") == b"alone"
        assert peer_of(a)["copy_bytes_total"] == 0
        for node in (a, b):
            node.umount()
        run("cmp", a.stored("x.img"), b.stored("x.img"))


@case(seconds=60)
def status_is_watched(scratch):
    """--watch in a pipe gives round after round, on a terminal each in place of the one before, and in both it outlives
    the daemon that answered first."""
    def read_until(read, part, seen=""):
        while part not in seen:
            more = read()
            assert more, f"it ended before it said {part!r}: {seen}"
            seen += more.decode()
        return seen

    def watch(output):
        return subprocess.Popen([VMFS, "status", node.mnt, "--watch"], stdin=subprocess.DEVNULL, stdout=output,
                                stderr=subprocess.STDOUT)

    node = Node(scratch.path, "a").init().mount()
    head = f"test on a, {node.mnt}: healthy"
    piped = watch(subprocess.PIPE)
    near, far = pty.openpty()
    shown = watch(far)
    os.close(far)
    for watcher, read, between in ((piped, lambda: os.read(piped.stdout.fileno(), 65536), "\n\n" + head),
                                   (shown, lambda: os.read(near, 65536), "\033[H\033[2J")):
        old = node.daemon_pid()
        read_until(read, f"daemon {old},")
        rest = read_until(read, between)
        assert ("\033" in rest) == (watcher is shown), rest
        node.kill_daemon()
        node.wait_for_another_daemon(old)
        read_until(read, f"daemon {node.daemon_pid()},")
        assert watcher.poll() is None
        watcher.terminate()
        watcher.wait(10)
    os.close(near)
    node.umount()


@case(seconds=60)
def commands_and_their_answers(scratch):
    """Each command once, used well and badly: exit statuses, and errors that name object, evidence and next step."""
    def answer(status, *words, parts=()):
        done = subprocess.run([VMFS, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, check=False)
        text = done.stdout + done.stderr
        assert done.returncode == status, f"{words}: exit status {done.returncode}, not {status}\n{text}"
        for part in parts:
            assert part in text, f"{words}: {part!r} is not in: {text}"
        return text

    with Pair(scratch).start() as pair:
        a, b = pair.a, pair.b
        os.mkdir(a / "guests")
        write_file(a / "guests/x.img", b"x")
        # Whatever else is mounted on this machine is listed as well, and counts.
        everything = [json.loads(line) for line in vmfs("status", "--json", check=False).stdout.splitlines()]
        assert {volume["mountpoint"]: volume["healthy"] for volume in everything}.items() >= \
            {a.mnt: True, b.mnt: True}.items(), everything
        answer(0 if all(volume["healthy"] for volume in everything) else 3, "status", parts=(a.mnt, b.mnt))
        answer(0, "status", a.store, parts=("in sync", "if a dies now:  nothing is lost"))
        answer(0, "status", b / "guests", "--json", parts=('"path":"guests/x.img"', '"role":"secondary"'))
        answer(1, "status", a / "missing", parts=("missing", "no such file"))
        answer(1, "status", "/proc", parts=("is not in a vmfs volume", a.mnt))
        for state in ("connected", "in-sync", "ready", "primary"):
            answer(0, "wait", a.mnt, state, "--timeout", 20)
        answer(4, "wait", b.mnt, "primary", "--timeout", 0, parts=("vmfs status",))
        answer(2, "wait", a.mnt, "happy")
        answer(0, "promote", b / "guests")
        answer(0, "wait", b / "guests/x.img", "primary", "--timeout", 5)
        answer(0, "demote", b / "guests/x.img", parts=("handed over to a",))
        answer(0, "demote", b / "guests/x.img", parts=("nothing to give",))
        answer(0, "wait", a / "guests/x.img", "primary", "--timeout", 10)
        for refused, forced in (("promote", b), ("demote", a)):
            with open(a / "guests/x.img", "r+b", buffering=0) as writer:
                writer.write(b"y")  # not synced: it is in use
                answer(5, "promote", b / "guests/x.img", parts=("in use on a", "--force"))
                answer(5, "demote", a / "guests/x.img", parts=("in use here", "--force"))
                # A person may insist; whoever has it open here gets errors from then on.
                answer(0, refused, forced / "guests/x.img", "--force")
                answer(0, "wait", b / "guests/x.img", "primary", "--timeout", 10)
                try:
                    writer.write(b"z")
                    raise AssertionError("a handle of before the hand-over can still write")
                except OSError as error:
                    assert error.errno == errno.EIO, error
            assert read_file(b / "guests/x.img") == b"y"
            answer(0, "promote", a / "guests/x.img")
        answer(0, "resolve", a.mnt, "--keep", "local", parts=("nothing is in split brain",))
        answer(2, "resolve", a / "guests/x.img", "--keep", "local", parts=("is not in split brain",))
        answer(2, "resolve", a.mnt, "--keep", "both")
        answer(0, "peer", "list", a.mnt, parts=("NODE", "b", "in-sync"))
        answer(1, "peer", "remove", a.mnt, "zebra", parts=("zebra", "b"))
        answer(0, "set", a.mnt, parts=("mode=sync", "on-peer-loss=continue", "compression=auto"))
        answer(2, "set", a.mnt, "mode=perhaps", parts=("perhaps", "async, semisync, sync"))
        answer(2, "set", a.mnt, "colour=red", parts=("colour", "on-peer-loss"))
        answer(0, "restart", a.mnt, parts=("restarted",))
        answer(0, "wait", a.mnt, "in-sync", "--timeout", 20)
        answer(1, "recover", a.store, parts=("in use", a.mnt))
        answer(0, "inspect", a.store, parts=("store of volume test on node a",))
        answer(2, "promote", a.store, parts=("is a store",))
        answer(2, "umount", a / "guests", parts=("is not a mount point",))
        assert vmfs("umount", a.mnt).stdout == ""
        answer(1, "umount", a.store, parts=("is not mounted",))
        answer(3, "status", a.store, parts=("is not mounted", f"vmfs mount {a.store}"))
        answer(0, "recover", a.store, parts=("is up to date",))
        # b owns all of it now, says that its peer is away, and what one can do about it.
        answer(3, "status", b.mnt, parts=("last heard", f"vmfs peer remove {b.mnt} a"))
        answer(0, "umount", b.mnt, parts=("no peer was in sync", "vmfs promote --force"))
