# SPDX-License-Identifier: BSD-2-Clause
"""SECURITY.md's table of promises: every test that it names exists, and no promise stands without one.

Reads the document and the tests' sources; runs none of them.
"""

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "SECURITY.md"


def rows(text: str) -> list[tuple[str, str]]:
    """Promise and what keeps it, of every table whose second column is called so."""
    found = []
    for table in re.findall(r"^\|[^\n]*\| Kept by \|\n\|[-| ]+\|\n((?:\|[^\n]*\n)+)", text, re.MULTILINE):
        found += [tuple(cell.strip() for cell in line.strip("|\n").split("|")) for line in table.splitlines()]
    return found


def names_in(path: Path) -> set[str]:
    """Names of the tests of a file, or of every file below a folder."""
    files = path.rglob("test_*.py") if path.is_dir() else [path]
    return {
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    }


def missing(kept_by: str) -> list[str]:
    """What a cell names that is not there: `file::test, test` (* for any letters), `file`, or `folder/`."""
    wrong, last = [], None
    for span in re.findall(r"`([^`]+)`", kept_by):
        for word in span.split(", "):
            place, _, pattern = word.rpartition("::")
            if not place and "/" in pattern:
                place, pattern = pattern, "test_*"
            last = ROOT / place if place else last
            if last is None or not last.exists():
                wrong.append(word)
            elif last.is_dir() or last.suffix == ".py":  # others are programs that a test runs
                wrong += [] if any(fnmatchcase(name, pattern) for name in names_in(last)) else [word]
    return wrong


@pytest.mark.parametrize(("promise", "kept_by"), rows(DOCUMENT.read_text()), ids=lambda cell: cell[:40])
def test_every_promise_is_kept_by_tests_that_exist(promise: str, kept_by: str) -> None:
    assert promise
    assert "`" in kept_by, "a promise without a test"
    assert missing(kept_by) == []


def test_there_are_promises() -> None:
    assert len(rows(DOCUMENT.read_text())) > 20


@pytest.mark.parametrize(
    ("cell", "wrong"),
    [
        ("`tests/test_security.py::test_there_are_promises`", []),
        ("`tests/test_security.py::test_there_*`, `test_what_*`", []),
        ("`tests/bus/`, `tests/test_security.py`: `test_there_*`", []),
        ("`tests/test_security.py::test_of_nothing`", ["tests/test_security.py::test_of_nothing"]),
        ("`tests/test_nothing.py::test_x`", ["tests/test_nothing.py::test_x"]),
        ("`tests/test_security.py::test_there_*`, `test_of_nothing`", ["test_of_nothing"]),
        ("`test_there_*`", ["test_there_*"]),
    ],
)
def test_what_is_not_there_is_found(cell: str, wrong: list[str]) -> None:
    assert missing(cell) == wrong
