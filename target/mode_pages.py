# SPDX-License-Identifier: BSD-2-Clause
"""The target's mode pages: one function a page, which gives its default values, and what it takes to obey it.

Layouts are in `vscsi.scsi.mode`, mechanics in `modes.py`. A new page is a new function. Must not know commands.
"""

from dataclasses import replace

from target.lu import LogicalUnit
from target.modes import Values, mode_page
from target.protection import Protection
from vscsi.scsi import mode

_UNLIMITED = 0xFFFF


@mode_page(mode.ERROR_RECOVERY)
def error_recovery(_unit: LogicalUnit) -> Values:
    return {"awre": 1, "arre": 1}


def _obey_caching(unit: LogicalUnit, values: Values) -> bool:
    had, unit.write_cache = unit.write_cache, bool(values["wce"])
    return had and not unit.write_cache


@mode_page(mode.CACHING, changeable=("wce",), obey=_obey_caching)
def caching(unit: LogicalUnit) -> Values:
    return {"wce": int(unit.write_cache)}


def _obey_control(unit: LogicalUnit, values: Values) -> bool:
    """SWP: what is cached is written first (SPC-4 7.5.10)."""
    unit.descriptor_sense = bool(values["d_sense"])
    protection = unit.part(Protection)
    protection.ato, protection.dpicz = bool(values["ato"]), bool(values["dpicz"])
    unit.policy = replace(
        unit.policy,
        separate_sets=values["tst"],
        restricted=int(values["queue_algorithm_modifier"] == 0),
        qerr=values["qerr"],
        tas=values["tas"],
        ua_intlck=values["ua_intlck_ctrl"],
    )
    was, unit.software_write_protected = unit.software_write_protected, bool(values["swp"])
    return unit.software_write_protected and not was


@mode_page(
    mode.CONTROL,
    changeable=(
        *("tst", "dpicz", "d_sense", "queue_algorithm_modifier", "nuar", "qerr"),
        *("ua_intlck_ctrl", "swp", "ato", "tas"),
    ),
    values={"tst": (0, 1), "queue_algorithm_modifier": (0, 1), "qerr": (0, 1, 3), "ua_intlck_ctrl": (0, 2, 3)},
    obey=_obey_control,
)
def control(unit: LogicalUnit) -> Values:
    """NUAR is looked up where a reservation is released."""
    return {
        "d_sense": int(unit.descriptor_sense),
        "gltsd": 1,  # log parameters are never saved
        "queue_algorithm_modifier": 1,  # SIMPLE tasks run in any order
        "busy_timeout_period": _UNLIMITED,
    }


@mode_page(mode.CONTROL_EXTENSION)
def control_extension(_unit: LogicalUnit) -> Values:
    """The timestamp comes from the system's clock until SET TIMESTAMP, which then has precedence."""
    return {"tcmos": 1, "scsip": 1}


@mode_page(mode.INFORMATIONAL_EXCEPTIONS)
def informational_exceptions(_unit: LogicalUnit) -> Values:
    return {"dexcpt": 1}
