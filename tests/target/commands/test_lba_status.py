# SPDX-License-Identifier: BSD-2-Clause
"""GET LBA STATUS: from the holes of memory, files and made-up stores to descriptors."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, do_command, do_command_fail, do_command_in
from hypothesis import given
from hypothesis import strategies as st
from memory_store import BLOCKS, SIZE, Memory

from vscsi.scsi import cdb, medium, parameters, sense

ROW = cdb.GET_LBA_STATUS
M, D = medium.Provisioning.MAPPED, medium.Provisioning.DEALLOCATED


def status(device: FakeDevice, lba: int = 0, allocation_length: int = 4096) -> list[tuple[int, int, int]]:
    data = do_command_in(device, ROW.build(lba=lba, allocation_length=allocation_length))
    assert data[4:8] == bytes(4), "no completion condition, RTP 0"
    return [(row.lba, row.blocks, row.status) for row in medium.decode_lba_status(data)]


@pytest.fixture(params=["mem:1M", "file"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeDevice]:
    text = request.param
    if text == "file":
        text = str(tmp_path / "disk.img")
        Path(text).write_bytes(b"")
        os.truncate(text, 1 << 20)
    device = FakeDevice(f"0={text}")
    yield device
    device.close()


def write(device: FakeDevice, lba: int, blocks: int, byte: bytes = b"w") -> None:
    do_command(device, cdb.WRITE_10.build(lba=lba, transfer_length=blocks), byte * (blocks * SIZE))


def test_holes_of_files_and_memory(disk: FakeDevice) -> None:
    assert status(disk) == [(0, 2048, D)]
    write(disk, 16, 8)
    write(disk, 1024, 16)
    assert status(disk) == [(0, 16, D), (16, 8, M), (24, 1000, D), (1024, 16, M), (1040, 1008, D)]
    assert status(disk, 20) == [(20, 4, M), (24, 1000, D), (1024, 16, M), (1040, 1008, D)], "begins where it was asked"
    assert status(disk, 2047) == [(2047, 1, D)]
    data = parameters.encode_unmap([(1024, 16)])
    do_command(disk, cdb.UNMAP.build(parameter_list_length=len(data)), data)
    assert status(disk) == [(0, 16, D), (16, 8, M), (24, 2024, D)]
    do_command(disk, cdb.WRITE_SAME_16.build(lba=0, number_of_logical_blocks=64), bytes(SIZE))
    assert status(disk) == [(0, 64, M), (64, 1984, D)], "zeros that were written are mapped"
    do_command(disk, cdb.WRITE_SAME_16.build(lba=0, number_of_logical_blocks=64, ndob=1, unmap=1))
    assert status(disk) == [(0, 2048, D)]


def test_writing_one_block_maps_its_page(disk: FakeDevice) -> None:
    write(disk, 9, 1)
    assert status(disk) == [(0, 8, D), (8, 8, M), (16, 2032, D)]


def test_allocation_length(disk: FakeDevice) -> None:
    write(disk, 16, 8)
    whole = do_command_in(disk, ROW.build(lba=0, allocation_length=4096))
    assert len(whole) == 8 + 3 * 16
    for length in range(64):
        data = do_command_in(disk, ROW.build(lba=0, allocation_length=length))
        assert len(data) == min(length, 8 + 16 * min(3, max(1, (length - 8) // 16)))
        assert data[8:] == whole[8 : len(data)]
    data = do_command_in(disk, ROW.build(lba=0, allocation_length=24))
    assert int.from_bytes(data[:4]) == 20, "the length counts what there is"


def test_refuses(disk: FakeDevice) -> None:
    for lba in (2048, 2049, 2**64 - 1):
        do_command_fail(disk, ROW.build(lba=lba, allocation_length=24), sense.LBA_OUT_OF_RANGE)
    do_command_fail(disk, ROW.build(report_type=1, allocation_length=24), sense.INVALID_FIELD_IN_CDB, (14, None))


def test_a_read_only_unit_has_it_too() -> None:
    assert status(FakeDevice("0=mem:1M,ro")) == [(0, 2048, D)]


def test_thick_units_have_no_such_command() -> None:
    device = FakeDevice("0=mem:1M,discard=off")
    do_command_fail(device, ROW.build(allocation_length=24), sense.INVALID_FIELD_IN_CDB, (1, 4))


def test_bounded() -> None:
    memory = Memory()
    memory.holes = [(n * 2 * SIZE, SIZE) for n in range(BLOCKS // 2)]
    found = status(FakeDevice("0=x", store=memory), allocation_length=2**32 - 1)
    assert len(found) == 1024
    assert found[:2] == [(0, 1, D), (1, 1, M)]


def test_a_count_has_32_bits() -> None:
    assert status(FakeDevice("0=null:4T")) == [
        (0, 2**32 - 1, D), (2**32 - 1, 2**32 - 1, D), (2**33 - 2, 2, D),
    ]  # fmt: skip


@given(st.lists(st.booleans(), min_size=1, max_size=64), st.integers(1, 1500), st.integers(0, 15))
def test_blocks_from_bytes(kinds: list[bool], step: int, first: int) -> None:
    """Whatever a store tells, in pieces of any size: a block of which any part is mapped counts, likes are merged."""
    memory = Memory()
    end = 16 * SIZE

    def extents(offset: int, nbytes: int) -> Iterator[tuple[int, int, bool]]:
        for i in range(0, end, step):
            start, behind = max(i, offset), min(i + step, end, offset + nbytes)
            if start < behind:
                yield start, behind - start, kinds[i // step % len(kinds)]

    memory.extents = extents  # type: ignore[method-assign]
    unit = FakeDevice("0=x", store=memory).units[0]
    expected = [any(kinds[at // step % len(kinds)] for at in range(n * SIZE, (n + 1) * SIZE)) for n in range(first, 16)]
    got: list[bool] = []
    last = None
    for lba, blocks, mapped in unit.extents(first, 16 - first):
        assert lba == first + len(got)
        assert blocks > 0
        assert mapped is not last
        last = mapped
        got += [mapped] * blocks
    assert got == expected
