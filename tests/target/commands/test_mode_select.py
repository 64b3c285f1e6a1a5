# SPDX-License-Identifier: BSD-2-Clause
"""MODE SELECT: values obeyed, each wrong bit pointed at, and then nothing has changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, FakePort, do_command, do_command_fail, do_command_in
from hypothesis import given, settings
from hypothesis import strategies as st
from mode_pages import HEADER, changed, everything, own, page, select, select_cdb, set_fields

from target.modes import PAGES
from vscsi.scsi import cdb, mode, sense
from vscsi.scsi.fields import Field
from vscsi.scsi.status import Status

CHANGED = 0x2A01
ISSUER, OTHER = 7, 8
KEYS = [(1, 0), (8, 0), (0x0A, 0), (0x0A, 1), (0x1C, 0)]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[FakeDevice]:
    made = FakeDevice("0=mem:1M", "1=mem:1M,ro", state=tmp_path)
    made.connect(ISSUER)
    made.connect(OTHER)
    yield made
    made.close()


# ---- what is changed is obeyed ----


@pytest.mark.parametrize("ten", [False, True])
def test_write_cache(device: FakeDevice, ten: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    unit, order = device.units[0], []
    monkeypatch.setattr(unit.store, "flush", lambda: order.append(("flush", unit.write_cache, len(device.refreshed))))
    data = changed(page(device, (8, 0)), mode.CACHING, wce=0)
    select(device, data, ten=ten)
    assert order == [("flush", False, 1)], "what was cached is flushed, after new writes have become durable ones"
    assert page(device, (8, 0))[2] == 0
    assert page(device, (8, 0), pc=2)[2] == page(device, (8, 0), pc=3)[2] == 4
    select(device, changed(data, mode.CACHING, wce=1), ten=ten)
    assert unit.write_cache
    assert len(order) == 1


def test_writes_are_durable_once_the_cache_is_off(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    set_fields(device, mode.CACHING, wce=0)
    flushes: list[int] = []
    monkeypatch.setattr(device.units[0].store, "flush", lambda: flushes.append(1))
    do_command(device, cdb.WRITE_10.build(lba=0, transfer_length=1), bytes(512))
    assert flushes == [1]
    set_fields(device, mode.CACHING, wce=1)
    do_command(device, cdb.WRITE_10.build(lba=0, transfer_length=1), bytes(512))
    assert flushes == [1]


def test_a_cache_that_cannot_be_flushed_stays_on(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError(5, "no")

    monkeypatch.setattr(device.units[0].store, "flush", broken)
    data = bytes(4) + changed(page(device, (8, 0)), mode.CACHING, wce=0)
    do_command_fail(device, select_cdb(len(data)), sense.WRITE_ERROR, data_out=data)
    assert page(device, (8, 0))[2] == 4
    assert device.units[0].write_cache
    assert not device.attentions.get((OTHER, 0))


def test_descriptor_sense(device: FakeDevice) -> None:
    bad = cdb.INQUIRY.build(page_code=1)
    assert device.run(bad).sense[0] == 0x70
    set_fields(device, mode.CONTROL, d_sense=1)
    assert device.run(bad).sense[0] == 0x72
    assert device.units[0].native_config().flags & 2
    data = do_command_in(device, cdb.REQUEST_SENSE.build(allocation_length=252))
    assert data[0] == 0x70, "the format of REQUEST SENSE follows its own bit"
    set_fields(device, mode.CONTROL, d_sense=0)
    assert device.run(bad).sense[0] == 0x70


def test_software_write_protection(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes: list[int] = []
    monkeypatch.setattr(device.units[0].store, "flush", lambda: flushes.append(1))
    write = cdb.WRITE_10.build(lba=1, transfer_length=1)
    do_command(device, write, b"a" * 512)
    set_fields(device, mode.CONTROL, swp=1)
    assert flushes == [1], "what is cached reaches the medium first"
    for raw, data in (
        (write, bytes(512)),
        (cdb.WRITE_SAME_16.build(ndob=1, number_of_logical_blocks=1), b""),
        (cdb.UNMAP.build(), b""),
    ):
        do_command_fail(device, raw, sense.LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED, data_out=data)
    assert device.units[0].native_config().write_protect == 0x072702
    for ten in (False, True):
        row = cdb.MODE_SENSE_10 if ten else cdb.MODE_SENSE_6
        data = do_command_in(device, row.build(page_code=0x3F, allocation_length=255))
        assert data[3 if ten else 2] == 0x90
    assert do_command_in(device, cdb.READ_10.build(lba=1, transfer_length=1)) == b"a" * 512
    set_fields(device, mode.CONTROL, swp=0)
    do_command(device, write, bytes(512))


def test_a_read_only_unit_stays_read_only(device: FakeDevice) -> None:
    for swp in (1, 0):
        set_fields(device, mode.CONTROL, unit=1, swp=swp)
        do_command_fail(
            device, cdb.WRITE_10.build(transfer_length=1), sense.WRITE_PROTECTED, data_out=bytes(512), lun=1
        )
        assert device.units[1].native_config().write_protect == 0x072700


ABSENT = {
    "tst": range(2, 8),
    "queue_algorithm_modifier": range(2, 16),
    "qerr": (2,),
    "ua_intlck_ctrl": (1,),
}
"""Values that the control mode page's fields cannot have."""


