# SPDX-License-Identifier: BSD-2-Clause
"""REPORT LUNS: the inventory of the target device. Works on any LUN, whether a unit is there or not."""

from target.commands.table import Conflict, handles
from target.commands.task import Task
from vscsi.scsi import cdb, parameters, sense
from vscsi.scsi.lun import WLUN_REPORT_LUNS

_CHANGED = sense.REPORTED_LUNS_DATA_HAS_CHANGED.asc << 8 | sense.REPORTED_LUNS_DATA_HAS_CHANGED.ascq
_ADDRESSED, _WELL_KNOWN, _ALL = 0, 1, 2


@handles(cdb.REPORT_LUNS, Conflict.NONE, skips_ua=True, any_lun=True, during_operation=True)
def report_luns(task: Task) -> bytes:
    """SPC-4 6.33. Whoever has seen the inventory need not be told that it changed.

    An allocation length below 16 just truncates, as SPC-4 has it (SPC-3 made it an error).
    """
    select = task.fields["select_report"]
    if select not in (_ADDRESSED, _WELL_KNOWN, _ALL):
        raise task.invalid("select_report")
    luns = [] if select == _WELL_KNOWN else sorted(lun for lun, unit in task.device.units.items() if task.sees(unit))
    if select != _WELL_KNOWN:
        task.clears = _CHANGED
    if select != _ADDRESSED:
        luns.append(WLUN_REPORT_LUNS)
    return parameters.encode_luns(luns)
