# SPDX-License-Identifier: BSD-2-Clause
"""TEST UNIT READY, REQUEST SENSE: the state of a unit. Must not know what its data is."""

from target.commands.table import Conflict, handles
from target.commands.task import Task
from target.operation import Operation
from vscsi.scsi import cdb, sense
from vscsi.scsi.sense import CheckCondition, Key, Sense


@handles(cdb.TEST_UNIT_READY, Conflict.SPC2, needs_ready=True, any_lun=True)
def test_unit_ready(task: Task) -> None:
    """SPC-4 6.47."""
    if not task.well_known and (state := task.unit.not_ready) is not None:
        raise state.error()


@handles(cdb.REQUEST_SENSE, Conflict.NONE, skips_ua=True, any_lun=True, during_operation=True)
def request_sense(task: Task) -> bytes:
    """SPC-4 6.39: always GOOD; the format follows DESC, not D_SENSE. Takes one unit attention, or tells how far a long
    operation has come."""
    return _pending(task).encode(descriptor=bool(task.fields["desc"]))


def _pending(task: Task) -> CheckCondition:
    if task.well_known:
        return sense.NO_SENSE.error()
    if task.lu is None:
        return sense.LOGICAL_UNIT_NOT_SUPPORTED.error()
    if code := task.device.attention_take(task.nexus, task.lu, task.port.request):
        asc, ascq = code >> 8, code & 0xFF
        named = sense.lookup(asc, ascq)
        return Sense(Key.UNIT_ATTENTION, asc, ascq, named.name if named else "").error()
    if (occupied := task.lu.part(Operation).sense()) is not None:
        return occupied
    return (task.lu.not_ready or sense.NO_SENSE).error()
