# SPDX-License-Identifier: BSD-2-Clause
"""Runs one command: finds its row, checks the CDB, calls its function, turns whatever is raised into a result.

The one place where exceptions become status and sense. Must not know which commands there are.
"""

import logging
from dataclasses import dataclass

from target import errors
from target.commands import table
from target.commands.task import Aborted, Device, Port, Task
from target.lu import LogicalUnit
from vscsi.scsi import cdb, sense
from vscsi.scsi.sense import CheckCondition
from vscsi.scsi.status import Status

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended. The byte counts are what it transfers by its CDB."""

    status: Status
    sense: bytes = b""
    out_nbytes: int = 0
    in_nbytes: int = 0


def execute(
    port: Port, device: Device, raw: bytes, *, lu: LogicalUnit | None, lun: bytes = bytes(8), nexus: int = 0
) -> Result:
    """Runs the command in `raw` on a logical unit (None: there is none with that LUN). Never raises."""
    task: Task | None = None
    try:
        handler = _handler(raw, lu)
        task = Task(port, device, handler.row, raw, lu=lu, lun=lun, nexus=nexus)
        data = _run(handler, task)
        if data is not None:
            task.send(data)
        return Result(Status.GOOD, b"", task.out_nbytes, task.in_nbytes)
    except CheckCondition as end:
        return _failed(end, task, lu)
    except Aborted:
        return Result(Status.TASK_ABORTED)
    except OSError as error:
        handler_writes = task is not None and task.row.data is not cdb.Data.IN
        log.warning("%s: %s", cdb.name_of(raw), error)
        return _failed(errors.check_condition(error, writing=handler_writes), task, lu)
    except Exception:
        log.exception("internal error in %s, CDB %s", cdb.name_of(raw), raw.hex(" "))
        return _failed(sense.INTERNAL_TARGET_FAILURE.error(), task, lu)
    finally:
        if lu is not None and lu.sync_failed:
            device.set_not_ready(lu, sense.WRITE_ERROR.code)


def _handler(raw: bytes, lu: LogicalUnit | None) -> table.Handler:
    handler = table.find(raw)
    if handler is None or (lu is not None and not handler.supported(lu)):
        if handler is None and raw and table.has_opcode(raw[0]):
            raise sense.INVALID_FIELD_IN_CDB.at(1, 4)  # the opcode is known, its service action is not
        raise sense.INVALID_COMMAND_OPERATION_CODE.error()
    if len(raw) < handler.row.nbytes:
        raise sense.INVALID_FIELD_IN_COMMAND_IU.error()
    return handler


def _run(handler: table.Handler, task: Task) -> bytes | None:
    if task.lu is None and not handler.any_lun:
        raise sense.LOGICAL_UNIT_NOT_SUPPORTED.error()
    for name in handler.unsupported_fields(task.lu):
        if task.fields[name]:
            raise task.invalid(name)
    if bad := cdb.reserved_bit(task.raw, handler.row.accept_map(handler.without)):
        raise sense.INVALID_FIELD_IN_CDB.at(*bad)
    if handler.writes and task.unit.readonly:
        raise sense.WRITE_PROTECTED.error()
    return handler.function(task)


def _failed(end: CheckCondition, task: Task | None, lu: LogicalUnit | None) -> Result:
    data = end.encode(descriptor=lu is not None and lu.descriptor_sense)
    return Result(Status.CHECK_CONDITION, data, task.out_nbytes if task else 0, task.in_nbytes if task else 0)
