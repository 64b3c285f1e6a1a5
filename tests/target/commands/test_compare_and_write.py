# SPDX-License-Identifier: BSD-2-Clause
"""COMPARE AND WRITE on a store that remembers what was asked of it: outcomes, sizes, limits, the lock."""

from collections.abc import Iterator

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail
from hypothesis import given
from hypothesis import strategies as st
from memory_store import BLOCKS, SIZE, Memory, block

from vscsi.scsi import cdb, sense
from vscsi.scsi.status import Status

ROW = cdb.COMPARE_AND_WRITE
MISCOMPARE = sense.MISCOMPARE_DURING_VERIFY_OPERATION


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def device(memory: Memory) -> Iterator[FakeDevice]:
    yield FakeDevice("0=x", store=memory)


def test_swaps(device: FakeDevice, memory: Memory) -> None:
    port = do_command(device, ROW.build(lba=5, number_of_logical_blocks=1), block(5) + b"n" * SIZE)
    assert port.fetched == [(0, 2 * SIZE)], "copied once"
    assert memory.data[4 * SIZE : 7 * SIZE] == block(4) + b"n" * SIZE + block(6)
    assert memory.calls == ["write"]
    assert device.lock_log == [(0, 5, 1)]
    assert device.locks == []


def test_fua_and_write_through(memory: Memory) -> None:
    device = FakeDevice("0=x", "1=x,cache=wt", store=memory)
    do_command(device, ROW.build(lba=5, number_of_logical_blocks=1, fua=1, dpo=1), block(5) * 2)
    assert memory.calls == ["write fua"]
    do_command(device, ROW.build(lba=5, number_of_logical_blocks=1), block(5) * 2, lun=1)
    assert memory.calls == ["write fua", "write", "flush"]


@given(st.integers(1, 255), st.data())
def test_miscompare_tells_the_first_byte(blocks: int, data: st.DataObject) -> None:
    memory = Memory()
    device = FakeDevice("0=x", store=memory)
    held = bytes(memory.data[7 * SIZE : (7 + blocks) * SIZE])
    wrong = bytearray(held)
    places = data.draw(st.sets(st.integers(0, len(held) - 1), min_size=1, max_size=3))
    for place in places:
        wrong[place] ^= data.draw(st.integers(1, 255))
    raw, new = ROW.build(lba=7, number_of_logical_blocks=blocks), bytes(len(held))
    got = do_command_fail(device, raw, MISCOMPARE, data_out=bytes(wrong) + new)
    assert got.information == min(places)
    assert memory.calls == []
    assert device.locks == []
    do_command(device, raw, held + new)
    assert memory.data[7 * SIZE : (7 + blocks) * SIZE] == new


def test_sense_of_a_miscompare_is_what_esxi_looks_for(device: FakeDevice) -> None:
    """ATS: one block of 512 bytes, E 1D/00 in fixed format with VALID set."""
    port = FakePort(block(6) + block(5))
    result = device.run(ROW.build(lba=5, number_of_logical_blocks=1), port)
    assert result.status is Status.CHECK_CONDITION
    assert (result.sense[0], result.sense[2], result.sense[12], result.sense[13]) == (0xF0, 0xE, 0x1D, 0x00)
    assert result.sense[3:7] == bytes(4)


def test_ats_sequence(device: FakeDevice, memory: Memory) -> None:
    """A lock is taken by whoever sees it free: the second one loses, and sees it by a plain READ afterwards."""
    free, mine, other = block(5), b"host A".ljust(SIZE, b"\0"), b"host B".ljust(SIZE, b"\0")
    raw = ROW.build(lba=5, number_of_logical_blocks=1)
    do_command(device, raw, free + mine, nexus=1)
    do_command_fail(device, raw, MISCOMPARE, data_out=free + other, nexus=2)
    assert bytes(do_command(device, cdb.READ_10.build(lba=5, transfer_length=1), nexus=2).data_in) == mine
    do_command(device, raw, mine + free, nexus=1)
    do_command(device, raw, free + other, nexus=2)
    assert memory.data[5 * SIZE : 6 * SIZE] == other


def test_no_blocks(device: FakeDevice, memory: Memory) -> None:
    do_command(device, ROW.build(lba=5))
    do_command(device, ROW.build(lba=BLOCKS))
    do_command_fail(device, ROW.build(lba=BLOCKS + 1), sense.LBA_OUT_OF_RANGE)
    for nbytes in (1, 512, 256 * 2 * SIZE):  # 256 in one byte is 0
        do_command_fail(device, ROW.build(lba=5), sense.INVALID_FIELD_IN_CDB, (13, None), data_out=bytes(nbytes))
    assert memory.calls == []


@pytest.mark.parametrize("nbytes", [0, 1, 512, 1023, 1025, 1536, 2048])
def test_wants_exactly_its_data(device: FakeDevice, memory: Memory, nbytes: int) -> None:
    raw = ROW.build(lba=5, number_of_logical_blocks=1)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (13, None), data_out=(block(5) * 4)[:nbytes])
    assert memory.calls == []


def test_refuses(device: FakeDevice, memory: Memory) -> None:
    for lba, blocks in ((BLOCKS, 1), (BLOCKS - 1, 2), (2**64 - 1, 255)):
        raw = ROW.build(lba=lba, number_of_logical_blocks=blocks)
        do_command_fail(device, raw, sense.LBA_OUT_OF_RANGE, data_out=bytes(2 * blocks * SIZE))
    device.units[0].max_compare_and_write_blocks = 4
    raw = ROW.build(lba=5, number_of_logical_blocks=5)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (13, None), data_out=bytes(10 * SIZE))
    readonly = FakeDevice("0=x,ro", store=memory)
    do_command_fail(
        readonly, ROW.build(lba=5, number_of_logical_blocks=1), sense.WRITE_PROTECTED, data_out=block(5) * 2
    )
    assert memory.calls == []
