# SPDX-License-Identifier: BSD-2-Clause
"""SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS: the default self-test, and the list of pages: there is no other."""

from target.commands.table import AS_READ, AS_WRITE, handles
from target.commands.task import Task
from vscsi.scsi import cdb, sense
from vscsi.scsi.reports import DIAGNOSTIC_HEADER

_SUPPORTED_PAGES = 0x00


@handles(cdb.SEND_DIAGNOSTIC, AS_WRITE, timeouts=(1, 60))
def send_diagnostic(task: Task) -> None:
    """SPC-4 6.42. The self-test reads the first and the last block. DEVOFFL and UNITOFFL allow more than it does."""
    if task.fields["self_test_code"]:
        raise task.invalid("self_test_code")
    if task.fields["selftest"]:
        if task.fields["parameter_list_length"]:
            raise task.invalid("parameter_list_length")
        _self_test(task)
        return
    data = task.parameter_list()
    if not data:
        return
    if not task.fields["pf"]:
        raise task.invalid("pf")
    if len(data) < DIAGNOSTIC_HEADER.nbytes:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    head = DIAGNOSTIC_HEADER.numbers(data)
    if head["page_code"] != _SUPPORTED_PAGES:
        raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(0, in_cdb=False)
    if head["page_length"]:
        raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(2, in_cdb=False)


def _self_test(task: Task) -> None:
    unit = task.unit
    if unit.not_ready is not None:
        raise unit.not_ready.error()
    buffer = unit.buffer(1)
    for lba in (0, unit.blocks - 1):
        try:
            with task.locked(lba, 1):
                unit.read_into(buffer, lba)
        except sense.CheckCondition as error:
            if error.sense.key in (sense.Key.MEDIUM_ERROR, sense.Key.HARDWARE_ERROR):
                raise sense.LOGICAL_UNIT_FAILED_SELF_TEST.error() from error
            raise


@handles(cdb.RECEIVE_DIAGNOSTIC_RESULTS, AS_READ)
def receive_diagnostic_results(task: Task) -> bytes:
    """SPC-4 6.29. Without PCV it is the page that SEND DIAGNOSTIC asked for, of which there is but one."""
    if task.fields["page_code"] != _SUPPORTED_PAGES:
        raise task.invalid("page_code")
    return DIAGNOSTIC_HEADER.build(page_code=_SUPPORTED_PAGES, page_length=1) + bytes([_SUPPORTED_PAGES])
