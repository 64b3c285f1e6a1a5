# SPDX-License-Identifier: BSD-2-Clause
"""Saved and default mode pages: what a restart, a reset and RTD bring back, and what cannot be saved."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, do_command, do_command_fail
from mode_pages import changed, everything, page, select_cdb, set_fields

from vscsi.scsi import cdb, mode, sense

CHANGED = 0x2A01
ISSUER, OTHER = 7, 8


@pytest.fixture
def device(tmp_path: Path) -> Iterator[FakeDevice]:
    made = FakeDevice("0=mem:1M", "1=mem:1M,ro", state=tmp_path)
    made.connect(ISSUER)
    made.connect(OTHER)
    yield made
    made.close()


def test_saved_values_survive_a_restart(tmp_path: Path) -> None:
    first = FakeDevice("0=mem:1M", state=tmp_path)
    set_fields(first, mode.CONTROL, d_sense=1)
    set_fields(first, mode.CACHING, sp=1, wce=0)
    assert page(first, (8, 0), pc=3)[2] == 0
    assert page(first, (0x0A, 0), pc=3)[2] & 4, "saving saves every page"
    set_fields(first, mode.CONTROL, swp=1)
    first.close()
    again = FakeDevice("0=mem:1M", state=tmp_path)
    assert again.units[0].write_cache is False
    assert again.units[0].descriptor_sense is True
    assert again.units[0].software_write_protected is False, "was not saved"
    assert again.refreshed == [0], "the native core has to know"
    assert page(again, (8, 0))[2] == page(again, (8, 0), pc=3)[2] == 0
    assert page(again, (8, 0), pc=2)[2] == 4


def test_a_reset_restores_saved_values(device: FakeDevice) -> None:
    set_fields(device, mode.CONTROL, sp=1, d_sense=1)
    set_fields(device, mode.CONTROL, d_sense=0, swp=1)
    set_fields(device, mode.CACHING, wce=0)
    device.attentions.clear()
    device.units[0].reset()
    unit = device.units[0]
    assert (unit.descriptor_sense, unit.software_write_protected, unit.write_cache) == (True, False, True)
    assert page(device, (0x3F, 0xFF)) == page(device, (0x3F, 0xFF), pc=3)
    assert not device.attentions, "29/03 covers it"


def test_a_reset_that_cannot_flush_makes_the_unit_not_ready(
    device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise OSError(5, "no")

    set_fields(device, mode.CACHING, sp=1, wce=0)
    set_fields(device, mode.CACHING, wce=1)
    monkeypatch.setattr(device.units[0].store, "flush", broken)
    device.units[0].reset()
    assert device.states[0] == sense.WRITE_ERROR.code
    assert not device.units[0].write_cache


def test_revert_to_defaults(device: FakeDevice) -> None:
    default = page(device, (0x3F, 0xFF), pc=2)
    set_fields(device, mode.CONTROL, sp=1, d_sense=1, swp=1)
    device.attentions.clear()
    raw = cdb.MODE_SELECT_6.build(rtd=1)
    do_command(device, raw)
    assert page(device, (0x3F, 0xFF)) == default
    assert page(device, (0x0A, 0), pc=3)[2] & 4
    assert device.attentions[OTHER, 0] == [CHANGED]
    assert not device.units[0].software_write_protected
    do_command(device, cdb.MODE_SELECT_10.build(rtd=1, sp=1))
    assert page(device, (0x3F, 0xFF), pc=3) == default
    data = bytes(4)
    bad = cdb.MODE_SELECT_6.build(rtd=1, pf=1, parameter_list_length=4)
    do_command_fail(device, bad, sense.INVALID_FIELD_IN_CDB, (4, None), data_out=data)


def test_what_cannot_be_saved_is_not_changed_either(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(device.units[0].state, "save", full)
    before = everything(device)
    data = bytes(4) + changed(page(device, (0x0A, 0)), mode.CONTROL, swp=1)
    do_command_fail(device, select_cdb(len(data), sp=1), sense.INTERNAL_TARGET_FAILURE, data_out=data)
    assert everything(device) == before
    assert not device.units[0].software_write_protected


def test_units_that_cannot_save_say_so(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    device = FakeDevice(f"0={image},ro")
    raw = cdb.MODE_SENSE_6.build(pc=3, page_code=0x3F, allocation_length=255)
    do_command_fail(device, raw, sense.SAVING_PARAMETERS_NOT_SUPPORTED)
    do_command_fail(device, select_cdb(0, sp=1), sense.INVALID_FIELD_IN_CDB, (1, 0))
    assert not page(device, (8, 0))[0] & 0x80
    set_fields(device, mode.CONTROL, d_sense=1)
    device.close()
    kept = FakeDevice(f"0={image}")
    assert page(kept, (8, 0))[0] == 0x88
    kept.close()


@pytest.mark.parametrize(
    "document",
    [{}, {"pages": 7}, {"pages": {"08/00": "zz"}}, {"pages": {"08/00": 5}}, {"pages": {"08/00": "0812"}}],
)
def test_a_damaged_document_leaves_the_defaults(tmp_path: Path, document: dict[str, object]) -> None:
    first = FakeDevice("0=mem:1M", state=tmp_path)
    default = page(first, (0x3F, 0xFF))
    first.units[0].state.save("modes", document)
    assert page(FakeDevice("0=mem:1M", state=tmp_path), (0x3F, 0xFF)) == default


def test_saved_bits_that_may_not_be_changed_are_ignored(tmp_path: Path) -> None:
    first = FakeDevice("0=mem:1M", state=tmp_path)
    default = page(first, (8, 0))
    first.units[0].state.save("modes", {"pages": {"08/00": "ff" * 20}})
    assert page(FakeDevice("0=mem:1M", state=tmp_path), (8, 0)) == default
