# SPDX-License-Identifier: BSD-2-Clause
"""VERIFY(12) and WRITE AND VERIFY, on a store that remembers what was asked of it."""

from collections.abc import Iterator

import pytest
from fake_device import FakeDevice, do_command, do_command_fail
from memory_store import BLOCKS, SIZE, Memory, block

from vscsi.scsi import cdb, sense

WRITE_AND_VERIFY = [cdb.WRITE_AND_VERIFY_10, cdb.WRITE_AND_VERIFY_12, cdb.WRITE_AND_VERIFY_16]
COUNT_BYTE = {cdb.WRITE_AND_VERIFY_10: 7, cdb.WRITE_AND_VERIFY_12: 6, cdb.WRITE_AND_VERIFY_16: 10}


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def device(memory: Memory) -> Iterator[FakeDevice]:
    yield FakeDevice("0=x", store=memory)


def test_verify_12(device: FakeDevice) -> None:
    do_command(device, cdb.VERIFY_12.build(lba=5, verification_length=2, bytchk=1), block(5) + block(6))
    raw = cdb.VERIFY_12.build(lba=5, verification_length=2, bytchk=3)
    got = do_command_fail(device, raw, sense.MISCOMPARE_DURING_VERIFY_OPERATION, data_out=block(5))
    assert got.information == 0
    raw = cdb.VERIFY_12.build(lba=BLOCKS - 1, verification_length=2)
    do_command_fail(device, raw, sense.LBA_OUT_OF_RANGE)
    raw = cdb.VERIFY_12.build(lba=0, verification_length=2**32 - 1)
    do_command_fail(device, raw, sense.LBA_OUT_OF_RANGE)


@pytest.mark.parametrize("row", WRITE_AND_VERIFY)
@pytest.mark.parametrize("bytchk", [0, 1])
def test_write_and_verify(device: FakeDevice, memory: Memory, row: cdb.Cdb, bytchk: int) -> None:
    do_command(device, row.build(lba=3, transfer_length=2, bytchk=bytchk, dpo=1, group_number=5), b"a" * 1024)
    assert memory.data[2 * SIZE : 6 * SIZE] == block(2) + b"a" * 1024 + block(5)
    assert memory.calls == ["write fua", "evict 3 2"], "durable first, then read from the medium"
    assert device.lock_log == [(0, 3, 2)]
    assert device.locks == []


def test_write_and_verify_in_chunks(device: FakeDevice, memory: Memory) -> None:
    data = bytes(reversed(memory.data))
    do_command(device, cdb.WRITE_AND_VERIFY_16.build(lba=0, transfer_length=BLOCKS, bytchk=1), data)
    assert memory.data == data
    assert memory.calls.count("write fua") == 2


@pytest.mark.parametrize("row", WRITE_AND_VERIFY)
def test_write_and_verify_refuses(device: FakeDevice, memory: Memory, row: cdb.Cdb) -> None:
    for reserved in (2, 3):
        do_command_fail(device, row.build(bytchk=reserved), sense.INVALID_FIELD_IN_CDB, (1, 2))
    for lba, blocks in ((BLOCKS, 1), (BLOCKS - 1, 2), (BLOCKS + 1, 0)):
        do_command_fail(device, row.build(lba=lba, transfer_length=blocks), sense.LBA_OUT_OF_RANGE)
    for nbytes in (0, 511, 512, 1023, 1025):
        raw = row.build(lba=3, transfer_length=2)
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (COUNT_BYTE[row], None), data_out=bytes(nbytes))
    device.units[0].max_transfer_blocks = 4
    raw = row.build(lba=3, transfer_length=5)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (COUNT_BYTE[row], None), data_out=bytes(5 * 512))
    do_command(device, row.build(lba=BLOCKS, transfer_length=0))
    assert memory.calls == []
    do_command(device, row.build(lba=3, transfer_length=4), bytes(4 * 512))


@pytest.mark.parametrize("bytchk", [0, 1])
def test_write_and_verify_on_a_medium_that_forgets(memory: Memory, bytchk: int) -> None:
    """Only BYTCHK tells that another byte came back; INFORMATION is its place in the data-out buffer."""
    device = FakeDevice("0=x", store=memory)
    memory.spoil = {BLOCKS - 1: 17}
    data = bytes(BLOCKS * SIZE)
    raw = cdb.WRITE_AND_VERIFY_16.build(lba=0, transfer_length=BLOCKS, bytchk=bytchk)
    if not bytchk:
        do_command(device, raw, data)
    else:
        got = do_command_fail(device, raw, sense.MISCOMPARE_DURING_VERIFY_OPERATION, data_out=data)
        assert got.information == (BLOCKS - 1) * SIZE + 17


def test_write_and_verify_finds_what_cannot_be_read(device: FakeDevice, memory: Memory) -> None:
    memory.unreadable = {4}
    raw = cdb.WRITE_AND_VERIFY_10.build(lba=3, transfer_length=2)
    got = do_command_fail(device, raw, sense.UNRECOVERED_READ_ERROR, data_out=bytes(1024))
    assert got.information == 4
    assert device.locks == []
