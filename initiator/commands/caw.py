# SPDX-License-Identifier: BSD-2-Clause
"""`caw`: COMPARE AND WRITE, as sg_compare_and_write sends it. Knows the command line, not how it becomes atomic."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "COMPARE AND WRITE"
DESCRIPTION = """\
Compare blocks with FILE and if they are the same write others, as one step that nothing comes between. Exit status 14
says that they were not the same; then nothing is written, and the first byte that differs is told.
FILE holds what to compare, then what to write; with --write it holds the first only, and the other file the second."""
EXAMPLES = """\
  vscsi-initiator caw --lba 0x100 --in both.bin
  vscsi-initiator caw --lba 0x100 --in old.bin --write new.bin
  vscsi-initiator caw --lba 8 --num 4 --in old.bin --write new.bin --fua
"""
MAX_BLOCKS = 255


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `caw`."""
    parser.add_argument("-i", "--in", dest="compare", required=True, metavar="FILE", help="what to compare (and write)")
    parser.add_argument(
        "-C", "--write", "--inw", dest="write", metavar="FILE", help="what to write, if it is elsewhere"
    )
    parser.add_argument("-l", "--lba", type=argument(), required=True, metavar="LBA", help="first block")
    parser.add_argument("-n", "--num", type=argument(0, MAX_BLOCKS), metavar="N", help="blocks (default: by FILE)")
    parser.add_argument(
        "-x", "--xferlen", type=argument(0, 4 << 20), metavar="LEN", help="bytes to send (default: all)"
    )
    parser.add_argument("-f", "--fua", action="store_true", help="FUA: durable when it returns")
    parser.add_argument("-d", "--dpo", action="store_true", help="DPO: do not keep it in the cache")
    parser.add_argument(
        "-w", "--wrprotect", type=argument(0, 7), default=0, metavar="WP", help="WRPROTECT (default: 0)"
    )
    parser.add_argument("-g", "--group", type=argument(0, 31), default=0, metavar="GN", help="GROUP NUMBER")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing about a miscompare")
    parser.add_argument("-j", "--json", action="store_true", help="JSON, keys in snake_case")


def _blocks(args: argparse.Namespace, data: bytes, session: Session) -> int:
    if args.num is not None:
        return int(args.num)
    block = session.initiator.lun(session.lun).block_nbytes + (8 if args.wrprotect else 0)
    blocks, rest = divmod(len(data), 2 * block)
    if rest or not 0 < blocks <= MAX_BLOCKS:
        raise CliError(
            f"caw: {len(data)} bytes to compare and to write are not twice 1 to {MAX_BLOCKS} blocks of {block} bytes; "
            "or give --num",
            ExitStatus.FILE,
        )
    return blocks


def run(args: argparse.Namespace, session: Session) -> int:
    """Send it; 14 says that the blocks were different."""
    from initiator.cli_session import CHECK_CONDITION, CONDITION_MET, GOOD, emit_json
    from initiator.commands._input import read_bytes
    from vscsi.scsi import cdb, sense

    data = read_bytes(args.compare) + (read_bytes(args.write) if args.write else b"")
    if args.xferlen is not None:
        data = data[: args.xferlen].ljust(args.xferlen, b"\0")
    row = cdb.COMPARE_AND_WRITE.build(
        lba=args.lba,
        number_of_logical_blocks=_blocks(args, data, session),
        fua=args.fua,
        dpo=args.dpo,
        wrprotect=args.wrprotect,
        group_number=args.group,
    )
    done = session.greeted(row, data_out=data)
    found = sense.decode(done.sense)
    miscompare = done.status == CHECK_CONDITION and found.key == sense.Key.MISCOMPARE
    if not miscompare and done.status not in (GOOD, CONDITION_MET):
        raise session.failure(done.status, done.sense)
    if args.json:
        emit_json({"equal": not miscompare, "miscompare_offset": found.information if miscompare else None})
    elif miscompare and not args.quiet:
        raise session.failure(done.status, done.sense)
    return ExitStatus.MISCOMPARE if miscompare else ExitStatus.OK
