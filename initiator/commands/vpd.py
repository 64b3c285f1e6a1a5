# SPDX-License-Identifier: BSD-2-Clause
"""`vpd`: vital product data pages as sg_vpd shows them, from a target or from a file. Words are in initiator/text."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "vital product data pages"
DESCRIPTION = """\
Show a VPD page as sg_vpd does: the list of pages unless --page names one. --all shows every page that is there."""
EXAMPLES = """\
  vscsi-initiator vpd                        which pages there are
  vscsi-initiator vpd --page bl              block limits; 0xb0 is the same
  vscsi-initiator vpd --all --json
  vscsi-initiator vpd --enumerate            names and abbreviations of pages
  vscsi-initiator vpd --page tpc --inhex page.hex
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vpd`."""
    from initiator.cli_session import output_options
    from initiator.commands._input import inhex_option
    from initiator.commands.inquiry import _page

    output_options(parser, "the page")
    inhex_option(parser, "a page")
    parser.add_argument("-p", "--page", type=_page, metavar="PG", help="number, or abbreviation as sg_vpd's")
    parser.add_argument("-a", "--all", action="store_true", help="every page of the list, one after the other")
    parser.add_argument("-e", "--enumerate", action="store_true", help="list the names of pages; needs no target")
    parser.add_argument("-m", "--maxlen", type=argument(4, 65535), metavar="LEN", help="allocation length")


def _enumerate() -> int:
    from initiator.cli_session import emit
    from initiator.text import vpd

    emit([f"  {short:<8} {code:#04x}    {name}" for code, (short, name) in sorted(vpd.NAMES.items())])
    return ExitStatus.OK


def run(args: argparse.Namespace, session: Session) -> int:
    """Ask, or read a file, and show."""
    from initiator.cli_session import emit, emit_hex, emit_json, emit_raw, refuse
    from initiator.commands._input import inhex
    from initiator.commands.inquiry import fetch
    from initiator.text import vpd

    if args.enumerate:
        return _enumerate()
    given = inhex(args)
    if args.all and (args.page is not None or given is not None):
        refuse("vpd: --all shows every page: it goes with neither --page nor --inhex")
    if given is None:
        first = fetch(session, args.page or 0, args.maxlen)
        pages = [fetch(session, code, args.maxlen) for code in sorted(set(first[4:]))] if args.all else [first]
    else:
        pages = [given]
        if len(given) >= 2 and args.page is not None and given[1] != args.page:
            raise CliError(f"vpd: the file has page {given[1]:#04x}, not {args.page:#04x}", ExitStatus.MALFORMED)
    if any(len(page) < vpd.HEADER_NBYTES for page in pages):
        raise CliError("vpd: fewer than 4 bytes are no VPD page", ExitStatus.MALFORMED)
    if args.json:
        shown = [vpd.to_json(page) for page in pages]
        emit_json({"vpd_pages": shown} if args.all else shown[0])
    for page in pages:
        if args.raw:
            emit_raw(page)
        elif args.hex:
            emit_hex(page, args.hex)
        elif not args.json:
            emit(vpd.lines(page))
            emit([""] if args.all and page is not pages[-1] else [])
    return ExitStatus.OK
