# SPDX-License-Identifier: BSD-2-Clause
"""ORWRITE: ors the initiator's data into blocks, as one step against every other command on them."""

from target.commands import blocks as steps
from target.commands.table import AS_WRITE, handles
from target.commands.task import Task
from vscsi.scsi import cdb


@handles(cdb.ORWRITE_16, AS_WRITE, needs_ready=True, writes=True, without=("orprotect",))
def orwrite(task: Task) -> None:
    """SBC-3 5.6."""
    lba, blocks = steps.extent(task)
    if not blocks:
        return
    steps.expect_blocks(task, blocks)
    fua = bool(task.fields["fua"])
    with task.locked(lba, blocks):
        _orwrite(task, lba, blocks, fua)
    if not fua:
        task.settle()


def _orwrite(task: Task, lba: int, blocks: int, fua: bool) -> None:
    unit, size = task.unit, task.unit.block_nbytes
    buffer = unit.buffer(min(blocks, unit.chunk_blocks()))
    for start, count, offset in steps.chunks(task, lba, blocks):
        chunk = buffer[: count * size]
        data = task.port.fetch(offset, len(chunk))
        unit.read_into(chunk, start)
        chunk[:] = (int.from_bytes(chunk) | int.from_bytes(data)).to_bytes(len(chunk))
        unit.write(chunk, start, fua=fua)
