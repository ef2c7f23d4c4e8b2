"""Does everything twice, on the mount and on a local file system, and compares what comes of it."""

import contextlib
import ctypes
import errno
import mmap
import os
import random
import stat
import threading

PAGE = 4096
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
RENAME_NOREPLACE = 1

_libc = ctypes.CDLL(None, use_errno=True)


def fallocate(descriptor, mode, offset, length):
    if _libc.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def rename_without_replacing(source, target):
    at_here = -100
    if _libc.renameat2(at_here, os.fsencode(source), at_here, os.fsencode(target), RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Handle:
    """An open file that is closed by its last user once it is retired."""

    def __init__(self, descriptor):
        self.descriptor, self.users, self.retired = descriptor, 1, False


class TwinFile:
    """One file on the mount, used by several threads in several ways at once, and its twin. Each thread has a part of
    the file for itself; what concerns the file as a whole is done by one thread alone. Handles of every kind come and go
    while other threads use theirs, so that there are some of one kind, then of the other, then of both."""

    # Of each kind through the page cache or past it, as is_direct() says.
    KINDS = {"plain": os.O_RDWR, "other": os.O_RDWR,
             "sync": os.O_RDWR | os.O_DSYNC, "other sync": os.O_RDWR | os.O_SYNC,
             "append": os.O_WRONLY | os.O_APPEND, "other append": os.O_WRONLY | os.O_APPEND}

    PART = 48 * PAGE

    def __init__(self, path, twin_path, threads, seed, direct="some"):
        self.direct = direct  # which handles go past the page cache: "none", "some", or "all"
        self.path, self.threads, self.seed = path, threads, seed
        self.twin = os.open(twin_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.size_max = threads * self.PART + 16 * PAGE
        self.handles = {}  # guarded by shared
        self.shared, self.alone = threading.Condition(), 0
        self.users = 0
        self.opens = 0
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        self.operations = 0
        self.failure = None

    def is_direct(self, name):
        return self.direct == "all" or (self.direct == "some" and name.startswith("other"))

    @contextlib.contextmanager
    def descriptor(self, name, alone=False):
        """Of the handle of that kind, opened if there is none; `alone`: of one that nobody else uses, ever."""
        with self.shared:
            handle = None if alone else self.handles.get(name)
            if handle:
                handle.users += 1
        if not handle:
            handle = Handle(os.open(self.path, self.KINDS[name] | (os.O_DIRECT if self.is_direct(name) else 0)))
            with self.shared:
                self.opens += 1
                # Somebody else may have opened one meanwhile: then this one is for one use.
                handle.retired = alone or self.handles.setdefault(name, handle) is not handle
        try:
            yield handle.descriptor
        finally:
            with self.shared:
                handle.users -= 1
                last = handle.retired and handle.users == 0
            if last:
                os.close(handle.descriptor)

    def close(self, name):
        """Now, or by whoever is using it."""
        with self.shared:
            handle = self.handles.pop(name, None)
            if not handle:
                return
            handle.retired = True
            unused = handle.users == 0
        if unused:
            os.close(handle.descriptor)

    def close_all(self):
        for name in self.KINDS:
            self.close(name)

    @contextlib.contextmanager
    def part_of_file(self):
        with self.shared:
            while self.alone:
                self.shared.wait()
            self.users += 1
        try:
            yield
        finally:
            with self.shared:
                self.users -= 1
                self.shared.notify_all()

    @contextlib.contextmanager
    def whole_file(self):
        with self.shared:
            while self.alone:
                self.shared.wait()
            self.alone = 1
            while self.users:
                self.shared.wait()
        try:
            yield
        finally:
            with self.shared:
                self.alone = 0
                self.shared.notify_all()

    def compare(self, what, offset, length, got):
        """Another thread may just have made one of the two longer: what is beyond an end counts as zeros."""
        expected = os.pread(self.twin, length, offset)
        longer = max(len(got), len(expected))
        got, expected = got.ljust(longer, b"\0"), expected.ljust(longer, b"\0")
        if got != expected:
            first = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
            raise AssertionError(
                f"{what} of {length} at {offset} (seed {self.seed}): {len(got)} bytes instead of {len(expected)}, the first "
                f"that differs at {offset + first}: {got[first:first + 8].hex()} instead of "
                f"{expected[first:first + 8].hex()}")

    def read(self, dice, offset, length):
        how = dice.choice(("plain", "plain", "other", "sync", "other sync"))
        with self.descriptor(how) as descriptor:
            if self.is_direct(how):
                offset, length = offset // 512 * 512, (length + 511) // 512 * 512
                buffer = mmap.mmap(-1, (length + PAGE - 1) // PAGE * PAGE)
                view = memoryview(buffer)[:length]
                got = bytes(view[:os.preadv(descriptor, [view], offset)])
                view.release()
                buffer.close()
            else:
                got = os.pread(descriptor, length, offset)
        self.compare(f"{how} read", offset, length, got)

    def write(self, dice, offset, length, alone=False):
        how = dice.choice(("plain", "plain", "other", "sync", "other sync"))
        # Direct writes may be of any size here; the page keeps the buffer's address aligned.
        if self.is_direct(how) and dice.random() < 0.8:
            offset, length = offset // 512 * 512, max(512, length // 512 * 512)
        content = dice.randbytes(length)
        buffer = mmap.mmap(-1, (length + PAGE - 1) // PAGE * PAGE)
        buffer[:length] = content
        view = memoryview(buffer)[:length]
        with self.descriptor(how, alone) as descriptor:
            put = os.pwritev(descriptor, [view], offset)
        view.release()
        buffer.close()
        assert put == length, f"{how} write of {length} at {offset} (seed {self.seed}): {put}"
        os.pwrite(self.twin, content, offset)

    def write_with_a_handle_of_its_own(self, dice, offset, length):
        self.write(dice, offset, length, True)

    def close_some(self, dice, *unused):
        """Often so many that only handles of one kind are left."""
        kept = dice.choice(((), ("plain",), ("other",), ("sync", "append"), ("other sync", "other append")))
        for name in self.KINDS:
            if name not in kept:
                self.close(name)

    def through_a_mapping(self, dice, offset, length):
        size = os.fstat(self.twin).st_size
        end = min(offset + length, size)
        start = offset // PAGE * PAGE
        if end <= offset or self.direct == "all":
            return
        how = dice.choice(("plain", "other"))
        # The mapping stays when its handle is closed.
        with self.descriptor(how) as descriptor:
            memory = mmap.mmap(descriptor, end - start, offset=start)
        with memory:
            if dice.random() < 0.5:
                self.compare(f"mapping of a {how} handle", offset, end - offset, memory[offset - start:end - start])
            else:
                content = dice.randbytes(end - offset)
                memory[offset - start:end - start] = content
                os.pwrite(self.twin, content, offset)
                if dice.random() < 0.5:
                    memory.flush()

    def punch_or_zero(self, dice, offset, length):
        mode = dice.choice((PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE | KEEP_SIZE, KEEP_SIZE))
        with self.descriptor(dice.choice(("plain", "other"))) as descriptor:
            fallocate(descriptor, mode, offset, length)
        fallocate(self.twin, mode, offset, length)

    def holes(self):
        """Where the mount says that there is a hole, the twin has zeros."""
        size, at = os.fstat(self.twin).st_size, 0
        with self.descriptor("plain") as descriptor:
            os.fsync(descriptor)  # what a mapping has changed is not asked for
            while at < size:
                try:
                    data = os.lseek(descriptor, at, os.SEEK_DATA)
                except OSError as error:
                    assert error.errno == errno.ENXIO, error
                    data = size
                if data > at:
                    assert not any(os.pread(self.twin, data - at, at)), f"a hole where there is data: {at} to {data}"
                at = os.lseek(descriptor, data, os.SEEK_HOLE) if data < size else size

    def whole(self, dice):
        what = dice.choice(("truncate", "truncate", "extend", "append", "append", "allocate", "zero", "holes", "close",
                            "copy", "compare", "path"))
        size = os.fstat(self.twin).st_size
        place = dice.randrange(self.size_max)
        if what in ("truncate", "extend"):
            place = place if what == "truncate" else max(place, size)
            with self.descriptor(dice.choice(("plain", "other"))) as descriptor:
                os.ftruncate(descriptor, place)
            os.ftruncate(self.twin, place)
        elif what == "path":
            os.truncate(self.path, place)
            os.ftruncate(self.twin, place)
        elif what == "append" and size < self.size_max:
            content = dice.randbytes(dice.randrange(1, 3 * PAGE))
            with self.descriptor(dice.choice(("append", "other append"))) as descriptor:
                os.write(descriptor, content)
            os.pwrite(self.twin, content, size)
        elif what in ("allocate", "zero"):
            mode = ZERO_RANGE if what == "zero" else 0
            length = dice.randrange(1, 8 * PAGE)
            with self.descriptor("plain") as descriptor:
                fallocate(descriptor, mode, place, length)
            fallocate(self.twin, mode, place, length)
        elif what == "holes":
            self.holes()
        elif what == "close":
            self.close_all()
        elif what == "copy" and size:
            source, length = dice.randrange(size), dice.randrange(1, 4 * PAGE)
            content = os.pread(self.twin, length, source)
            if place >= source + len(content) or place + len(content) <= source:
                with self.descriptor("plain") as descriptor:
                    copied = os.copy_file_range(descriptor, descriptor, len(content), source, place)
                os.pwrite(self.twin, content[:copied], place)
        elif what == "compare":
            self.check()
        shown = os.stat(self.path).st_size
        assert shown == os.fstat(self.twin).st_size, f"after {what} at {place}: size {shown} instead of " \
                                                     f"{os.fstat(self.twin).st_size} (seed {self.seed})"

    def check(self):
        size = os.fstat(self.twin).st_size
        with self.descriptor("plain") as descriptor:
            self.compare("plain read", 0, size + PAGE, os.pread(descriptor, size + PAGE, 0))

    def work(self, number, until):
        """One thread's operations, until until() says so."""
        dice = random.Random(f"{self.seed}/{number}")
        try:
            while not until() and self.failure is None:
                if dice.random() < 0.06:
                    with self.whole_file():
                        self.whole(dice)
                else:
                    offset = number * self.PART + dice.randrange(self.PART)
                    length = min(dice.choice((1, 100, PAGE, 3 * PAGE + 17, 20 * PAGE)),
                                 (number + 1) * self.PART - offset)
                    action = dice.choice((self.read, self.read, self.write, self.write, self.write, self.write,
                                          self.through_a_mapping, self.through_a_mapping, self.punch_or_zero,
                                          self.close_some,
                                          self.write_with_a_handle_of_its_own))
                    with self.part_of_file():
                        action(dice, offset, length)
                self.operations += 1
        except BaseException as error:  # pylint: disable=broad-except
            self.failure = self.failure or error

    def run(self, until):
        workers = [threading.Thread(target=self.work, args=(number, until)) for number in range(self.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self.failure:
            raise self.failure
        self.check()


class TwinTrees:
    """The same calls below two directories, by several users; errno, attributes and listings must be the same."""

    USERS = ((0, 0, ()), (1001, 1001, ()), (1002, 1002, (1001,)))
    NAMES = ("a", "b", "c", "d", "e")

    def __init__(self, first, second, seed):
        self.roots = (first, second)
        self.dice = random.Random(seed)
        self.seed = seed
        self.done = []
        for root in self.roots:
            os.mkdir(root)
            os.chmod(root, 0o777)

    def path(self):
        depth = self.dice.choice((1, 1, 2, 2, 3))
        text = "/".join(self.dice.choice(self.NAMES) for _ in range(depth))
        return text + self.dice.choice(("",) * 12 + ("/", "/.", "/..", "x" * 256))

    @staticmethod
    def described(status):
        kind = stat.S_IFMT(status.st_mode)
        size = status.st_size if kind != stat.S_IFDIR else 0
        links = status.st_nlink
        return oct(status.st_mode), status.st_uid, status.st_gid, size, links

    def operation(self):
        """A function of a root directory, and its name."""
        dice, one, two = self.dice, self.path(), self.path()
        mode = dice.choice((0o644, 0o600, 0o755, 0o4755, 0o2755, 0o2770, 0o1777, 0o777, 0o000, 0o6777))
        uid, gid = dice.choice((-1, 0, 1001, 1002)), dice.choice((-1, 0, 1001, 1002))
        size, content = dice.randrange(20000), dice.randbytes(dice.choice((1, 5000)))
        flags = dice.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR))
        for flag in (os.O_CREAT, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_NOFOLLOW):
            if dice.random() < 0.3:
                flags |= flag
        moment = dice.randrange(10**18)

        def opened(root):
            descriptor = os.open(f"{root}/{one}", flags, mode)
            try:
                if flags & (os.O_WRONLY | os.O_RDWR):
                    os.write(descriptor, content)
                return self.described(os.fstat(descriptor))
            finally:
                os.close(descriptor)

        def kept_open(root):
            descriptor = os.open(f"{root}/{one}", os.O_RDWR)
            try:
                os.unlink(f"{root}/{one}")
                os.write(descriptor, content)
                os.fchmod(descriptor, 0o640)
                os.ftruncate(descriptor, size)
                return self.described(os.fstat(descriptor)), os.pread(descriptor, 100, 0)
            finally:
                os.close(descriptor)

        def timed(root):
            os.utime(f"{root}/{one}", ns=(moment, moment + 1), follow_symlinks=False)
            status = os.lstat(f"{root}/{one}")
            # A path may lead through the very link that it ends at, which counts as reading it: the mount has no atime of that.
            return None if stat.S_ISLNK(status.st_mode) else status.st_atime_ns, status.st_mtime_ns

        def changed(action):
            """Which of the times of a path an action moved on."""
            def measured(root):
                parent = os.path.dirname(f"{root}/{one}".rstrip("/"))
                os.utime(parent, ns=(1, 1))
                action(root)
                return os.lstat(parent).st_mtime_ns > 1
            return measured

        choices = [
            ("open", opened), ("open", opened), ("open", opened), ("unlink while open", kept_open),
            ("mkdir", lambda root: os.mkdir(f"{root}/{one}", mode)),
            ("mkdir", lambda root: os.mkdir(f"{root}/{one}", 0o777)),
            ("rmdir", changed(lambda root: os.rmdir(f"{root}/{one}"))),
            ("unlink", changed(lambda root: os.unlink(f"{root}/{one}"))),
            ("rename", lambda root: os.rename(f"{root}/{one}", f"{root}/{two}")),
            ("rename", lambda root: os.rename(f"{root}/{one}", f"{root}/{two}")),
            ("rename without replacing", lambda root: rename_without_replacing(f"{root}/{one}", f"{root}/{two}")),
            ("symlink", changed(lambda root: os.symlink(two[:60], f"{root}/{one}"))),
            ("readlink", lambda root: os.readlink(f"{root}/{one}")),
            ("chmod", lambda root: os.chmod(f"{root}/{one}", mode)),
            ("chown", lambda root: os.chown(f"{root}/{one}", uid, gid)),
            ("lchown", lambda root: os.lchown(f"{root}/{one}", uid, gid)),
            ("truncate", lambda root: os.truncate(f"{root}/{one}", size)),
            ("utime", timed), ("utime now", lambda root: os.utime(f"{root}/{one}")),
            ("stat", lambda root: self.described(os.stat(f"{root}/{one}"))),
            ("lstat", lambda root: self.described(os.lstat(f"{root}/{one}"))),
            ("access", lambda root: [os.access(f"{root}/{one}", how, effective_ids=True) for how in (4, 2, 1)]),
            ("listdir", lambda root: sorted(os.listdir(f"{root}/{one}"))),
            ("read", lambda root: open(f"{root}/{one}", "rb").read()),
        ]
        name, action = dice.choice(choices)
        return f"{name} {one[:20]} {two[:20]} mode {mode:o} flags {flags:o} owner {uid}:{gid} size {size}", action

    def step(self):
        name, action = self.operation()
        uid, gid, groups = self.dice.choice(self.USERS)
        results = []
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)
        try:
            for root in self.roots:
                try:
                    results.append(("done", action(root)))
                except OSError as error:
                    results.append((errno.errorcode.get(error.errno, error.errno), None))
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(())
        self.done.append(f"{uid}: {name} -> {results[0]}")
        if results[0] != results[1]:
            raise AssertionError(f"seed {self.seed}, step {len(self.done)}: the mount {results[0]}, the local file system "
                                 f"{results[1]}\n" + "\n".join(self.done[-12:]))

    def compare(self):
        """Both trees as a whole."""
        shown = []
        for root in self.roots:
            tree = {}
            for place, directories, files in os.walk(root):
                for name in [""] + directories + files:
                    path = os.path.join(place, name) if name else place
                    status = os.lstat(path)
                    content = None
                    if stat.S_ISREG(status.st_mode):
                        with open(path, "rb") as file:
                            content = file.read()
                    elif stat.S_ISLNK(status.st_mode):
                        content = os.readlink(path)
                    tree[os.path.relpath(path, root)] = (self.described(status), content)
            shown.append(tree)
        differing = [path for path in shown[0].keys() | shown[1].keys() if shown[0].get(path) != shown[1].get(path)]
        for path in differing:
            one, two = shown[0].get(path), shown[1].get(path)
            raise AssertionError(f"seed {self.seed}: {path}: the mount {one and one[0]}, the local file system {two and two[0]}")
