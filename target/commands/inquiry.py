# SPDX-License-Identifier: BSD-2-Clause
"""INQUIRY: standard data here, vital product data through the table of `vpd_pages`."""

from target.commands import vpd_pages
from target.commands.port_groups import IMPLICIT
from target.commands.table import Conflict, handles
from target.commands.task import Task
from target.protection import Protection
from vscsi.scsi import cdb, inquiry

WELL_KNOWN_UNIT = 0x1E
VERSION_SPC_4 = 6
# SAM-5, SPC-4, SBC-3, SRP
VERSION_DESCRIPTORS = (0x00A0, 0x0460, 0x04C0, 0x0940)


def device_byte(task: Task) -> int:
    """Byte 0 of INQUIRY data: peripheral qualifier and device type."""
    if task.well_known:
        return WELL_KNOWN_UNIT
    return inquiry.NO_LOGICAL_UNIT if task.lu is None else task.lu.peripheral_device_type


@handles(cdb.INQUIRY, Conflict.NONE, skips_ua=True, any_lun=True, during_operation=True)
def inquire(task: Task) -> bytes:
    """SPC-4 6.6."""
    page = task.fields["page_code"]
    if task.fields["evpd"]:
        data = vpd_pages.build(task, page, device_byte(task))
        if data is None:
            raise task.invalid("page_code")
        return data
    if page:
        raise task.invalid("page_code")
    byte = device_byte(task)
    lu = task.lu
    return inquiry.encode(
        peripheral_qualifier=byte >> 5,
        peripheral_device_type=byte & 0x1F,
        rmb=lu.removable if lu else 0,
        version=VERSION_SPC_4,
        normaca=1,
        hisup=1,
        third_party_copy=1 if lu else 0,
        tpgs=IMPLICIT if lu else 0,
        protect=int(lu is not None and lu.part(Protection).possible),
        cmdque=1,
        vendor_identification=lu.vendor if lu else "VSCSI",
        product_identification=lu.product if lu else "",
        product_revision_level=lu.revision if lu else "",
        version_descriptors=VERSION_DESCRIPTORS,
    )
