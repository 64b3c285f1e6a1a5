# SPDX-License-Identifier: BSD-2-Clause
"""`sync`: what was written becomes durable: SYNCHRONIZE CACHE over SRP, FLUSH over blkif."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session

BLKIF = True
HELP = "SYNCHRONIZE CACHE, or blkif's FLUSH"
DESCRIPTION = "Make everything that was written durable. Returns when the target says that it is."
EXAMPLES = """\
  vscsi-initiator sync
  vscsi-initiator --protocol blkif sync
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `sync`."""
    parser.add_argument("--lba", type=argument(), default=0, metavar="LBA", help="first logical block (default: 0)")
    parser.add_argument(
        "--blocks", type=argument(0, 0xFFFFFFFF), default=0, metavar="N", help="how many (default: 0, all that follow)"
    )


def run(args: argparse.Namespace, session: Session) -> int:
    """Synchronize."""
    from initiator.cli_session import refuse
    from vscsi.scsi import cdb

    if session.protocol == "blkif":
        if args.lba or args.blocks:
            refuse("blkif flushes the whole disk; --lba and --blocks go only with --protocol srp")
        session.block_device().flush()
        return ExitStatus.OK
    row = cdb.SYNCHRONIZE_CACHE_16 if args.lba >> 32 or args.blocks >> 16 else cdb.SYNCHRONIZE_CACHE_10
    session.execute(row.build(lba=args.lba, number_of_logical_blocks=args.blocks))
    return ExitStatus.OK
