# SPDX-License-Identifier: BSD-2-Clause
"""VERIFY, WRITE SAME, UNMAP, and READ and WRITE of stores without a descriptor: what happens to the blocks."""

from collections.abc import Iterator

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in
from memory_store import BLOCKS, SIZE, Memory, block

from target import lu as limits
from target.stores import Can
from vscsi.scsi import cdb, parameters, sense
from vscsi.scsi.status import Status


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def device(memory: Memory) -> Iterator[FakeDevice]:
    yield FakeDevice("0=x", store=memory)


# ---- READ and WRITE in Python ----


def test_read(device: FakeDevice) -> None:
    do_command_in(device, cdb.READ_10.build(lba=5, transfer_length=2), expected=block(5) + block(6))
    do_command_in(device, cdb.READ_16.build(lba=5, transfer_length=0), expected=b"")
    data = do_command_in(device, cdb.READ_6.build(lba=1, transfer_length=0))
    assert data == b"".join(block(n) for n in range(1, 257))
    data = do_command_in(device, cdb.READ_12.build(lba=0, transfer_length=BLOCKS))
    assert data == b"".join(block(n) for n in range(BLOCKS)), "more than one chunk"


def test_range_and_limit(device: FakeDevice) -> None:
    got = do_command_fail(device, cdb.READ_10.build(lba=BLOCKS, transfer_length=1), sense.LBA_OUT_OF_RANGE)
    assert got.information == BLOCKS
    do_command(device, cdb.READ_10.build(lba=BLOCKS))
    do_command_fail(device, cdb.READ_10.build(lba=BLOCKS + 1), sense.LBA_OUT_OF_RANGE)
    do_command_fail(device, cdb.READ_16.build(lba=2**64 - 1, transfer_length=1), sense.LBA_OUT_OF_RANGE)
    device.units[0].max_transfer_blocks = 8
    raw = cdb.READ_10.build(lba=0, transfer_length=9)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (7, None))


def test_read_error_names_the_block(device: FakeDevice, memory: Memory) -> None:
    memory.bad = {20}
    got = do_command_fail(device, cdb.READ_10.build(lba=5, transfer_length=50), sense.UNRECOVERED_READ_ERROR)
    assert got.information == 20


def test_write(device: FakeDevice, memory: Memory) -> None:
    do_command(device, cdb.WRITE_10.build(lba=3, transfer_length=2), b"a" * 1024)
    assert memory.data[3 * SIZE : 6 * SIZE] == b"a" * 1024 + block(5)
    assert memory.calls == ["write"]
    do_command(device, cdb.WRITE_16.build(lba=3, transfer_length=1, fua=1), b"b" * 512)
    assert memory.calls == ["write", "write fua"]
    raw = cdb.WRITE_10.build(lba=3, transfer_length=2)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_COMMAND_IU, data_out=bytes(1023))
    port = do_command(device, cdb.WRITE_10.build(lba=3, transfer_length=0), bytes(512))
    assert port.fetched == []


def test_write_through_settles(memory: Memory) -> None:
    device = FakeDevice("0=x,cache=wt", store=memory)
    do_command(device, cdb.WRITE_10.build(lba=3, transfer_length=2), b"a" * 1024)
    assert memory.calls == ["write", "flush"]


@pytest.mark.parametrize(
    ("number", "code"),
    [(28, sense.SPACE_ALLOCATION_FAILED), (5, sense.WRITE_ERROR), (30, sense.WRITE_PROTECTED), (99, sense.WRITE_ERROR)],
)
def test_errors_of_the_store(device: FakeDevice, memory: Memory, number: int, code: sense.Sense) -> None:
    memory.error = OSError(number, "no")
    raw = cdb.WRITE_10.build(lba=3, transfer_length=1)
    do_command_fail(device, raw, code, data_out=bytes(512))


def test_synchronize_cache(device: FakeDevice, memory: Memory) -> None:
    do_command(device, cdb.SYNCHRONIZE_CACHE_10.build())
    assert memory.calls == ["flush"]
    raw = cdb.SYNCHRONIZE_CACHE_16.build(lba=BLOCKS - 1, number_of_logical_blocks=2)
    do_command_fail(device, raw, sense.LBA_OUT_OF_RANGE)


# ---- VERIFY ----


