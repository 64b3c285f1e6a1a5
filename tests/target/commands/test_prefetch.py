# SPDX-License-Identifier: BSD-2-Clause
"""PRE-FETCH: what reaches the store, and the two ways it may end."""

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail
from memory_store import BLOCKS, Memory

from vscsi.scsi import cdb, sense
from vscsi.scsi.status import Status


@pytest.mark.parametrize("row", [cdb.PRE_FETCH_10, cdb.PRE_FETCH_16])
@pytest.mark.parametrize("immed", [0, 1])
def test_pre_fetch(row: cdb.Cdb, immed: int) -> None:
    memory = Memory()
    device = FakeDevice("0=x", store=memory)
    do_command(device, row.build(lba=3, prefetch_length=2, immed=immed, group_number=1))
    do_command(device, row.build(lba=4000, immed=immed))
    assert memory.calls == ["prefetch 3 2", f"prefetch 4000 {BLOCKS - 4000}"]
    do_command(device, row.build(lba=BLOCKS, prefetch_length=0))
    for lba, blocks in ((BLOCKS, 1), (BLOCKS - 1, 2), (BLOCKS + 1, 0)):
        do_command_fail(device, row.build(lba=lba, prefetch_length=blocks, immed=immed), sense.LBA_OUT_OF_RANGE)


def test_pre_fetch_overflow() -> None:
    raw = cdb.PRE_FETCH_16.build(lba=2**64 - 1, prefetch_length=2**32 - 1)
    do_command_fail(FakeDevice("0=x", store=Memory()), raw, sense.LBA_OUT_OF_RANGE)


def test_pre_fetch_condition_met() -> None:
    device = FakeDevice("0=x,prefetch=met", store=Memory())
    result = device.run(cdb.PRE_FETCH_10.build(lba=3, prefetch_length=2), FakePort())
    assert (result.status, result.sense) == (Status.CONDITION_MET, b"")
    do_command_fail(device, cdb.PRE_FETCH_10.build(lba=BLOCKS, prefetch_length=1), sense.LBA_OUT_OF_RANGE)
