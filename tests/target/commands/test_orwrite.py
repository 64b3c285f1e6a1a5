# SPDX-License-Identifier: BSD-2-Clause
"""ORWRITE, on a store that remembers what was asked of it."""

from collections.abc import Iterator

import pytest
from fake_device import FakeDevice, do_command, do_command_fail
from hypothesis import given
from hypothesis import strategies as st
from memory_store import BLOCKS, SIZE, Memory, block

from vscsi.scsi import cdb, sense


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def device(memory: Memory) -> Iterator[FakeDevice]:
    yield FakeDevice("0=x", store=memory)


@given(st.binary(min_size=1, max_size=2 * SIZE))
def test_orwrite_ors(pattern: bytes) -> None:
    memory = Memory()
    data = (pattern * (2 * SIZE))[: 2 * SIZE]
    do_command(FakeDevice("0=x", store=memory), cdb.ORWRITE_16.build(lba=6, transfer_length=2), data)
    expected = bytes(a | b for a, b in zip(block(6) + block(7), data, strict=True))
    assert memory.data[5 * SIZE : 9 * SIZE] == block(5) + expected + block(8)


def test_orwrite_in_chunks_and_locked(device: FakeDevice, memory: Memory) -> None:
    before = bytes(memory.data)
    data = bytes(range(256)) * (BLOCKS * SIZE // 256)
    do_command(device, cdb.ORWRITE_16.build(lba=0, transfer_length=BLOCKS, fua=1), data)
    assert memory.data == bytes(a | b for a, b in zip(before, data, strict=True))
    assert memory.calls == ["write fua"] * 2
    assert device.lock_log == [(0, 0, BLOCKS)], "one lock over all of it"


def test_orwrite_settles_without_a_write_cache(memory: Memory) -> None:
    do_command(FakeDevice("0=x,cache=wt", store=memory), cdb.ORWRITE_16.build(lba=0, transfer_length=1), bytes(512))
    assert memory.calls == ["write", "flush"]


def test_orwrite_refuses(device: FakeDevice, memory: Memory) -> None:
    row = cdb.ORWRITE_16
    for lba, blocks in ((BLOCKS, 1), (BLOCKS - 1, 2), (2**64 - 1, 2**32 - 1), (BLOCKS + 1, 0)):
        do_command_fail(device, row.build(lba=lba, transfer_length=blocks), sense.LBA_OUT_OF_RANGE)
    for nbytes in (0, 512, 1023, 1025):
        raw = row.build(lba=3, transfer_length=2)
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (10, None), data_out=bytes(nbytes))
    device.units[0].max_transfer_blocks = 4
    raw = row.build(lba=3, transfer_length=5)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (10, None), data_out=bytes(5 * 512))
    do_command(device, row.build(lba=BLOCKS, transfer_length=0))
    assert memory.calls == []
