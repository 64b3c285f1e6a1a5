# SPDX-License-Identifier: BSD-2-Clause
"""`logs`: log pages as sg_logs shows them; resetting and saving them. Words are in initiator/text."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "log pages: counters, temperature, provisioning, ..."
DESCRIPTION = """\
Show a log page as sg_logs does: the list of pages unless --page names one. --all shows every page that is there.
--reset puts counters back to their defaults (LOG SELECT)."""
EXAMPLES = """\
  vscsi-initiator logs                         which log pages there are
  vscsi-initiator logs --page lbp              logical block provisioning; 0xc is the same
  vscsi-initiator logs --page 0x19 --json
  vscsi-initiator logs --all
  vscsi-initiator logs --reset                 all counters to their defaults
"""
ALLOCATION_LENGTH = 0xFFFC


def _page(text: str) -> tuple[int, int]:
    from vscsi.scsi import log

    found = log.find(text)
    if found:
        return found.key
    code, _, subpage = text.partition(",")
    try:
        return argument(0, 0x3F)(code), argument(0, 0xFF)(subpage) if subpage else 0
    except argparse.ArgumentTypeError as error:
        known = " ".join(sorted(page.abbreviation for page in log.PAGES.values()))
        raise argparse.ArgumentTypeError(f"{error}; or one of {known}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `logs`."""
    from initiator.cli_session import output_options
    from initiator.commands._input import inhex_option

    output_options(parser, "the page")
    inhex_option(parser, "a page")
    parser.add_argument("-p", "--page", type=_page, metavar="PG[,SPG]", help="number, or abbreviation as sg_logs'")
    parser.add_argument("-a", "--all", action="store_true", help="every page of the list; twice as sg_logs: the same")
    parser.add_argument("-l", "--list", action="store_true", help="the list of pages and subpages")
    parser.add_argument(
        "-c", "--control", type=argument(0, 3), default=1, metavar="PC",
        help="0 thresholds, 1 cumulative (default), 2 and 3 their defaults",
    )  # fmt: skip
    parser.add_argument("-P", "--paramp", type=argument(0, 0xFFFF), default=0, metavar="PP", help="from this parameter")
    parser.add_argument("-m", "--maxlen", type=argument(4, 0xFFFF), metavar="LEN", help="allocation length")
    parser.add_argument("-b", "--pcb", action="store_true", help="the control byte of each parameter too")
    parser.add_argument("-R", "--reset", action="store_true", help="parameters back to their defaults")
    parser.add_argument("-S", "--sp", action="store_true", help="SP: save parameters")


def _fetch(args: argparse.Namespace, session: Session, key: tuple[int, int]) -> bytes:
    from vscsi.scsi import cdb

    nbytes = args.maxlen or ALLOCATION_LENGTH
    row = cdb.LOG_SENSE.build(
        sp=args.sp, pc=args.control, page_code=key[0], subpage_code=key[1], parameter_pointer=args.paramp,
        allocation_length=nbytes,
    )  # fmt: skip
    data = session.execute(row, data_in=nbytes)
    if len(data) < 4:
        raise CliError(f"logs: the target sent {len(data)} bytes of at least 4", ExitStatus.MALFORMED)
    return data


def _every(args: argparse.Namespace, session: Session) -> list[bytes]:
    """Every page that the list of subpages names, or else the list of pages."""
    from vscsi.scsi import log

    try:
        keys = log.decode_supported(_fetch(args, session, (0x00, log.ALL_SUBPAGES)))
    except CliError:
        keys = log.decode_supported(_fetch(args, session, (0x00, 0x00)))
    return [_fetch(args, session, key) for key in keys if key[1] != log.ALL_SUBPAGES]


def run(args: argparse.Namespace, session: Session) -> int:
    """Ask, or read a file, and show; or reset."""
    from initiator.cli_session import emit, emit_hex, emit_json, emit_raw, refuse
    from initiator.commands._input import inhex
    from initiator.text import logs
    from vscsi.scsi import cdb, log

    given = inhex(args)
    if args.all + args.list + (args.page is not None) + (given is not None) > 1:
        refuse("logs: give one of --page, --all, --list and --inhex")
    if args.reset:
        key = args.page or (0, 0)
        row = cdb.LOG_SELECT.build(pcr=1, sp=args.sp, pc=args.control, page_code=key[0], subpage_code=key[1])
        session.execute(row)
        return ExitStatus.OK
    if given is not None:
        if len(given) < 4:
            raise CliError("logs: fewer than 4 bytes are no log page", ExitStatus.MALFORMED)
        pages = [given]
    elif args.all:
        pages = _every(args, session)
    else:
        pages = [_fetch(args, session, (0x00, log.ALL_SUBPAGES) if args.list else args.page or (0, 0))]
    if args.json:
        shown = [logs.to_json(page) for page in pages]
        emit_json({"log_pages": shown} if args.all else shown[0])
    for page in pages:
        if args.raw:
            emit_raw(page)
        elif args.hex:
            emit_hex(page, args.hex)
        elif not args.json:
            emit(logs.lines(page, control=args.pcb))
            emit([""] if page is not pages[-1] else [])
    return ExitStatus.OK
