# SPDX-License-Identifier: BSD-2-Clause
"""`inquiry`: standard INQUIRY data as sg_inq prints it, or a VPD page as sg_vpd does. Words are in initiator/text."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument, number

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "standard INQUIRY data, or a VPD page"
DESCRIPTION = """\
Show standard INQUIRY data as sg_inq does, or with --page a VPD page as sg_vpd does.
With --raw the output can be given to 'sg_inq --raw --inhex=-' or 'sg_vpd --raw --inhex=-'."""
EXAMPLES = """\
  vscsi-initiator inquiry
  vscsi-initiator inquiry --page sv           which VPD pages there are
  vscsi-initiator inquiry --page 0x83         device identification; --page di is the same
  vscsi-initiator inquiry --page bl --json
  vscsi-initiator inquiry --raw | sg_inq --raw --inhex=-
"""
STANDARD_LENGTH = 96
PAGE_LENGTH = 4096


def _page(text: str) -> int:
    from initiator.text import vpd

    if text in vpd.CODES:
        return vpd.CODES[text]
    try:
        code = number(text)
    except ValueError:
        known = " ".join(sorted(vpd.CODES))
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number nor one of {known}") from None
    if code > 0xFF:
        raise argparse.ArgumentTypeError(f"page {text} is out of range, expected 0 to 0xff")
    return code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `inquiry`."""
    from initiator.cli_session import output_options

    output_options(parser, "the data")
    parser.add_argument("-p", "--page", type=_page, metavar="PG", help="VPD page: number, or abbreviation as sg_vpd's")
    parser.add_argument(
        "-m", "--maxlen", type=argument(1, 65535), metavar="LEN", help="allocation length (default: enough)"
    )


def fetch(session: Session, page: int | None, maxlen: int | None, *, lun: int | None = None) -> bytes:
    """INQUIRY data, cut to the length that it says itself. Raises CliError."""
    from vscsi.scsi import cdb

    nbytes = maxlen or (STANDARD_LENGTH if page is None else PAGE_LENGTH)
    command = cdb.INQUIRY.build(evpd=int(page is not None), page_code=page or 0, allocation_length=nbytes)
    data = session.execute(command, lun=lun, data_in=nbytes)
    if len(data) < min(4 if page is not None else 5, nbytes):
        raise CliError(f"inquiry: the target sent only {len(data)} bytes", ExitStatus.MALFORMED)
    if page is not None and len(data) > 1 and data[1] != page:
        raise CliError(f"inquiry: asked for VPD page {page:#04x}, got {data[1]:#04x}", ExitStatus.MALFORMED)
    said = int.from_bytes(data[2:4]) + 4 if page is not None else data[4] + 5 if len(data) > 4 else len(data)
    return data[:said]


def run(args: argparse.Namespace, session: Session) -> int:
    """Ask and show."""
    from initiator.cli_session import emit_hex, emit_raw

    data = fetch(session, args.page, args.maxlen)
    if args.raw:
        emit_raw(data)
    elif args.hex:
        emit_hex(data, args.hex)
    else:
        _show(data, page=args.page is not None, json=args.json)
    return ExitStatus.OK


def _show(data: bytes, *, page: bool, json: bool) -> None:
    """In words. The words of VPD pages are many, and not loaded without one."""
    from initiator.cli_session import emit, emit_json

    if page:
        from initiator.text import vpd as words

        if len(data) < words.HEADER_NBYTES:
            raise CliError(f"inquiry: {len(data)} bytes are no VPD page; --maxlen is too small", ExitStatus.SYNTAX)
    else:
        from initiator.text import inquiry as words  # type: ignore[no-redef]
    if json:
        emit_json(words.to_json(data))
    else:
        emit(words.lines(data))
