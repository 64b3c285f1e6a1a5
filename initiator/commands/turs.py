# SPDX-License-Identifier: BSD-2-Clause
"""`turs`: TEST UNIT READY, once or many times, as sg_turs does it. Knows nothing of what makes a unit ready."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument, complain

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "TEST UNIT READY, once or many times"
DESCRIPTION = "Send TEST UNIT READY. Exit status 0: ready; 2: not ready."
EXAMPLES = """\
  vscsi-initiator turs
  vscsi-initiator turs --number 10k --time
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `turs`."""
    parser.add_argument("-n", "--number", type=argument(1, 1 << 32), default=1, metavar="NUM", help="how often")
    parser.add_argument("-t", "--time", action="store_true", help="tell how long it took and how many per second")
    parser.add_argument("-j", "--json", action="store_true", help="JSON, keys in snake_case")


def run(args: argparse.Namespace, session: Session) -> int:
    """Send them; the status of the last failure counts."""
    from initiator.cli_session import emit_json
    from vscsi.scsi import cdb

    command = cdb.TEST_UNIT_READY.build()
    status, failed = int(ExitStatus.OK), 0
    started = time.monotonic()
    for _ in range(args.number):
        try:
            session.execute(command)
        except CliError as error:
            if args.number == 1 and not args.json:
                raise
            failed += 1
            if status != error.status and not args.json:
                complain("vscsi-initiator", str(error))
            status = error.status
    seconds = time.monotonic() - started
    if args.json:
        emit_json({"commands": args.number, "errors": failed, "seconds": round(seconds, 6), "ready": failed == 0})
        return status
    if args.time:
        print(f"time to perform commands was {seconds:.6f} secs; {int(args.number / seconds)} operations/sec")
    if args.number > 1:
        print(f"Completed {args.number} Test Unit Ready commands with {failed} errors")
    return status