def test_changeable_values_are_those_that_can_be_changed(device: FakeDevice) -> None:
    """Every bit of every page, one at a time: it is taken exactly if MODE SENSE says so; else it is pointed at."""
    for key in KEYS:
        current, mask = page(device, key), page(device, key, pc=1)
        layout = mode.PAGES[key].layout
        head = 4 if key[1] else 2
        for place in range(head * 8, len(current) * 8):
            byte, bit = place // 8, 7 - place % 8
            new = bytearray(current)
            new[byte] ^= 1 << bit
            data = bytes(4) + bytes(new)
            name, where = changed_field(layout, byte, bit)
            if name in ABSENT and layout.fields[name].get(new) in ABSENT[name]:
                refused = sense.INVALID_FIELD_IN_PARAMETER_LIST
                do_command_fail(device, select_cdb(len(data)), refused, where, data_out=data)
                continue
            if mask[byte] >> bit & 1:
                do_command(device, select_cdb(len(data)), data)
                assert page(device, key) == bytes(new)
                select(device, current)
                continue
            do_command_fail(device, select_cdb(len(data)), sense.INVALID_FIELD_IN_PARAMETER_LIST, where, data_out=data)
            assert page(device, key) == current


def changed_field(layout, byte: int, bit: int) -> tuple[str, tuple[int, int | None]]:
    """Its name and what sense data points at."""
    name = next((n for n, f in layout.fields.items() if layout_covers(f, byte, bit)), "")
    at = layout.fields[name].pointer if name else (byte, bit)
    return name, (4 + at[0], at[1])


def layout_covers(field: Field, byte: int, bit: int) -> bool:
    whole = field.mask << field.shift
    return field.byte <= byte < field.end and bool(whole >> 8 * (field.end - 1 - byte) >> bit & 1)


def test_no_unit_attention_on_release(device: FakeDevice) -> None:
    key, kind = bytes(8) + bytes(7) + b"k" + bytes(8), 5
    for nexus in (ISSUER, OTHER):
        raw = cdb.PERSISTENT_RESERVE_OUT_REGISTER_AND_IGNORE_EXISTING_KEY.build(parameter_list_length=24)
        do_command(device, raw, key, nexus=nexus)
    key = key[8:16] + bytes(16)
    for nuar, told in ((0, [0x2A04]), (1, [])):
        set_fields(device, mode.CONTROL, nuar=nuar)
        device.attentions.clear()
        for row in (cdb.PERSISTENT_RESERVE_OUT_RESERVE, cdb.PERSISTENT_RESERVE_OUT_RELEASE):
            do_command(device, row.build(type=kind, parameter_list_length=24), key)
        assert device.attentions.get((OTHER, 0), []) == told


