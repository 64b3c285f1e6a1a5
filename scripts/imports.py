# SPDX-License-Identifier: BSD-2-Clause
"""Checks that imports go one way: tests, bench, scripts -> initiator, target -> vscsi; never initiator <-> target.

Reads source files and runs nothing of them. Run as a program it prints one line for each wrong import and exits 1.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What the files below each folder may import of the project, itself included.
MAY_IMPORT = {
    "vscsi": {"vscsi"},
    "target": {"vscsi", "target"},
    "initiator": {"vscsi", "initiator"},
}
PROJECT = {"vscsi", "target", "initiator", "bench", "tests", "scripts"}

# (folder, may not import, except these files, reason)
BANNED = [
    ("vscsi", "cffi", {"vscsi/native/build.py"}, "cffi's compiler belongs to the build"),
    ("target", "cffi", set(), "cffi's compiler belongs to the build"),
    ("initiator", "cffi", set(), "cffi's compiler belongs to the build"),
    *(
        (folder, module, set(), "neither clock, socket nor thread inside a protocol core")
        for folder in ("vscsi/srp.py", "vscsi/blkif.py", "vscsi/scsi", "target/commands")
        for module in ("time", "socket", "selectors", "threading", "asyncio")
    ),
]

# Heavy, and needed by few: only inside functions (typing.TYPE_CHECKING blocks are fine).
LAZY = {"rich", "pyscsi", "mfusepy"}


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each absolute module name imported anywhere in `tree`, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno


def at_import_time(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Like imported(), without function bodies and TYPE_CHECKING blocks."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node)
        pending += ast.iter_child_nodes(node)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def check(path: str, source: str) -> list[str]:
    """What is wrong with the imports of one file; `path` is relative to the checkout, with slashes."""
    wrong = []
    tree = ast.parse(source, path)
    folder = path.split("/")[0]
    for module, line in imported(tree):
        top = module.split(".")[0]
        if folder in MAY_IMPORT and top in PROJECT and top not in MAY_IMPORT[folder]:
            wrong.append(f"{path}:{line}: {folder} must not import {module}")
        for where, banned, exceptions, reason in BANNED:
            if top == banned and _below(path, where) and path not in exceptions:
                wrong.append(f"{path}:{line}: must not import {module}: {reason}")
    if folder in MAY_IMPORT:
        for module, line in at_import_time(tree):
            if module.split(".")[0] in LAZY:
                wrong.append(f"{path}:{line}: {module} is to be imported where it is used, not with the module")
    return wrong


def main() -> int:
    """Check the whole checkout."""
    wrong = []
    for folder in sorted(MAY_IMPORT):
        for path in sorted((ROOT / folder).rglob("*.py")):
            wrong += check(path.relative_to(ROOT).as_posix(), path.read_text())
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
