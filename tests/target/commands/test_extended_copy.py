# SPDX-License-Identifier: BSD-2-Clause
"""EXTENDED COPY: what is moved, what is refused and how, and what RECEIVE COPY tells of it."""

from collections.abc import Iterator

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in
from hypothesis import given, settings
from hypothesis import strategies as st

from target.commands.table import Conflict
from target.copying import CHUNK_NBYTES, Copies
from target.lu import LogicalUnit
from target.part import Part
from vscsi.scsi import cdb, copy, sense, vpd_copy
from vscsi.scsi.sense import Sense
from vscsi.scsi.status import Status
from vscsi.scsi.vpd_copy import Descriptor


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    made = FakeDevice("0=mem:4M", "1=mem:4M", "2=mem:1M,bs=4096", "3=mem:1M,ro")
    for unit in made.units.values():
        if not unit.readonly:
            fill(unit)
    yield made
    made.close()


def fill(unit: LogicalUnit) -> None:
    size = unit.block_nbytes
    data = b"".join((unit.lun << 24 | n).to_bytes(4) * (size // 4) for n in range(unit.blocks))
    unit.write(memoryview(data), 0)


def content(unit: LogicalUnit, lba: int = 0, blocks: int | None = None) -> bytes:
    buffer = unit.buffer(unit.blocks - lba if blocks is None else blocks)
    unit.read_into(buffer, lba)
    return bytes(buffer)


def cscd(unit: LogicalUnit, **changes: int) -> bytes:
    return copy.encode_cscd(1, 0, 3, unit.naa, changes.get("block_nbytes", unit.block_nbytes))


def lid1(device: FakeDevice, *segments: bytes, luns: tuple[int, ...] = (0, 1), list_id: int = 1) -> bytes:
    return copy.encode_list_lid1(list_id, [cscd(device.units[lun]) for lun in luns], segments)


def command(data: bytes, *, lid4: bool = False) -> bytes:
    row = cdb.EXTENDED_COPY_LID4 if lid4 else cdb.EXTENDED_COPY_LID1
    return row.build(parameter_list_length=len(data))


def fails(device: FakeDevice, data: bytes, expected: Sense, byte: int | None = None, *, lid4: bool = False) -> None:
    before = [content(unit) for unit in device.units.values()]
    got = do_command_fail(device, command(data, lid4=lid4), expected, data_out=data)
    if byte is not None:
        assert got.field_pointer is not None
        assert (got.field_pointer.byte, got.field_pointer.in_cdb) == (byte, False)
    assert [content(unit) for unit in device.units.values()] == before, "nothing may have been written"


def status(device: FakeDevice, list_id: int = 1, nexus: int = 7) -> dict[str, int]:
    raw = cdb.RECEIVE_COPY_STATUS_LID1.build(list_identifier=list_id, allocation_length=64)
    return copy.STATUS_LID1.numbers(do_command_in(device, raw, nexus=nexus))


def test_between_two_units(device: FakeDevice) -> None:
    data = lid1(device, copy.encode_blocks(0, 1, 100, 5, 700), copy.encode_blocks(0, 1, 3, 4000, 0))
    do_command(device, command(data), data)
    assert content(device.units[1], 700, 100) == content(device.units[0], 5, 100)
    assert content(device.units[1], 0, 3) == content(device.units[0], 4000, 3)
    assert content(device.units[1], 3, 4)[:4] == (1 << 24 | 3).to_bytes(4)
    found = status(device)
    assert (found["copy_manager_status"], found["segments_processed"], found["transfer_count"]) == (1, 2, 103 * 512)
    assert device.writes.count(1) >= 2, "the next sync must cover it"
    assert not device.locks


def test_blocks_are_locked_in_one_order_while_they_move(device: FakeDevice) -> None:
    data = lid1(device, copy.encode_blocks(1, 0, 8, 16, 32))
    do_command(device, command(data), data)
    assert device.lock_log == [(0, 32, 8), (1, 16, 8)]


@pytest.mark.parametrize(("source", "destination"), [(0, 1), (1, 0), (0, 3000), (3000, 100)])
def test_within_one_unit_as_if_everything_were_read_first(device: FakeDevice, source: int, destination: int) -> None:
    unit, blocks = device.units[0], CHUNK_NBYTES // 512 + 700
    before = content(unit, source, blocks)
    data = lid1(device, copy.encode_blocks(0, 0, blocks, source, destination))
    do_command(device, command(data), data)
    assert content(unit, destination, blocks) == before


def test_this_unit_needs_no_descriptor(device: FakeDevice) -> None:
    this = copy.CSCD_ID_THIS_UNIT
    data = lid1(device, copy.encode_blocks(this, 0, 2, 1, 9), luns=(1,))
    do_command(device, command(data), data)
    assert content(device.units[1], 9, 2) == content(device.units[0], 1, 2)


def test_blocks_of_different_length(device: FakeDevice) -> None:
    data = lid1(device, copy.encode_blocks(0, 1, 16, 0, 3), luns=(0, 2))
    do_command(device, command(data), data)
    assert content(device.units[2], 3, 2) == content(device.units[0], 0, 16)
    data = lid1(device, copy.encode_blocks(0, 1, 2, 8, 3, dc=True), luns=(0, 2), list_id=2)
    do_command(device, command(data), data)
    assert content(device.units[2], 3, 2) == content(device.units[0], 8, 16)
    fails(device, lid1(device, copy.encode_blocks(0, 1, 7, 0, 0), luns=(0, 2)), sense.THIRD_PARTY_DEVICE_FAILURE)


def test_lid4(device: FakeDevice) -> None:
    cscds = [cscd(device.units[0]), cscd(device.units[1])]
    for immed in (False, True):
        data = copy.encode_list_lid4(0x12345678, cscds, [copy.encode_blocks(0, 1, 9, 0, 40)], immed=immed)
        do_command(device, command(data, lid4=True), data)
        operation = device.units[0].part(Copies).find(7, 0x12345678, frozenset((1,)))
        assert operation is not None
        assert operation.finished.wait(10)
        raw = cdb.RECEIVE_COPY_STATUS_LID4.build(list_identifier=0x12345678, allocation_length=255)
        got = copy.decode_status_lid4(do_command_in(device, raw))
        assert (got.fields["copy_operation_status"], got.fields["transfer_count"], got.sense) == (1, 9 * 512, b"")
    assert content(device.units[1], 40, 9) == content(device.units[0], 0, 9)
    for name, value in (("parameter_list_format", 2), ("header_cscd_descriptor_type_code", 0)):
        bad = bytearray(data)
        copy.LIST_LID4.put(bad, {name: value})
        fails(device, bytes(bad), sense.INVALID_FIELD_IN_PARAMETER_LIST, copy.LIST_LID4.fields[name].byte, lid4=True)


def test_nothing_to_do(device: FakeDevice) -> None:
    do_command(device, cdb.EXTENDED_COPY_LID1.build())
    data = lid1(device, copy.encode_blocks(0, 1, 0, 0, 0))
    do_command(device, command(data), data)
    data = lid1(device)
    do_command(device, command(data), data)
    assert status(device)["segments_processed"] == 0


# ---- what is refused ----


def test_lists_that_are_wrong(device: FakeDevice) -> None:
    good = lid1(device, copy.encode_blocks(0, 1, 1, 0, 0))
    for nbytes in range(1, len(good)):
        fails(device, good[:nbytes], sense.PARAMETER_LIST_LENGTH_ERROR)
    segment = copy.encode_blocks(0, 1, 1, 0, 0)
    fails(device, lid1(device, luns=(0,) * 17), sense.TOO_MANY_TARGET_DESCRIPTORS)
    fails(device, lid1(device, *[segment] * 17), sense.TOO_MANY_SEGMENT_DESCRIPTORS)
    fails(device, lid1(device, *[segment] * 17, luns=(0,) * 60), sense.PARAMETER_LIST_LENGTH_ERROR)
    start = 16 + 64
    fails(device, good[:16] + b"\xe0" + good[17:], sense.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE, 16)
    fails(device, good[:start] + b"\x01" + good[start + 1 :], sense.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE, start)
    fails(device, good[: start + 3] + b"\x10" + good[start + 4 :], sense.INVALID_FIELD_IN_PARAMETER_LIST, start + 2)
    fails(device, good[:23] + b"\x15" + good[24:], sense.INVALID_FIELD_IN_PARAMETER_LIST, 23)
    inline = good[:12] + (4).to_bytes(4) + good[16:] + bytes(4)
    fails(device, inline, sense.INLINE_DATA_LENGTH_EXCEEDED)
    fails(device, good[:1] + b"\x08" + good[2:], sense.INVALID_FIELD_IN_PARAMETER_LIST, 1)
    fails(device, good[:1] + b"\x18" + good[2:], sense.INVALID_FIELD_IN_PARAMETER_LIST, 0)
    wrong = copy.encode_list_lid1(1, [cscd(device.units[0], block_nbytes=4096)], [])
    fails(device, wrong, sense.INVALID_FIELD_IN_PARAMETER_LIST, 16 + 29)


class Obstacle(Part):
    """A unit on which something else is going on."""

    def obstacle(self) -> sense.CheckCondition:
        return sense.NOT_READY_FORMAT_IN_PROGRESS.error()


class Fence(Part):
    """A reservation: nexus 7 may not do this."""

    conflict = Conflict.NONE

    def denies(self, nexus: int, conflict: Conflict) -> bool:
        return nexus == 7 and bool(conflict & self.conflict)


def test_what_the_copy_manager_meets(device: FakeDevice) -> None:
    far = device.units[0].blocks
    unreachable = sense.COPY_TARGET_DEVICE_NOT_REACHABLE
    fails(device, lid1(device, copy.encode_blocks(0, 2, 1, 0, 0)), unreachable)
    fails(device, lid1(device, copy.encode_blocks(0, 1, 1, far, 0)), unreachable)
    fails(device, lid1(device, copy.encode_blocks(0, 1, 2, 0, far - 1)), unreachable)
    fails(device, lid1(device, copy.encode_blocks(0, 1, 1, (1 << 64) - 1, 0)), unreachable)
    stranger = copy.encode_list_lid1(1, [copy.encode_cscd(1, 0, 3, bytes(16))], [copy.encode_blocks(0, 0, 1, 0, 0)])
    fails(device, stranger, unreachable)
    failure = sense.THIRD_PARTY_DEVICE_FAILURE
    fails(device, lid1(device, copy.encode_blocks(0, 1, 1, 0, 0), luns=(0, 3)), failure)
    device.units[1].software_write_protected = True
    fails(device, lid1(device, copy.encode_blocks(0, 1, 1, 0, 0)), failure)
    device.units[1].software_write_protected = False
    device.units[1].part(Fence).conflict = Conflict.WRITE
    fails(device, lid1(device, copy.encode_blocks(0, 1, 1, 0, 0)), failure)
    data = lid1(device, copy.encode_blocks(1, 0, 1, 0, 0), list_id=9)
    do_command(device, command(data), data)
    device.units[1].part(Fence).conflict = Conflict.READ
    fails(device, data, failure)
    do_command(device, command(data), data, nexus=8)
    device.units[1].part(Obstacle)
    fails(device, lid1(device, copy.encode_blocks(1, 0, 1, 0, 0)), failure)


def test_a_failure_names_its_segment_and_can_be_asked_for(device: FakeDevice) -> None:
    far = device.units[0].blocks
    data = lid1(device, copy.encode_blocks(0, 1, 4, 0, 0), copy.encode_blocks(0, 1, 1, far, 0))
    got = do_command_fail(device, command(data), sense.COPY_TARGET_DEVICE_NOT_REACHABLE, data_out=data)
    assert got.command_specific == 1 << 16
    assert content(device.units[1], 0, 4) == content(device.units[0], 0, 4), "what came before stays"
    found = status(device)
    assert (found["copy_manager_status"], found["segments_processed"]) == (2, 1)
    raw = cdb.RECEIVE_COPY_FAILURE_DETAILS_LID1.build(list_identifier=1, allocation_length=255)
    details = do_command_in(device, raw)
    assert copy.FAILURE_DETAILS.numbers(details)["extended_copy_command_status"] == Status.CHECK_CONDITION
    assert sense.decode(details[60:]).matches(sense.COPY_TARGET_DEVICE_NOT_REACHABLE)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (2, None))


def test_identifiers_belong_to_their_nexus(device: FakeDevice) -> None:
    data = lid1(device, copy.encode_blocks(0, 1, 1, 0, 0))
    do_command(device, command(data), data)
    assert status(device)["copy_manager_status"] == 1
    raw = cdb.RECEIVE_COPY_STATUS_LID1.build(list_identifier=1, allocation_length=64)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (2, None), nexus=8)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (2, None), lun=1)
    device.units[0].reset()
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (2, None))


