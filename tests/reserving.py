# SPDX-License-Identifier: BSD-2-Clause
"""PERSISTENT RESERVE commands of several nexuses on a FakeDevice, in few words. Knows no rule of reservations."""

from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in

from vscsi.scsi import cdb, sense
from vscsi.scsi.reservations import encode_out
from vscsi.scsi.status import Status

A, B, C = 1, 2, 3
KEY = {A: 0xA, B: 0xB, C: 0xC}
OUT = {sa: cdb.ROWS[0x5F, sa] for sa in range(8)}
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE, MOVE = range(8)
PREEMPTED, RELEASED, REGISTRATIONS = 0x2A03, 0x2A04, 0x2A05
READ, WRITE, SPC2 = 1, 2, 4


def raw_out(sa: int, data: bytes, kind: int = 0, scope: int = 0) -> bytes:
    return OUT[sa].build(type=kind, scope=scope, parameter_list_length=len(data))


def out(device: FakeDevice, who: int, sa: int, data: bytes, kind: int = 0, *, lun: int = 0, scope: int = 0) -> None:
    do_command(device, raw_out(sa, data, kind, scope), data, nexus=who, lun=lun)


def conflict(device: FakeDevice, who: int, raw: bytes, data: bytes = b"") -> None:
    assert device.run(raw, FakePort(data), nexus=who).status is Status.RESERVATION_CONFLICT


def out_conflict(device: FakeDevice, who: int, sa: int, data: bytes, kind: int = 0) -> None:
    conflict(device, who, raw_out(sa, data, kind), data)


def out_fails(device, who, sa, data, code, at=None, *, kind=0, scope=0) -> None:
    got = do_command_fail(device, raw_out(sa, data, kind, scope), code, at, data_out=data, nexus=who)
    if at is not None:
        assert got.field_pointer is not None
        assert got.field_pointer.in_cdb is (code is sense.INVALID_FIELD_IN_CDB)


def register(device: FakeDevice, *who: int, **flags: int) -> None:
    for one in who:
        out(device, one, REGISTER, encode_out(0, KEY[one], **flags))


def read(device: FakeDevice, sa: int, who: int = A) -> bytes:
    return do_command_in(device, cdb.ROWS[0x5E, sa].build(allocation_length=4096), nexus=who)


def told(device: FakeDevice, unit: int = 0) -> dict[int, list[int]]:
    """Every unit attention of this unit since last time."""
    found = {nexus: list(codes) for (nexus, index), codes in device.attentions.items() if index == unit and codes}
    device.attentions.clear()
    return found
