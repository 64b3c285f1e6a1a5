# SPDX-License-Identifier: BSD-2-Clause
"""`sanitize`: SANITIZE, with progress, as sg_sanitize does it. Knows the command line, not how blocks are erased."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "SANITIZE: make everything on the logical unit unreadable"
DESCRIPTION = """\
Destroy all data of a logical unit, cache and unmapped blocks included, and show how far it is. There are 15 seconds
to think it over, as with sg_sanitize, unless --quick."""
EXAMPLES = """\
  vscsi-initiator sanitize --block
  vscsi-initiator sanitize --overwrite --zero
  vscsi-initiator sanitize --overwrite --pattern noise.bin --count 3 --invert --quick
  vscsi-initiator sanitize --fail                 leave the state after a sanitize that failed
"""
LONGEST_PATTERN = 0xFFFF


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `sanitize`."""
    from initiator.commands import _operation

    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("-B", "--block", dest="kind", action="store_const", const="block", help="BLOCK ERASE")
    kind.add_argument("-C", "--crypto", dest="kind", action="store_const", const="crypto", help="CRYPTOGRAPHIC ERASE")
    kind.add_argument("-O", "--overwrite", dest="kind", action="store_const", const="overwrite", help="OVERWRITE")
    kind.add_argument("-F", "--fail", dest="kind", action="store_const", const="fail", help="EXIT FAILURE MODE")
    parser.add_argument("-A", "--ause", action="store_true", help="AUSE: --fail is allowed if it fails")
    parser.add_argument("-n", "--znr", action="store_true", help="ZNR, for zoned devices")
    parser.add_argument("-p", "--pattern", metavar="FILE", help="with --overwrite: the pattern; - is stdin")
    parser.add_argument("-z", "--zero", action="count", default=0, help="with --overwrite: zeros; twice: FFh bytes")
    parser.add_argument("-i", "--ipl", type=argument(1, LONGEST_PATTERN), metavar="LEN", help="bytes of the pattern")
    parser.add_argument("-c", "--count", type=argument(1, 31), default=1, metavar="OC", help="with --overwrite: passes")
    parser.add_argument("-I", "--invert", action="store_true", help="with --overwrite: every other pass inverted")
    parser.add_argument("-T", "--test", type=argument(0, 3), default=0, metavar="TE", help="with --overwrite: TEST")
    parser.add_argument("-j", "--json", action="store_true", help="JSON, keys in snake_case")
    _operation.add_arguments(parser, "sanitize")


def _list(args: argparse.Namespace, session: Session) -> bytes:
    from initiator.commands._input import read_bytes
    from vscsi.scsi.medium import OVERWRITE_LIST

    if bool(args.pattern) + bool(args.zero) != 1:
        raise CliError("sanitize: --overwrite needs --pattern FILE or --zero", ExitStatus.CONTRADICTING_OPTIONS)
    if args.pattern:
        pattern = read_bytes(args.pattern)
        pattern = pattern[: args.ipl].ljust(args.ipl, b"\0") if args.ipl else pattern
    else:
        nbytes = args.ipl or session.initiator.lun(session.lun).block_nbytes
        pattern = (b"\0" if args.zero == 1 else b"\xff") * nbytes
    if not 0 < len(pattern) <= LONGEST_PATTERN:
        raise CliError(f"sanitize: a pattern has 1 to {LONGEST_PATTERN} bytes, not {len(pattern)}", ExitStatus.FILE)
    head = OVERWRITE_LIST.build(
        invert=args.invert, test=args.test, overwrite_count=args.count, initialization_pattern_length=len(pattern)
    )
    return head + pattern


def run(args: argparse.Namespace, session: Session) -> int:
    """Warn, send, wait."""
    from initiator.cli_session import emit_json
    from initiator.commands import _operation
    from vscsi.scsi import cdb

    flags = {"immed": not args.wait, "znr": args.znr, "ause": args.ause}
    data = b""
    if args.kind == "overwrite":
        data = _list(args, session)
        row = cdb.SANITIZE_OVERWRITE.build(**flags, parameter_list_length=len(data))
    elif args.kind == "fail":
        row = cdb.SANITIZE_EXIT_FAILURE_MODE.build()
    else:
        erase = cdb.SANITIZE_BLOCK_ERASE if args.kind == "block" else cdb.SANITIZE_CRYPTOGRAPHIC_ERASE
        row = erase.build(**flags)
    if args.kind != "fail":
        _operation.warn(args, "SANITIZE", session.uri_of(session.lun))
    _operation.patience(args, session)
    session.execute(row, data_out=data)
    if args.kind != "fail" and not args.wait and not args.early:
        _operation.wait(args, session, quiet=args.json)
    if args.json:
        emit_json({"sanitize": args.kind, "finished": not args.early})
    elif args.kind != "fail" and not args.early:
        print("Sanitize finished", file=sys.stderr)
    return ExitStatus.OK
