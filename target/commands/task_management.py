# SPDX-License-Identifier: BSD-2-Clause
"""REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: those that SRP r16a has and the native core carries out."""

from target.commands.table import AS_READ, handles
from target.commands.task import Task
from vscsi.scsi import cdb, reports

_SUPPORTED = {"ats": 1, "atss": 1, "cacas": 1, "ctss": 1, "lurs": 1}


@handles(cdb.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS, AS_READ)
def report_supported_task_management_functions(task: Task) -> bytes:
    """SPC-4 6.36. With REPD no time-out is named: how long a function takes depends on the backing store."""
    if task.fields["repd"]:
        layout = reports.TASK_MANAGEMENT_EXTENDED
        return layout.build(additional_length=layout.nbytes - 4, **_SUPPORTED)
    return reports.TASK_MANAGEMENT.build(**_SUPPORTED)
