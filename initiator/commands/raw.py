# SPDX-License-Identifier: BSD-2-Clause
"""`raw`: any CDB, given in hex, with data in either direction, as sg_raw sends it. Judges nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument, hex_bytes

if TYPE_CHECKING:
    from initiator import Done
    from initiator.cli_session import Session

HELP = "any CDB in hex, with data in or out"
DESCRIPTION = """\
Send one CDB, exactly as given, and show what comes back: data as a hex dump (or to a file), status and sense data.
The unit attention "power on or reset" that meets every new initiator is absorbed, unless --keep-attention."""
EXAMPLES = """\
  vscsi-initiator raw 00 00 00 00 00 00                        TEST UNIT READY
  vscsi-initiator raw 12 01 83 00 fc 00 --in 252               INQUIRY, device identification
  vscsi-initiator raw 2a00000000000000000100 --out block.bin   WRITE(10) of one block
  vscsi-initiator raw "12 00 00 00 24 00" --in 36 --output inquiry.bin
"""
ATTRIBUTES = {"simple": 0, "head-of-queue": 1, "ordered": 2, "aca": 4}
LONGEST_CDB = 260
LONGEST_DATA = 64 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `raw`."""
    parser.add_argument("cdb", nargs="+", metavar="HEX", help="the CDB: hex bytes, with or without spaces")
    parser.add_argument(
        "--in",
        dest="data_in",
        type=argument(0, LONGEST_DATA),
        default=0,
        metavar="N",
        help="room for N bytes of data-in",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="data-out: this file's content; - is stdin")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="data-in goes to this file; - is stdout, binary"
    )
    parser.add_argument("--task-attribute", choices=ATTRIBUTES, default="simple", help="default: simple")
    parser.add_argument(
        "--keep-attention", action="store_true", help="show every unit attention, also of power on or reset"
    )
    parser.add_argument("-j", "--json", action="store_true", help="JSON, keys in snake_case")


def _cdb(words: list[str]) -> bytes:
    try:
        cdb = hex_bytes(" ".join(words))
    except ValueError as error:
        raise CliError(f"raw: {error}") from None
    if not 6 <= len(cdb) <= LONGEST_CDB:
        raise CliError(f"raw: a CDB has 6 to {LONGEST_CDB} bytes, this one has {len(cdb)}")
    return cdb


def _out(path: Path | None) -> bytes:
    if path is None:
        return b""
    data = sys.stdin.buffer.read(LONGEST_DATA + 1) if str(path) == "-" else path.read_bytes()
    if len(data) > LONGEST_DATA:
        raise CliError(f"raw: more than {LONGEST_DATA} bytes of data-out", ExitStatus.FILE)
    return data


def _show(done: Done, args: argparse.Namespace, session: Session) -> None:
    from initiator.cli_session import emit, emit_hex, emit_json, emit_raw
    from vscsi.scsi import sense as sense_data
    from vscsi.scsi.status import describe

    data = bytes(done.data_in)
    if args.json:
        decoded = sense_data.decode(done.sense) if done.sense else None
        emit_json(
            {
                "status": done.status,
                "status_name": describe(done.status),
                "sense": bytes(done.sense).hex(),
                "sense_description": decoded.describe() if decoded else None,
                "in_residual": done.in_residual,
                "out_residual": done.out_residual,
                "data_in": data.hex(),
            }
        )
        return
    if args.output is not None:
        if str(args.output) == "-":
            emit_raw(data)
        else:
            args.output.write_bytes(data)
    elif data:
        emit([f"Received {len(data)} bytes of data:"])
        emit_hex(data, 1)
    print(f"SCSI Status: {describe(done.status)}", file=sys.stderr)
    if done.sense and session.verbose < 2:
        session.show_sense(done.sense)
    for direction, residual in (("in", done.in_residual), ("out", done.out_residual)):
        if residual:
            way = "under" if residual > 0 else "over"
            print(f"data-{direction}: residual {way} {abs(residual)} bytes", file=sys.stderr)


def run(args: argparse.Namespace, session: Session) -> int:
    """Send it; the exit status is that of the status and sense data."""
    cdb, data_out = _cdb(args.cdb), _out(args.out)
    send = session.attempt if args.keep_attention else session.greeted
    done = send(
        cdb,
        data_in=args.data_in,
        data_out=data_out,
        attribute=ATTRIBUTES[args.task_attribute],
    )
    _show(done, args, session)
    return int(session.failure(done.status, done.sense).status)
