"""A client that writes and flushes one block after the other through one handle, as a guest would."""

import os
import threading

from lib.scratch import wait_until

BLOCK = 4096
BLOCKS = 256


class Steady:
    """Runs until it is stopped, or until an error ends it: `error` is that one."""

    def __init__(self, path):
        self.path = path
        self.flushed = 0  # blocks, each as its number says
        self.error = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    @staticmethod
    def block(number):
        return number.to_bytes(8, "little") * (BLOCK // 8)

    def _write(self):
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT)
            while not self._stop.is_set():
                os.pwrite(descriptor, self.block(self.flushed), self.flushed % BLOCKS * BLOCK)
                os.fsync(descriptor)
                self.flushed += 1
            os.close(descriptor)
        except OSError as error:
            self.error = error

    def goes_on(self, timeout=30):
        """Returns once it has flushed more than before."""
        before = self.flushed
        wait_until(lambda: self.error or self.flushed > before + 3, timeout, "a client that goes on")
        assert self.error is None, f"the client got an error after {self.flushed} blocks: {self.error}"

    def ended_with_an_error(self, timeout=30):
        """It does not hang: the error has come."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"the client hangs after {self.flushed} blocks"
        assert self.error is not None
        return self.error

    def check(self, path=None):
        """What was flushed is there."""
        with open(path or self.path, "rb") as file:
            content = file.read()
        for number in range(max(self.flushed - BLOCKS, 0), self.flushed):
            found = content[number % BLOCKS * BLOCK:][:BLOCK]
            # The one that was under way may be there in its place.
            allowed = (self.block(number), self.block(self.flushed) if number == self.flushed - BLOCKS else b"")
            assert found in allowed, f"block {number} of {self.flushed} is lost"

    def __enter__(self):
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, *unused):
        self._stop.set()
        self._thread.join(1)

    def finish(self, timeout=30):
        """Stops it; it has seen no error."""
        self._stop.set()
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the client hangs"
        assert self.error is None, f"the client got an error: {self.error}"
        self.check()
