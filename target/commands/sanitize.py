# SPDX-License-Identifier: BSD-2-Clause
"""SANITIZE: everything is checked here, then an operation of the unit does the work (`target.operation`).

Knows CDB and parameter list. Must not know how blocks are erased.
"""

from target.commands.table import AS_WRITE, handles
from target.commands.task import InBackground, Task
from target.erase import BlockErase, KeyErase, Overwrite
from target.lu import LogicalUnit
from target.medium import Medium
from target.operation import Operation, Run, Work
from target.stores import Can
from vscsi.scsi import cdb, medium, sense

_HEADER_NBYTES = medium.OVERWRITE_LIST.nbytes
_TIMEOUTS = (60, 86400)
# ZNR is for zoned units only.
_WITHOUT = ("znr",)


def can_block_erase(unit: LogicalUnit) -> bool:
    """Whether blocks that are given back are gone, and GET LBA STATUS can say so."""
    return unit.zeroing


@handles(cdb.SANITIZE_OVERWRITE, AS_WRITE, writes=True, without=_WITHOUT, timeouts=_TIMEOUTS)
def overwrite(task: Task) -> InBackground | None:
    """SBC-3 5.30.2.2."""
    unit, nbytes = task.unit, task.fields["parameter_list_length"]
    if not _HEADER_NBYTES < nbytes <= _HEADER_NBYTES + unit.block_nbytes:
        raise task.invalid("parameter_list_length")
    data = task.parameter_list()
    fields, layout = medium.OVERWRITE_LIST.numbers(data), medium.OVERWRITE_LIST.fields
    length = fields["initialization_pattern_length"]
    if not fields["overwrite_count"]:
        raise _invalid(*layout["overwrite_count"].pointer)
    if not 0 < length <= min(unit.block_nbytes, nbytes - _HEADER_NBYTES):
        raise _invalid(*layout["initialization_pattern_length"].pointer)
    pattern = data[_HEADER_NBYTES : _HEADER_NBYTES + length]
    return _begin(task, Overwrite.of(unit, pattern, fields["overwrite_count"], invert=bool(fields["invert"])))


@handles(
    cdb.SANITIZE_BLOCK_ERASE, AS_WRITE, writes=True, without=_WITHOUT, supported=can_block_erase, timeouts=_TIMEOUTS
)
def block_erase(task: Task) -> InBackground | None:
    """SBC-3 5.30.2.3."""
    return _begin(task, BlockErase(task.unit, {}))


def can_erase_key(unit: LogicalUnit) -> bool:
    """Whether the content is encrypted, with a key that can be thrown away."""
    return Can.ERASE_KEY in unit.store.can and not unit.readonly


@handles(
    cdb.SANITIZE_CRYPTOGRAPHIC_ERASE, AS_WRITE, writes=True, without=_WITHOUT, supported=can_erase_key,
    timeouts=_TIMEOUTS,
)  # fmt: skip
def cryptographic_erase(task: Task) -> InBackground | None:
    """SBC-3 5.30.2.4. Afterwards blocks read as noise."""
    return _begin(task, KeyErase(task.unit, {}))


@handles(cdb.SANITIZE_EXIT_FAILURE_MODE, AS_WRITE, without=_WITHOUT)
def exit_failure_mode(task: Task) -> None:
    """SBC-3 5.30.2.5. Without a failed sanitize there is nothing to leave; one without AUSE is not left this way."""
    operation = task.unit.part(Operation)
    if (occupied := operation.sense()) is not None:
        raise occupied
    if task.unit.not_ready is not sense.SANITIZE_COMMAND_FAILED:
        return
    if not operation.may_leave_failure:
        raise sense.INVALID_FIELD_IN_CDB.at(1, 4)
    operation.leave_failure()


def _invalid(byte: int, bit: int | None) -> sense.CheckCondition:
    return sense.INVALID_FIELD_IN_PARAMETER_LIST.at(byte, bit, in_cdb=False)


def _begin(task: Task, work: Work) -> InBackground | None:
    unit = task.unit
    failures = (sense.SANITIZE_COMMAND_FAILED, sense.FORMAT_COMMAND_FAILED)
    if unit.not_ready is not None and unit.not_ready not in failures:
        raise unit.not_ready.error()
    if unit.part(Medium).prevented:
        raise sense.MEDIUM_REMOVAL_PREVENTED.error()
    run = unit.part(Operation).begin(work, ause=bool(task.fields["ause"]))
    return None if task.fields["immed"] else task.in_background(lambda: wait(task, run))


def wait(task: Task, run: Run) -> None:
    """Until the operation has ended. An aborted command ends by itself; the operation goes on."""
    while not run.ended.wait(0.02):
        task.check_aborted()
    if run.paused:
        task.check_aborted()
        raise run.sense()
    if not run.succeeded:
        raise run.work.failed.error()
