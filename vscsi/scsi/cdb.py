# SPDX-License-Identifier: BSD-2-Clause
"""Command descriptor blocks: one row per command, for both ends. This is where they all are reached, as `cdb.NAME`.

From a row follow builder, parser, usage map, reserved-bit check, direction and size of the transfer. A new command is
a new row in the file of its family (cdb_*.py). Knows the standards' facts (SPC-4, SBC-3, SBC-4); must not know which
of them a target supports, nor its policy.
"""

from collections.abc import Mapping

from vscsi.scsi.cdb_32 import *  # noqa: F403
from vscsi.scsi.cdb_copy import *  # noqa: F403
from vscsi.scsi.cdb_media import *  # noqa: F403
from vscsi.scsi.cdb_primary import *  # noqa: F403
from vscsi.scsi.cdb_row import GROUP_NBYTES, VARIABLE_LENGTH
from vscsi.scsi.cdb_row import Cdb as Cdb
from vscsi.scsi.cdb_row import Data as Data
from vscsi.scsi.cdb_row import reserved_bit as reserved_bit
from vscsi.scsi.cdb_unit import *  # noqa: F403
from vscsi.scsi.fields import be, bits

ROWS: Mapping[tuple[int, int | None], Cdb] = {row.key: row for row in list(globals().values()) if isinstance(row, Cdb)}
"""Every row by (opcode, service action)."""

_OPCODES_WITH_SA = {opcode for opcode, sa in ROWS if sa is not None}


def has_service_actions(opcode: int) -> bool:
    """Whether rows of this opcode are told apart by a service action."""
    return opcode in _OPCODES_WITH_SA


def lookup(cdb: bytes | bytearray | memoryview) -> Cdb | None:
    """The row of a CDB: first step of the parse, by opcode and service action alone. None: no such command here."""
    if len(cdb) < 2:
        return None
    opcode = cdb[0]
    if opcode not in _OPCODES_WITH_SA:
        return ROWS.get((opcode, None))
    place = be(8, 2) if opcode == VARIABLE_LENGTH else bits(1, 4, 0)
    return ROWS.get((opcode, place.get(cdb))) if len(cdb) >= place.end else None


def name_of(cdb: bytes | bytearray | memoryview) -> str:
    """What to call these bytes in a log line."""
    row = lookup(cdb)
    return row.name if row else f"opcode {cdb[0]:02X}h" if len(cdb) else "empty CDB"


def nbytes_of(opcode: int) -> int | None:
    """Length of a CDB by its opcode's group (SPC-4 4.2.5.1), None where the group does not tell."""
    return None if opcode == VARIABLE_LENGTH else GROUP_NBYTES.get(opcode >> 5)
