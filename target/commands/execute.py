# SPDX-License-Identifier: BSD-2-Clause
"""Runs one command: finds its row, checks the CDB, calls its function, turns whatever is raised into a result.

The one place where exceptions become status and sense. Must not know which commands there are.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from target import errors
from target.commands import fault, table
from target.commands.task import Aborted, InBackground, Port, StatusOnly, Task
from target.lu import LogicalUnit
from target.scsi_device import TargetDevice
from vscsi.scsi import cdb, sense
from vscsi.scsi.cdb_row import VARIABLE_LENGTH
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
    clears: int = 0
    """A unit attention that GOOD clears."""


@dataclass(frozen=True, slots=True)
class Background:
    """A command that goes on elsewhere: `finish()` does the rest, never raises, and may want the same again.

    `start` gets what is to be called then; None: a thread of its own will do.
    """

    finish: "Callable[[], Result | Background]"
    start: Callable[[Callable[[], None]], None] | None = None


def execute(
    port: Port, device: TargetDevice, raw: bytes, *, lu: LogicalUnit | None, lun: bytes = bytes(8), nexus: int = 0
) -> Result | Background:
    """Runs the command in `raw` on a logical unit (None: there is none with that LUN). Never raises."""
    made: list[Task] = []

    def begin() -> bytes | InBackground | None:
        handler = _handler(raw, lu)
        task = Task(port, device, handler.row, raw, lu=lu, lun=lun, nexus=nexus)
        made.append(task)
        return _run(handler, task)

    return _guarded(begin, made, device, raw, lu)


def discard(
    port: Port, device: TargetDevice, lu: LogicalUnit, *, lba: int, nbytes: int, nexus: int
) -> Result | Background:
    """blkif's DISCARD of `nbytes` from a block on; it may end within one. To fault rules it is UNMAP. Never raises."""
    blocks = -(-nbytes // lu.block_nbytes)
    made: list[Task] = []

    def trim(task: Task) -> bytes | InBackground | None:
        with task.locked(lba, blocks):
            lu.store.trim(lba * lu.block_nbytes, nbytes)
        task.settle()
        return None

    def begin() -> bytes | InBackground | None:
        task = Task(port, device, cdb.UNMAP, cdb.UNMAP.build(), lu=lu, lun=bytes(8), nexus=nexus)
        task.touches = lba, blocks
        made.append(task)
        return fault.around(task, trim) if lu.faulty else trim(task)

    return _guarded(begin, made, device, cdb.UNMAP.build(), lu)


def _guarded(
    function: Callable[[], bytes | InBackground | None],
    made: list[Task],
    device: TargetDevice,
    raw: bytes,
    lu: LogicalUnit | None,
) -> Result | Background:
    try:
        data = function()
        task = made[0]
        if isinstance(data, InBackground):
            return Background(_finisher(data, made, device, raw, lu), data.start)
        if data is not None:
            task.send(data)
        return Result(task.status, b"", task.out_nbytes, task.in_nbytes, task.clears)
    except CheckCondition as end:
        return _failed(end, made, lu)
    except StatusOnly as end:
        return Result(end.status)
    except Aborted:
        return Result(Status.TASK_ABORTED)
    except OSError as error:
        handler_writes = bool(made) and made[0].row.data is not cdb.Data.IN
        log.warning("%s: %s", cdb.name_of(raw), error)
        return _failed(errors.check_condition(error, writing=handler_writes), made, lu)
    except Exception:
        log.exception("internal error in %s, CDB %s", cdb.name_of(raw), raw.hex(" "))
        return _failed(sense.INTERNAL_TARGET_FAILURE.error(), made, lu)
    finally:
        if lu is not None and lu.durable.failed:
            device.set_not_ready(lu, sense.WRITE_ERROR.code)


def _finisher(
    rest: InBackground, made: list[Task], device: TargetDevice, raw: bytes, lu: LogicalUnit | None
) -> Callable[[], Result | Background]:
    return lambda: _guarded(rest.run, made, device, raw, lu)


def _handler(raw: bytes, lu: LogicalUnit | None) -> table.Handler:
    handler = table.find(raw)
    if handler is None or (lu is not None and not handler.supported(lu)):
        if raw and table.has_opcode(raw[0], lu):
            # the opcode is known, its service action is not
            raise sense.INVALID_FIELD_IN_CDB.at(*((8, None) if raw[0] == VARIABLE_LENGTH else (1, 4)))
        raise sense.INVALID_COMMAND_OPERATION_CODE.error()
    if len(raw) < handler.row.nbytes:
        raise sense.INVALID_FIELD_IN_COMMAND_IU.error()
    return handler


def _run(handler: table.Handler, task: Task) -> bytes | InBackground | None:
    if task.lu is None and not handler.any_lun:
        raise sense.LOGICAL_UNIT_NOT_SUPPORTED.error()
    if task.raw[0] == VARIABLE_LENGTH and task.raw[7] != handler.row.nbytes - 8:
        raise sense.INVALID_FIELD_IN_CDB.at(7)
    if task.lu is not None and handler.otherwise and task.lu.denies(task.nexus, handler.classes(task.fields)):
        raise StatusOnly(Status.RESERVATION_CONFLICT)
    function = handler.choose(task.lu, task.fields)
    for name in handler.unsupported_fields(task.lu):
        if task.fields[name]:
            raise task.invalid(name)
    if bad := cdb.reserved_bit(task.raw, handler.row.accept_map(handler.unsupported_everywhere())):
        raise sense.INVALID_FIELD_IN_CDB.at(*bad)
    if handler.writes and (protection := task.write_protection):
        raise protection.error()
    return function(task) if task.lu is None or not task.lu.faulty else fault.around(task, function)


def _failed(end: CheckCondition, made: list[Task], lu: LogicalUnit | None) -> Result:
    data = end.encode(descriptor=lu is not None and lu.descriptor_sense)
    out_nbytes, in_nbytes = (made[0].out_nbytes, made[0].in_nbytes) if made else (0, 0)
    return Result(Status.CHECK_CONDITION, data, out_nbytes, in_nbytes)
