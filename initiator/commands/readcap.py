# SPDX-License-Identifier: BSD-2-Clause
"""`readcap`: READ CAPACITY(10) and (16), as sg_readcap shows them. Knows the words only."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vscsi.cli import CliError, ExitStatus
from vscsi.scsi.parameters import CAPACITY_10, CAPACITY_16

if TYPE_CHECKING:
    from initiator.cli_session import Session

HELP = "READ CAPACITY(10) or (16)"
DESCRIPTION = "Show how many logical blocks the logical unit has, and how long they are."
EXAMPLES = """\
  vscsi-initiator readcap
  vscsi-initiator readcap --long
  vscsi-initiator readcap --brief
"""
TOO_LARGE = 0xFFFFFFFF


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `readcap`."""
    from initiator.cli_session import output_options

    output_options(parser, "the parameter data")
    parser.add_argument("-b", "--brief", action="store_true", help="two hex numbers: logical blocks, bytes in each")
    parser.add_argument(
        "-l", "--long", "--16", dest="long", action="store_true", help="READ CAPACITY(16), which tells more"
    )


def text(fields: dict[str, int], *, long: bool) -> Iterator[str]:
    """What sg_readcap prints."""
    last, length = fields["returned_logical_block_address"], fields["logical_block_length"]
    yield "Read Capacity results:"
    if long:
        protection = f" [type {fields['p_type'] + 1} protection]" if fields["prot_en"] else ""
        yield (
            f"   Protection: prot_en={fields['prot_en']}, p_type={fields['p_type']}, "
            f"p_i_exponent={fields['p_i_exponent']}{protection}"
        )
        yield f"   Logical block provisioning: lbpme={fields['lbpme']}, lbprz={fields['lbprz']}"
    yield f"   Last LBA={last} ({last:#x}), Number of logical blocks={last + 1}"
    yield f"   Logical block length={length} bytes"
    if long:
        exponent = fields["logical_blocks_per_physical_block_exponent"]
        physical = f" [so physical block length={length << exponent} bytes]" if exponent else ""
        yield f"   Logical blocks per physical block exponent={exponent}{physical}"
        yield f"   Lowest aligned LBA={fields['lowest_aligned_logical_block_address']}"
    nbytes = (last + 1) * length
    gb = nbytes / 1e9
    tb = f", {gb / 1000:.2f} TB" if gb > 2000 else ""
    yield "Hence:"
    yield f"   Device size: {nbytes} bytes, {nbytes / (1 << 20):.1f} MiB, {gb:.2f} GB{tb}"


def run(args: argparse.Namespace, session: Session) -> int:
    """Ask and show."""
    from initiator.cli_session import emit, emit_hex, emit_json, emit_raw
    from vscsi.scsi import cdb

    long = bool(args.long)
    if not long:
        data = session.execute(cdb.READ_CAPACITY_10.build(), data_in=CAPACITY_10.nbytes)
        if CAPACITY_10.numbers(data).get("returned_logical_block_address") == TOO_LARGE and not (args.raw or args.hex):
            long = True
    if long:
        nbytes = CAPACITY_16.nbytes
        data = session.execute(cdb.READ_CAPACITY_16.build(allocation_length=nbytes), data_in=nbytes)
    layout = CAPACITY_16 if long else CAPACITY_10
    if len(data) < (16 if long else 8):
        raise CliError(f"readcap: the target sent only {len(data)} bytes", ExitStatus.MALFORMED)
    if args.raw:
        emit_raw(data)
        return ExitStatus.OK
    if args.hex:
        emit_hex(data, 1 if args.hex < 3 else 2, text=False)
        return ExitStatus.OK
    fields = layout.numbers(data)
    if args.json:
        blocks, length = fields["returned_logical_block_address"] + 1, fields["logical_block_length"]
        emit_json({**fields, "logical_blocks": blocks, "device_size": blocks * length})
    elif args.brief:
        print(f"{fields['returned_logical_block_address'] + 1:#x} {fields['logical_block_length']:#x}")
    else:
        emit(text(fields, long=long))
    return ExitStatus.OK
