# SPDX-License-Identifier: BSD-2-Clause
"""`unmap`: UNMAP, as sg_unmap sends it. Knows ranges and the command line; the list's layout is in vscsi/scsi."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus, argument, number

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "UNMAP: blocks whose content is not needed any more"
DESCRIPTION = """\
Tell the target that it may free the room of these blocks. Their content is gone: nothing asks back, as with sg_unmap.
Ranges are given as --lba and --num, each a number or a list with commas, or all in --in FILE: 'LBA,NUM' a line."""
EXAMPLES = """\
  vscsi-initiator unmap --lba 0 --num 2048
  vscsi-initiator unmap --lba 0x1000,0x3000 --num 8,16
  vscsi-initiator unmap --in ranges.txt
  vscsi-initiator unmap --all                     every block
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `unmap`."""
    parser.add_argument("-l", "--lba", metavar="LBA,LBA...", help="first block of each range")
    parser.add_argument("-n", "--num", metavar="NUM,NUM...", help="how many blocks each has")
    parser.add_argument("-I", "--in", dest="file", metavar="FILE", help="ranges from FILE; - is stdin")
    parser.add_argument("-A", "--all", action="store_true", help="every block, as many commands as it takes")
    parser.add_argument("-a", "--anchor", action="store_true", help="ANCHOR: keep the room, forget the content")
    parser.add_argument("-g", "--grpnum", type=argument(0, 31), default=0, metavar="GN", help="GROUP NUMBER")
    parser.add_argument("-d", "--dry-run", action="store_true", help="show the ranges, send nothing")
    parser.add_argument("-j", "--json", action="store_true", help="JSON, keys in snake_case")


def _numbers(text: str) -> list[int]:
    try:
        return [number(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise CliError(f"unmap: {error}") from None


def _from_file(name: str) -> list[int]:
    from initiator.commands._input import read_bytes

    text = read_bytes(name).decode("ascii", "replace")
    return [value for line in text.splitlines() for value in _numbers(line.split("#")[0])]


def ranges(args: argparse.Namespace) -> list[tuple[int, int]]:
    """(lba, blocks) pairs of the command line. Raises CliError."""
    if args.file is not None:
        if args.lba or args.num:
            raise CliError("unmap: --in goes with neither --lba nor --num", ExitStatus.CONTRADICTING_OPTIONS)
        values = _from_file(args.file)
        if len(values) % 2:
            raise CliError(f"unmap: {args.file}: an LBA without a number of blocks")
        found = list(zip(values[::2], values[1::2], strict=True))
    else:
        lbas, counts = _numbers(args.lba or ""), _numbers(args.num or "")
        if not lbas or len(lbas) != len(counts):
            raise CliError(f"unmap: {len(lbas)} LBAs and {len(counts)} numbers of blocks; give as many of each")
        found = list(zip(lbas, counts, strict=True))
    for lba, blocks in found:
        if lba >= 1 << 64 or blocks >= 1 << 32:
            raise CliError(f"unmap: a range of {blocks} blocks at {lba} does not fit into a descriptor")
    return found


def run(args: argparse.Namespace, session: Session) -> int:
    """Send one UNMAP with all ranges; or with --all as many as it takes."""
    from initiator.cli_session import emit, emit_json, refuse
    from vscsi.scsi import cdb
    from vscsi.scsi.parameters import encode_unmap

    if args.all:
        if args.lba or args.num or args.file or args.anchor:
            refuse("unmap: --all takes no ranges and no --anchor")
        device = session.initiator.lun(session.lun)
        extents = [(0, device.blocks)]
        if not args.dry_run:
            device.unmap(0, device.blocks)
    else:
        extents = ranges(args)
        data = encode_unmap(extents)
        if len(data) > 0xFFFF:
            raise CliError(f"unmap: {len(extents)} ranges are more than one command takes")
        if not args.dry_run:
            row = cdb.UNMAP.build(anchor=args.anchor, group_number=args.grpnum, parameter_list_length=len(data))
            session.execute(row, data_out=data)
    if args.json:
        emit_json({"ranges": [{"lba": lba, "blocks": blocks} for lba, blocks in extents], "sent": not args.dry_run})
    elif args.dry_run:
        emit(f"would unmap {blocks} blocks from lba {lba:#x}" for lba, blocks in extents)
    return ExitStatus.OK
