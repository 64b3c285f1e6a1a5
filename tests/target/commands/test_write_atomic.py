# SPDX-License-Identifier: BSD-2-Clause
"""WRITE ATOMIC without crashes: what it writes, what it refuses, when it exists, what happens to errors."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in
from memory_store import BLOCKS, SIZE, Memory, block

from target.journal import Journal
from vscsi.scsi import cdb, sense, vpd
from vscsi.scsi.status import Status

ROW = cdb.WRITE_ATOMIC_16


@pytest.fixture
def memory() -> Memory:
    made = Memory()
    made.is_volatile = True
    return made


@pytest.fixture
def device(memory: Memory) -> Iterator[FakeDevice]:
    yield FakeDevice("0=x", store=memory)


def image(tmp_path: Path, nbytes: int = 1 << 20) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes([7]) * nbytes)
    return path


def limits(device: FakeDevice) -> dict[str, int | str]:
    page = do_command_in(device, cdb.INQUIRY.build(evpd=1, page_code=0xB0, allocation_length=64))
    return vpd.BLOCK_LIMITS.decode(page)


def test_writes(device: FakeDevice, memory: Memory) -> None:
    do_command(device, ROW.build(lba=3, transfer_length=2, dpo=1, fua=1, group_number=3), b"a" * 1024)
    assert memory.data[2 * SIZE : 6 * SIZE] == block(2) + b"a" * 1024 + block(5)
    assert device.lock_log == [(0, 3, 2)]
    assert device.locks == []
    for blocks in (1, 256):
        data = os.urandom(blocks * SIZE)
        do_command(device, ROW.build(lba=BLOCKS - blocks, transfer_length=blocks), data)
        assert memory.data[(BLOCKS - blocks) * SIZE :] == data


def test_pieces(device: FakeDevice, memory: Memory) -> None:
    data = os.urandom(10 * SIZE)
    do_command(device, ROW.build(lba=3, transfer_length=10, atomic_boundary=4), data)
    assert memory.data[3 * SIZE : 13 * SIZE] == data
    assert memory.calls.count("write") == 3


def test_a_piece_that_fails(device: FakeDevice, memory: Memory) -> None:
    """The pieces before it stay: that is what the sense code says."""
    memory.bad = {8}
    raw = ROW.build(lba=3, transfer_length=10, atomic_boundary=4)
    do_command_fail(device, raw, sense.INCOMPLETE_MULTIPLE_ATOMIC_WRITE_OPERATIONS, data_out=b"n" * 10 * SIZE)
    assert memory.data[3 * SIZE : 8 * SIZE] == b"n" * 4 * SIZE + block(7)


def test_a_write_that_fails_half_way_is_undone(device: FakeDevice, memory: Memory) -> None:
    memory.tear = 2 * SIZE
    raw = ROW.build(lba=3, transfer_length=4)
    do_command_fail(device, raw, sense.WRITE_ERROR, data_out=b"n" * 4 * SIZE)
    assert memory.data == Memory().data
    do_command(device, raw, b"n" * 4 * SIZE)
    assert memory.data[3 * SIZE : 7 * SIZE] == b"n" * 4 * SIZE


def test_limits_are_those_of_the_page(device: FakeDevice) -> None:
    page = limits(device)
    most, many = page["maximum_atomic_transfer_length"], page["maximum_atomic_transfer_length_with_atomic_boundary"]
    assert (most, page["maximum_atomic_boundary_size"], many) == (2048, 2048, 16384)
    assert isinstance(page["maximum_transfer_length"], int) and page["maximum_transfer_length"] >= 2048
    assert (page["atomic_alignment"], page["atomic_transfer_length_granularity"]) == (0, 0)
    do_command(device, ROW.build(lba=1, transfer_length=2048), bytes(2048 * SIZE))
    raw = ROW.build(lba=1, transfer_length=2049)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (12, None), data_out=bytes(2049 * SIZE))
    do_command(device, ROW.build(lba=0, transfer_length=4096, atomic_boundary=2048), bytes(4096 * SIZE))
    raw = ROW.build(lba=0, transfer_length=1, atomic_boundary=2049)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (10, None), data_out=bytes(SIZE))
    device.units[0].max_transfer_blocks = 3000
    raw = ROW.build(lba=0, transfer_length=3001, atomic_boundary=8)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (12, None), data_out=bytes(3001 * SIZE))


def test_at_4096_bytes_256_blocks() -> None:
    assert limits(FakeDevice("0=mem:4M,bs=4096"))["maximum_atomic_transfer_length"] == 256


def test_the_range_comes_first(device: FakeDevice, memory: Memory) -> None:
    for lba, blocks, boundary in ((BLOCKS - 1, 2, 0), (0, 65535, 0), (BLOCKS + 1, 0, 0), (2**64 - 1, 512, 65535)):
        raw = ROW.build(lba=lba, transfer_length=blocks, atomic_boundary=boundary)
        do_command_fail(device, raw, sense.LBA_OUT_OF_RANGE)
    do_command(device, ROW.build(lba=BLOCKS))
    for nbytes in (0, 512, 1023, 1025):
        raw = ROW.build(lba=3, transfer_length=2)
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (12, None), data_out=bytes(nbytes))
    assert memory.calls == []


@pytest.mark.parametrize(("text", "there"), [("mem:1M", True), ("null:1M", False), ("mem:1M,ro", False)])
def test_where_it_is_supported(text: str, there: bool) -> None:
    device = FakeDevice(f"0={text}")
    page = limits(device)
    names = [name for name in page if "atomic" in name]
    assert len(names) == 5
    if there:
        do_command(device, ROW.build(transfer_length=1), bytes(SIZE))
    else:
        do_command_fail(device, ROW.build(), sense.INVALID_COMMAND_OPERATION_CODE)
        assert not any(page[name] for name in names)


def test_a_store_that_outlives_the_target_needs_a_place_for_the_journal(tmp_path: Path) -> None:
    do_command_fail(FakeDevice("0=x", store=Memory()), ROW.build(), sense.INVALID_COMMAND_OPERATION_CODE)
    device = FakeDevice("0=x", store=Memory(), state=tmp_path)
    do_command(device, ROW.build(lba=3, transfer_length=1), bytes(SIZE))
    assert (tmp_path / "0" / "atomic.journal").stat().st_size == 0, "nothing of the data stays there"


def test_on_a_file(tmp_path: Path) -> None:
    path = image(tmp_path)
    device = FakeDevice(f"0={path}")
    assert not (tmp_path / "disk.img.vscsi").exists(), "the folder is made when it is needed"
    data = os.urandom(256 * SIZE)
    do_command(device, ROW.build(lba=5, transfer_length=256), data)
    do_command(device, ROW.build(lba=1000, transfer_length=256, atomic_boundary=100), data)
    device.close()
    held = path.read_bytes()
    assert held[5 * SIZE : 261 * SIZE] == data
    assert held[1000 * SIZE : 1256 * SIZE] == data
    assert (tmp_path / "disk.img.vscsi" / "atomic.journal").stat().st_size == 0


def test_order_of_what_becomes_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    device = FakeDevice("0=x", store=memory, state=tmp_path)

    def noted(name: str, function: Callable[..., None]) -> Callable[..., None]:
        def step(*args: object) -> None:
            assert device.locks == [(0, 3, 1)], "the blocks are locked all the time"
            memory.calls.append(name)
            function(*args)

        return step

    for name in ("_put", "_cut", "_sync"):
        monkeypatch.setattr(Journal, name, noted(name, getattr(Journal, name)))
    do_command(device, ROW.build(lba=3, transfer_length=1), bytes(SIZE))
    assert memory.calls == ["flush", "_put", "_sync", "write", "flush", "_cut", "_sync"]


def test_no_space_is_told_before_anything_is_written(tmp_path: Path) -> None:
    memory = Memory()
    device = FakeDevice("0=x", store=memory, state=tmp_path)
    memory.space = 0
    do_command_fail(device, ROW.build(transfer_length=1), sense.SPACE_ALLOCATION_FAILED, data_out=bytes(SIZE))
    assert "write" not in memory.calls
    memory.space = None
    do_command(device, ROW.build(transfer_length=1), bytes(SIZE))


def test_after_a_failed_flush_there_is_no_success(device: FakeDevice) -> None:
    device.sync_failures.add(0)
    do_command_fail(device, ROW.build(transfer_length=1), sense.WRITE_ERROR, data_out=bytes(SIZE))


def test_what_cannot_be_undone_closes_the_unit(tmp_path: Path) -> None:
    memory = Memory()
    device = FakeDevice("0=x", store=memory, state=tmp_path)
    memory.tear, memory.tear_again = SIZE, True
    raw = ROW.build(lba=3, transfer_length=2)
    do_command_fail(device, raw, sense.WRITE_ERROR, data_out=b"n" * 2 * SIZE)
    assert device.states[0] == sense.WRITE_ERROR.code
    memory.tear, memory.tear_again = None, False
    again = FakeDevice("0=x", store=memory, state=tmp_path)
    assert memory.data[3 * SIZE : 5 * SIZE] == b"n" * 2 * SIZE, "the next start has finished it"
    assert again.states == {}


def test_abort_between_pieces(device: FakeDevice, memory: Memory) -> None:
    port = FakePort(b"n" * 8 * SIZE, abort_after=1)
    result = device.run(ROW.build(lba=0, transfer_length=8, atomic_boundary=4), port)
    assert result.status is Status.TASK_ABORTED
    assert memory.data[: 5 * SIZE] == b"n" * 4 * SIZE + block(4)


@pytest.mark.parametrize("kind", [1, 3])
def test_on_a_protected_unit(tmp_path: Path, kind: int) -> None:
    """What is written gets protection information that a READ finds right, before and after a new start."""
    path = image(tmp_path)
    data = os.urandom(4 * SIZE)
    device = FakeDevice(f"0={path},protection={kind}")
    do_command(device, ROW.build(lba=5, transfer_length=4), data)
    for _ in range(2):
        do_command_in(device, cdb.READ_10.build(lba=5, transfer_length=4), expected=data)
        wire = do_command_in(device, cdb.READ_10.build(lba=5, transfer_length=4, rdprotect=1))
        assert b"".join(wire[at : at + SIZE] for at in range(0, len(wire), SIZE + 8)) == data
        device.close()
        device = FakeDevice(f"0={path}")
    device.close()
