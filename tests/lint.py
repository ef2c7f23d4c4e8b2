#!/usr/bin/python3
"""Style that a machine can check: layers point one way, files stay small, the documents are complete."""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# A folder may include itself, what stands before it in this list, and what EXTRA names. fs/ knows nothing of net/,
# net/ nothing of the FUSE front.
FS = ["fs/base", "fs/seam", "fs/journal", "fs/index", "fs/store", "fs/volume"]
FRONT = ["fs/fuse", "fs/holder"]
NET = ["net/seam", "net/wire", "net/history", "net/session", "net/ownership", "net/replication", "net/node", "net/link"]
ALLOWED = {}
for at, folder in enumerate(FS):
    ALLOWED[folder] = FS[: at + 1]
for folder in FRONT:
    ALLOWED[folder] = FS + FRONT
for at, folder in enumerate(NET):
    ALLOWED[folder] = FS + NET[: at + 1]
# Sockets below decisions: net/link knows the seam and the frames only.
ALLOWED["net/link"] = FS + ["net/seam", "net/wire", "net/link"]
ALLOWED["cli"] = FS + FRONT + NET + ["cli"]

LINES_MAX = 500
SOURCES = (".cc", ".h", ".py")
TOP_LEVEL = {"CMakeLists.txt", "CMakePresets.json", "README.md", "fs", "net", "cli", "tests", "packaging", "docs", ".ci",
             ".gitignore", ".clang-format", "LICENSE"}


def source_files():
    """All but what is built and what git keeps: the tree may be an archive's, without git."""
    found = []
    for path, below, names in os.walk(ROOT):
        below[:] = [d for d in below if d not in (".git", "__pycache__")
                    and not (path == ROOT and (d == "build" or d.startswith("build-")))]
        found += [os.path.relpath(os.path.join(path, name), ROOT) for name in names if name != ".git"]
    return sorted(found)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as file:
        return file.read()


def folder_of(path):
    """The layer that a path belongs to: the longest known folder before it."""
    candidates = [f for f in ALLOWED if path.startswith(f + "/")]
    return max(candidates, key=len) if candidates else None


def check_layers(files):
    for path in files:
        folder = folder_of(path)
        if folder is None or not path.endswith((".cc", ".h")):
            continue
        for included in re.findall(r'^#include "([^"]+)"', read(path), re.MULTILINE):
            target = folder_of(included)
            if target is None:
                yield f"{path}: includes {included}, which is in no known layer"
            elif target not in ALLOWED[folder]:
                yield f"{path}: {folder} must not include {included} (a higher layer)"
        if re.search(r"#include <asio", read(path)) and folder not in ("net/link", "cli"):
            yield f"{path}: Asio belongs to net/link and the daemon"


def check_sizes(files):
    for path in files:
        if path.endswith(SOURCES):
            lines = read(path).count("\n")
            if lines > LINES_MAX:
                yield f"{path}: {lines} lines; its second subject wants a file ({LINES_MAX} at most)"


def defined_types(text):
    """The types that a file defines at the level of a named namespace: "namespace::Name"."""
    spaces = []
    for line in text.split("\n"):
        opened = re.match(r"(?:inline )?namespace ?([\w:]*) ?\{$", line)
        if opened:
            spaces.append(opened.group(1))
        elif line.startswith("}  // namespace") and spaces:
            spaces.pop()
        found = re.match(r"(?:class|struct|union|enum class|enum) ([\w:]+)(?! *;)\b[^;]*$", line)
        if found and spaces and all(spaces):
            yield "::".join(spaces + [found.group(1)])


def check_type_names(files):
    """Two types of one name in one program are undefined behaviour that no compiler reports."""
    places = {}
    for path in files:
        if path.endswith((".cc", ".h")):
            for name in set(defined_types(read(path))):
                places.setdefault(name, []).append(path)
    for name, where in sorted(places.items()):
        if len(where) > 1:
            yield f"{where[0]}: {name} is also defined in {' and '.join(where[1:])}"


def check_words(files):
    unfinished = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    for path in files:
        if path.startswith("tests/golden/") or path.endswith((".seg", ".bin")):
            continue
        for number, line in enumerate(read(path).split("\n"), 1):
            if unfinished.search(line):
                yield f"{path}:{number}: unfinished work is not marked in the code: {line.strip()[:80]}"


def check_top_level(files):
    for name in sorted({path.split("/")[0] for path in files}):
        if name not in TOP_LEVEL:
            yield f"{name}: not a known top-level name"


def check_map(files):
    """The README names every folder of the first two levels that holds sources."""
    readme = read("README.md")
    for folder in sorted({"/".join(p.split("/")[:2]) for p in files
                          if p.startswith(("fs/", "net/")) and p.count("/") >= 2}):
        if folder + "/" not in readme and "`" + folder + "`" not in readme:
            yield f"README.md: does not name {folder}/"


def check_python(files):
    """Names that nothing defines would be found only by the run that comes there."""
    scripts = [os.path.join(ROOT, path) for path in files if path.endswith(".py") or re.match("#!.*python", read(path))]
    said = subprocess.run([sys.executable, "-m", "pyflakes", *scripts], capture_output=True, text=True, check=False)
    for line in (said.stdout + said.stderr).splitlines():
        yield line.removeprefix(ROOT + "/")


def main():
    files = source_files()
    problems = []
    for check in (check_layers, check_sizes, check_type_names, check_words, check_python, check_top_level,
                  check_map):
        problems += check(files)
    for problem in problems:
        print(problem)
    print(f"style: {len(files)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
