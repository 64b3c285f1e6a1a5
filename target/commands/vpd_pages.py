# SPDX-License-Identifier: BSD-2-Clause
"""The target's vital product data: one function per page; page 00h follows from which there are.

Numbers here come from the logical unit, which also enforces them. Layouts are in `vscsi.scsi.vpd`.
"""

from collections.abc import Callable

from target import lu as limits
from target.atomic import AtomicWrites
from target.commands.port_groups import RELATIVE_TARGET_PORT, TARGET_PORT_GROUP
from target.commands.sanitize import can_block_erase, can_erase_key
from target.commands.task import Task
from target.commands.write_same import wsnz
from target.lu import LogicalUnit
from target.protection import SUPPORTED_TYPES, Protection
from target.provisioning import Provisioning
from vscsi.scsi import mode, vpd
from vscsi.scsi.vpd import Association, Designator, DesignatorType

Function = Callable[[Task, LogicalUnit, int], bytes]
"""From the task, its unit and INQUIRY byte 0 to the whole page."""

_PAGES: dict[int, Function] = {}


def page(row: vpd.Page) -> Callable[[Function], Function]:
    """Makes a function the source of a page."""

    def register(function: Function) -> Function:
        _PAGES[row.code] = function
        return function

    return register


def build(task: Task, code: int, device: int) -> bytes | None:
    """The page with this code, or None if there is none. Where no unit is, there is page 00h alone."""
    if code == vpd.SUPPORTED.code:
        return vpd.encode_supported([0, *_PAGES] if task.lu else [0], device)
    function = _PAGES.get(code)
    return None if function is None or task.lu is None else function(task, task.lu, device)


@page(vpd.SERIAL_NUMBER)
def serial_number(_task: Task, lu: LogicalUnit, device: int) -> bytes:
    return vpd.encode_serial(lu.serial, device)


def unit_designators(lu: LogicalUnit) -> list[Designator]:
    """The names of the unit itself, by which EXTENDED COPY knows it too."""
    t10 = f"{lu.vendor:8}{lu.product:16}{lu.serial}".encode("ascii")
    return [
        Designator(vpd.BINARY, Association.LOGICAL_UNIT, DesignatorType.NAA, lu.naa),
        Designator(vpd.ASCII, Association.LOGICAL_UNIT, DesignatorType.T10_VENDOR_ID, t10),
    ]


@page(vpd.IDENTIFICATION)
def identification(task: Task, lu: LogicalUnit, device: int) -> bytes:
    """Names of the unit and of the port it is reached through; within 252 bytes, which some programs ask for."""
    port_name = b"eui." + task.device.target_port_id.hex().upper().encode() + b"\0"
    port_name += bytes(-len(port_name) % 4)
    port = Association.TARGET_PORT
    return vpd.encode_identification(
        [
            *unit_designators(lu),
            Designator(
                vpd.BINARY, port, DesignatorType.RELATIVE_TARGET_PORT, RELATIVE_TARGET_PORT.to_bytes(4),
                vpd.PROTOCOL_SRP,
            ),
            Designator(
                vpd.BINARY, port, DesignatorType.TARGET_PORT_GROUP, TARGET_PORT_GROUP.to_bytes(4), vpd.PROTOCOL_SRP
            ),
            Designator(vpd.UTF8, port, DesignatorType.SCSI_NAME_STRING, port_name, vpd.PROTOCOL_SRP),
        ],
        device,
    )  # fmt: skip


@page(vpd.EXTENDED_INQUIRY)
def extended_inquiry(_task: Task, lu: LogicalUnit, device: int) -> bytes:
    """There is a volatile cache, whether it is used now or not."""
    values = {
        "group_sup": 1, "headsup": 1, "ordsup": 1, "simpsup": 1, "luiclr": 1, "v_sup": 1, "rtd_sup": 1,
        "maximum_supported_sense_data_length": limits.MAX_SENSE_NBYTES,
    }  # fmt: skip
    if lu.part(Protection).possible:
        values |= {"spt": SUPPORTED_TYPES, "grd_chk": 1, "app_chk": 1, "ref_chk": 1}
    return vpd.EXTENDED_INQUIRY.build(device, **values)


@page(vpd.MODE_PAGE_POLICY)
def mode_page_policy(_task: Task, _lu: LogicalUnit, device: int) -> bytes:
    """Every mode page of a unit is shared by all nexuses, and by no other unit."""
    every = vpd.MODE_POLICY.build(
        policy_page_code=mode.ALL_PAGES, policy_subpage_code=mode.ALL_SUBPAGES, mode_page_policy=vpd.Policy.SHARED
    )
    return vpd.encode_mode_policies([every], device)


@page(vpd.BLOCK_LIMITS)
def block_limits(_task: Task, lu: LogicalUnit, device: int) -> bytes:
    values = {
        "wsnz": int(wsnz(lu)),
        "maximum_compare_and_write_length": lu.max_compare_and_write_blocks,
        "optimal_transfer_length_granularity": lu.physical_block_nbytes // lu.block_nbytes,
        "maximum_transfer_length": lu.max_transfer_blocks,
        "maximum_write_same_length": lu.max_write_same_blocks,
    }
    if (atomic := lu.part(AtomicWrites)).supported:
        values |= {
            "maximum_atomic_transfer_length": atomic.max_blocks,
            "maximum_atomic_transfer_length_with_atomic_boundary": atomic.max_blocks_with_boundary,
            "maximum_atomic_boundary_size": atomic.max_blocks,
        }
    if lu.discard:
        values |= {
            "maximum_unmap_lba_count": limits.MAX_UNMAP_BLOCKS,
            "maximum_unmap_block_descriptor_count": limits.MAX_UNMAP_DESCRIPTORS,
            "optimal_unmap_granularity": lu.unmap_granularity_blocks,
            "ugavalid": 1,
        }
    return vpd.BLOCK_LIMITS.build(device, **values)


@page(vpd.BLOCK_DEVICE_CHARACTERISTICS)
def block_device_characteristics(_task: Task, lu: LogicalUnit, device: int) -> bytes:
    rate = (lu.store.rotation_rate or 7200) if lu.rotational else 1  # 1: non-rotating
    wabereq = int(can_block_erase(lu))  # 1: what BLOCK ERASE has erased can be read
    return vpd.BLOCK_DEVICE_CHARACTERISTICS.build(
        device, medium_rotation_rate=rate, vbuls=1, wabereq=wabereq, wacereq=int(can_erase_key(lu))
    )


@page(vpd.LOGICAL_BLOCK_PROVISIONING)
def logical_block_provisioning(_task: Task, lu: LogicalUnit, device: int) -> bytes:
    on, thin = int(lu.discard), 2 if lu.discard else 0
    return vpd.LOGICAL_BLOCK_PROVISIONING.build(
        device,
        threshold_exponent=lu.part(Provisioning).exponent,
        lbpu=on,
        lbpws=on,
        lbpws10=on,
        lbprz=int(lu.zeroing),
        provisioning_type=thin,
    )
