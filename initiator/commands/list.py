# SPDX-License-Identifier: BSD-2-Clause
"""`list`: one line for each logical unit, as lsscsi has it; -v tells who is at the other end of the ring."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from vscsi.cli import CliError, ExitStatus

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "the logical units, one a line"
DESCRIPTION = """\
List the target's logical units as lsscsi does. With -v, tell who the target is; with more -v, show CDBs and sense."""
EXAMPLES = """\
  vscsi-initiator list
  vscsi-initiator list --size
  vscsi-initiator list -v
  vscsi-initiator list --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `list`."""
    parser.add_argument("-s", "--size", action="store_true", help="show each one's size")
    parser.add_argument(
        "-j", "--json", action="store_true", help="JSON, keys in snake_case; with the target's identity"
    )


def _size(nbytes: int | None) -> str:
    """A size as lsscsi shows it: three digits and a decimal unit."""
    if nbytes is None:
        return "-"
    value, units = float(nbytes), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g}{units[0]}"


def _capacity(session: Session, lun: int) -> tuple[int, int] | None:
    """Logical blocks and their length; None where the logical unit does not tell."""
    from vscsi.scsi import cdb
    from vscsi.scsi.parameters import CAPACITY_16

    nbytes = CAPACITY_16.nbytes
    try:
        data = session.execute(cdb.READ_CAPACITY_16.build(allocation_length=nbytes), lun=lun, data_in=nbytes)
        fields = CAPACITY_16.numbers(data)
        return fields["returned_logical_block_address"] + 1, fields["logical_block_length"]
    except (CliError, KeyError):
        return None


def _identity(session: Session) -> dict[str, Any]:
    """Who the target is and what this connection may do."""
    initiator = session.initiator
    info = initiator.target_info
    return {
        "name": info.name,
        "version": info.version,
        "os": info.os,
        "max_transfer": info.max_transfer,
        "pid": info.pid,
        "target_port_id": bytes(info.target_port_id).hex(),
        "initiator_port_id": bytes(initiator.port_id).hex(),
        "request_limit": initiator.request_limit,
        "socket": session.socket,
    }


def _logical_units(session: Session, *, sizes: bool) -> list[dict[str, Any]]:
    from initiator.commands.inquiry import fetch
    from initiator.text import inquiry

    units = []
    for lun in session.initiator.luns():
        kind, vendor, product, revision = inquiry.names(fetch(session, None, None, lun=lun))
        unit: dict[str, Any] = {
            "lun": lun,
            "type": kind,
            "vendor": vendor,
            "product": product,
            "revision": revision,
            "uri": session.uri_of(lun),
        }
        if sizes:
            capacity = _capacity(session, lun)
            unit["logical_blocks"], unit["logical_block_length"] = capacity or (None, None)
            unit["size"] = capacity[0] * capacity[1] if capacity else None
        units.append(unit)
    return units


def run(args: argparse.Namespace, session: Session) -> int:
    """Ask and show."""
    from initiator.cli_session import emit, emit_json

    who_too = session.verbose > 0
    session.verbose = max(session.verbose - 1, 0)  # the first -v asks for the target, the next ones for CDBs and sense
    units = _logical_units(session, sizes=args.size or args.json)
    if args.json:
        for unit in units:
            unit.update({key: unit[key].rstrip() for key in ("vendor", "product", "revision")})
        emit_json({"target": _identity(session), "logical_units": units})
        return ExitStatus.OK
    if who_too:
        who = _identity(session)
        emit(
            [
                f"target: {who['name']} {who['version']}, {who['os']}, pid {who['pid']}, at {who['socket']}",
                f"  target port id:     {who['target_port_id']}",
                f"  initiator port id:  {who['initiator_port_id']}",
                f"  largest transfer:   {who['max_transfer']} bytes",
                f"  credits:            {who['request_limit']}",
            ]
        )
    for unit in units:
        address = f"[0:0:0:{unit['lun']}]"
        size = f"  {_size(unit['size']):>6}" if args.size else ""
        emit(
            [
                f"{address:<13}{unit['type']:<8}{unit['vendor']:<8} {unit['product']:<16} {unit['revision']:<4}"
                f"  {unit['uri']}{size}"
            ]
        )
    return ExitStatus.OK
