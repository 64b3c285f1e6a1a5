# SPDX-License-Identifier: BSD-2-Clause
"""READ, WRITE and SYNCHRONIZE CACHE in all their lengths.

The rows serve the native core, which runs these commands itself wherever a store has a descriptor. The functions run
only for stores that have none.
"""

from target.commands.table import AS_READ, AS_WRITE, Op, handles
from target.commands.task import Task
from vscsi.scsi import cdb, sense

_READ_WITHOUT = ("rdprotect", "rarc")
_WRITE_WITHOUT = ("wrprotect",)


def _extent(task: Task) -> tuple[int, int]:
    lba, blocks = task.fields["lba"], task.fields["transfer_length"]
    if not blocks and task.row.zero_is_256:
        blocks = 256
    task.check_range(lba, blocks)
    if blocks > task.unit.max_transfer_blocks:
        raise task.invalid("transfer_length")
    return lba, blocks


@handles(cdb.READ_6, AS_READ, op=Op.READ, needs_ready=True)
@handles(cdb.READ_10, AS_READ, op=Op.READ, needs_ready=True, without=_READ_WITHOUT)
@handles(cdb.READ_12, AS_READ, op=Op.READ, needs_ready=True, without=_READ_WITHOUT)
@handles(cdb.READ_16, AS_READ, op=Op.READ, needs_ready=True, without=_READ_WITHOUT)
def read(task: Task) -> None:
    """SBC-3 5.10 and after."""
    unit, (lba, blocks) = task.unit, _extent(task)
    with task.locked(lba, blocks):
        _read(task, lba, blocks)
    if task.fields.get("fua") and not unit.readonly:
        task.flush()  # afterwards: what was returned is then on the medium, a racing write included


def _read(task: Task, lba: int, blocks: int) -> None:
    unit = task.unit
    buffer = unit.buffer(min(blocks, unit.chunk_blocks()))
    while blocks:
        task.check_aborted()
        chunk = buffer[: min(blocks * unit.block_nbytes, len(buffer))]
        unit.read_into(chunk, lba)
        task.send(chunk)
        done = len(chunk) // unit.block_nbytes
        lba, blocks = lba + done, blocks - done


@handles(cdb.WRITE_6, AS_WRITE, op=Op.WRITE, needs_ready=True, writes=True)
@handles(cdb.WRITE_10, AS_WRITE, op=Op.WRITE, needs_ready=True, writes=True, without=_WRITE_WITHOUT)
@handles(cdb.WRITE_12, AS_WRITE, op=Op.WRITE, needs_ready=True, writes=True, without=_WRITE_WITHOUT)
@handles(cdb.WRITE_16, AS_WRITE, op=Op.WRITE, needs_ready=True, writes=True, without=_WRITE_WITHOUT)
def write(task: Task) -> None:
    """SBC-3 5.30 and after."""
    unit, (lba, blocks) = task.unit, _extent(task)
    if not blocks:
        return
    task.out_nbytes = blocks * unit.block_nbytes
    if task.port.data_out_nbytes < task.out_nbytes:  # a longer buffer is an underrun, as in the native core
        raise sense.INVALID_FIELD_IN_COMMAND_IU.error()
    fua = bool(task.fields.get("fua"))
    with task.locked(lba, blocks):
        _write(task, lba, blocks, fua)
    if not fua:
        task.settle()


def _write(task: Task, lba: int, blocks: int, fua: bool) -> None:
    unit, offset = task.unit, 0
    while blocks:
        task.check_aborted()
        step = min(blocks, unit.chunk_blocks())
        data = task.port.fetch(offset, step * unit.block_nbytes)
        unit.write(memoryview(data), lba, fua=fua)
        lba, blocks, offset = lba + step, blocks - step, offset + len(data)


@handles(cdb.SYNCHRONIZE_CACHE_10, AS_WRITE, op=Op.SYNC, needs_ready=True, timeouts=(1, 60))
@handles(cdb.SYNCHRONIZE_CACHE_16, AS_WRITE, op=Op.SYNC, needs_ready=True, timeouts=(1, 60))
def synchronize_cache(task: Task) -> None:
    """SBC-3 5.29: the whole unit, whatever the range; it must lie on the medium."""
    task.check_range(task.fields["lba"], task.fields["number_of_logical_blocks"])
    task.flush()
