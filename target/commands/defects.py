# SPDX-License-Identifier: BSD-2-Clause
"""READ DEFECT DATA: an image has no defects, so both lists are there, and empty, in whatever format is asked for."""

from target.commands.table import AS_READ, handles
from target.commands.task import Task
from vscsi.scsi import cdb
from vscsi.scsi.fields import Layout
from vscsi.scsi.medium import DEFECT_HEADER_10, DEFECT_HEADER_12, DefectFormat


@handles(cdb.READ_DEFECT_DATA_10, AS_READ, needs_ready=True)
def read_defect_data_10(task: Task) -> bytes:
    """SBC-3 5.17."""
    return _empty(task, DEFECT_HEADER_10)


@handles(cdb.READ_DEFECT_DATA_12, AS_READ, needs_ready=True)
def read_defect_data_12(task: Task) -> bytes:
    """SBC-3 5.18. From whatever descriptor on, there are none."""
    return _empty(task, DEFECT_HEADER_12)


def _empty(task: Task, header: Layout) -> bytes:
    wanted = task.fields["defect_list_format"]
    if wanted >= DefectFormat.VENDOR_SPECIFIC:
        raise task.invalid("defect_list_format")
    return header.build(
        plistv=task.fields["req_plist"], glistv=task.fields["req_glist"], defect_list_format=wanted
    )  # fmt: skip
