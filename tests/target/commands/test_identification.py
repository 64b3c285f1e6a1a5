# SPDX-License-Identifier: BSD-2-Clause
"""Identifying information: kept as long as the blocks, told to the others, bounded."""

from pathlib import Path

import pytest
from fake_device import FakeDevice, do_command, do_command_fail, do_command_in

from vscsi.scsi import cdb, sense

ISSUER, OTHER = 7, 8
CHANGED = 0x3F05


def report(device: FakeDevice, kind: int = 0) -> bytes:
    raw = cdb.REPORT_IDENTIFYING_INFORMATION.build(identifying_information_type=kind, allocation_length=4096)
    return do_command_in(device, raw)


def set_cdb(nbytes: int, kind: int = 0) -> bytes:
    return cdb.SET_IDENTIFYING_INFORMATION.build(identifying_information_type=kind, parameter_list_length=nbytes)


def test_types(tmp_path: Path) -> None:
    device = FakeDevice("0=mem:1M", state=tmp_path)
    assert report(device, 0x7F).hex(" ") == "00 00 00 08 00 00 02 00 02 00 01 00"
    assert report(device, 0) == report(device, 2) == bytes(4)
    for kind in set(range(0x80)) - {0, 2, 0x7F}:
        raw = cdb.REPORT_IDENTIFYING_INFORMATION.build(identifying_information_type=kind, allocation_length=64)
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (10, None))
    for kind in (1, 0x7F):
        do_command_fail(device, set_cdb(1, kind), sense.INVALID_FIELD_IN_CDB, (10, None), data_out=b"x")


def test_it_is_kept_and_told(tmp_path: Path) -> None:
    device = FakeDevice("0=mem:1M", state=tmp_path)
    device.connect(ISSUER)
    device.connect(OTHER)
    do_command(device, set_cdb(5), b"rack7")
    do_command(device, set_cdb(7, 2), "münch\0".encode())
    assert device.attentions[OTHER, 0] == [CHANGED]
    assert not device.attentions.get((ISSUER, 0))
    device.attentions.clear()
    do_command(device, set_cdb(5), b"rack7")
    assert not device.attentions.get((OTHER, 0)), "nothing has changed"
    device.units[0].reset()
    again = FakeDevice("0=mem:1M", state=tmp_path)
    assert report(again) == b"\0\0\0\5rack7"
    assert report(again, 2)[4:] == "münch\0".encode()
    do_command(again, set_cdb(0))
    assert report(again) == bytes(4)


def test_limits() -> None:
    device = FakeDevice()
    do_command(device, set_cdb(512), b"a" * 512)
    do_command_fail(device, set_cdb(513), sense.INVALID_FIELD_IN_CDB, (6, None), data_out=b"b" * 513)
    do_command_fail(device, set_cdb(257, 2), sense.INVALID_FIELD_IN_CDB, (6, None), data_out=b"b" * 256 + b"\0")
    do_command_fail(device, set_cdb(512), sense.PARAMETER_LIST_LENGTH_ERROR, data_out=b"b" * 511)
    assert report(device) == b"\0\0\2\0" + b"a" * 512


@pytest.mark.parametrize(("text", "at"), [(b"ab\xff\0", 2), (b"a\0b\0", 1), (b"abc", 2), (b"ab\xc3", 2)])
def test_text_is_utf_8_with_a_zero_at_its_end(text: bytes, at: int) -> None:
    device = FakeDevice()
    do_command_fail(device, set_cdb(len(text), 2), sense.INVALID_FIELD_IN_PARAMETER_LIST, (at, None), data_out=text)
    assert report(device, 2) == bytes(4)


def test_what_cannot_be_kept_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(device.units[0].state, "save", full)
    do_command_fail(device, set_cdb(1), sense.INTERNAL_TARGET_FAILURE, data_out=b"x")
    assert report(device) == bytes(4)


@pytest.mark.parametrize("document", [{"0": 5}, {"x": "00"}, {"0": "zz"}, {"0": "00" * 600}, {"9": "00"}])
def test_damaged_documents_leave_it_empty(tmp_path: Path, document: dict[str, object]) -> None:
    first = FakeDevice("0=mem:1M", state=tmp_path)
    first.units[0].state.save("identification", document)
    assert report(FakeDevice("0=mem:1M", state=tmp_path)) == bytes(4)
