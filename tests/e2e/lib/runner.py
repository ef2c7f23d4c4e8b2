"""Runs the cases of tests/e2e: each in a scratch directory of its own, with a deadline."""

import argparse
import re
import signal
import time
import traceback

from lib.scratch import Scratch

CASES = []


class Case:
    def __init__(self, function, seconds, long):
        self.function, self.seconds, self.long = function, seconds, long
        self.name = f"{function.__module__.removeprefix('test_')}.{function.__name__}"


class Settings:
    long = False  # the full counts


def case(seconds=60, long=False):
    """Marks a test case: function(scratch). `seconds`: past that it has failed (tenfold with --long)."""
    def mark(function):
        CASES.append(Case(function, seconds, long))
        return function
    return mark


class Skip(Exception):
    """Raised by a case that this machine cannot run, with the reason."""


def _too_late(*unused):
    raise TimeoutError("the case took too long")


def run_case(one, keep):
    with Scratch(keep) as scratch:
        signal.signal(signal.SIGALRM, _too_late)
        signal.alarm(one.seconds * (10 if Settings.long else 1))
        try:
            one.function(scratch)
        finally:
            signal.alarm(0)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="end-to-end tests of vmfs (as root)")
    parser.add_argument("pattern", nargs="*", help="run the cases whose name matches one of these")
    parser.add_argument("--long", action="store_true", help="full counts, and the cases that take long")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--keep", action="store_true", help="leave scratch directories and processes of failed cases")
    options = parser.parse_args(arguments)
    Settings.long = options.long
    # With `timeout` or ^C the scratch directories are cleaned as well.
    signal.signal(signal.SIGTERM, lambda *unused: (_ for _ in ()).throw(KeyboardInterrupt()))
    passed, failed, skipped = 0, [], 0
    for one in CASES:
        if options.pattern and not any(re.search(p, one.name) for p in options.pattern):
            continue
        if one.long and not options.long and not options.pattern:
            continue
        if options.list:
            print(one.name)
            continue
        start = time.monotonic()
        try:
            run_case(one, options.keep)
            passed += 1
            print(f"ok      {one.name} ({time.monotonic() - start:.1f} s)", flush=True)
        except Skip as reason:
            skipped += 1
            print(f"skipped {one.name}: {reason}", flush=True)
        except Exception:  # pylint: disable=broad-except
            failed.append(one.name)
            print(f"FAILED  {one.name} ({time.monotonic() - start:.1f} s)\n{traceback.format_exc(limit=-4)}", flush=True)
    if options.list:
        return 0
    if failed:
        print("failed: " + " ".join(failed))
    print(f"{passed} passed, {len(failed)} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0
