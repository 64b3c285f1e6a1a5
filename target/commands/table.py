# SPDX-License-Identifier: BSD-2-Clause
"""The target's table of commands: a row of `vscsi.scsi.cdb`, the function that runs it, and the policy beside it.

From this one table come dispatch, REPORT SUPPORTED OPERATION CODES and the native core's command table, so that they
cannot disagree. Knows no command by itself: modules of this package add theirs with `@handles`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Any

from target.commands.task import InBackground, Task
from target.lu import LogicalUnit
from vscsi.scsi import cdb, sense
from vscsi.scsi.cdb import Cdb

Function = Callable[[Task], bytes | InBackground | None]


class Conflict(Flag):
    """Which reservations stand in a command's way: the native core's enum vt_conflict, by name."""

    NONE = 0
    READ = auto()
    WRITE = auto()
    SPC2 = auto()
    OTHER = auto()
    UNREGISTERED = auto()
    NOT_HOLDER = auto()


AS_READ = Conflict.READ | Conflict.SPC2
AS_WRITE = Conflict.WRITE | Conflict.SPC2


class Op(Enum):
    """Who runs it: a Python function, or one of the native core's media operations (enum vt_op, by name)."""

    SLOW = auto()
    READ = auto()
    WRITE = auto()
    SYNC = auto()


def _nothing(_: LogicalUnit) -> tuple[str, ...]:
    return ()


def _everywhere(_: LogicalUnit) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Handler:
    """One command of the target."""

    row: Cdb
    function: Function
    """Returns the parameter data for the initiator, if any; it may be longer than the allocation length."""
    conflict: Conflict
    otherwise: Conflict = Conflict.NONE
    """Further classes, unless every field of `harmless` (in one byte of the CDB) has the value that stands there."""
    harmless: tuple[tuple[str, int], ...] = ()
    op: Op = Op.SLOW
    needs_ready: bool = False
    writes: bool = False
    skips_ua: bool = False
    any_lun: bool = False
    during_operation: bool = False
    """Runs while a long operation (FORMAT UNIT, SANITIZE) has the logical unit."""
    escape: tuple[str, ...] = ()
    """Fields of CDB byte 1 that, when set, send a command of the native core here, with its CDB as it came."""
    without: tuple[str, ...] = ()
    """Fields that this target never supports."""
    without_here: Callable[[LogicalUnit], tuple[str, ...]] = _nothing
    """Fields that a particular logical unit does not support."""
    supported: Callable[[LogicalUnit], bool] = _everywhere
    """Whether a particular logical unit has this command at all."""
    timeouts: tuple[int, int] = (1, 30)
    """Nominal and recommended time-out in seconds."""

    @property
    def everywhere(self) -> bool:
        """Whether every logical unit has this command."""
        return self.supported is _everywhere

    @property
    def protect_field(self) -> str | None:
        """RDPROTECT, WRPROTECT, VRPROTECT or ORPROTECT, if it has one and there is a function for it."""
        name = next((name for name in self.row.fields if name.endswith("protect")), None)
        return name if self.row.key in _PROTECTED else None

    def classes(self, fields: Mapping[str, int]) -> Conflict:
        """What may stand in the way of the command with these fields."""
        harmless = all(fields[name] == value for name, value in self.harmless)
        return self.conflict if harmless else self.conflict | self.otherwise

    def unsupported_everywhere(self) -> tuple[str, ...]:
        """Fields that no logical unit supports."""
        return tuple(name for name in self.without if name != self.protect_field)

    def unsupported_fields(self, lu: LogicalUnit | None) -> tuple[str, ...]:
        """Fields that a logical unit, or any, does not support."""
        if lu is None:
            return self.without
        # Type 2 takes them in the commands of 32 bytes alone.
        formatted = (lu.protection_type == 2 and self.row.nbytes == 32) or lu.protection_type in (1, 3)
        return (self.unsupported_everywhere() if formatted else self.without) + self.without_here(lu)

    def choose(self, lu: LogicalUnit | None, fields: Mapping[str, int]) -> Function:
        """The function for these fields. INVALID COMMAND OPERATION CODE for what type 2 does not allow."""
        name = self.protect_field
        if lu is None or name is None or not fields[name] or not lu.protection_type:
            return self.function
        if lu.protection_type == 2 and self.row.nbytes != 32:
            raise sense.INVALID_COMMAND_OPERATION_CODE.error()
        return _PROTECTED[self.row.key]


_TABLE: dict[tuple[int, int | None], Handler] = {}
_PROTECTED: dict[tuple[int, int | None], Function] = {}


def handles(row: Cdb, conflict: Conflict, **policy: Any) -> Callable[[Function], Function]:
    """Makes a function the handler of a command. `policy` is what `Handler` has besides."""

    def register(function: Function) -> Function:
        if row.key in _TABLE:
            raise ValueError(f"{row.name} has a handler already")
        _TABLE[row.key] = Handler(row, function, conflict, **policy)
        return function

    return register


def protects(row: Cdb) -> Callable[[Function], Function]:
    """Makes a function what runs a command whose xxPROTECT field is not 0, on a unit that is formatted for it."""

    def register(function: Function) -> Function:
        _PROTECTED[row.key] = function
        return function

    return register


def handlers() -> Mapping[tuple[int, int | None], Handler]:
    """Every handler, by (opcode, service action), in that order."""
    return dict(sorted(_TABLE.items(), key=lambda item: (item[0][0], item[0][1] or 0)))


def find(raw: bytes) -> Handler | None:
    """The handler of a CDB."""
    row = cdb.lookup(raw)
    return None if row is None else _TABLE.get(row.key)


def has_opcode(opcode: int, lu: LogicalUnit | None = None) -> bool:
    """Whether the target, or that logical unit, has any command with that opcode."""
    return any(key[0] == opcode and (lu is None or handler.supported(lu)) for key, handler in _TABLE.items())
