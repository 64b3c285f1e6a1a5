# SPDX-License-Identifier: BSD-2-Clause
"""How much code stands behind each protocol: lines that are neither empty nor comment, by what they are for.

A table of file patterns, first match wins; what is missing counts nothing. Knows this project's files by name, and of
their content only how comments look.
"""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Part:
    """A row: whose it is, what it does, and the files."""

    protocol: str
    what: str
    patterns: tuple[str, ...]


PARTS = (
    Part("blkif", "on the wire, C", ("target/native/blkif.c", "initiator/native/blkif.c")),
    Part("blkif", "conversation, Python",
         ("vscsi/blkif.py", "target/blkif_*.py", "initiator/vbd.py", "initiator/vbd_*.py")),
    Part("srp", "on the wire, C", ("target/native/srp*.[ch]", "initiator/native/srp.c")),
    Part("srp", "conversation, Python",
         ("vscsi/srp*.py", "target/srp_*.py", "target/login.py", "target/nexus.py", "initiator/hba.py",
          "initiator/link.py", "initiator/nexus.py", "initiator/recovery.py")),
    Part("srp", "task set, checks, sense, C",
         ("target/native/taskset.c", "target/native/task.h", "target/native/tmf.c", "target/native/preempt.c",
          "target/native/ua.c", "target/native/checks.[ch]", "target/native/sense.c", "target/native/media.c",
          "target/native/control.c", "target/native/slow.c", "target/native/pi.c")),
    Part("srp", "SCSI commands and pages, Python",
         ("vscsi/scsi/*.py", "target/commands/*.py", "target/modes.py", "target/mode_pages.py", "target/log_pages.py",
          "target/reservations*.py", "target/operation.py", "target/protection.py", "target/pi.py", "target/copying.py",
          "target/rod_tokens.py", "target/report.py", "target/timestamp.py", "target/erase.py",
          "target/provisioning.py",
          "target/scsi_device.py", "target/part.py", "target/atomic.py", "target/journal.py",
          "target/identification.py", "target/medium.py", "initiator/lun.py")),
    Part("both", "ring, grants, events, memory, block I/O, C",
         ("vscsi/native/*.[ch]", "target/native/*.[ch]", "initiator/native/*.[ch]")),
    Part("both", "bus, store, server, images, library, Python",
         ("vscsi/*.py", "vscsi/bus/*.py", "vscsi/native/*.py", "target/*.py", "target/stores/*.py", "initiator/*.py")),
)  # fmt: skip


def _files(root: Path) -> Iterator[str]:
    for folder in ("vscsi", "target", "initiator"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".c", ".h", ".py") and path.is_file():
                yield path.relative_to(root).as_posix()


def c_lines(text: str) -> int:
    """Lines with something besides white space and comments."""
    kept, at = [], 0
    while at < len(text):
        if text.startswith("/*", at):
            end = text.find("*/", at + 2)
            end = len(text) if end < 0 else end + 2
            kept.append("\n" * text.count("\n", at, end))
            at = end
        elif text.startswith("//", at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif text[at] in "\"'":
            end = at + 1
            while end < len(text) and text[end] != text[at]:
                end += 2 if text[end] == "\\" else 1
            kept.append(text[at : end + 1])
            at = end + 1
        else:
            kept.append(text[at])
            at += 1
    return sum(1 for line in "".join(kept).splitlines() if line.strip())


_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def python_lines(text: str) -> int:
    """Lines with something besides white space, comments and docstrings."""
    lines: set[int] = set()
    fresh = True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _NO_CODE:
            fresh = fresh or token.type == tokenize.NEWLINE
        elif token.type == tokenize.STRING and fresh:
            fresh = False  # an expression of one string: documentation
        else:
            fresh = False
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


def count(root: Path = ROOT) -> list[dict[str, object]]:
    """Rows for the JSON: protocol, what, files, lines."""
    totals = {part: [0, 0] for part in PARTS}
    for name in _files(root):
        part = next((part for part in PARTS if any(_matches(name, pattern) for pattern in part.patterns)), None)
        if part is None:
            continue
        text = (root / name).read_text()
        totals[part][0] += 1
        totals[part][1] += python_lines(text) if name.endswith(".py") else c_lines(text)
    return [
        {"protocol": part.protocol, "what": part.what, "files": files, "lines": lines}
        for part, (files, lines) in totals.items()
    ]


def _matches(name: str, pattern: str) -> bool:
    """fnmatch whose * does not cross folders."""
    return name.count("/") == pattern.count("/") and fnmatch(name, pattern)
