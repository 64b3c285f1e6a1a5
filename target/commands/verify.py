# SPDX-License-Identifier: BSD-2-Clause
"""VERIFY: reads blocks and, if asked to, compares them with the initiator's data. Never writes."""

from target.commands import blocks as steps
from target.commands.table import AS_READ, handles
from target.commands.task import Task
from vscsi.scsi import cdb, sense

_READ_ONLY, _COMPARE, _RESERVED, _COMPARE_ONE = 0, 1, 2, 3


@handles(cdb.VERIFY_10, AS_READ, needs_ready=True, without=("vrprotect",), timeouts=(1, 120))
@handles(cdb.VERIFY_12, AS_READ, needs_ready=True, without=("vrprotect",), timeouts=(1, 120))
@handles(cdb.VERIFY_16, AS_READ, needs_ready=True, without=("vrprotect",), timeouts=(1, 120))
def verify(task: Task) -> None:
    """SBC-3 5.32. Unmapped blocks compare as what a read returns (VBULS=1)."""
    check = task.fields["bytchk"]
    if check == _RESERVED:
        raise task.invalid("bytchk")
    # The limit holds without data too: a worker that reads a whole disk for one initiator is missed by the others.
    lba, blocks = steps.extent(task)
    if not blocks:
        return
    pattern = b""
    if check == _COMPARE:
        steps.expect_blocks(task, blocks)
    elif check == _COMPARE_ONE:
        steps.expect_blocks(task, 1)
        pattern = task.port.fetch(0, task.unit.block_nbytes)
    with task.locked(lba, blocks):
        _verify(task, check, pattern, lba, blocks)


def _verify(task: Task, check: int, pattern: bytes, lba: int, blocks: int) -> None:
    unit, size = task.unit, task.unit.block_nbytes
    buffer = unit.buffer(min(blocks, unit.chunk_blocks()))
    for start, count, offset in steps.chunks(task, lba, blocks):
        chunk = buffer[: count * size]
        unit.read_into(chunk, start)
        if check == _COMPARE:
            compare(chunk, task.port.fetch(offset, len(chunk)), offset)
        elif check == _COMPARE_ONE and (at := steps.first_difference(chunk, pattern * count)) is not None:
            raise sense.MISCOMPARE_DURING_VERIFY_OPERATION.error(information=at % size)


def compare(medium: memoryview, data: bytes | memoryview, offset: int) -> None:
    """MISCOMPARE with the data-out offset of the first byte that differs in INFORMATION; `data` stands at `offset`."""
    if (at := steps.first_difference(medium, data)) is not None:
        raise sense.MISCOMPARE_DURING_VERIFY_OPERATION.error(information=offset + at)
