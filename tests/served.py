# SPDX-License-Identifier: BSD-2-Clause
"""Commands over a real ring to a target in a thread, for tests that want the native core's part in them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from real_server import Target

from initiator import Initiator
from initiator.done import Done
from vscsi.scsi import cdb, mode, sense
from vscsi.scsi.sense import Sense


@contextlib.contextmanager
def served(folder: Path, *luns: str, initiators: int = 1) -> Iterator[tuple[Target, list[Initiator]]]:
    """A target and initiators, each its own I_T nexus, whose power-on unit attentions have been absorbed."""
    target = Target(folder / "socket", *luns)
    try:
        with contextlib.ExitStack() as stack:
            found = [stack.enter_context(Initiator(folder / "socket")) for _ in range(initiators)]
            for initiator in found:
                for unit in target.server.units:
                    absorb(initiator, unit)
            yield target, found
    finally:
        target.stop()


def absorb(initiator: Initiator, lun: int = 0) -> list[int]:
    """Takes every pending unit attention; their codes (ASC << 8 | ASCQ)."""
    codes = []
    while True:
        data = initiator.execute(lun, cdb.REQUEST_SENSE.build(allocation_length=252), data_in=252).data_in
        found = sense.decode(bytes(data))
        if found.key != sense.Key.UNIT_ATTENTION:
            return codes
        codes.append(found.asc << 8 | found.ascq)


def good(initiator: Initiator, raw: bytes, data_out: bytes = b"", *, lun: int = 0, data_in: int = 0) -> bytes:
    """The command must end with GOOD; its data-in."""
    done = initiator.execute(lun, raw, data_out=data_out, data_in=data_in)
    assert done.status == 0, sense.decode(done.sense).describe()
    return bytes(done.data_in)


def bad(initiator: Initiator, raw: bytes, expected: Sense, data_out: bytes = b"", *, lun: int = 0) -> Done:
    """The command must end with CHECK CONDITION and this sense."""
    done = initiator.execute(lun, raw, data_out=data_out)
    assert done.status == 2
    assert sense.decode(done.sense).matches(expected), sense.decode(done.sense).describe()
    return done


def mode_page(initiator: Initiator, row: mode.Page, pc: int = 0) -> bytes:
    raw = cdb.MODE_SENSE_6.build(dbd=1, pc=pc, page_code=row.code, allocation_length=255)
    return good(initiator, raw, data_in=255)[4:]


def mode_select(initiator: Initiator, row: mode.Page, *, sp: int = 0, **values: int) -> None:
    """Changes fields of a mode page."""
    data = bytearray(mode_page(initiator, row))
    row.layout.put(data, values)
    data = bytes(4) + data
    good(initiator, cdb.MODE_SELECT_6.build(pf=1, sp=sp, parameter_list_length=len(data)), data)
