# SPDX-License-Identifier: BSD-2-Clause
"""What commands that destroy everything share: the warning before, and waiting with progress after. Not a command."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus

if TYPE_CHECKING:
    from initiator.cli_session import Session

WARNINGS = (15, 10, 5)
IN_PROGRESS = ((0x04, 0x04), (0x04, 0x07), (0x04, 0x1B), (0x00, 0x16), (0x04, 0x09))
"""ASC and ASCQ that say that the operation still runs."""
REQUEST_NBYTES = 252
ATTENTIONS = 64
"""Unit attentions that may stand before what is asked for."""
LONGEST_SECONDS = 86400.0
"""How long the command itself may last with --wait."""


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Options of waiting and warning."""
    parser.add_argument("-Q", "--quick", action="store_true", help="no 15 seconds to think it over")
    parser.add_argument("-e", "--early", action="store_true", help=f"end as soon as the {what} has begun")
    parser.add_argument("-w", "--wait", action="store_true", help="IMMED=0: the command itself lasts until the end")
    parser.add_argument("--poll", type=float, default=1.0, metavar="SECS", help="between looks (default: 1)")


def warn(args: argparse.Namespace, what: str, place: str) -> None:
    """The words and the pause of sg3_utils, unless --quick."""
    if args.quick:
        return
    for seconds in WARNINGS:
        print(
            f"\nA {what} will commence in {seconds} seconds\n    ALL data on {place} will be DESTROYED", file=sys.stderr
        )
        print("        Press control-C to abort", file=sys.stderr)
        time.sleep(5)


def patience(args: argparse.Namespace, session: Session) -> None:
    """With --wait the command lasts as long as the operation: longer than any time-out for an ordinary command."""
    if args.wait:
        session.timeout = max(session.timeout, LONGEST_SECONDS)


def wait(args: argparse.Namespace, session: Session, *, quiet: bool) -> None:
    """Looks with REQUEST SENSE until the operation has ended. Raises CliError if it failed."""
    from vscsi.scsi import cdb, sense

    row = cdb.REQUEST_SENSE.build(allocation_length=REQUEST_NBYTES)
    shown, attentions = -1, 0
    while True:
        found = sense.decode(session.execute(row, data_in=REQUEST_NBYTES))
        if found.key == sense.Key.UNIT_ATTENTION and attentions < ATTENTIONS:
            attentions += 1
            continue  # it is not about the operation, and this has cleared it
        if (found.asc, found.ascq) not in IN_PROGRESS and found.progress is None:
            break
        percent = (found.progress or 0) * 100 // 65536
        if not quiet and percent != shown:
            print(f"Progress indication: {percent}% done", flush=True)
            shown = percent
        time.sleep(max(args.poll, 0.01))
    if found.key not in (sense.Key.NO_SENSE, sense.Key.NOT_READY):
        raise CliError(f"{session.command}: {found.describe()}", ExitStatus.MEDIUM_HARD)
    # A failed operation shows in the first command that wants the medium.
    session.execute(cdb.TEST_UNIT_READY.build())