def test_an_identifier_in_use(device: FakeDevice) -> None:
    operation = device.units[0].part(Copies).begin(7, 1, 0)
    data = lid1(device, copy.encode_blocks(0, 1, 1, 0, 0))
    do_command_fail(device, command(data), sense.OPERATION_IN_PROGRESS, data_out=data)
    assert status(device)["copy_manager_status"] == 0
    operation.end(copy.Status.COMPLETED)
    do_command(device, command(data), data)


def test_results_that_nobody_fetches_are_bounded(device: FakeDevice) -> None:
    for n in range(200):
        data = lid1(device, list_id=n % 255)
        do_command(device, command(data), data, nexus=n)
    assert len(device.units[0].part(Copies)._operations) <= 64


def test_an_abort_stops_it(device: FakeDevice) -> None:
    data = lid1(device, *[copy.encode_blocks(0, 1, 8, 0, 8 * n) for n in range(8)])
    port = FakePort(data, abort_after=6)
    assert device.run(command(data), port).status is Status.TASK_ABORTED
    assert 0 < status(device)["segments_processed"] < 8
    assert not device.locks
    raw = cdb.COPY_OPERATION_ABORT.build(list_identifier=77)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (2, None))


def test_a_destination_without_a_cache_is_durable_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice("0=mem:1M", "1=mem:1M,cache=wt")
    calls: list[int] = []
    monkeypatch.setattr(device.units[1].store, "flush", lambda: calls.append(1))
    data = lid1(device, copy.encode_blocks(0, 1, 1, 0, 0))
    do_command(device, command(data), data)
    assert calls == [1]
    device.sync_failures.add(1)
    do_command_fail(device, command(data), sense.THIRD_PARTY_DEVICE_FAILURE, data_out=data)
    device.close()


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 60), st.integers(0, 70), st.integers(0, 70)),
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_list_of_segments_against_a_model(segments: list[tuple[int, int, int, int, int]]) -> None:
    device = FakeDevice("0=mem:32k", "1=mem:32k")
    try:
        for unit in device.units.values():
            fill(unit)
        model = [bytearray(content(unit)) for unit in device.units.values()]
        failed = False
        for source, destination, blocks, a, b in segments:
            if a + blocks > 64 or b + blocks > 64:
                failed = True
                break
            model[destination][b * 512 : (b + blocks) * 512] = model[source][a * 512 : (a + blocks) * 512]
        data = lid1(device, *[copy.encode_blocks(s, d, n, a, b) for s, d, n, a, b in segments])
        result = device.run(command(data), FakePort(data))
        assert (result.status is Status.CHECK_CONDITION) == failed
        assert [content(unit) for unit in device.units.values()] == [bytes(one) for one in model]
    finally:
        device.close()


def test_what_it_can_do_is_what_the_page_says(device: FakeDevice) -> None:
    raw = cdb.INQUIRY.build(evpd=1, page_code=0x8F, allocation_length=0xFFFF)
    found = dict(vpd_copy.decode(do_command_in(device, raw)))
    assert list(found) == sorted(found) == sorted(Descriptor)
    raw = cdb.RECEIVE_COPY_OPERATING_PARAMETERS.build(allocation_length=255)
    data = do_command_in(device, raw)
    limits = copy.OPERATING_PARAMETERS.numbers(data)
    page = vpd_copy.PARAMETER_DATA.numbers(found[Descriptor.PARAMETER_DATA])
    for name in ("maximum_cscd_descriptor_count", "maximum_segment_descriptor_count", "maximum_descriptor_list_length"):
        assert limits[name] == page[name]
    assert limits["available_data"] == len(data) - 4
    assert data[44:] == b"\x02\xe4"
    assert limits["maximum_descriptor_list_length"] >= 32 * 17 + 28 * 17 + 16
    assert found[Descriptor.SUPPORTED_COMMANDS][4:].hex(" ") == "0f 83 05 00 01 10 11 1c 84 06 00 03 04 05 07 08"
