"""Clients that write and check what they read: fio."""

import json
import subprocess
import tempfile
import threading

UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _bytes(text):
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text)


class Fio:
    """A running fio. It must end without an error, which finish() demands.

    With `verify` it must also have read back and verified each byte that it wrote, in each of its `loops`: so it takes
    a `size` and no run time, which would end it in the middle of a pass that is never read."""

    def __init__(self, path, **options):
        assert "runtime" not in options and "time_based" not in options
        self.options = options
        words = ["fio", "--name=job", f"--filename={path}", "--ioengine=io_uring", "--output-format=json",
                 "--status-interval=100ms", "--verify_fatal=1", "--verify_state_save=0", "--randrepeat=1",
                 "--fallocate=none"]
        # Beside what it says of its progress: errors.
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(words + [f"--{key}={value}" for key, value in options.items()], text=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors)
        self._news = threading.Condition()
        self._report, self._all_read = None, False  # guarded by _news
        self._other_words = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        """One report after the other, each from a line "{" to a line "}"."""
        lines = None
        for line in self.process.stdout:
            if line.rstrip() == "{":
                lines = []
            if lines is None:
                self._other_words.append(line)
                continue
            lines.append(line)
            if line.rstrip() == "}":
                with self._news:
                    self._report = json.loads("".join(lines))["jobs"][0]
                    self._news.notify_all()
                lines = None
        with self._news:
            self._all_read = True
            self._news.notify_all()

    def _operations(self):
        return self._report["read"]["total_ios"] + self._report["write"]["total_ios"] if self._report else 0

    def goes_on(self, operations, timeout=60):
        """Waits until so many further reads and writes are done: True. False: it has ended."""
        with self._news:
            goal = self._operations() + operations
            came = self._news.wait_for(lambda: self._all_read or self._operations() >= goal, timeout)
            assert came, f"fio does not go on: {goal - self._operations()} of {operations} operations missing after {timeout} s"
            return not self._all_read

    def finish(self, timeout=120):
        """Returns its last report."""
        status = self.process.wait(timeout=timeout)
        self._reader.join()
        self.errors.seek(0)
        said = "".join(self._other_words) + self.errors.read()
        assert status == 0 and self._report and self._report["error"] == 0, f"fio: exit status {status}\n{said}"
        if "verify" in self.options:
            # With mixed reads and writes each block is either read, or written and then verified.
            due = _bytes(self.options["size"]) * int(self.options.get("loops", 1))
            read, written = (self._report[way]["io_bytes"] for way in ("read", "write"))
            mixed = self.options["rw"] in ("randrw", "rw", "readwrite")
            assert read == due and (written == due or mixed and due // 3 < written < due), \
                f"fio was to verify {due} bytes, but read {read} and wrote {written}\n{said}"
        return self._report

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self.errors.close()


def fio(path, timeout=120, **options):
    with Fio(path, **options) as client:
        return client.finish(timeout)


def fio_under_faults(path, fault, faults, every, **options):
    """Passes of fio, each of which verifies all that it has written, until fault(number) was called so often at least:
    after each `every` operations of fio, as long as it goes on. Returns how often."""
    count = passes = 0
    while count < faults:
        passes += 1
        with Fio(path, randseed=passes, **options) as client:
            while client.goes_on(every):
                fault(count)
                count += 1
            client.finish()
    return count
