# SPDX-License-Identifier: BSD-2-Clause
"""`sense`: sense data (or a CDB, or an exit status) in words, as sg_decode_sense shows it. Needs no target."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "decode sense data given in hex; needs no target"
DESCRIPTION = "Show in words what sense data says; or with --cdb which command a CDB is. No target is needed."
EXAMPLES = """\
  vscsi-initiator sense 70 00 05 00 00 00 00 0a 00 00 00 00 24 00 00 cf 00 02
  vscsi-initiator sense --file dump.hex --json
  vscsi-initiator sense --cdb 28 00 00 00 10 00 00 00 08 00
  vscsi-initiator sense --status 18
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `sense`."""
    parser.add_argument("hex", nargs="*", metavar="HEX", help="hex bytes, with or without spaces")
    parser.add_argument("-f", "--file", metavar="FILE", help="hex from FILE; - is stdin")
    parser.add_argument("-b", "--binary", metavar="FILE", help="binary from FILE; - is stdin")
    parser.add_argument("-c", "--cdb", action="store_true", help="the bytes are a CDB")
    parser.add_argument("-e", "--err", type=argument(0, 255), metavar="N", help="an exit status of our programs")
    parser.add_argument("-s", "--status", metavar="HEX", help="a SCSI status, in hex")
    parser.add_argument("-j", "--json", action="store_true", help="JSON, keys in snake_case")


def _bytes(args: argparse.Namespace) -> bytes:
    from initiator.commands._input import from_hex, read_bytes

    if sum(map(bool, (args.hex, args.file, args.binary))) != 1:
        raise CliError("sense: give the bytes, or one of --file and --binary", ExitStatus.CONTRADICTING_OPTIONS)
    if args.binary:
        return read_bytes(args.binary)
    if args.file:
        return from_hex(read_bytes(args.file).decode("ascii", "replace"), args.file)
    return from_hex(" ".join(args.hex), "sense")


def _status(text: str) -> int:
    try:
        value = int(text, 16)
    except ValueError:
        value = -1
    if not 0 <= value <= 0xFF:
        raise CliError(f"sense: '{text}' is not a status byte in hex")
    return value


def _exit_status(number: int) -> str:
    if 50 < number < 97:
        import os

        return os.strerror(number - 50)
    try:
        return ExitStatus(number).name.lower().replace("_", " ")
    except ValueError:
        return f"no meaning: {number}"


def run(args: argparse.Namespace, session: Session) -> int:
    """Decode and show."""
    from initiator.cli_session import emit, emit_json
    from initiator.text import sense
    from vscsi.scsi import cdb
    from vscsi.scsi.status import describe

    if args.status is not None:
        status = _status(args.status)
        if args.json:
            emit_json({"status": status, "status_name": describe(status)})
        else:
            emit([f"SCSI status: {describe(status).title()}"])
        return ExitStatus.OK
    if args.err is not None:
        words = _exit_status(args.err)
        emit_json({"exit_status": args.err, "meaning": words}) if args.json else emit([words])
        return ExitStatus.OK
    data = _bytes(args)
    if not args.cdb:
        emit_json(sense.to_json(data)) if args.json else emit(sense.lines(data))
        return ExitStatus.OK
    row = cdb.lookup(data)
    fields = row.numbers(data) if row else {}
    if args.json:
        emit_json({"name": cdb.name_of(data), "fields": fields})
    else:
        emit([cdb.name_of(data), *(f"  {name}: {value:#x}" for name, value in fields.items())])
    return ExitStatus.OK
