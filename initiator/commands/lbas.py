# SPDX-License-Identifier: BSD-2-Clause
"""`lbas`: which blocks are mapped, by GET LBA STATUS, as sg_get_lba_status shows it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "which blocks are mapped: GET LBA STATUS"
DESCRIPTION = """\
Show which blocks have room of their own on the medium and which are holes. Asks on until the end of the disk, unless
--brief or --once."""
EXAMPLES = """\
  vscsi-initiator lbas
  vscsi-initiator lbas --lba 0x1000 --once
  vscsi-initiator lbas --lba 0x1000 --brief       only the status of that block: 0, 1 or 2
  vscsi-initiator lbas --json
"""
ALLOCATION_LENGTH = 8 + 16 * 1024
STATUSES = ("mapped (or unknown)", "deallocated", "anchored", "mapped", "unknown")
CONDITIONS = (
    "No indication of the completion condition", "Command completed due to meeting allocation length",
    "Command completed due to meeting scan length", "Command completed due to meeting capacity of medium",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `lbas`."""
    from initiator.cli_session import output_options
    from initiator.commands._input import inhex_option

    output_options(parser, "the parameter data")
    inhex_option(parser, "parameter data")
    parser.add_argument("-l", "--lba", type=argument(), default=0, metavar="LBA", help="first block (default: 0)")
    parser.add_argument("-m", "--maxlen", type=argument(8, 1 << 20), metavar="LEN", help="allocation length")
    parser.add_argument("-R", "--report-type", "--rt", type=argument(0, 0xFF), default=0, metavar="RT", help="SBC-4's")
    parser.add_argument("-1", "--once", action="store_true", help="one command, not up to the end")
    parser.add_argument("-b", "--brief", action="store_true", help="only the status of the first block, as a number")


def _fetch(args: argparse.Namespace, session: Session, lba: int) -> bytes:
    from vscsi.scsi import cdb

    nbytes = args.maxlen or ALLOCATION_LENGTH
    return session.execute(
        cdb.GET_LBA_STATUS.build(lba=lba, allocation_length=nbytes, report_type=args.report_type), data_in=nbytes
    )


def run(args: argparse.Namespace, session: Session) -> int:
    """Ask, or read a file, and show."""
    from initiator.cli_session import emit, emit_hex, emit_json, emit_raw
    from initiator.commands._input import inhex
    from vscsi.scsi.medium import LBA_STATUS_HEADER, LbaStatus, decode_lba_status

    given = inhex(args)
    data = _fetch(args, session, args.lba) if given is None else given
    if len(data) < 8:
        raise CliError(f"lbas: {len(data)} bytes are too few", ExitStatus.MALFORMED)
    found: list[LbaStatus] = decode_lba_status(data)
    whole = not (args.once or args.brief or args.raw or args.hex or given is not None)
    if whole and found:
        blocks = session.initiator.lun(session.lun).blocks
        while (next_lba := found[-1].lba + found[-1].blocks) < blocks and found[-1].blocks:
            more = decode_lba_status(_fetch(args, session, next_lba))
            # Each must go on where the last one ended, or we might ask for ever.
            if not more or more[-1].lba + more[-1].blocks <= next_lba:
                break
            found += more
    if args.raw:
        emit_raw(data)
    elif args.hex:
        emit_hex(data, args.hex)
    elif args.json:
        rows = [
            {
                "lba": e.lba,
                "blocks": e.blocks,
                "provisioning_status": e.status,
                "status_name": STATUSES[e.status] if e.status < len(STATUSES) else "reserved",
                "additional_status": e.additional_status,
            }
            for e in found
        ]
        emit_json({**LBA_STATUS_HEADER.numbers(data), "lba_status_descriptors": rows})
    elif not found:
        emit(["No complete LBA status descriptors available"])
    elif args.brief:
        emit([str(found[0].status)])
    else:
        head = LBA_STATUS_HEADER.numbers(data)
        condition = head["completion_condition"]
        emit([CONDITIONS[condition] if condition < 4 else f"Command completion is reserved [{condition}]"])
        emit([f"RTP={head['rtp']}"])
        for k, e in enumerate(found):
            words = STATUSES[e.status] if e.status < len(STATUSES) else f"Provisioning status: {e.status}"
            note = {0: "", 1: " [may return unrecovered errors]"}.get(
                e.additional_status, f" [add_status: {e.additional_status:#x}]"
            )
            emit([f"[{k + 1}] LBA: 0x{e.lba:016x}  blocks: {e.blocks:10}  {words}{note}"])
    return ExitStatus.OK
