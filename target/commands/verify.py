# SPDX-License-Identifier: BSD-2-Clause
"""VERIFY: reads blocks and, if asked to, compares them with the initiator's data. Never writes."""

from target.commands.table import AS_READ, handles
from target.commands.task import Task
from vscsi.scsi import cdb, sense

_READ_ONLY, _COMPARE, _RESERVED, _COMPARE_ONE = 0, 1, 2, 3


@handles(cdb.VERIFY_10, AS_READ, needs_ready=True, without=("vrprotect",), timeouts=(1, 120))
@handles(cdb.VERIFY_16, AS_READ, needs_ready=True, without=("vrprotect",), timeouts=(1, 120))
def verify(task: Task) -> None:
    """SBC-3 5.32. Unmapped blocks compare as what a read returns (VBULS=1)."""
    unit, check = task.unit, task.fields["bytchk"]
    lba, blocks = task.fields["lba"], task.fields["verification_length"]
    if check == _RESERVED:
        raise task.invalid("bytchk")
    task.check_range(lba, blocks)
    # Without data too: a worker that reads a whole disk for one initiator is missed by the others.
    if blocks > unit.max_transfer_blocks:
        raise task.invalid("verification_length")
    if not blocks:
        return
    size = unit.block_nbytes
    pattern = b""
    if check == _COMPARE:
        task.expect_out(blocks * size, "verification_length")
    elif check == _COMPARE_ONE:
        task.expect_out(size, "verification_length")
        pattern = task.port.fetch(0, size)
    with task.locked(lba, blocks):
        _verify(task, check, pattern, lba, blocks)


def _verify(task: Task, check: int, pattern: bytes, lba: int, blocks: int) -> None:
    unit, size = task.unit, task.unit.block_nbytes
    buffer, offset = unit.buffer(min(blocks, unit.chunk_blocks())), 0
    while blocks:
        task.check_aborted()
        step = min(blocks, unit.chunk_blocks())
        chunk = buffer[: step * size]
        unit.read_into(chunk, lba)
        if check == _COMPARE:
            _compare(chunk, task.port.fetch(offset, len(chunk)), offset)
        elif check == _COMPARE_ONE:
            for i in range(step):
                _compare(chunk[i * size : (i + 1) * size], pattern, 0)
        lba, blocks, offset = lba + step, blocks - step, offset + len(chunk)


def _compare(medium: memoryview, data: bytes, offset: int) -> None:
    """MISCOMPARE with the data-out offset of the first byte that differs in INFORMATION."""
    if medium != data:
        first = next(i for i, (a, b) in enumerate(zip(medium, data, strict=True)) if a != b)
        raise sense.MISCOMPARE_DURING_VERIFY_OPERATION.error(information=offset + first)
