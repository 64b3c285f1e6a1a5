# SPDX-License-Identifier: BSD-2-Clause
"""REPORT and SET TIMESTAMP. The clock is in `target.timestamp`."""

from target.commands.table import AS_WRITE, Conflict, handles
from target.commands.task import Task
from target.timestamp import Timestamp
from vscsi.scsi import cdb, reports, sense


@handles(cdb.REPORT_TIMESTAMP, Conflict.SPC2)
def report_timestamp(task: Task) -> bytes:
    """SPC-4 6.38."""
    return reports.encode_timestamp(*task.unit.part(Timestamp).get())


@handles(cdb.SET_TIMESTAMP, AS_WRITE)
def set_timestamp(task: Task) -> None:
    """SPC-4 6.47. No data is no error, and sets nothing; what follows the twelve bytes is not looked at."""
    data = task.parameter_list()
    if not data:
        return
    if len(data) < reports.TIMESTAMP_LIST.nbytes:
        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
    task.unit.part(Timestamp).set(reports.TIMESTAMP_LIST.numbers(data)["timestamp"])
    task.device.attention(sense.TIMESTAMP_CHANGED.code & 0xFFFF, besides=task.nexus, unit=task.unit)
