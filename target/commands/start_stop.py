# SPDX-License-Identifier: BSD-2-Clause
"""START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL. What they act on is `target.medium`."""

from target.commands.table import AS_WRITE, Conflict, handles
from target.commands.task import Task
from target.lu import LogicalUnit
from target.medium import Medium
from vscsi.scsi import cdb, sense

# ACTIVE, IDLE, STANDBY, LU_CONTROL, FORCE_IDLE_0, FORCE_STANDBY_0: an image has one power condition, and is in it.
_POWER_CONDITIONS = {0x1, 0x2, 0x3, 0x7, 0xA, 0xB}
_MODIFIED = {0x2, 0x3, 0xA, 0xB}


def _without_here(unit: LogicalUnit) -> tuple[str, ...]:
    return () if unit.removable else ("loej",)


@handles(
    cdb.START_STOP_UNIT, Conflict.SPC2, otherwise=AS_WRITE, harmless=(("start", 1), ("power_condition", 0)),
    without_here=_without_here, timeouts=(1, 60),
)  # fmt: skip
def start_stop_unit(task: Task) -> None:
    """SBC-3 5.25. With a POWER CONDITION, START and LOEJ count for nothing; on removable media its reserved values do
    not either, since initiators try them there. Stopping flushes. A fixed disk that was stopped wants START before
    media access; a removable medium stays ready until it is ejected.
    """
    unit, fields = task.unit, task.fields
    medium = unit.part(Medium)
    if condition := fields["power_condition"]:
        if condition not in _POWER_CONDITIONS and not unit.removable:
            raise task.invalid("power_condition")
        if fields["power_condition_modifier"] and condition not in _MODIFIED:
            raise task.invalid("power_condition_modifier")
        return
    if fields["power_condition_modifier"]:
        raise task.invalid("power_condition_modifier")
    if fields["loej"]:
        _load_or_eject(task, medium)
    elif fields["start"]:
        medium.start_unit()
    else:
        if not unit.removable:
            medium.stop()
        if not fields["no_flush"] and not unit.readonly and medium.present:
            task.flush()


def _load_or_eject(task: Task, medium: Medium) -> None:
    if medium.prevented:  # loading, too, would let another medium in
        raise sense.MEDIUM_REMOVAL_PREVENTED.error()
    if task.fields["start"]:
        medium.load(besides=task.nexus)
    else:
        medium.eject()


@handles(
    cdb.PREVENT_ALLOW_MEDIUM_REMOVAL, Conflict.SPC2, otherwise=AS_WRITE, harmless=(("prevent", 0),),
    supported=lambda unit: unit.removable,
)  # fmt: skip
def prevent_allow_medium_removal(task: Task) -> None:
    """SBC-3 5.8. The two obsolete values, which were for changers, are invalid fields."""
    if task.fields["prevent"] > 1:
        raise task.invalid("prevent")
    task.unit.part(Medium).prevent(task.nexus, bool(task.fields["prevent"]))
