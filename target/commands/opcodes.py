# SPDX-License-Identifier: BSD-2-Clause
"""REPORT SUPPORTED OPERATION CODES, answered from the table that also dispatches."""

from target.commands import table
from target.commands.table import AS_READ, Handler, handles
from target.commands.task import Task
from vscsi.scsi import cdb, parameters

_ALL, _OPCODE, _OPCODE_AND_SA, _EITHER = 0, 1, 2, 3


@handles(cdb.REPORT_SUPPORTED_OPERATION_CODES, AS_READ)
def report_supported_operation_codes(task: Task) -> bytes:
    """SPC-4 6.35. Field pointers never point at byte 1: some programs read that as 'no such command'."""
    option = task.fields["reporting_options"]
    if option == _ALL:
        return _all(task)
    if option > _EITHER:
        raise task.invalid("reporting_options")
    opcode, sa = task.fields["requested_operation_code"], task.fields["requested_service_action"]
    has_sa = cdb.has_service_actions(opcode)
    known = table.has_opcode(opcode, task.lu)
    if option == _OPCODE and known and has_sa:
        raise task.invalid("reporting_options")
    if option == _OPCODE_AND_SA and known and not has_sa:
        raise task.invalid("reporting_options")
    if option == _EITHER and sa and not has_sa:
        return _one(task, None)
    return _one(task, table.handlers().get((opcode, sa if has_sa else None)))


def _timeouts(task: Task, handler: Handler) -> bytes:
    return parameters.encode_timeouts(*handler.timeouts) if task.fields["rctd"] else b""


def _all(task: Task) -> bytes:
    body = b"".join(
        parameters.encode_opcode(handler.row, _timeouts(task, handler))
        for handler in table.handlers().values()
        if handler.supported(task.unit)
    )
    return len(body).to_bytes(4) + body


def _one(task: Task, handler: Handler | None) -> bytes:
    if handler is None or not handler.supported(task.unit):
        return parameters.ONE_COMMAND.build(support=parameters.NOT_SUPPORTED)
    usage = handler.row.usage_map(handler.unsupported_fields(task.unit))
    timeouts = _timeouts(task, handler)
    head = parameters.ONE_COMMAND.build(ctdp=bool(timeouts), support=parameters.SUPPORTED, cdb_size=len(usage))
    return head + usage + timeouts
