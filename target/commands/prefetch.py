# SPDX-License-Identifier: BSD-2-Clause
"""PRE-FETCH: asks for blocks to be in the cache soon. Moves no data."""

from target.commands import blocks as steps
from target.commands.table import AS_READ, handles
from target.commands.task import Task
from vscsi.scsi import cdb
from vscsi.scsi.status import Status


@handles(cdb.PRE_FETCH_10, AS_READ, needs_ready=True)
@handles(cdb.PRE_FETCH_16, AS_READ, needs_ready=True)
def pre_fetch(task: Task) -> None:
    """SBC-3 5.7. No blocks means: up to the end.

    CONDITION MET would be right whenever the blocks fit in the cache, and GOOD is always right; many programs take any
    other status than GOOD for a failure, so that CONDITION MET is for those who ask for it (LUN key prefetch).
    """
    unit = task.unit
    lba, blocks = steps.extent(task, unit.blocks)
    unit.prefetch(lba, blocks or unit.blocks - lba)
    if unit.prefetch_met:
        task.status = Status.CONDITION_MET
