# SPDX-License-Identifier: BSD-2-Clause
"""Commands of a hostile initiator, one after the other, on several units and nexuses: any CDB with any parameter list.

Knows how a command is run without rings (`fake_device`), and what holds for every answer; knows no command.
"""

from random import Random

from fake_device import FakeDevice, FakePort

from fuzz.python.mutation import Reader, item, of_items
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


def of_commands(data: bytes, rng: Random) -> bytes:
    """Sometimes a parameter list is cut, and every field of its CDB that holds its length says so."""
    if rng.random() < 0.7:
        return of_items(data, rng)
    found = list(Reader(data).items(1000))
    lists = [at for at, (_, body) in enumerate(found) if body and len(body) > 1 + body[0]]
    if not lists:
        return of_items(data, rng)
    at = rng.choice(lists)
    kind, body = found[at]
    cdb, out = bytearray(body[1 : 1 + body[0]]), body[1 + body[0] :]
    nbytes = rng.randrange(min(len(out), rng.choice((12, 64, 1 << 16))))
    for size in (4, 2, 1):
        for place in range(1, len(cdb) - size):
            if int.from_bytes(cdb[place : place + size]) == len(out):
                cdb[place : place + size] = nbytes.to_bytes(size)
    found[at] = kind, bytes((len(cdb),)) + bytes(cdb) + out[:nbytes]
    return b"".join(item(kind, body) for kind, body in found)


@target("commands", mutate=of_commands, weight=4)
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
