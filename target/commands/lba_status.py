# SPDX-License-Identifier: BSD-2-Clause
"""GET LBA STATUS: which blocks have space of their own, as the store tells."""

from collections.abc import Iterator

from target.commands.table import AS_READ, handles
from target.commands.task import Task
from target.lu import LogicalUnit
from vscsi.scsi import cdb, medium, sense
from vscsi.scsi.medium import LbaStatus, Provisioning

MAX_DESCRIPTORS = 1024
"""An initiator asks again from where an answer ends, so that no answer need be long."""


@handles(
    cdb.GET_LBA_STATUS, AS_READ, needs_ready=True, without=("report_type",), supported=lambda lu: lu.discard,
)  # fmt: skip
def get_lba_status(task: Task) -> bytes:
    """SBC-3 5.4. The last block of an answer may be followed by others of the same status."""
    unit, lba = task.unit, task.fields["lba"]
    if lba >= unit.blocks:
        raise sense.LBA_OUT_OF_RANGE.error(information=lba)
    room = (task.fields["allocation_length"] - medium.LBA_STATUS_HEADER.nbytes) // medium.LBA_STATUS_DESCRIPTOR.nbytes
    wanted = max(1, min(room, MAX_DESCRIPTORS))  # one at least: the standard's PARAMETER DATA LENGTH counts it
    found = []
    for row in _statuses(unit, lba):
        found.append(row)
        if len(found) == wanted:
            break
    return medium.encode_lba_status(found)


def _statuses(unit: LogicalUnit, lba: int) -> Iterator[LbaStatus]:
    """From `lba` to the end; a count has 32 bits, so that more blocks of one status take several rows."""
    for start, blocks, mapped in unit.extents(lba, unit.blocks - lba):
        first, left = start, blocks
        while left:
            step = min(left, 0xFFFFFFFF)
            yield LbaStatus(first, step, Provisioning.MAPPED if mapped else Provisioning.DEALLOCATED)
            first, left = first + step, left - step
