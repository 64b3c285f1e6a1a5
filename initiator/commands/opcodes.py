# SPDX-License-Identifier: BSD-2-Clause
"""`opcodes`: which commands and task management functions the target has, as sg_opcodes shows them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "supported commands, with usage masks and time-outs"
DESCRIPTION = """\
List the commands that the logical unit supports, by REPORT SUPPORTED OPERATION CODES; or ask for one with --opcode.
--tmf lists task management functions instead."""
EXAMPLES = """\
  vscsi-initiator opcodes
  vscsi-initiator opcodes --rctd                      with time-outs in seconds
  vscsi-initiator opcodes --opcode 0x28               one command, with its usage data
  vscsi-initiator opcodes --opcode 0x9e --sa 0x10     the same as --opcode 9eh,10h
  vscsi-initiator opcodes --tmf --repd
"""
ALLOCATION_LENGTH = 8192
ALL, ONE_OPCODE, ONE_SA, EITHER = 0, 1, 2, 3


def _opcode(text: str) -> tuple[int, int | None]:
    code, _, sa = text.partition(",")
    return argument(0, 0xFF)(code), argument(0, 0xFFFF)(sa) if sa else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `opcodes`."""
    from initiator.cli_session import output_options
    from initiator.commands._input import inhex_option

    output_options(parser, "the parameter data")
    inhex_option(parser, "parameter data")
    parser.add_argument("-o", "--opcode", type=_opcode, metavar="OP[,SA]", help="only this command")
    parser.add_argument("-s", "--sa", type=argument(0, 0xFFFF), metavar="SA", help="its service action")
    parser.add_argument("-R", "--rctd", action="store_true", help="with command time-outs")
    parser.add_argument("-c", "--compact", action="store_true", help="narrower table")
    parser.add_argument("-a", "--alpha", action="store_true", help="sorted by name instead of by number")
    parser.add_argument("--unsorted", action="store_true", help="in the order that the target gives")
    parser.add_argument(
        "-Q", "--rep-opts", type=argument(0, 7), metavar="RO", help="REPORTING OPTIONS (default: what fits)"
    )
    parser.add_argument("-t", "--tmf", action="store_true", help="task management functions")
    parser.add_argument("-q", "--repd", action="store_true", help="with --tmf: their time-outs too")


def _fetch(args: argparse.Namespace, session: Session, opcode: int | None, sa: int | None) -> bytes:
    from vscsi.scsi import cdb

    if args.tmf:
        row = cdb.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS.build(repd=args.repd, allocation_length=16)
        return session.execute(row, data_in=16)
    options = ALL if opcode is None else ONE_OPCODE if sa is None else ONE_SA
    row = cdb.REPORT_SUPPORTED_OPERATION_CODES.build(
        rctd=args.rctd,
        reporting_options=options if args.rep_opts is None else args.rep_opts,
        requested_operation_code=opcode or 0,
        requested_service_action=sa or 0,
        allocation_length=ALLOCATION_LENGTH,
    )
    return session.execute(row, data_in=ALLOCATION_LENGTH)


def run(args: argparse.Namespace, session: Session) -> int:
    """Ask, or read a file, and show."""
    from initiator.cli_session import emit, emit_hex, emit_json, emit_raw, refuse
    from initiator.commands._input import inhex
    from initiator.text import opcodes
    from vscsi.scsi.parameters import decode_opcodes

    opcode, sa = args.opcode or (None, None)
    sa = args.sa if args.sa is not None else sa
    if sa is not None and opcode is None:
        refuse("opcodes: --sa needs --opcode")
    if args.tmf and opcode is not None:
        refuse("opcodes: --tmf and --opcode do not go together")
    data = inhex(args)
    if data is None:
        data = _fetch(args, session, opcode, sa)
    if len(data) < 4:
        raise CliError(f"opcodes: {len(data)} bytes are too few", ExitStatus.MALFORMED)
    if args.raw:
        emit_raw(data)
    elif args.hex:
        emit_hex(data, args.hex)
    elif args.tmf:
        emit_json(opcodes.functions_json(data)) if args.json else emit(opcodes.functions_lines(data))
    elif opcode is not None:
        emit_json(opcodes.one_json(opcode, sa, data)) if args.json else emit(opcodes.one_lines(opcode, sa, data))
    else:
        found = decode_opcodes(data)
        if args.alpha:
            found.sort(key=lambda c: opcodes.name_of(c.opcode, c.service_action))
        elif not args.unsorted:
            found.sort(key=lambda c: (c.opcode, c.service_action or 0))
        if args.json:
            emit_json({"commands": opcodes.list_json(found)})
        else:
            emit(opcodes.list_lines(found, timeouts=args.rctd, compact=args.compact))
    return ExitStatus.OK
