# SPDX-License-Identifier: BSD-2-Clause
"""WRITE ATOMIC: blocks change all together or not at all, over a kill and a loss of power too."""

from target.atomic import AtomicWrites
from target.commands import blocks as steps
from target.commands.table import AS_WRITE, handles
from target.commands.task import Task
from vscsi.scsi import cdb, sense
from vscsi.scsi.sense import CheckCondition


@handles(
    cdb.WRITE_ATOMIC_16, AS_WRITE, needs_ready=True, writes=True, without=("wrprotect",),
    supported=lambda lu: lu.part(AtomicWrites).supported, timeouts=(1, 60),
)  # fmt: skip
def write_atomic(task: Task) -> None:
    """SBC-4 5.48. With an ATOMIC BOUNDARY every piece of that size is atomic by itself."""
    atomic, boundary = task.unit.part(AtomicWrites), task.fields["atomic_boundary"]
    lba, blocks = steps.extent(task, atomic.max_blocks_with_boundary if boundary else atomic.max_blocks)
    if boundary > atomic.max_blocks:
        raise task.invalid("atomic_boundary")
    if not blocks:
        return
    steps.expect_blocks(task, blocks)
    with task.locked(lba, blocks):
        _write_pieces(task, atomic, lba, blocks, boundary or blocks)


def _write_pieces(task: Task, atomic: AtomicWrites, lba: int, blocks: int, piece: int) -> None:
    size = task.unit.block_nbytes
    for done in range(0, blocks, piece):
        task.check_aborted()
        data = task.port.fetch(done * size, min(piece, blocks - done) * size)
        try:
            atomic.write(lba + done, data)
        except (OSError, CheckCondition) as error:
            if not done:
                raise
            raise sense.INCOMPLETE_MULTIPLE_ATOMIC_WRITE_OPERATIONS.error() from error
