# SPDX-License-Identifier: BSD-2-Clause
"""WRITE BUFFER and READ BUFFER: what comes back is what was written, within bounds, and echoes are each nexus' own."""

import pytest
from fake_device import FakeDevice, do_command, do_command_fail, do_command_in
from hypothesis import given, settings
from hypothesis import strategies as st

from target.buffers import DATA_NBYTES, ECHO_NBYTES
from vscsi.scsi import cdb, sense
from vscsi.scsi.cdb import Cdb

READS = pytest.mark.parametrize("read", [cdb.READ_BUFFER_10_DATA, cdb.READ_BUFFER_16_DATA], ids=["10", "16"])


def write(device: FakeDevice, offset: int, data: bytes) -> None:
    do_command(device, cdb.WRITE_BUFFER_DATA.build(buffer_offset=offset, parameter_list_length=len(data)), data)


def test_descriptors() -> None:
    device = FakeDevice()
    for row in (cdb.READ_BUFFER_10_DESCRIPTOR, cdb.READ_BUFFER_16_DESCRIPTOR):
        assert do_command_in(device, row.build(allocation_length=99)) == b"\0" + DATA_NBYTES.to_bytes(3)
        assert do_command_in(device, row.build(buffer_id=1, allocation_length=99)) == bytes(4)
    for row in (cdb.READ_BUFFER_10_ECHO_DESCRIPTOR, cdb.READ_BUFFER_16_ECHO_DESCRIPTOR):
        assert do_command_in(device, row.build(allocation_length=99)) == b"\0\0" + ECHO_NBYTES.to_bytes(2)


@settings(max_examples=100, deadline=None)
@given(
    writes=st.lists(st.tuples(st.integers(0, DATA_NBYTES - 1), st.binary(max_size=300)), max_size=8),
    offset=st.integers(0, DATA_NBYTES - 1),
    nbytes=st.integers(0, 1 << 17),
)
def test_a_model(writes: list[tuple[int, bytes]], offset: int, nbytes: int) -> None:
    device, model = FakeDevice("0=mem:64k"), bytearray(DATA_NBYTES)
    for at, data in writes:
        data = data[: DATA_NBYTES - at]
        write(device, at, data)
        model[at : at + len(data)] = data
    for row in (cdb.READ_BUFFER_10_DATA, cdb.READ_BUFFER_16_DATA):
        raw = row.build(buffer_offset=offset, allocation_length=nbytes)
        assert do_command_in(device, raw) == model[offset : offset + nbytes]


@READS
def test_bounds(read: Cdb) -> None:
    device, invalid = FakeDevice(), sense.INVALID_FIELD_IN_CDB
    last = DATA_NBYTES - 1
    write(device, last, b"x")
    assert do_command_in(device, read.build(buffer_offset=last, allocation_length=9)) == b"x"
    do_command_fail(device, read.build(buffer_offset=DATA_NBYTES), invalid, read.fields["buffer_offset"].pointer)
    do_command_fail(device, read.build(buffer_id=1), invalid, read.fields["buffer_id"].pointer)
    raw = cdb.WRITE_BUFFER_DATA.build(buffer_offset=last, parameter_list_length=2)
    do_command_fail(device, raw, invalid, (6, None), data_out=b"yy")
    raw = cdb.WRITE_BUFFER_DATA.build(buffer_offset=0xFFFFFF)
    do_command_fail(device, raw, invalid, (3, None))
    do_command_fail(device, cdb.WRITE_BUFFER_DATA.build(buffer_id=1), invalid, (2, None))
    raw = cdb.WRITE_BUFFER_DATA.build(buffer_offset=last, parameter_list_length=1)
    do_command_fail(device, raw, sense.PARAMETER_LIST_LENGTH_ERROR)
    assert do_command_in(device, read.build(buffer_offset=last, allocation_length=9)) == b"x"
    do_command_fail(device, bytes([0x3B, 0x05]) + bytes(8), invalid, (1, 4))  # microcode


def test_echo() -> None:
    device = FakeDevice()
    mine, other = device.connect(7), device.connect(8)
    read = cdb.READ_BUFFER_10_ECHO.build(allocation_length=ECHO_NBYTES)
    do_command_fail(device, read, sense.COMMAND_SEQUENCE_ERROR)

    def echo(data: bytes, nexus: int) -> None:
        do_command(device, cdb.WRITE_BUFFER_ECHO.build(parameter_list_length=len(data)), data, nexus=nexus)

    echo(b"a" * ECHO_NBYTES, mine.index)
    echo(b"b" * 5, other.index)
    assert do_command_in(device, read) == b"a" * ECHO_NBYTES
    assert do_command_in(device, read, nexus=other.index) == b"b" * 5
    raw = cdb.READ_BUFFER_16_ECHO.build(allocation_length=3)
    assert do_command_in(device, raw, nexus=other.index) == b"bbb"
    raw = cdb.WRITE_BUFFER_ECHO.build(parameter_list_length=ECHO_NBYTES + 1)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (6, None), data_out=bytes(ECHO_NBYTES + 1))
    device.units[0].nexus_lost(other)
    do_command_fail(device, read, sense.COMMAND_SEQUENCE_ERROR, nexus=other.index)
    assert do_command_in(device, read) == b"a" * ECHO_NBYTES
