# SPDX-License-Identifier: BSD-2-Clause
"""RESERVE and RELEASE as SPC-2 has them, of the whole logical unit and for oneself. Who has it: `target.reservations`.

Third parties and extents are obsolete; their bits are reserved in `vscsi.scsi.cdb`, and so invalid fields.
"""

from target.commands.table import Conflict, handles
from target.commands.task import Task
from target.reservations import Reservations
from vscsi.scsi import cdb


@handles(cdb.RESERVE_6, Conflict.SPC2)
@handles(cdb.RESERVE_10, Conflict.SPC2)
def reserve(task: Task) -> None:
    """SPC-2 7.21, 7.22; beside persistent reservations SPC-4 5.13.3 (CRH)."""
    task.unit.part(Reservations).reserve_legacy(task.nexus)


@handles(cdb.RELEASE_6, Conflict.NONE)
@handles(cdb.RELEASE_10, Conflict.NONE)
def release(task: Task) -> None:
    """SPC-2 7.16, 7.17: GOOD without effect for whoever does not hold it."""
    task.unit.part(Reservations).release_legacy(task.nexus)