# ---- who is told ----


def test_others_are_told_of_a_change_and_only_then(device: FakeDevice) -> None:
    select(device, page(device, (0x0A, 0)))
    assert not device.attentions.get((OTHER, 0))
    set_fields(device, mode.CONTROL, d_sense=1)
    assert device.attentions[OTHER, 0] == [CHANGED]
    assert not device.attentions.get((ISSUER, 0))
    assert not device.attentions.get((OTHER, 1)), "another unit has its own pages"


# ---- the list ----


def test_several_pages_or_none(device: FakeDevice) -> None:
    good = changed(page(device, (0x0A, 0)), mode.CONTROL, d_sense=1)
    bad = changed(page(device, (8, 0)), mode.CACHING, rcd=1)
    before = everything(device)
    data = bytes(4) + good + bad
    raw = select_cdb(len(data))
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_PARAMETER_LIST, (4 + 12 + 2, 0), data_out=data)
    assert everything(device) == before
    assert not device.attentions.get((OTHER, 0))
    select(device, good, changed(page(device, (8, 0)), mode.CACHING, wce=0))
    assert (own(device).field(mode.CONTROL, "d_sense"), own(device).field(mode.CACHING, "wce")) == (1, 0)


def test_subpages(device: FakeDevice) -> None:
    data = page(device, (0x0A, 1))
    assert data[:4].hex() == "ca01001c"
    select(device, data, ten=True)
    select(device, page(device, (0x3F, 0xFF)), ten=True)


def test_all_that_mode_sense_returns_can_be_sent_back(device: FakeDevice) -> None:
    """sdparm and Linux do: PS, WP, DPOFUA and the length stand in it."""
    for ten in (False, True):
        row = cdb.MODE_SENSE_10 if ten else cdb.MODE_SENSE_6
        for extra in ({}, {"dbd": 1}, {"llbaa": 1}):
            if "llbaa" in extra and not ten:
                continue
            data = do_command_in(device, row.build(page_code=0x3F, subpage_code=0xFF, allocation_length=255, **extra))
            do_command(device, select_cdb(len(data), ten=ten), data)


def test_block_descriptors(device: FakeDevice) -> None:
    invalid = sense.INVALID_FIELD_IN_PARAMETER_LIST
    control = page(device, (0x0A, 0))

    def short(blocks: int, nbytes: int) -> bytes:
        descriptor = mode.SHORT_DESCRIPTOR.build(number_of_logical_blocks=blocks, logical_block_length=nbytes)
        return mode.HEADER_6.build(block_descriptor_length=8) + descriptor + control

    def long(blocks: int, nbytes: int) -> bytes:
        descriptor = mode.LONG_DESCRIPTOR.build(number_of_logical_blocks=blocks, logical_block_length=nbytes)
        return mode.HEADER_10.build(longlba=1, block_descriptor_length=16) + descriptor + control

    for blocks in (2048, 0, 0xFFFFFFFF):
        data = short(blocks, 512)
        do_command(device, select_cdb(len(data)), data)
    for blocks in (2048, 0, (1 << 64) - 1):
        data = long(blocks, 512)
        do_command(device, select_cdb(len(data), ten=True), data)
    for data, at in ((short(2047, 512), 4), (short(0, 4096), 9), (short(2048, 0), 9)):
        do_command_fail(device, select_cdb(len(data)), invalid, (at, None), data_out=data)
    for data, at in ((long(2049, 512), 8), (long(2048, 520), 20)):
        do_command_fail(device, select_cdb(len(data), ten=True), invalid, (at, None), data_out=data)
    for nbytes in (1, 7, 16, 255):
        data = mode.HEADER_6.build(block_descriptor_length=nbytes) + bytes(255)
        do_command_fail(device, select_cdb(255), invalid, (3, None), data_out=data)


