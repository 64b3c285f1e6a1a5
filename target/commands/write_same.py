# SPDX-License-Identifier: BSD-2-Clause
"""WRITE SAME: one block written many times, or many blocks given back."""

from target.commands.table import AS_WRITE, handles
from target.commands.task import Task
from target.lu import LogicalUnit
from vscsi.scsi import cdb

_WITHOUT = ("wrprotect", "anchor")


def wsnz(lu: LogicalUnit) -> bool:
    """The WSNZ bit: a disk that unmaps does not take no blocks for all of them; a length left out would empty it."""
    return lu.discard


def _without_here(lu: LogicalUnit) -> tuple[str, ...]:
    return () if lu.discard else ("unmap",)


@handles(
    cdb.WRITE_SAME_10, AS_WRITE, needs_ready=True, writes=True, without=_WITHOUT, without_here=_without_here,
    timeouts=(1, 120),
)  # fmt: skip
@handles(
    cdb.WRITE_SAME_16, AS_WRITE, needs_ready=True, writes=True, without=_WITHOUT, without_here=_without_here,
    timeouts=(1, 120),
)  # fmt: skip
def write_same(task: Task) -> None:
    """SBC-3 5.42. No blocks means up to the end, unless `wsnz`. ANCHOR without ANC_SUP is an invalid field.

    With UNMAP the blocks are given back only where they then read as the block that was sent, that is zeros; otherwise
    it is written. NDOB stands for a block of zeros.
    """
    unit = task.unit
    lba, blocks = task.fields["lba"], task.fields["number_of_logical_blocks"]
    task.check_range(lba, blocks)
    if not blocks and wsnz(unit):
        raise task.invalid("number_of_logical_blocks")
    blocks = blocks or unit.blocks - lba
    if blocks > unit.max_write_same_blocks:
        raise task.invalid("number_of_logical_blocks")
    block = _block(task)
    with task.locked(lba, blocks):
        if task.fields["unmap"] and unit.zeroing and not any(block):
            unit.trim(lba, blocks)
        else:
            _write(task, block, lba, blocks)
    task.settle()


def _block(task: Task) -> bytes:
    size = task.unit.block_nbytes
    if task.fields.get("ndob"):
        return bytes(size)
    task.expect_out(size, "number_of_logical_blocks")
    return task.port.fetch(0, size)


def _write(task: Task, block: bytes, lba: int, blocks: int) -> None:
    unit = task.unit
    step = min(blocks, unit.chunk_blocks())
    buffer = unit.buffer(step)
    buffer[:] = block * step
    while blocks:
        task.check_aborted()
        step = min(blocks, step)
        unit.write(buffer[: step * unit.block_nbytes], lba)
        lba, blocks = lba + step, blocks - step
