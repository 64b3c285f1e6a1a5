# SPDX-License-Identifier: BSD-2-Clause
"""Commands of a hostile initiator, one after the other, on several units and nexuses: any CDB with any parameter list.

Knows how a command is run without rings (`fake_device`), and what holds for every answer; knows no command.
"""

from fake_device import FakeDevice, FakePort

from fuzz.python.mutation import Reader, of_items
from fuzz.python.registry import target
from target.commands import Background, execute
from target.lu import MAX_SENSE_NBYTES
from target.operation import Operation
from vscsi.scsi import lun
from vscsi.scsi.status import Status

UNITS = ("0=mem:128k", "1=mem:128k,removable=on,queue=8", "2=mem:64k,protection=2", "3=null:4M,bs=4096")
SIZES = (128 << 10, 128 << 10, 64 << 10, 4 << 20)
NEXUSES = 3
LUN, NEXUS, SMALL = 0x07, 0x18, 0x80
"""Bits of an item's kind: which LUN (of 8, most of which there are not), which nexus, and that data-in has little room.
Its body is the size of the CDB (1 byte), the CDB, and data-out."""
SMALL_NBYTES = 20


@target("commands", mutate=of_items, weight=4)
def commands(data: bytes) -> None:
    """Each ends, with a status that is one and sense data where it belongs; no lock and no thread is left."""
    device = FakeDevice(*UNITS)
    try:
        for nexus in range(NEXUSES):
            device.connect(nexus)
        for kind, body in Reader(data).items():
            one(device, kind, Reader(body))
    finally:
        device.close()


def one(device: FakeDevice, kind: int, body: Reader) -> None:
    cdb = body.take(body.number())
    number, nexus = kind & LUN, (kind & NEXUS) >> 3
    port = FakePort(body.take(1 << 16), SMALL_NBYTES if kind & SMALL else 1 << 20)
    unit = device.units.get(number)
    result = execute(port, device, cdb, lu=unit, lun=lun.encode(number), nexus=nexus)
    while isinstance(result, Background):
        result = result.finish()
    status = Status(result.status)
    assert bool(result.sense) == (status is Status.CHECK_CONDITION), (status, result.sense)
    assert len(result.sense) <= MAX_SENSE_NBYTES
    assert len(port.data_in) <= min(port.data_in_nbytes, result.in_nbytes)
    assert result.out_nbytes >= 0
    for each, nbytes in zip(device.units.values(), SIZES, strict=True):
        assert each.store.measure() == nbytes, "something was written behind the end of the medium"
        if (thread := each.part(Operation)._thread) is not None:
            thread.join()
    assert not device.locks, "a range stays locked"