@pytest.mark.parametrize("bytchk", [0, 1, 3])
def test_verify_is_limited_like_a_transfer(device: FakeDevice, memory: Memory, bytchk: int) -> None:
    """Without the limit one VERIFY of a whole disk would hold a worker for as long as the disk is large."""
    device.units[0].max_transfer_blocks = 8
    data = block(5) if bytchk == 3 else b"".join(block(n) for n in range(5, 14)) if bytchk else b""
    memory.bad = {5}
    for row, byte in ((cdb.VERIFY_10, 7), (cdb.VERIFY_16, 10)):
        raw = row.build(lba=5, verification_length=9, bytchk=bytchk)
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (byte, None), data_out=data)
    memory.bad = set()
    if bytchk != 3:  # block 6 is not block 5
        do_command(device, cdb.VERIFY_10.build(lba=5, verification_length=8, bytchk=bytchk), data[: 8 * SIZE])


def test_verify(device: FakeDevice, memory: Memory) -> None:
    port = do_command(device, cdb.VERIFY_10.build(lba=5, verification_length=3), b"unused")
    assert port.fetched == []
    do_command(device, cdb.VERIFY_16.build(lba=0, verification_length=BLOCKS))
    do_command(device, cdb.VERIFY_16.build(lba=5, verification_length=2, bytchk=1), block(5) + block(6))
    do_command(device, cdb.VERIFY_16.build(lba=5, verification_length=1, bytchk=3), block(5))
    do_command(device, cdb.VERIFY_16.build(lba=5, verification_length=0, bytchk=1))
    do_command_fail(device, cdb.VERIFY_10.build(bytchk=2), sense.INVALID_FIELD_IN_CDB, (1, 2))
    raw = cdb.VERIFY_10.build(lba=BLOCKS - 1, verification_length=2)
    do_command_fail(device, raw, sense.LBA_OUT_OF_RANGE)
    memory.bad = {7}
    got = do_command_fail(device, cdb.VERIFY_10.build(lba=5, verification_length=9), sense.UNRECOVERED_READ_ERROR)
    assert got.information == 7


def test_verify_tells_where_it_differs(device: FakeDevice) -> None:
    wrong = bytearray(block(5) + block(6))
    wrong[700] ^= 1
    raw = cdb.VERIFY_16.build(lba=5, verification_length=2, bytchk=1)
    got = do_command_fail(device, raw, sense.MISCOMPARE_DURING_VERIFY_OPERATION, data_out=bytes(wrong))
    assert got.information == 700
    raw = cdb.VERIFY_16.build(lba=5, verification_length=2, bytchk=3)
    got = do_command_fail(device, raw, sense.MISCOMPARE_DURING_VERIFY_OPERATION, data_out=block(5))
    assert got.information == 0


def test_verify_far_into_the_data(device: FakeDevice, memory: Memory) -> None:
    wrong = bytearray(memory.data)
    wrong[-1] ^= 1
    raw = cdb.VERIFY_16.build(lba=0, verification_length=BLOCKS, bytchk=1)
    got = do_command_fail(device, raw, sense.MISCOMPARE_DURING_VERIFY_OPERATION, data_out=bytes(wrong))
    assert got.information == len(wrong) - 1


@pytest.mark.parametrize("nbytes", [0, 511, 1023, 1025])
def test_verify_wants_exactly_its_data(device: FakeDevice, nbytes: int) -> None:
    raw = cdb.VERIFY_16.build(lba=5, verification_length=2, bytchk=1)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (10, None), data_out=bytes(nbytes))


# ---- WRITE SAME ----


def test_write_same(device: FakeDevice, memory: Memory) -> None:
    port = do_command(device, cdb.WRITE_SAME_10.build(lba=3, number_of_logical_blocks=4), b"z" * 512)
    assert port.fetched == [(0, 512)]
    assert memory.data[3 * SIZE : 8 * SIZE] == b"z" * 2048 + block(7)
    do_command(device, cdb.WRITE_SAME_16.build(lba=3, number_of_logical_blocks=1, ndob=1), b"junk")
    assert memory.data[3 * SIZE : 4 * SIZE] == bytes(512)
    do_command(device, cdb.WRITE_SAME_16.build(lba=4000, number_of_logical_blocks=96), b"y" * 512)
    assert memory.data[4000 * SIZE :] == b"y" * (96 * SIZE)
    assert memory.data[3999 * SIZE : 4000 * SIZE] == block(3999)
    do_command(device, cdb.WRITE_SAME_16.build(lba=0, number_of_logical_blocks=BLOCKS), b"x" * 512)
    assert memory.data == b"x" * len(memory.data)


