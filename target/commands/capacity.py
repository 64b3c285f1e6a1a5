# SPDX-License-Identifier: BSD-2-Clause
"""READ CAPACITY: size and geometry of a unit."""

from target.commands.table import Conflict, handles
from target.commands.task import Task
from vscsi.scsi import cdb, parameters


def _check_obsolete(task: Task) -> None:
    if task.fields["lba"] and not task.fields["pmi"]:
        raise task.invalid("lba")


@handles(cdb.READ_CAPACITY_10, Conflict.SPC2, needs_ready=True)
def read_capacity_10(task: Task) -> bytes:
    """SBC-3 5.15."""
    _check_obsolete(task)
    unit = task.unit
    last = min(unit.blocks - 1, 0xFFFFFFFF)
    return parameters.CAPACITY_10.build(returned_logical_block_address=last, logical_block_length=unit.block_nbytes)


@handles(cdb.READ_CAPACITY_16, Conflict.SPC2, needs_ready=True)
def read_capacity_16(task: Task) -> bytes:
    """SBC-3 5.16."""
    _check_obsolete(task)
    unit = task.unit
    return parameters.CAPACITY_16.build(
        returned_logical_block_address=unit.blocks - 1,
        logical_block_length=unit.block_nbytes,
        logical_blocks_per_physical_block_exponent=(unit.physical_block_nbytes // unit.block_nbytes).bit_length() - 1,
        p_type=max(0, unit.protection_type - 1),
        prot_en=bool(unit.protection_type),
        lbpme=unit.discard,
        lbprz=unit.zeroing,
    )
