# SPDX-License-Identifier: BSD-2-Clause
"""`write`: a file or a pipe onto blocks of a logical unit that the user has named, over SRP or blkif."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument, naming

if TYPE_CHECKING:
    from initiator.cli_session import Session
    from initiator.lun import Lun
    from initiator.vbd import Vbd

BLKIF = True
HELP = "a file or a pipe onto a logical unit"
DESCRIPTION = """\
Write FILE, or what comes through a pipe, onto a logical unit. It must be named: --lun N, or a URI that has one.
A last block that the data does not fill is filled up with zeros."""
EXAMPLES = """\
  vscsi-initiator --lun 0 write disk.img
  vscsi-initiator --lun 0 write --lba 2048 --verify part.img
  zcat disk.img.gz | vscsi-initiator --lun 0 write --fua
"""
CHUNK_NBYTES = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `write`."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="where the data comes from; - or nothing is stdin")
    parser.add_argument(
        "--lba", "--seek", dest="lba", type=argument(), default=0, metavar="LBA", help="first block (default: 0)"
    )
    parser.add_argument(
        "--blocks", "--count", type=argument(), metavar="N", help="at most so many (default: all of the data)"
    )
    parser.add_argument("--fua", action="store_true", help="each write is durable before it is answered")
    parser.add_argument("--verify", action="store_true", help="read everything back and compare")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")


def _chunk(source: IO[bytes], nbytes: int) -> bytes:
    """`nbytes` bytes, fewer only at the end: a pipe gives them in pieces."""
    pieces = []
    while nbytes and (piece := source.read(nbytes)):
        pieces.append(piece)
        nbytes -= len(piece)
    return b"".join(pieces)


def _size(source: IO[bytes]) -> int | None:
    """Bytes in the source, None for a pipe."""
    if not source.seekable():
        return None
    here = source.tell()
    end = source.seek(0, 2)
    source.seek(here)
    return end - here


def _verify(device: Lun | Vbd, lba: int, data: bytes) -> None:
    back = bytes(device.read(lba, len(data) // device.block_nbytes))
    if back == data:
        return
    at = next((i for i, (a, b) in enumerate(zip(back, data, strict=False)) if a != b), min(len(back), len(data)))
    block, offset = divmod(at, device.block_nbytes)
    raise CliError(
        f"write: lba {lba + block} reads back otherwise than it was written, from byte {offset} on",
        ExitStatus.MISCOMPARE,
    )


def _copy(args: argparse.Namespace, source: IO[bytes], device: Lun | Vbd) -> None:
    """Source to device, a chunk at a time; each chunk is read back if asked for."""
    from initiator.cli_progress import progress

    block = device.block_nbytes
    size = _size(source)
    limit = None if args.blocks is None else args.blocks * block
    total = limit if size is None else size if limit is None else min(size, limit)
    if total is not None and args.lba + -(-total // block) > device.blocks:
        raise CliError(
            f"write: {-(-total // block)} blocks at lba {args.lba} do not fit in {device.blocks} blocks",
            ExitStatus.LBA_OUT_OF_RANGE,
        )
    lba = args.lba
    with progress("write", total, quiet=args.quiet) as advance:
        while data := _chunk(source, CHUNK_NBYTES if limit is None else min(CHUNK_NBYTES, limit)):
            limit = None if limit is None else limit - len(data)
            advance(len(data))
            data += bytes(-len(data) % block)
            device.write(lba, data, fua=args.fua)
            if args.verify:
                _verify(device, lba, data)
            lba += len(data) // block
    if limit:
        raise CliError(f"write: the data ends {limit} bytes before {args.blocks} blocks are full", ExitStatus.FILE)


def run(args: argparse.Namespace, session: Session) -> int:
    """Write, a chunk at a time, and read back each chunk if asked to."""
    if not session.lun_named:
        raise CliError(
            "write: name the logical unit to write to: --lun N, or a URI with one", ExitStatus.CONTRADICTING_OPTIONS
        )
    from_stdin = args.file in (None, "-")
    if from_stdin and sys.stdin.isatty():
        raise CliError("write: not from a terminal; name a FILE or use a pipe", ExitStatus.CONTRADICTING_OPTIONS)
    with ExitStack() as stack:
        source: IO[bytes] = sys.stdin.buffer if from_stdin else stack.enter_context(Path(args.file).open("rb"))
        device = session.block_device()
        if getattr(device, "readonly", False):
            # blkif tells beforehand, and has no words for it afterwards.
            raise CliError("write: the virtual disk is write protected", ExitStatus.DATA_PROTECT)
        with naming("stdin" if from_stdin else args.file):
            _copy(args, source, device)
    return ExitStatus.OK