def test_write_same_unmaps_only_zeros(device: FakeDevice, memory: Memory) -> None:
    do_command(device, cdb.WRITE_SAME_16.build(lba=8, number_of_logical_blocks=8, unmap=1), bytes(512))
    assert memory.calls == ["trim 8 8"]
    do_command(device, cdb.WRITE_SAME_16.build(lba=8, number_of_logical_blocks=8, unmap=1), b"q" * 512)
    assert memory.calls == ["trim 8 8", "write"]
    do_command(device, cdb.WRITE_SAME_16.build(lba=8, number_of_logical_blocks=8, unmap=1, ndob=1))
    assert memory.calls == ["trim 8 8", "write", "trim 8 8"]


def test_write_same_never_unmaps_where_that_does_not_give_zeros() -> None:
    memory = Memory(Can.WRITE | Can.TRIM)
    device = FakeDevice("0=x", store=memory)
    do_command(device, cdb.WRITE_SAME_16.build(lba=8, number_of_logical_blocks=8, unmap=1), bytes(512))
    assert memory.calls == ["write"]
    assert not any(memory.data[8 * SIZE : 16 * SIZE])


def test_write_same_without_unmap_keeps_the_blocks_mapped(device: FakeDevice, memory: Memory) -> None:
    do_command(device, cdb.WRITE_SAME_16.build(lba=8, number_of_logical_blocks=8), bytes(512))
    assert memory.calls == ["write"]


@pytest.mark.parametrize("nbytes", [0, 511, 513, 1024])
def test_write_same_wants_one_block(device: FakeDevice, memory: Memory, nbytes: int) -> None:
    raw = cdb.WRITE_SAME_10.build(lba=3, number_of_logical_blocks=4)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (7, None), data_out=bytes(nbytes))
    assert memory.calls == []


def test_write_same_limits(device: FakeDevice) -> None:
    row = cdb.WRITE_SAME_16
    do_command_fail(device, row.build(anchor=1, unmap=1), sense.INVALID_FIELD_IN_CDB, (1, 4))
    do_command_fail(device, row.build(anchor=1), sense.INVALID_FIELD_IN_CDB, (1, 4))
    do_command_fail(device, row.build(wrprotect=1), sense.INVALID_FIELD_IN_CDB, (1, None))
    do_command_fail(device, row.build(lba=BLOCKS, number_of_logical_blocks=1, ndob=1), sense.LBA_OUT_OF_RANGE)
    device.units[0].max_write_same_blocks = 256
    do_command(device, row.build(number_of_logical_blocks=256, ndob=1))
    raw = row.build(number_of_logical_blocks=257, ndob=1)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (10, None))
    # WSNZ=1: no blocks does not mean all of them.
    do_command_fail(device, row.build(lba=BLOCKS - 1, ndob=1), sense.INVALID_FIELD_IN_CDB, (10, None))
    do_command_fail(device, row.build(lba=BLOCKS - 1, unmap=1, ndob=1), sense.INVALID_FIELD_IN_CDB, (10, None))
    do_command_fail(device, row.build(lba=BLOCKS + 1, ndob=1), sense.LBA_OUT_OF_RANGE)


def test_write_same_with_unmap_needs_a_unit_that_unmaps() -> None:
    memory = Memory()
    device = FakeDevice("0=x,discard=off", store=memory)
    do_command_fail(device, cdb.WRITE_SAME_16.build(unmap=1, ndob=1), sense.INVALID_FIELD_IN_CDB, (1, 3))
    do_command_fail(device, cdb.UNMAP.build(), sense.INVALID_COMMAND_OPERATION_CODE)


def test_write_same_to_the_end_of_a_thick_disk() -> None:
    memory = Memory()
    device = FakeDevice("0=x,discard=off", store=memory)
    do_command(device, cdb.WRITE_SAME_16.build(lba=4000), b"y" * 512)
    assert memory.data[4000 * SIZE :] == b"y" * (96 * SIZE)
    assert memory.data[3999 * SIZE : 4000 * SIZE] == block(3999)
    device.units[0].max_write_same_blocks = 256
    do_command_fail(device, cdb.WRITE_SAME_16.build(lba=BLOCKS - 257), sense.INVALID_FIELD_IN_CDB, (10, None))
    do_command(device, cdb.WRITE_SAME_16.build(lba=BLOCKS - 256), b"y" * 512)


