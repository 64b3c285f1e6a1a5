# SPDX-License-Identifier: BSD-2-Clause
"""MODE SENSE and MODE SELECT of a FakeDevice, for tests of what stands in mode pages."""

from fake_device import FakeDevice, do_command, do_command_in

from target.modes import Modes
from vscsi.scsi import cdb, mode

HEADER = {False: 4, True: 8}


def page(device: FakeDevice, key: tuple[int, int], pc: int = 0, unit: int = 0) -> bytes:
    raw = cdb.MODE_SENSE_10.build(dbd=1, pc=pc, page_code=key[0], subpage_code=key[1], allocation_length=4096)
    return do_command_in(device, raw, lun=unit)[8:]


def changed(data: bytes, row: mode.Page, **values: int) -> bytes:
    new = bytearray(data)
    row.layout.put(new, values)
    return bytes(new)


def select_cdb(nbytes: int, *, ten: bool = False, **fields: int) -> bytes:
    row = cdb.MODE_SELECT_10 if ten else cdb.MODE_SELECT_6
    return row.build(**{"pf": 1, "parameter_list_length": nbytes, **fields})


def select(device: FakeDevice, *pages: bytes, ten: bool = False, unit: int = 0, **fields: int) -> None:
    data = bytes(HEADER[ten]) + b"".join(pages)
    do_command(device, select_cdb(len(data), ten=ten, **fields), data, lun=unit)


def set_fields(device: FakeDevice, row: mode.Page, *, unit: int = 0, sp: int = 0, **values: int) -> None:
    select(device, changed(page(device, row.key, unit=unit), row, **values), sp=sp, unit=unit)


def everything(device: FakeDevice, unit: int = 0) -> list[bytes]:
    return [page(device, (0x3F, 0xFF), pc, unit) for pc in (0, 2, 3)]


def own(device: FakeDevice) -> Modes:
    return device.units[0].part(Modes)
