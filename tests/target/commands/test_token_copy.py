# SPDX-License-Identifier: BSD-2-Clause
"""Copies by token: the token is ours or it is refused, and it stands for just the blocks that were named."""

from collections.abc import Iterator

import pytest
from fake_device import FakeDevice, do_command, do_command_fail, do_command_in
from hypothesis import given, settings
from hypothesis import strategies as st

from target.rod_tokens import MAX_TOKENS, Rod, Tokens
from vscsi.scsi import cdb, copy, sense, token
from vscsi.scsi.token import RodType

NAMED = 0x40000000


class Clock(FakeDevice):
    """A device whose time stands still until it is told otherwise."""

    time = 1000.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def device() -> Iterator[Clock]:
    made = Clock("0=mem:1M", "1=mem:1M", "2=mem:1M,bs=4096")
    for lun in (0, 1):
        unit = made.units[lun]
        unit.write(memoryview(b"".join(bytes([lun, n & 0xFF]) * 256 for n in range(unit.blocks))), 0)
    yield made
    made.close()


def content(device: FakeDevice, lun: int, lba: int, blocks: int) -> bytes:
    buffer = device.units[lun].buffer(blocks)
    device.units[lun].read_into(buffer, lba)
    return bytes(buffer)


def populate(device: FakeDevice, *ranges: tuple[int, int], nexus: int = 7, **values: int) -> bytes:
    data = token.encode_populate(ranges, **values)
    do_command(
        device, cdb.POPULATE_TOKEN.build(list_identifier=NAMED, parameter_list_length=len(data)), data, nexus=nexus
    )
    got = information(device, nexus=nexus)
    assert got.fields["copy_operation_status"] == copy.Status.COMPLETED
    assert got.fields["transfer_count"] == sum(blocks for _, blocks in ranges)
    found = token.decode_token_descriptors(got.tail)
    assert found is not None
    return found


def information(device: FakeDevice, *, lun: int = 0, nexus: int = 7) -> copy.DecodedStatus:
    raw = cdb.RECEIVE_ROD_TOKEN_INFORMATION.build(list_identifier=NAMED, allocation_length=1024)
    return copy.decode_status_lid4(do_command_in(device, raw, lun=lun, nexus=nexus))


def using(data: bytes) -> bytes:
    return cdb.WRITE_USING_TOKEN.build(list_identifier=NAMED, parameter_list_length=len(data))


def test_there_and_back(device: Clock) -> None:
    made = populate(device, (10, 5), (100, 5))
    data = token.encode_write_using(made, [(0, 3), (50, 7)])
    do_command(device, using(data), data, lun=1, nexus=8)
    expected = content(device, 0, 10, 5) + content(device, 0, 100, 5)
    assert content(device, 1, 0, 3) + content(device, 1, 50, 7) == expected
    got = information(device, lun=1, nexus=8)
    assert (got.fields["copy_operation_status"], got.fields["transfer_count"]) == (copy.Status.COMPLETED, 10)
    assert token.decode_token_descriptors(got.tail) is None


def test_an_offset_and_less_than_was_asked_for(device: Clock) -> None:
    made = populate(device, (10, 5))
    data = token.encode_write_using(made, [(0, 9)], offset=3)
    do_command(device, using(data), data, lun=1)
    assert content(device, 1, 0, 2) == content(device, 0, 13, 2)
    assert content(device, 1, 2, 1)[:2] == bytes([1, 2])
    got = information(device, lun=1)
    assert (got.fields["copy_operation_status"], got.fields["transfer_count"]) == (copy.Status.COMPLETED_RESIDUAL, 2)
    bad = token.encode_write_using(made, [(0, 1)], offset=5)
    do_command_fail(device, using(bad), sense.INVALID_FIELD_IN_PARAMETER_LIST, (8, None), data_out=bad, lun=1)


def test_zeros(device: Clock) -> None:
    data = token.encode_write_using(token.BLOCK_ZERO_TOKEN, [(5, 3)], offset=99)
    do_command(device, using(data), data)
    assert content(device, 0, 5, 3) == bytes(3 * 512)
    assert content(device, 0, 8, 1)[1] == 8


def test_in_the_background(device: Clock) -> None:
    made = populate(device, (10, 5))
    data = token.encode_write_using(made, [(0, 5)], immed=1)
    do_command(device, using(data), data, lun=1)
    while (got := information(device, lun=1)).running:
        pass
    assert got.fields["copy_operation_status"] == copy.Status.COMPLETED
    assert content(device, 1, 0, 5) == content(device, 0, 10, 5)


