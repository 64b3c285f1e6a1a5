# SPDX-License-Identifier: BSD-2-Clause
"""`copy`: blocks of one logical unit to another, by the target itself if both are its own. Knows the command line."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session
    from initiator.copying import Job
    from initiator.lun import Lun

HELP = "blocks from one logical unit to another"
DESCRIPTION = """\
Copy blocks between two logical units. If they belong to the same target it copies by itself (EXTENDED COPY) and no
data comes through here; else they are read and written. SOURCE and DESTINATION are LUNs of the target in force, or
URIs. --method says how: lid1, lid4 (EXTENDED COPY), token (POPULATE TOKEN, WRITE USING TOKEN) or host."""
EXAMPLES = """\
  vscsi-initiator copy 0 1
  vscsi-initiator copy --skip 2048 --seek 4096 --blocks 1024 0 1 --verify
  vscsi-initiator copy --method token 0 1
  vscsi-initiator copy 0 'vscsi+unix:///3?socket=/run/other.sock'
"""
AUTO = "auto"
METHOD_NAMES = ("lid1", "lid4", "token", "host")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `copy`."""
    parser.add_argument("source", metavar="SOURCE", help="LUN or URI")
    parser.add_argument("destination", metavar="DESTINATION", help="LUN or URI")
    parser.add_argument("--skip", type=argument(), default=0, metavar="LBA", help="first block of the source")
    parser.add_argument("--seek", type=argument(), default=0, metavar="LBA", help="first block of the destination")
    parser.add_argument("--blocks", "--count", type=argument(), metavar="N", help="of the source (default: all)")
    parser.add_argument("--method", choices=(AUTO, *METHOD_NAMES), default=AUTO, help="default: auto, as said above")
    parser.add_argument("--verify", action="store_true", help="read both again and compare; exit status 14 if not same")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    parser.add_argument("-j", "--json", action="store_true", help="JSON, keys in snake_case")


def _socket(session: Session, path: Path | None) -> Path:
    from vscsi.bus.local import default_socket_path

    return (path or session.path or default_socket_path()).resolve()


def _place(text: str, session: Session) -> tuple[Path, int]:
    """(socket, LUN) of an operand. Raises CliError."""
    from initiator import uri
    from vscsi.scsi.lun import LUN_MAX

    if text.isascii() and text.isdigit():
        if int(text) > LUN_MAX:
            raise CliError(f"copy: {text} is no LUN (0 to {LUN_MAX})")
        return _socket(session, None), int(text)
    try:
        place = uri.parse(text)
    except ValueError as error:
        raise CliError(f"copy: {error}") from None
    return _socket(session, place.socket), place.lun or 0


def _open(session: Session, stack: ExitStack, place: tuple[Path, int]) -> Lun:
    if place[0] == _socket(session, None):
        return session.initiator.lun(place[1])
    from initiator import Initiator

    return stack.enter_context(Initiator(place[0], timeout=session.timeout)).lun(place[1])


def _job(args: argparse.Namespace, source: Lun, destination: Lun, *, same: bool) -> Job:
    from initiator.copying import Job

    blocks = args.blocks if args.blocks is not None else max(source.blocks - args.skip, 0)
    nbytes = blocks * source.block_nbytes
    if args.skip + blocks > source.blocks:
        message = f"copy: {blocks} blocks at lba {args.skip} are not within {source.blocks} blocks of the source"
        raise CliError(message, ExitStatus.LBA_OUT_OF_RANGE)
    if nbytes % destination.block_nbytes:
        raise CliError(f"copy: {nbytes} bytes are no whole number of blocks of {destination.block_nbytes} bytes")
    if args.seek + nbytes // destination.block_nbytes > destination.blocks:
        message = f"copy: {nbytes} bytes at lba {args.seek} do not fit into {destination.blocks} blocks"
        raise CliError(message, ExitStatus.LBA_OUT_OF_RANGE)
    if same and args.skip < args.seek + blocks and args.seek < args.skip + blocks and blocks:
        raise CliError("copy: source and destination overlap", ExitStatus.CONTRADICTING_OPTIONS)
    return Job(source, args.skip, destination, args.seek, blocks)


def _copy(job: Job, method: str, *, quiet: bool) -> None:
    from initiator.cli_progress import progress
    from initiator.copying import METHODS

    with progress("copy", job.nbytes, quiet=quiet) as advance:
        for nbytes in METHODS[method](job):
            advance(nbytes)


def _verify(job: Job, *, quiet: bool) -> int | None:
    """Offset in bytes of the first difference."""
    from initiator.cli_progress import progress
    from initiator.copying import first_difference

    compared = 0
    with progress("verify", job.nbytes, quiet=quiet) as advance:
        for nbytes, differs in first_difference(job):
            if differs is not None:
                return compared + differs
            compared += nbytes
            advance(nbytes)
    return None


def run(args: argparse.Namespace, session: Session) -> int:
    """Copy, flush, compare if asked."""
    from initiator.cli_session import emit_json
    from initiator.errors import ScsiError
    from vscsi.scsi import sense

    places = _place(args.source, session), _place(args.destination, session)
    one_target = places[0][0] == places[1][0]
    if not one_target and args.method not in (AUTO, "host"):
        raise CliError(
            f"copy: --method {args.method} needs both logical units on one target", ExitStatus.CONTRADICTING_OPTIONS
        )
    method = args.method if args.method != AUTO else "lid1" if one_target else "host"
    with ExitStack() as stack:
        source, destination = (_open(session, stack, place) for place in places)
        job = _job(args, source, destination, same=places[0] == places[1])
        try:
            _copy(job, method, quiet=args.quiet or args.json)
        except ScsiError as error:
            if args.method != AUTO or not error.sense.matches(sense.INVALID_COMMAND_OPERATION_CODE):
                raise
            method = "host"  # the target copies nothing by itself
            _copy(job, method, quiet=args.quiet or args.json)
        if job.nbytes:
            destination.flush()
        differs = _verify(job, quiet=args.quiet or args.json) if args.verify else None
    if args.json:
        emit_json({"bytes": job.nbytes, "method": method, "verified": args.verify and differs is None,
                   "first_difference": differs})  # fmt: skip
    elif differs is not None:
        raise CliError(f"copy: the copy differs from byte {differs} on", ExitStatus.MISCOMPARE)
    return ExitStatus.OK if differs is None else ExitStatus.MISCOMPARE
