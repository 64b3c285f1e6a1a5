# SPDX-License-Identifier: BSD-2-Clause
"""REPORT and SET IDENTIFYING INFORMATION. Where it is kept is in `target.identification`."""

import logging

from target.commands.table import AS_WRITE, Conflict, handles
from target.commands.task import Task
from target.identification import Identification
from vscsi.scsi import cdb, reports, sense
from vscsi.scsi.reports import MAX_INFORMATION_NBYTES, TYPE_TEXT, TYPES_SUPPORTED

log = logging.getLogger(__name__)

_TYPE = "identifying_information_type"


@handles(cdb.REPORT_IDENTIFYING_INFORMATION, Conflict.SPC2)
def report_identifying_information(task: Task) -> bytes:
    """SPC-4 6.32."""
    kind = task.fields[_TYPE]
    if kind == TYPES_SUPPORTED:
        return reports.encode_information_types(MAX_INFORMATION_NBYTES)
    if kind not in MAX_INFORMATION_NBYTES:
        raise task.invalid(_TYPE)
    return reports.encode_information(task.unit.part(Identification).get(kind))


@handles(cdb.SET_IDENTIFYING_INFORMATION, AS_WRITE)
def set_identifying_information(task: Task) -> None:
    """SPC-4 6.43. No data takes the information away."""
    kind = task.fields[_TYPE]
    if kind not in MAX_INFORMATION_NBYTES:
        raise task.invalid(_TYPE)
    if task.fields["parameter_list_length"] > MAX_INFORMATION_NBYTES[kind]:
        raise task.invalid("parameter_list_length")
    data = task.parameter_list()
    if kind == TYPE_TEXT:
        _check_text(data)
    try:
        changed = task.unit.part(Identification).set(kind, data)
    except OSError as error:
        log.error("lun %d: identifying information cannot be saved: %s", task.unit.lun, error)
        raise sense.INTERNAL_TARGET_FAILURE.error() from error
    if changed:
        task.device.attention(sense.DEVICE_IDENTIFIER_CHANGED.code & 0xFFFF, besides=task.nexus, unit=task.unit)


def _check_text(data: bytes) -> None:
    """UTF-8, its only zero byte at the end."""
    if not data:
        return
    text, end = data[:-1], data[-1:]
    try:
        text.decode()
        first = text.find(b"\0")
    except UnicodeDecodeError as error:
        first = error.start
    if first >= 0:
        raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(first, in_cdb=False)
    if end != b"\0":
        raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(len(text), in_cdb=False)