def test_tokens_that_are_no_good(device: Clock) -> None:
    made = populate(device, (10, 5))

    def fails(raw: bytes, expected: sense.Sense, lun: int = 1) -> None:
        data = token.encode_write_using(raw, [(0, 5)])
        do_command_fail(device, using(data), expected, data_out=data, lun=lun)

    fails(made[:6] + b"\0\0" + made[8:], sense.TOKEN_LENGTH_INVALID)
    fails(RodType.POINT_IN_TIME_DEFAULT.to_bytes(4) + made[4:], sense.TOKEN_TYPE_UNSUPPORTED)
    fails(made[:8] + b"other" + made[13:], sense.REMOTE_TOKEN_USAGE_NOT_SUPPORTED)
    for at in (24, 40, 60, 80):
        fails(made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :], sense.TOKEN_UNKNOWN)
    fails(made[:-1] + b"\1", sense.TOKEN_CORRUPT)
    fails(made, sense.COPY_SEGMENT_GRANULARITY_VIOLATION, lun=2)
    data = token.encode_write_using(made, [(0, 5)], del_tkn=1)
    do_command(device, using(data), data, lun=1)
    fails(made, sense.TOKEN_DELETED)
    revoked = populate(device, (10, 5))
    device.shared(Tokens).revoke(device.units[0])
    fails(revoked, sense.TOKEN_REVOKED)


def test_a_token_lives_as_long_as_it_is_used(device: Clock) -> None:
    made = populate(device, (10, 5), inactivity_timeout=100)
    data = token.encode_write_using(made, [(0, 5)])
    for _ in range(3):
        device.time += 90
        do_command(device, using(data), data, lun=1)
    raw = cdb.REPORT_ALL_ROD_TOKENS.build(allocation_length=1024)
    assert do_command_in(device, raw)[8:] == made[:96]
    device.time += 101
    do_command_fail(device, using(data), sense.TOKEN_EXPIRED, data_out=data, lun=1)
    assert len(do_command_in(device, raw)) == 8


def test_parameter_lists_that_are_wrong(device: Clock) -> None:
    bad = sense.INVALID_FIELD_IN_PARAMETER_LIST

    def fails(data: bytes, expected: sense.Sense, byte: int | None = None) -> None:
        raw = cdb.POPULATE_TOKEN.build(list_identifier=NAMED, parameter_list_length=len(data))
        at = None if byte is None else (byte, None)
        do_command_fail(device, raw, expected, at, data_out=data)

    good = token.encode_populate([(0, 1)])
    for nbytes in range(1, len(good)):
        fails(good[:nbytes], sense.PARAMETER_LIST_LENGTH_ERROR)
    fails(token.encode_populate([]), bad, 0)
    fails(token.encode_populate([(0, 1)] * 65), bad, 14)
    fails(token.encode_populate([(5, 3), (7, 1)]), bad, 32)
    fails(token.encode_populate([(2048, 1)]), sense.LBA_OUT_OF_RANGE)
    fails(token.encode_populate([((1 << 64) - 1, 1)]), sense.LBA_OUT_OF_RANGE)
    fails(token.encode_populate([(0, 1)], inactivity_timeout=601), bad, 4)
    fails(token.encode_populate([(0, 1)], rod_type=RodType.POINT_IN_TIME_DEFAULT), sense.TOKEN_TYPE_UNSUPPORTED)
    do_command(device, cdb.POPULATE_TOKEN.build(list_identifier=NAMED))
    data = token.encode_write_using(populate(device, (0, 1)), [(0, 1)])
    for nbytes in (1, 100, 535, len(data) - 1):
        cut = data[:nbytes]
        do_command_fail(device, using(cut), sense.PARAMETER_LIST_LENGTH_ERROR, data_out=cut)


def test_there_is_room_for_so_many(device: Clock) -> None:
    for _ in range(MAX_TOKENS):
        populate(device, (0, 1))
    data = token.encode_populate([(0, 1)])
    raw = cdb.POPULATE_TOKEN.build(list_identifier=1, parameter_list_length=len(data))
    do_command_fail(device, raw, sense.INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN, data_out=data)
    device.time += 61
    populate(device, (0, 1))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), max_size=6), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_a_part_of_a_token(ranges: list[tuple[int, int]], offset: int, blocks: int) -> None:
    rod = Rod(None, ranges, 1, 0.0)  # type: ignore[arg-type]
    flat = [lba + n for lba, count in ranges for n in range(count)]
    part = [lba + n for lba, count in rod.at(offset, blocks) for n in range(count)]
    assert part == flat[offset : offset + blocks]


def test_a_sanitize_revokes_what_named_its_blocks(device: Clock) -> None:
    made = populate(device, (10, 5))
    for part in device.units[0].parts():
        part.sanitized()
    data = token.encode_write_using(made, [(0, 5)])
    do_command_fail(device, using(data), sense.TOKEN_REVOKED, data_out=data, lun=1)
