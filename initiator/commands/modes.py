# SPDX-License-Identifier: BSD-2-Clause
"""`modes`: mode pages shown and changed, in sdparm's manner. Words are in initiator/text, layouts in vscsi/scsi."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument, number

if TYPE_CHECKING:
    from initiator.cli_session import Session
    from initiator.text.modes import Values
    from vscsi.scsi.mode import PageControl

HELP = "mode pages: show fields, set them, save them"
DESCRIPTION = """\
Show mode pages with the acronyms of sdparm: current value, whether it may be changed, default and saved value. Without
options the usual fields of the usual pages; --all shows everything. --set changes fields (MODE SELECT)."""
EXAMPLES = """\
  vscsi-initiator modes
  vscsi-initiator modes --page ca --all        every field of the caching page
  vscsi-initiator modes --get WCE              only this field; with --quiet only its value
  vscsi-initiator modes --set WCE=0            the write cache off
  vscsi-initiator modes --set SWP=1 --save     and so it stays when the target is started anew
  vscsi-initiator modes --set D_SENSE=1,TAS=1
  vscsi-initiator modes --defaults --page ca
"""
ALLOCATION_LENGTH = 0xFFFC
NOT_SAVED = (0x39, 0x00)


def _page(text: str) -> tuple[int, int]:
    from initiator.text import modes

    if text in modes.PAGES:
        return modes.PAGES[text]
    code, _, subpage = text.partition(",")
    try:
        return argument(0, 0x3E)(code), argument(0, 0xFE)(subpage) if subpage else 0
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or one of {' '.join(sorted(modes.PAGES))}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `modes`."""
    from initiator.cli_session import output_options

    output_options(parser, "the mode data")
    parser.add_argument("-p", "--page", type=_page, metavar="PG[,SPG]", help="number, or abbreviation as sdparm's")
    parser.add_argument("-a", "--all", action="store_true", help="every page, every field")
    parser.add_argument("-l", "--long", action="store_true", help="every field of the pages shown")
    parser.add_argument("-g", "--get", action="append", metavar="ACRON", help="only these fields; several with commas")
    parser.add_argument("-s", "--set", action="append", metavar="ACRON=VAL", help="change fields; several with commas")
    parser.add_argument("-c", "--clear", action="append", metavar="ACRON", help="the same as --set ACRON=0")
    parser.add_argument("-S", "--save", action="store_true", help="SP: changed values are saved too")
    parser.add_argument("-D", "--defaults", action="store_true", help="the page back to its default values")
    parser.add_argument("-q", "--quiet", action="store_true", help="with --get: only the values")


def _sense(session: Session, key: tuple[int, int], control: PageControl, *, dbd: bool = True) -> bytes | None:
    """The mode data of MODE SENSE(10); None if the target has no values for this page control."""
    from initiator.cli_session import GOOD
    from vscsi.scsi import cdb, sense
    from vscsi.scsi.mode import PageControl

    row = cdb.MODE_SENSE_10.build(
        dbd=dbd, pc=control, page_code=key[0], subpage_code=key[1], allocation_length=ALLOCATION_LENGTH
    )
    done = session.greeted(row, data_in=ALLOCATION_LENGTH)
    if done.status != GOOD:
        found = sense.decode(done.sense)
        if control is PageControl.SAVED and (found.asc, found.ascq) == NOT_SAVED:
            return None
        raise session.failure(done.status, done.sense)
    return bytes(done.data_in)


def fetch(session: Session, key: tuple[int, int]) -> list[Values]:
    """Every page that `key` (which may name all pages) stands for, with all its kinds of values."""
    from initiator.text.modes import Values
    from vscsi.scsi import mode

    found: dict[tuple[int, int], Values] = {}
    for control in mode.PageControl:
        data = _sense(session, key, control)
        if data is None:
            continue
        _, _, pages = mode.split(data, ten=True)
        for code, subpage, raw in mode.pages_of(pages):
            found.setdefault((code, subpage), Values((code, subpage))).raw[control] = raw
    return list(found.values())


def _words(options: list[str] | None) -> list[str]:
    return [word for option in options or [] for word in option.split(",") if word]


def _known(word: str) -> tuple[tuple[int, int], str]:
    from initiator.text import modes

    found = modes.find_field(word)
    if found is None:
        raise CliError(f"modes: there is no field '{word}'; 'modes --all' shows them")
    return found[0].key, found[1]


