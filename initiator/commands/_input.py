# SPDX-License-Identifier: BSD-2-Clause
"""Data that a command reads from a file or from stdin instead of asking a target: hex or binary. Not a command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vscsi.cli import CliError, ExitStatus, hex_bytes

LONGEST_NBYTES = 4 << 20


def inhex_option(parser: argparse.ArgumentParser, what: str) -> None:
    """--inhex, as sg3_utils' programs have it, and --inraw."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-I", "--inhex", metavar="FILE", help=f"decode {what} from FILE (- is stdin): hex, or with --raw binary"
    )
    group.add_argument("--inraw", metavar="FILE", help="the same, always binary")


def read_bytes(name: str) -> bytes:
    """The content of a file, or of stdin for '-'. Raises OSError; CliError if it is longer than any answer."""
    data = sys.stdin.buffer.read(LONGEST_NBYTES + 1) if name == "-" else Path(name).read_bytes()
    if len(data) > LONGEST_NBYTES:
        raise CliError(f"{name}: more than {LONGEST_NBYTES} bytes", ExitStatus.FILE)
    return data


def from_hex(text: str, where: str) -> bytes:
    """Bytes of hex digits over several lines; what follows '#' is a comment. Raises CliError."""
    words = " ".join(line.split("#")[0] for line in text.splitlines())
    try:
        return hex_bytes(words)
    except ValueError as error:
        raise CliError(f"{where}: {error}") from None


def inhex(args: argparse.Namespace) -> bytes | None:
    """What --inhex or --inraw names, None if neither was given. With --raw the file is binary."""
    if args.inraw is not None:
        return read_bytes(args.inraw)
    if args.inhex is None:
        return None
    data = read_bytes(args.inhex)
    if args.raw:
        args.raw = False  # it said how to read, not how to write
        return data
    return from_hex(data.decode("ascii", "replace"), args.inhex)
