#!/usr/bin/python3
"""End-to-end tests: real mounts, real clients, real guests. run.py [--long] [--list] [PATTERN...]"""

import glob
import importlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from lib import runner  # noqa: E402

if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("error: the tests mount file systems; run them as root")
    for path in sorted(glob.glob(os.path.join(HERE, "test_*.py"))):
        importlib.import_module(os.path.basename(path).removesuffix(".py"))
    sys.exit(runner.main())
