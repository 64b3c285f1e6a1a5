# SPDX-License-Identifier: BSD-2-Clause
"""`read`: blocks of a logical unit to a file or to stdout, over SRP or blkif. Knows nothing of transfers."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

from vscsi.cli import STDOUT, CliError, ExitStatus, argument, naming

if TYPE_CHECKING:
    from initiator.cli_session import Session
    from initiator.lun import Lun
    from initiator.vbd import Vbd

BLKIF = True
HELP = "blocks of a logical unit to a file or to stdout"
DESCRIPTION = """\
Read blocks and write them to FILE, or to stdout. A terminal gets a hex dump only when it is asked for."""
EXAMPLES = """\
  vscsi-initiator read disk.img                      the whole logical unit
  vscsi-initiator read --lba 2048 --blocks 8 --hex
  vscsi-initiator read --protocol blkif | sha256sum
"""
CHUNK_NBYTES = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `read`."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="where the data goes; - or nothing is stdout")
    parser.add_argument(
        "--lba", "--skip", dest="lba", type=argument(), default=0, metavar="LBA", help="first block (default: 0)"
    )
    parser.add_argument("--blocks", "--count", type=argument(), metavar="N", help="how many (default: all that follow)")
    parser.add_argument("-H", "--hex", action="count", default=0, help="as a hex dump; twice: plain hex")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")


def _refuse(device: Lun | Vbd, lba: int, blocks: int) -> NoReturn:
    """Out of range, known before FILE is touched: the device itself says so where its protocol has words for it."""
    from initiator.errors import BlkifError

    with suppress(BlkifError):
        device.read(min(lba + blocks, 1 << 64) - 1, 1)
    raise CliError(
        f"read: {blocks} blocks at lba {lba} are not within {device.blocks} blocks", ExitStatus.LBA_OUT_OF_RANGE
    )


def run(args: argparse.Namespace, session: Session) -> int:
    """Read and write out, a chunk at a time."""
    from initiator.cli_progress import progress
    from vscsi.cli import hex_dump

    to_stdout = args.file in (None, "-")
    if to_stdout and not args.hex and sys.stdout.isatty():
        raise CliError("read: not to a terminal; name a FILE, use a pipe, or --hex", ExitStatus.CONTRADICTING_OPTIONS)
    device = session.block_device()
    block = device.block_nbytes
    blocks = max(device.blocks - args.lba, 0) if args.blocks is None else args.blocks
    if args.blocks is None and args.lba > device.blocks:
        blocks = 1
    if args.lba + blocks > device.blocks:
        _refuse(device, args.lba, blocks)
    step = max(CHUNK_NBYTES // block, 1)
    with ExitStack() as stack:
        out: IO[bytes] = sys.stdout.buffer if to_stdout else stack.enter_context(Path(args.file).open("wb"))
        stack.enter_context(naming(STDOUT if to_stdout else args.file))
        quiet = args.quiet or (to_stdout and sys.stdout.isatty())  # a bar between the lines of a dump
        advance = stack.enter_context(progress("read", blocks * block, quiet=quiet))
        for first in range(args.lba, args.lba + blocks, step):
            data = device.read(first, min(step, args.lba + blocks - first))
            if args.hex:
                offset = (first - args.lba) * block
                out.writelines(f"{line}\n".encode() for line in hex_dump(data, start=offset, columns=args.hex == 1))
            else:
                out.write(data)
            advance(len(data))
        out.flush()
    return ExitStatus.OK
