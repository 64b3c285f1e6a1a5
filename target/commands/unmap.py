# SPDX-License-Identifier: BSD-2-Clause
"""UNMAP: gives blocks back. The whole list is checked before any of it is acted on."""

from target import lu as limits
from target.commands.table import AS_WRITE, handles
from target.commands.task import Task
from vscsi.scsi import cdb, parameters, sense
from vscsi.scsi.parameters import UNMAP_DESCRIPTOR_NBYTES, UNMAP_HEADER_NBYTES


@handles(
    cdb.UNMAP, AS_WRITE, needs_ready=True, writes=True, without=("anchor",), supported=lambda lu: lu.discard,
    timeouts=(1, 60),
)  # fmt: skip
def unmap(task: Task) -> None:
    """SBC-3 5.28. Without ANC_SUP, ANCHOR is an invalid field."""
    unit = task.unit
    for lba, blocks in _checked(task, task.parameter_list()):
        while blocks:
            task.check_aborted()
            step = min(blocks, limits.MAX_UNMAP_BLOCKS)
            with task.locked(lba, step):
                unit.trim(lba, step)
            lba, blocks = lba + step, blocks - step
    task.settle()


def _checked(task: Task, data: bytes) -> list[tuple[int, int]]:
    if not data:
        return []
    if len(data) < UNMAP_HEADER_NBYTES:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    descriptors_nbytes = int.from_bytes(data[2:4])
    if descriptors_nbytes > len(data) - UNMAP_HEADER_NBYTES:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    if int.from_bytes(data[0:2]) < descriptors_nbytes + 6:
        raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(0, in_cdb=False)
    extents = parameters.decode_unmap(data)
    if len(extents) > limits.MAX_UNMAP_DESCRIPTORS:
        raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(2, in_cdb=False)
    total = 0
    for i, (lba, blocks) in enumerate(extents):
        total += blocks
        if total > limits.MAX_UNMAP_BLOCKS:
            place = UNMAP_HEADER_NBYTES + i * UNMAP_DESCRIPTOR_NBYTES + 8
            raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(place, in_cdb=False)
        task.check_range(lba, blocks)
    return extents