def _changes(args: argparse.Namespace) -> dict[tuple[int, int], dict[str, int]]:
    """Fields to change, for each page. Raises CliError."""
    from vscsi.scsi import mode

    changes: dict[tuple[int, int], dict[str, int]] = {}
    for word in [*_words(args.set), *(f"{word}=0" for word in _words(args.clear))]:
        name, equals, text = word.partition("=")
        key, field = _known(name)
        try:
            value = number(text) if equals else 1
        except ValueError as error:
            raise CliError(f"modes: {name}: {error}") from None
        most = mode.PAGES[key].layout.fields[field].mask
        if value > most:
            raise CliError(f"modes: {name}={value} does not fit, at most {most}")
        changes.setdefault(key, {})[field] = value
    return changes


def _select(session: Session, page: bytes, *, save: bool) -> None:
    from vscsi.scsi import cdb, mode

    data = mode.HEADER_10.build() + bytes([page[0] & 0x7F]) + page[1:]  # PS is reserved there
    session.execute(cdb.MODE_SELECT_10.build(pf=1, sp=save, parameter_list_length=len(data)), data_out=data)


def _set(args: argparse.Namespace, session: Session) -> None:
    from vscsi.scsi import mode
    from vscsi.scsi.mode import PageControl

    for key, values in _changes(args).items():
        pages = {found.key: found for found in fetch(session, key)}
        if key not in pages or PageControl.CURRENT not in pages[key].raw:
            raise CliError(f"modes: the target has no page {key[0]:#x},{key[1]:#x}", ExitStatus.ILLEGAL_REQUEST)
        raw = bytearray(pages[key].raw[PageControl.CURRENT])
        mode.PAGES[key].layout.put(raw, values)
        _select(session, bytes(raw), save=args.save)


def _defaults(args: argparse.Namespace, session: Session) -> None:
    from vscsi.scsi import mode
    from vscsi.scsi.mode import PageControl

    for found in fetch(session, args.page or (mode.ALL_PAGES, mode.ALL_SUBPAGES)):
        if PageControl.DEFAULT in found.raw:
            _select(session, found.raw[PageControl.DEFAULT], save=args.save)


def _get(args: argparse.Namespace, session: Session) -> int:
    from initiator.cli_session import emit, emit_json
    from initiator.text import modes
    from vscsi.scsi.mode import PageControl

    shown = {}
    for word in _words(args.get):
        key, field = _known(word)
        found = next((values for values in fetch(session, key) if values.key == key), None)
        if found is None or field not in found.numbers(PageControl.CURRENT):
            raise CliError(f"modes: the target has no field '{word}'", ExitStatus.ILLEGAL_REQUEST)
        value = shown[field] = found.numbers(PageControl.CURRENT)[field]
        if not args.json:
            emit([str(value) if args.quiet else modes.field_line(found, field)])
    if args.json:
        emit_json(shown)
    return ExitStatus.OK


def run(args: argparse.Namespace, session: Session) -> int:
    """Show, or change."""
    from initiator.cli_session import emit, emit_hex, emit_json, emit_raw, refuse
    from initiator.text import modes
    from vscsi.scsi import mode

    changing = bool(args.set or args.clear)
    if changing + bool(args.get) + args.defaults > 1:
        refuse("modes: one of --get, --set (with --clear) and --defaults")
    if args.save and not (changing or args.defaults):
        refuse("modes: --save goes with --set, --clear or --defaults")
    if args.get:
        return _get(args, session)
    if changing or args.defaults:
        _set(args, session) if changing else _defaults(args, session)
        return ExitStatus.OK
    key = args.page or (mode.ALL_PAGES, mode.ALL_SUBPAGES)
    if args.raw or args.hex:
        data = _sense(session, key, mode.PageControl.CURRENT, dbd=False) or b""
        emit_raw(data) if args.raw else emit_hex(data, args.hex)
        return ExitStatus.OK
    found = fetch(session, key)
    if args.json:
        emit_json({"mode_pages": [modes.to_json(values) for values in found]})
        return ExitStatus.OK
    every = args.all or args.long or args.page is not None
    for values in found:
        if every or values.key in modes.PAGES.values():
            emit(modes.lines(values, every=every))
    return ExitStatus.OK
