# SPDX-License-Identifier: BSD-2-Clause
"""`format`: FORMAT UNIT, with progress, as sg_format does it. Knows the command line, not what a format changes."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "FORMAT UNIT: new block length, protection information"
DESCRIPTION = """\
Format a logical unit: all data is lost. --size and --count go into the mode parameters first (MODE SELECT); --pi asks
for protection information. There are 15 seconds to think it over unless --quick."""
EXAMPLES = """\
  vscsi-initiator format
  vscsi-initiator format --pi 1 --quick            protection information of type 1
  vscsi-initiator format --size 4096
"""
FMTPINFO = {0: (0, 0), 1: (2, 0), 2: (3, 0), 3: (3, 1)}
"""FMTPINFO and PROTECTION FIELDS USAGE of each type of protection (SBC-3 5.3.2)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `format`."""
    from initiator.commands import _operation

    parser.add_argument(
        "-P", "--pi", type=argument(0, 3), default=0, metavar="TYPE", help="protection type (default: 0)"
    )
    parser.add_argument("-s", "--size", type=argument(1, 0xFFFFFF), metavar="N", help="bytes of a logical block")
    parser.add_argument("-c", "--count", type=argument(), metavar="N", help="logical blocks")
    parser.add_argument("-j", "--json", action="store_true", help="JSON, keys in snake_case")
    _operation.add_arguments(parser, "format")


def _select(args: argparse.Namespace, session: Session) -> None:
    """Block length and count by MODE SELECT(10) with a long block descriptor and no pages."""
    from vscsi.scsi import cdb, mode

    device = session.initiator.lun(session.lun)
    size = args.size or device.block_nbytes
    blocks = args.count if args.count is not None else 0 if args.size else device.blocks
    data = mode.HEADER_10.build(longlba=1, block_descriptor_length=16)
    data += mode.LONG_DESCRIPTOR.build(number_of_logical_blocks=blocks, logical_block_length=size)
    session.execute(cdb.MODE_SELECT_10.build(pf=1, parameter_list_length=len(data)), data_out=data)


def run(args: argparse.Namespace, session: Session) -> int:
    """Warn, send, wait."""
    from initiator.cli_session import emit_json
    from initiator.commands import _operation
    from vscsi.scsi import cdb
    from vscsi.scsi.medium import FORMAT_SHORT_HEADER

    if args.count is not None and args.count >= 1 << 64:
        raise CliError("format: --count is too large")
    _operation.warn(args, "FORMAT", session.uri_of(session.lun))
    if args.size is not None or args.count is not None:
        _select(args, session)
    fmtpinfo, usage = FMTPINFO[args.pi]
    header = FORMAT_SHORT_HEADER.build(protection_fields_usage=usage, fov=0, immed=not args.wait)
    _operation.patience(args, session)
    session.execute(cdb.FORMAT_UNIT.build(fmtpinfo=fmtpinfo, fmtdata=1), data_out=header)
    if not args.wait and not args.early:
        _operation.wait(args, session, quiet=args.json)
    if args.json:
        emit_json({"protection_type": args.pi, "finished": not args.early})
    elif not args.early:
        print("FORMAT UNIT Complete", file=sys.stderr)
    return ExitStatus.OK
