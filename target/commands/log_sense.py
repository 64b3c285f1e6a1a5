# SPDX-License-Identifier: BSD-2-Clause
"""LOG SENSE and LOG SELECT. What pages hold is in `target.log_pages`, layouts in `vscsi.scsi.log`."""

from target import statistics  # noqa: F401  (its pages register themselves)
from target.commands.table import AS_WRITE, Conflict, handles
from target.commands.task import Task
from target.log_pages import Key, LogPage, pages_of
from vscsi.scsi import cdb, log, sense
from vscsi.scsi.sense import CheckCondition

_CUMULATIVE = (log.PageControl.CUMULATIVE, log.PageControl.DEFAULT_CUMULATIVE)
_LISTS = (log.SUPPORTED.key, log.SUPPORTED_SUBPAGES.key)


@handles(cdb.LOG_SENSE, Conflict.SPC2, without=("sp",), during_operation=True)
def log_sense(task: Task) -> bytes:
    """SPC-4 6.8. Nothing is ever saved (DS=1). Lists are the same for every PC; counters have no thresholds, and begin
    at zero."""
    key = task.fields["page_code"], task.fields["subpage_code"]
    pages = pages_of(task.unit)
    pointer = task.fields["parameter_pointer"]
    if key in _LISTS:
        if pointer:
            raise task.invalid("parameter_pointer")
        return log.encode_supported([*_LISTS, *pages], subpages=key == log.SUPPORTED_SUBPAGES.key)
    if key not in pages:
        raise _unknown(task, pages)
    if pages[key].counts and task.fields["pc"] not in _CUMULATIVE:
        raise task.invalid("pc")
    parameters = pages[key].parameters(task.unit, default=task.fields["pc"] == log.PageControl.DEFAULT_CUMULATIVE)
    if pointer > max(parameters):
        raise task.invalid("parameter_pointer")
    body = b"".join(data for code, data in parameters.items() if code >= pointer)
    return log.encode(*key, body)


def _unknown(task: Task, pages: dict[Key, LogPage]) -> CheckCondition:
    code = task.fields["page_code"]
    return task.invalid("subpage_code" if any(known == code for known, _ in (*_LISTS, *pages)) else "page_code")


@handles(cdb.LOG_SELECT, AS_WRITE, without=("sp",))
def log_select(task: Task) -> None:
    """SPC-4 6.7. Counters can be set to zero, by PCR or by an empty list; no parameter can be given a value."""
    fields, pages = task.fields, pages_of(task.unit)
    key, nbytes = (fields["page_code"], fields["subpage_code"]), fields["parameter_list_length"]
    every = key == log.SUPPORTED.key
    if nbytes and fields["pcr"]:
        raise task.invalid("parameter_list_length")
    if nbytes and not every:
        raise task.invalid("page_code" if key[0] else "subpage_code")
    if nbytes:
        _check_list(task.parameter_list(), pages)
        return
    if not every and key not in pages:
        raise _unknown(task, pages)
    if not fields["pcr"] and fields["pc"] not in _CUMULATIVE:
        return  # thresholds, of which there are none
    chosen = [row.reset for known, row in pages.items() if row.reset is not None and (every or known == key)]
    for reset in chosen:
        reset(task.unit)
    if chosen:
        task.device.attention(sense.LOG_PARAMETERS_CHANGED.code & 0xFFFF, besides=task.nexus, unit=task.unit)


def _check_list(data: bytes, pages: dict[Key, LogPage]) -> None:
    """Pages without parameters are all that can be agreed to; ascending or not."""
    at = 0
    while at < len(data):
        if len(data) < at + log.HEADER.nbytes:
            raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
        head = log.HEADER.numbers(data[at : at + log.HEADER.nbytes])
        if (head["page_code"], head["subpage_code"]) not in pages:
            raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(at, 5, in_cdb=False)
        at += log.HEADER.nbytes
        if len(data) < at + head["page_length"]:
            raise sense.PARAMETER_LIST_LENGTH_ERROR.error()
        if head["page_length"]:
            raise sense.INVALID_FIELD_IN_PARAMETER_LIST.at(at, in_cdb=False)
