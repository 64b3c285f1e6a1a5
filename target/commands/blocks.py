# SPDX-License-Identifier: BSD-2-Clause
"""Steps that commands on a range of blocks have in common: which range, how much data, chunk by chunk, what differs.

Must not know any command. Locks are the commands' own business (`task.locked`), as is what they do with a chunk.
"""

from collections.abc import Iterator

from target.commands.task import Task

_COMPARE_NBYTES = 4096


def count_field(task: Task) -> str:
    """The name of the CDB field that counts the blocks."""
    return next(name for name in task.row.BLOCK_COUNTS if name in task.fields)


def extent(task: Task, limit: int | None = None) -> tuple[int, int]:
    """LBA and number of blocks, checked: the range first, then the limit (without one: MAXIMUM TRANSFER LENGTH)."""
    name = count_field(task)
    lba, blocks = task.fields["lba"], task.fields[name]
    task.check_range(lba, blocks)
    if blocks > (task.unit.max_transfer_blocks if limit is None else limit):
        raise task.invalid(name)
    return lba, blocks


def expect_blocks(task: Task, blocks: int) -> None:
    """The data-out buffer holds exactly so many blocks, or the count in the CDB is an invalid field."""
    task.expect_out(blocks * task.unit.block_nbytes, count_field(task))


def chunks(task: Task, lba: int, blocks: int) -> Iterator[tuple[int, int, int]]:
    """Cuts a range into (LBA, blocks, byte offset from its start); before each looks whether the task is aborted."""
    first, step = lba, task.unit.chunk_blocks()
    while blocks:
        task.check_aborted()
        now = min(blocks, step)
        yield lba, now, (lba - first) * task.unit.block_nbytes
        lba, blocks = lba + now, blocks - now


def first_difference(one: bytes | memoryview, other: bytes | memoryview) -> int | None:
    """Index of the first byte in which two buffers of the same size differ; None: they are equal."""
    if bytes(one) == bytes(other):
        return None
    for start in range(0, len(one), _COMPARE_NBYTES):
        a, b = bytes(one[start : start + _COMPARE_NBYTES]), bytes(other[start : start + _COMPARE_NBYTES])
        if a != b:
            return start + next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    raise AssertionError("a difference that is nowhere")