# ---- UNMAP ----


def unmap(extents: list[tuple[int, int]]) -> tuple[bytes, bytes]:
    data = parameters.encode_unmap(extents)
    return cdb.UNMAP.build(parameter_list_length=len(data)), data


def test_unmap(device: FakeDevice, memory: Memory) -> None:
    raw, data = unmap([(8, 8), (100, 1), (BLOCKS, 0)])
    port = do_command(device, raw, data)
    assert port.fetched == [(0, len(data))]
    assert memory.calls == ["trim 8 8", "trim 100 1"]
    do_command(device, cdb.UNMAP.build(parameter_list_length=0))
    do_command(device, *unmap([]))
    do_command(device, cdb.UNMAP.build(parameter_list_length=8), data[:2] + bytes(6))
    assert len(memory.calls) == 2


def test_unmap_checks_the_whole_list_first(device: FakeDevice, memory: Memory) -> None:
    raw, data = unmap([(8, 8), (BLOCKS - 1, 2)])
    do_command_fail(device, raw, sense.LBA_OUT_OF_RANGE, data_out=data)
    raw, data = unmap([(8, 8), (BLOCKS + 1, 0)])
    do_command_fail(device, raw, sense.LBA_OUT_OF_RANGE, data_out=data)
    assert memory.calls == []


def test_unmap_lists_that_are_wrong(device: FakeDevice, memory: Memory) -> None:
    raw, data = unmap([(8, 8)])
    for nbytes in range(1, 8):
        short = cdb.UNMAP.build(parameter_list_length=nbytes)
        do_command_fail(device, short, sense.PARAMETER_LIST_LENGTH_ERROR, data_out=data)
    do_command_fail(device, raw, sense.PARAMETER_LIST_LENGTH_ERROR, data_out=data[:-1])
    short = cdb.UNMAP.build(parameter_list_length=len(data) - 1)
    do_command_fail(device, short, sense.PARAMETER_LIST_LENGTH_ERROR, data_out=data)
    bad = bytes(2) + data[2:]
    got = do_command_fail(device, raw, sense.INVALID_FIELD_IN_PARAMETER_LIST, (0, None), data_out=bad)
    assert got.field_pointer is not None
    assert not got.field_pointer.in_cdb
    do_command_fail(device, cdb.UNMAP.build(anchor=1), sense.INVALID_FIELD_IN_CDB, (1, 0))
    assert memory.calls == []


def test_unmap_ignores_a_descriptor_that_is_cut(device: FakeDevice, memory: Memory) -> None:
    _, data = unmap([(8, 8), (100, 1)])
    data = data[:-4]
    data = (len(data) - 2).to_bytes(2) + (len(data) - 8).to_bytes(2) + data[4:]
    do_command(device, cdb.UNMAP.build(parameter_list_length=len(data)), data)
    assert memory.calls == ["trim 8 8"]


def test_unmap_limits(device: FakeDevice, memory: Memory) -> None:
    raw, data = unmap([(8, 1)] * limits.MAX_UNMAP_DESCRIPTORS)
    do_command(device, raw, data)
    raw, data = unmap([(8, 1)] * (limits.MAX_UNMAP_DESCRIPTORS + 1))
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_PARAMETER_LIST, (2, None), data_out=data)
    memory.calls.clear()
    device.units[0].blocks = 1 << 30
    raw, data = unmap([(8, 1), (0, limits.MAX_UNMAP_BLOCKS)])
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_PARAMETER_LIST, (8 + 16 + 8, None), data_out=data)
    assert memory.calls == []


# ---- aborts, write protection ----


def test_abort_between_chunks(device: FakeDevice, memory: Memory) -> None:
    port = FakePort(b"x" * 512, abort_after=1)
    result = device.run(cdb.WRITE_SAME_16.build(lba=0, number_of_logical_blocks=BLOCKS), port)
    assert result.status is Status.TASK_ABORTED
    assert memory.calls == ["write"], "one chunk of two"


def test_write_protected(memory: Memory) -> None:
    device = FakeDevice("0=x,ro", store=memory)
    for raw in (
        cdb.WRITE_SAME_16.build(ndob=1, number_of_logical_blocks=1),
        cdb.WRITE_10.build(transfer_length=1),
    ):
        do_command_fail(device, raw, sense.WRITE_PROTECTED, data_out=bytes(512))
    do_command(device, cdb.VERIFY_10.build(verification_length=1))
    assert memory.calls == []
