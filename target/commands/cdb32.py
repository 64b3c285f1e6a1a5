# SPDX-License-Identifier: BSD-2-Clause
"""READ, WRITE, VERIFY, WRITE AND VERIFY, WRITE SAME (32): they say which tags to expect, so they are type 2's alone.

Only where the rows stand and who has them; what they do is in `protected.py`.
"""

from target.commands import protected
from target.commands.table import AS_READ, AS_WRITE, Function, handles, protects
from target.lu import LogicalUnit
from vscsi.scsi import cdb
from vscsi.scsi.cdb import Cdb


def _has_type_2(lu: LogicalUnit) -> bool:
    return lu.protection_type == 2


def _anchor(lu: LogicalUnit) -> tuple[str, ...]:
    return ("anchor",) if lu.discard else ("anchor", "unmap")


def _add(row: Cdb, function: Function, *without: str, writes: bool = True) -> None:
    conflict = AS_WRITE if writes else AS_READ
    add = handles(
        row, conflict, needs_ready=True, writes=writes, without=without, supported=_has_type_2, timeouts=(1, 120),
        without_here=_anchor if row is cdb.WRITE_SAME_32 else lambda _: (),
    )  # fmt: skip
    protects(row)(add(function))


_add(cdb.READ_32, protected.read, "rarc", writes=False)
_add(cdb.WRITE_32, protected.write)
_add(cdb.VERIFY_32, protected.verify, writes=False)
_add(cdb.WRITE_AND_VERIFY_32, protected.write_and_verify)
_add(cdb.WRITE_SAME_32, protected.write_same)