def test_headers(device: FakeDevice) -> None:
    data = mode.HEADER_6.build(medium_type=1)
    do_command_fail(device, select_cdb(4), sense.INVALID_FIELD_IN_PARAMETER_LIST, (1, None), data_out=data)
    data = mode.HEADER_10.build(medium_type=1)
    raw = select_cdb(8, ten=True)
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_PARAMETER_LIST, (2, None), data_out=data)
    data = mode.HEADER_6.build(mode_data_length=99, wp=1, dpofua=0)
    do_command(device, select_cdb(4), data)


@pytest.mark.parametrize(
    ("sent", "at"),
    [
        (bytes([0x02, 14]) + bytes(14), (4, 5)),  # there is no such page
        (bytes([0x3F, 0]), (4, 5)),
        (bytes([0x4A, 0x05, 0, 12]) + bytes(12), (5, None)),  # no such subpage
        (bytes([0x4A, 0x00, 0, 8]) + bytes(8), (4, 6)),  # page 0Ah has no long format
        (bytes([0x0A, 8]) + bytes(8), (5, None)),  # wrong length
        (bytes([0x0A, 255]) + bytes(255), (5, None)),
        (bytes([0x4A, 0x01, 0, 0x1B]) + bytes(27), (6, None)),
    ],
)
def test_pages_that_are_none(device: FakeDevice, sent: bytes, at: tuple[int, int | None]) -> None:
    data = bytes(4) + sent
    raw = cdb.MODE_SELECT_6.build(pf=1, parameter_list_length=min(255, len(data)))
    do_command_fail(device, raw, sense.INVALID_FIELD_IN_PARAMETER_LIST, at, data_out=data)


@pytest.mark.parametrize("ten", [False, True])
def test_a_list_cut_anywhere_changes_nothing(device: FakeDevice, ten: bool) -> None:
    pages = [
        changed(page(device, (8, 0)), mode.CACHING, wce=0),
        changed(page(device, (0x0A, 0)), mode.CONTROL, d_sense=1, swp=1),
        page(device, (0x0A, 1)),
    ]
    data = bytes(HEADER[ten]) + b"".join(pages)
    whole = {0, HEADER[ten]}
    for one in pages:
        whole.add(max(whole) + len(one))
    before = everything(device)
    for nbytes in range(len(data)):
        raw = select_cdb(nbytes, ten=ten)
        if nbytes in whole:  # it ends behind a page: complete as far as it goes
            continue
        do_command_fail(device, raw, sense.PARAMETER_LIST_LENGTH_ERROR, data_out=data[:nbytes])
        assert everything(device) == before
    do_command_fail(device, select_cdb(len(data), ten=ten), sense.PARAMETER_LIST_LENGTH_ERROR, data_out=data[:-1])
    assert everything(device) == before
    do_command(device, select_cdb(0, ten=ten))
    assert everything(device) == before


def test_pf(device: FakeDevice) -> None:
    data = bytes(4) + page(device, (8, 0))
    do_command_fail(device, select_cdb(len(data), pf=0), sense.INVALID_FIELD_IN_CDB, (1, 4), data_out=data)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80), ten=st.booleans(), sp=st.integers(0, 1))
def test_any_list_is_taken_or_refused_and_the_pages_stay_pages(data: bytes, ten: bool, sp: int) -> None:
    device = FakeDevice("0=mem:64k")
    result = device.run(select_cdb(len(data), ten=ten, sp=sp), FakePort(data))
    if result.status is not Status.GOOD:
        got = sense.decode(result.sense)
        assert got.matches(sense.INVALID_FIELD_IN_PARAMETER_LIST) or got.matches(sense.PARAMETER_LIST_LENGTH_ERROR)
    for key in KEYS:
        current, default, mask = (page(device, key, pc) for pc in (0, 2, 1))
        assert len(current) == len(default)
        assert all((new ^ old) & ~m == 0 for new, old, m in zip(current, default, mask, strict=True))


def test_every_page_is_a_row() -> None:
    assert {row.page.key for row in PAGES.values()} == set(PAGES)
    for row in PAGES.values():
        assert set(row.changeable) <= set(row.page.layout.fields)
