# SPDX-License-Identifier: BSD-2-Clause
"""REPORT TARGET PORT GROUPS: one group with the one port there is, always active/optimized."""

from target.commands.table import Conflict, handles
from target.commands.task import Task
from vscsi.scsi import cdb, reports
from vscsi.scsi.reports import AccessState, PortGroup

RELATIVE_TARGET_PORT = 1
TARGET_PORT_GROUP = 1
IMPLICIT = 1
"""TPGS of INQUIRY data: states may be reported, not set."""


@handles(cdb.REPORT_TARGET_PORT_GROUPS, Conflict.SPC2)
def report_target_port_groups(task: Task) -> bytes:
    """SPC-4 6.37, with either header."""
    data_format = task.fields["parameter_data_format"]
    if data_format not in (reports.LENGTH_ONLY, reports.EXTENDED):
        raise task.invalid("parameter_data_format")
    group = {
        "asymmetric_access_state": AccessState.ACTIVE_OPTIMIZED, "ao_sup": 1, "target_port_group": TARGET_PORT_GROUP
    }  # fmt: skip
    return reports.encode_port_groups([PortGroup(group, (RELATIVE_TARGET_PORT,))], data_format)
