"""Minimal Debian systems in directories."""

import contextlib
import os
import shutil

from lib.runner import Skip
from lib.scratch import run


def make_tree(path, packages=(), installed=()):
    """A minimal Debian with these packages, unless it is there; `installed` are added by apt from within. It is made once a
    machine, so nothing of ours belongs into it."""
    if not shutil.which("debootstrap") or not shutil.which("systemd-nspawn"):
        raise Skip("there is no debootstrap or systemd-nspawn here")
    if os.path.exists(path):
        return
    new = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(new)
    include = [f"--include={','.join(packages)}"] if packages else []
    run("debootstrap", "--variant=minbase", *include, "bookworm", new, timeout=600)
    # What this machine installs from serves that one as well.
    for name in ("etc/apt", "etc/resolv.conf"):
        run("cp", "-aLT", "/" + name, os.path.join(new, name))
    if installed:
        for words in (["update"], ["install", "-y", "--no-install-recommends", *installed]):
            inside(new, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", *words, timeout=600)
    os.rename(new, path)


def copy_tree(tree, path):
    run("cp", "-a", "--reflink=auto", tree, path)


def inside(root, *words, options=(), **how):
    """A command in a tree that is not booted."""
    return run("systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "--resolv-conf=off", *options, *words, **how)
