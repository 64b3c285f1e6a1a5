# SPDX-License-Identifier: BSD-2-Clause
"""Encoders and decoders of INQUIRY data, VPD and mode pages and parameter data; any bytes may come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.scsi import cdb, inquiry, mode, parameters, vpd
from vscsi.scsi.fields import Field, Layout, be8, be32, bit, bits, text
from vscsi.scsi.lun import WLUN_REPORT_LUNS

# ---- fields ----


def test_fields() -> None:
    layout = Layout(8, a=bit(0, 7), b=bits(0, 6, 2), c=be32(1), name=text(5, 3))
    data = layout.build(a=1, b=5, c=0x01020304, name="xy")
    assert data.hex() == "94010203047879" + "20"
    assert layout.decode(data) == {"a": 1, "b": 5, "c": 0x01020304, "name": "xy"}
    assert layout.numbers(data[:3]) == {"a": 1, "b": 5}
    assert layout.usage().hex() == "fcffffffffffffff"
    assert layout.build()[5:] == b"   "


def test_fields_refuse_what_does_not_fit() -> None:
    layout = Layout(4, a=bits(0, 3, 0), name=text(1, 3))
    with pytest.raises(ValueError, match="a=16 does not fit in 4 bits"):
        layout.build(a=16)
    with pytest.raises(ValueError, match="longer than 3"):
        layout.build(name="abcd")
    with pytest.raises(TypeError, match="a is a number"):
        layout.build(a="1")
    with pytest.raises(TypeError, match="no field 'b'"):
        layout.build(b=1)


def test_field_pointers() -> None:
    assert bit(3, 5).pointer == (3, 5)
    assert bits(2, 5, 0).pointer == (2, 5)
    assert be8(4).pointer == (4, None)
    assert be32(2).pointer == (2, None)
    assert Field(1, 3, 0, 21).pointer == (1, 4)


def test_text_that_is_not_ascii() -> None:
    layout = Layout(4, name=text(0, 4))
    assert layout.texts(b"a\xff\x00 ") == {"name": "a?"}
    assert layout.build(name="aü") == b"a?  "


# ---- every page both ways ----

vpd_pages = [page for page in vpd.PAGES.values() if page.layout]


@pytest.mark.parametrize("page", vpd_pages, ids=lambda page: page.abbreviation)
@given(data=st.data())
def test_vpd_pages_both_ways(page: vpd.Page, data: st.DataObject) -> None:
    assert page.layout is not None
    values = {name: data.draw(st.integers(0, field.mask)) for name, field in page.layout.fields.items()}
    raw = page.build(0x05, **values)
    assert raw[:2] == bytes([5, page.code])
    assert int.from_bytes(raw[2:4]) == len(raw) - 4
    assert page.decode(raw) == values


def test_vpd_names() -> None:
    assert vpd.find("BL") is vpd.BLOCK_LIMITS
    assert vpd.find("nonsense") is None
    assert vpd.PAGES[0x83] is vpd.IDENTIFICATION
    with pytest.raises(TypeError, match="no fixed layout"):
        vpd.SERIAL_NUMBER.build()


@pytest.mark.parametrize("page", mode.PAGES.values(), ids=lambda page: page.name)
@given(data=st.data())
def test_mode_pages_both_ways(page: mode.Page, data: st.DataObject) -> None:
    values = {name: data.draw(st.integers(0, field.mask)) for name, field in page.layout.fields.items()}
    raw = page.build(**values)
    assert list(mode.pages_of(raw)) == [(page.code, page.subpage, raw)]
    assert page.layout.decode(raw) == values


def test_mode_page_headers() -> None:
    assert mode.CACHING.build()[:2].hex() == "0812"
    assert mode.CONTROL.build()[:2].hex() == "0a0a"
    assert mode.CONTROL_EXTENSION.build()[:4].hex() == "4a01001c"


def test_naa() -> None:
    assert vpd.naa_6(0x025653, 0x123456789, 0xAABBCCDDEEFF0011).hex() == "6025653123456789aabbccddeeff0011"


# ---- parameter data ----


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)), max_size=40))
def test_unmap_lists_both_ways(extents: list[tuple[int, int]]) -> None:
    raw = parameters.encode_unmap(extents)
    assert int.from_bytes(raw[:2]) == len(raw) - 2
    assert int.from_bytes(raw[2:4]) == len(raw) - 8
    assert parameters.decode_unmap(raw) == extents


@given(st.lists(st.integers(0, 16383)))
def test_lun_lists_both_ways(luns: list[int]) -> None:
    assert parameters.decode_luns(parameters.encode_luns([*luns, WLUN_REPORT_LUNS])) == [*luns, WLUN_REPORT_LUNS]


def test_operation_codes_both_ways() -> None:
    timeouts = parameters.encode_timeouts(1, 30)
    body = parameters.encode_opcode(cdb.READ_10) + parameters.encode_opcode(cdb.READ_CAPACITY_16, timeouts)
    assert body[:8].hex() == "280000000000000a"
    assert body[8:16].hex() == "9e00001000030010"
    found = parameters.decode_opcodes(len(body).to_bytes(4) + body)
    assert [(c.opcode, c.service_action, c.cdb_nbytes, c.timeouts) for c in found] == [
        (0x28, None, 10, None),
        (0x9E, 0x10, 16, (1, 30)),
    ]


# ---- whatever bytes come ----


@given(st.binary(max_size=300))
def test_any_bytes_may_come(raw: bytes) -> None:
    assert isinstance(inquiry.decode(raw), dict)
    assert isinstance(vpd.decode_serial(raw), str)
    for designator in vpd.decode_identification(raw):
        assert len(designator.value) <= 255
    for page in vpd.PAGES.values():
        assert isinstance(page.decode(raw), dict)
    for ten in (False, True):
        _, _, pages = mode.split(raw, ten=ten)
        assert sum(len(page) for _, _, page in mode.pages_of(pages)) <= len(raw)
    assert len(parameters.decode_luns(raw)) <= len(raw) // 8
    assert len(parameters.decode_unmap(raw)) <= len(raw) // 16
    assert len(parameters.decode_opcodes(raw)) <= len(raw) // 8
