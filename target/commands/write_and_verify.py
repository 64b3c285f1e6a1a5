# SPDX-License-Identifier: BSD-2-Clause
"""WRITE AND VERIFY: writes to the medium, then reads back from there and, if asked to, compares."""

from target.commands import blocks as steps
from target.commands.table import AS_WRITE, handles
from target.commands.task import Task
from target.commands.verify import compare
from vscsi.scsi import cdb

_READ_ONLY, _COMPARE = 0, 1


@handles(cdb.WRITE_AND_VERIFY_10, AS_WRITE, needs_ready=True, writes=True, without=("wrprotect",), timeouts=(1, 120))
@handles(cdb.WRITE_AND_VERIFY_12, AS_WRITE, needs_ready=True, writes=True, without=("wrprotect",), timeouts=(1, 120))
@handles(cdb.WRITE_AND_VERIFY_16, AS_WRITE, needs_ready=True, writes=True, without=("wrprotect",), timeouts=(1, 120))
def write_and_verify(task: Task) -> None:
    """SBC-3 5.37 and after: BYTCHK 10b and 11b are reserved. What is verified is durable, whatever the cache."""
    if task.fields["bytchk"] > _COMPARE:
        raise task.invalid("bytchk")
    lba, blocks = steps.extent(task)
    if not blocks:
        return
    steps.expect_blocks(task, blocks)
    with task.locked(lba, blocks):
        _write_and_verify(task, lba, blocks)


def _write_and_verify(task: Task, lba: int, blocks: int) -> None:
    unit, size = task.unit, task.unit.block_nbytes
    buffer = unit.buffer(min(blocks, unit.chunk_blocks()))
    for start, count, offset in steps.chunks(task, lba, blocks):
        data = task.port.fetch(offset, count * size)
        unit.write(memoryview(data), start, fua=True)
        unit.evict(start, count)
        chunk = buffer[: len(data)]
        unit.read_into(chunk, start)
        if task.fields["bytchk"] == _COMPARE:
            compare(chunk, data, offset)
