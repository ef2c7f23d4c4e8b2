"""Clients that write and check what they read: fio."""

import subprocess
import time


def _words(path, options):
    words = ["fio", "--name=job", f"--filename={path}", "--ioengine=io_uring", "--output-format=terse",
             "--verify_fatal=1", "--verify_state_save=0", "--randrepeat=1", "--fallocate=none"]
    return words + [f"--{key}={value}" for key, value in options.items()]


class Fio:
    """A running fio. It must end without an error, which finish() demands."""

    def __init__(self, path, **options):
        self.process = subprocess.Popen(_words(path, options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)

    def ended(self):
        return self.process.poll() is not None

    def finish(self, timeout=120):
        output, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, f"fio: exit status {self.process.returncode}\n{output}"

    def __enter__(self):
        self.started = time.monotonic()
        return self

    def __exit__(self, *unused):
        if not self.ended():
            self.process.kill()
            self.process.wait()


def fio(path, timeout=120, **options):
    with Fio(path, **options) as client:
        client.finish(timeout)
