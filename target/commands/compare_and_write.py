# SPDX-License-Identifier: BSD-2-Clause
"""COMPARE AND WRITE: writes blocks only if they hold what the initiator thinks, in one step as all others see it."""

from target.commands.table import AS_WRITE, handles
from target.commands.task import Task
from target.commands.verify import compare
from vscsi.scsi import cdb

_COUNT = "number_of_logical_blocks"


@handles(cdb.COMPARE_AND_WRITE, AS_WRITE, needs_ready=True, writes=True, without=("wrprotect",))
def compare_and_write(task: Task) -> None:
    """SBC-3 5.2. Data-out is what the blocks should hold, then what they shall hold.

    A count of 0 with data is 256 in one byte: refused, since GOOD would tell the initiator that it has been written.
    """
    unit, lba, blocks = task.unit, task.fields["lba"], task.fields[_COUNT]
    task.check_range(lba, blocks)
    if blocks > unit.max_compare_and_write_blocks or (not blocks and task.port.data_out_nbytes):
        raise task.invalid(_COUNT)
    if not blocks:
        return
    task.expect_out(2 * blocks * unit.block_nbytes, _COUNT)
    fua = bool(task.fields["fua"])
    data = memoryview(task.port.fetch(0, task.out_nbytes))  # once: what is compared is what goes with what is written
    with task.locked(lba, blocks):
        _compare_and_write(task, data, lba, blocks, fua)
    if not fua:
        task.settle()


def _compare_and_write(task: Task, data: memoryview, lba: int, blocks: int, fua: bool) -> None:
    unit = task.unit
    medium = unit.buffer(blocks)
    unit.read_into(medium, lba)
    compare(medium, data[: len(medium)], 0)
    unit.write(data[len(medium) :], lba, fua=fua)
