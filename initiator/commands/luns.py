# SPDX-License-Identifier: BSD-2-Clause
"""`luns`: REPORT LUNS, as sg_luns shows it. Knows the list's layout (SPC-5 6.33), not what the logical units are."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "REPORT LUNS"
DESCRIPTION = "List the logical units that the target has, by REPORT LUNS."
EXAMPLES = """\
  vscsi-initiator luns
  vscsi-initiator luns --quiet
  vscsi-initiator luns --json
"""
ALLOCATION_LENGTH = 8 + 8 * 16384


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `luns`."""
    from initiator.cli_session import output_options

    output_options(parser, "the parameter data")
    parser.add_argument("-q", "--quiet", action="store_true", help="only the LUNs, one a line")
    parser.add_argument(
        "-s", "--select", type=argument(0, 255), default=0, metavar="SR", help="SELECT REPORT (default: 0)"
    )


def run(args: argparse.Namespace, session: Session) -> int:
    """Ask and show."""
    from initiator.cli_session import emit, emit_hex, emit_json, emit_raw
    from vscsi.scsi import cdb, lun

    # The one command that needs no logical unit: it goes to LUN 0 whether there is one or not.
    command = cdb.REPORT_LUNS.build(select_report=args.select, allocation_length=ALLOCATION_LENGTH)
    data = session.execute(command, lun=0, data_in=ALLOCATION_LENGTH)
    if len(data) < 8:
        raise CliError(f"luns: the target sent {len(data)} bytes of at least 8", ExitStatus.MALFORMED)
    nbytes = int.from_bytes(data[:4])
    entries = [data[at : at + 8] for at in range(8, min(8 + nbytes, len(data)) - 7, 8)]
    if args.raw:
        emit_raw(data)
    elif args.hex:
        emit_hex(data, args.hex, text=False)
    elif args.json:
        emit_json({"luns": [{"lun": entry.hex(), "number": lun.decode(entry)} for entry in entries]})
    elif args.quiet:
        emit(entry.hex() for entry in entries)
    else:
        plural = "y" if len(entries) == 1 else "ies"
        emit([f"Lun list length = {nbytes} which implies {len(entries)} lun entr{plural}"])
        if entries:
            emit([f"Report luns [select_report={args.select:#x}]:", *(f"    {entry.hex()}" for entry in entries)])
    return ExitStatus.OK
