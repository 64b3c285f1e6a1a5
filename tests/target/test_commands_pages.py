# SPDX-License-Identifier: BSD-2-Clause
"""INQUIRY, VPD and mode pages, as bytes and as sg_inq and sg_vpd read them."""

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from fake_device import FakeDevice, do_command_fail, do_command_in

from vscsi.scsi import cdb, inquiry, mode, sense, vpd

needs_sg = pytest.mark.skipif(not shutil.which("sg_inq"), reason="needs sg3-utils")


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    made = FakeDevice(
        "0=mem:1M,serial=SER0,vendor=ACME,product=thing", "1=null:1M,bs=4096,discard=off,rotational=1", "2=mem:1M,ro"
    )
    yield made
    made.close()


def page(device: FakeDevice, code: int, unit: int = 0) -> bytes:
    return do_command_in(device, cdb.INQUIRY.build(evpd=1, page_code=code, allocation_length=4096), lun=unit)


def sg(*command: str, data: bytes) -> str:
    done = subprocess.run([*command, "--inhex=-", "--raw"], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    return done.stdout.decode()


# ---- INQUIRY ----


def test_standard_data(device: FakeDevice) -> None:
    data = do_command_in(device, cdb.INQUIRY.build(allocation_length=4096))
    assert data[:36].hex(" ", 4) == ("00000632 5b190002 41434d45 20202020 7468696e 67202020 20202020 20202020 30303031")
    assert data[58:68].hex(" ", 2) == "00a0 0460 04c0 0940 0000"
    assert len(data) == 96
    fields = inquiry.decode(data)
    assert (fields["vendor_identification"], fields["product_identification"]) == ("ACME", "thing")
    assert fields["version_descriptor_4"] == 0x0940
    assert "version_descriptor_5" not in fields
    do_command_fail(device, cdb.INQUIRY.build(page_code=0x80), sense.INVALID_FIELD_IN_CDB, (2, None))


@needs_sg
def test_standard_data_as_sg_inq_reads_it(device: FakeDevice) -> None:
    text = sg("sg_inq", "--descriptors", data=do_command_in(device, cdb.INQUIRY.build(allocation_length=96)))
    assert "PQual=0" in text
    assert "version=0x06  [SPC-4]" in text
    assert "Resp_data_format=2" in text
    assert "CmdQue=1" in text
    assert "length=96 (0x60)   Peripheral device type: disk" in text
    assert re.search(r"Vendor identification: ACME\s*$", text, re.M)
    assert re.search(r"Product identification: thing\s*$", text, re.M)
    for words in ("SAM-5 (no version claimed)", "SPC-4 (no version claimed)", "SBC-3 (no version claimed)", "SRP (no"):
        assert words in text


# ---- VPD ----

CODES = [0x00, 0x80, 0x83, 0x86, 0x87, 0x8F, 0xB0, 0xB1, 0xB2]


def test_page_list(device: FakeDevice) -> None:
    assert list(vpd.body_of(page(device, 0))) == CODES
    for code in CODES:
        data = page(device, code)
        assert data[:2] == bytes([0, code])
        assert int.from_bytes(data[2:4]) == len(data) - 4
    for code in set(range(256)) - set(CODES):
        raw = cdb.INQUIRY.build(evpd=1, page_code=code, allocation_length=255)
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (2, None))


@needs_sg
@pytest.mark.parametrize("unit", [0, 1, 2])
@pytest.mark.parametrize("code", CODES)
def test_sg_vpd_reads_every_page_without_complaint(device: FakeDevice, code: int, unit: int) -> None:
    text = sg("sg_vpd", "--long", data=page(device, code, unit))
    assert text
    text = text.replace("alignment: 0 [invalid]", "")  # UGAVALID is 0
    assert not re.search(r"(?i)bad|invalid|malformed|too short|truncat|unexpected|error", text), text
    if code != 0x00:  # sg_vpd gives the other pages a name of their own; make sure it is this page
        assert sg("sg_vpd", f"--page={code}", data=page(device, code, unit))


@needs_sg
def test_what_sg_vpd_reads(device: FakeDevice) -> None:
    assert "Unit serial number: SER0" in sg("sg_vpd", data=page(device, 0x80))
    text = sg("sg_vpd", data=page(device, 0x83))
    assert "NAA 6" in text or "0x6" in text
    assert "vendor id: ACME" in text
    assert "vendor specific: thing           SER0" in text
    assert "Relative target port: 0x1" in text
    assert "eui.000102030405060708090A0B0C0D0E0F" in text
    assert "SCSI RDMA" in text
    text = sg("sg_vpd", data=page(device, 0xB0))
    assert "Maximum transfer length: 16384 blocks" in text
    assert "Maximum unmap LBA count: 1048576" in text
    assert "Maximum unmap block descriptor count: 256" in text
    assert "Optimal unmap granularity: 8" in text
    assert "Maximum write same length: 0xfff8" in text
    assert "Non-rotating medium" in sg("sg_vpd", data=page(device, 0xB1))
    assert "7200" in sg("sg_vpd", data=page(device, 0xB1, 1))
    text = sg("sg_vpd", data=page(device, 0xB2))
    for words in ("(LBPU): 1", "(LBPWS): 1", "(LBPWS10): 1", "thin provisioned"):
        assert words in text
    text = sg("sg_vpd", data=page(device, 0xB2, 1))
    for words in ("(LBPU): 0", "(LBPWS): 0", "(LBPWS10): 0"):
        assert words in text


def test_identification(device: FakeDevice) -> None:
    data = page(device, 0x83)
    assert len(data) <= 252
    designators = list(vpd.decode_identification(data))
    assert b"".join(d.encode() for d in designators) == vpd.body_of(data)
    naa = designators[0]
    assert (naa.kind, naa.association, len(naa.value), naa.value[0] >> 4) == (vpd.DesignatorType.NAA, 0, 16, 6)
    assert naa.value[0] & 0xF == 0 and naa.value[1] >> 4 == 2, "the company id must be a locally administered one"
    assert next(vpd.decode_identification(page(device, 0x83, 1))).value != naa.value


def test_the_longest_serial_still_fits() -> None:
    device = FakeDevice(f"0=null:1M,serial={'S' * 64}")
    assert len(page(device, 0x83)) <= 252


def test_limits_agree_with_the_unit(device: FakeDevice) -> None:
    got = vpd.BLOCK_LIMITS.decode(page(device, 0xB0, 1))
    assert got["maximum_transfer_length"] == (8 << 20) // 4096
    assert got["maximum_unmap_lba_count"] == got["maximum_unmap_block_descriptor_count"] == 0
    assert got["optimal_unmap_granularity"] == got["ugavalid"] == 0
    assert 256 <= int(got["maximum_write_same_length"]) <= 65535
    assert vpd.BLOCK_DEVICE_CHARACTERISTICS.decode(page(device, 0xB1))["vbuls"] == 1


def test_serial_numbers_are_stable() -> None:
    one, two = FakeDevice("0=mem:1M", "1=mem:1M"), FakeDevice("0=mem:1M", "1=mem:1M")
    assert page(one, 0x80) == page(two, 0x80)
    assert page(one, 0x83) == page(two, 0x83)
    assert page(one, 0x80) != page(one, 0x80, 1)
    assert vpd.decode_serial(page(one, 0x80)).isalnum()


# ---- mode pages ----


def modes(device: FakeDevice, code: int, subpage: int = 0, *, ten: bool = False, unit: int = 0, **fields: int) -> bytes:
    row = cdb.MODE_SENSE_10 if ten else cdb.MODE_SENSE_6
    raw = row.build(page_code=code, subpage_code=subpage, allocation_length=255, **fields)
    return do_command_in(device, raw, lun=unit)


def test_caching_page(device: FakeDevice) -> None:
    assert modes(device, 0x08).hex(" ") == ("1f 00 10 08 00 00 08 00 00 00 02 00 88 12 04 00" + " 00" * 16)
    assert modes(device, 0x08, dbd=1).hex(" ")[:26] == "17 00 10 00 88 12 04 00 00"
    through = FakeDevice("0=mem:1M,cache=wt")
    assert modes(through, 0x08, dbd=1)[6] == 0


def test_ten_byte_form(device: FakeDevice) -> None:
    data = modes(device, 0x0A, ten=True)
    assert data[:16].hex(" ") == "00 1a 00 10 00 00 00 08 00 00 08 00 00 00 02 00"
    data = modes(device, 0x0A, ten=True, llbaa=1)
    assert data[:24].hex(" ") == "00 22 00 10 01 00 00 10" + " 00" * 6 + " 08 00" + " 00" * 6 + " 02 00"
    data = modes(device, 0x0A, ten=True, llbaa=1, dbd=1)
    assert data[:8].hex(" ") == "00 12 00 10 00 00 00 00"


def test_all_pages(device: FakeDevice) -> None:
    for ten in (False, True):
        data = modes(device, 0x3F, ten=ten)
        fields, descriptor, pages = mode.split(data, ten=ten)
        assert fields["mode_data_length"] == len(data) - (2 if ten else 1)
        assert len(descriptor) == 8
        assert [(c, s) for c, s, _ in mode.pages_of(pages)] == [(1, 0), (8, 0), (0x0A, 0), (0x1C, 0)]
        _, _, pages = mode.split(modes(device, 0x3F, 0xFF, ten=ten), ten=ten)
        found = list(mode.pages_of(pages))
        assert [(c, s) for c, s, _ in found] == [(1, 0), (8, 0), (0x0A, 0), (0x0A, 1), (0x1C, 0)]
        assert all(len(raw) == mode.PAGES[c, s].layout.nbytes for c, s, raw in found)
    assert len(modes(device, 0x3F)) < 255
    _, _, pages = mode.split(modes(device, 0x0A, 0xFF), ten=False)
    assert [(c, s) for c, s, _ in mode.pages_of(pages)] == [(0x0A, 0), (0x0A, 1)]


def test_page_control(device: FakeDevice) -> None:
    current, changeable, default = (modes(device, 0x3F, pc=pc) for pc in range(3))
    assert default == current
    _, descriptor, pages = mode.split(changeable, ten=False)
    assert not any(descriptor)
    changed = {(code, subpage): raw for code, subpage, raw in mode.pages_of(pages)}
    assert {key for key, raw in changed.items() if any(raw[2:])} == {(8, 0), (0x0A, 0)}
    assert changed[8, 0][2] == 0x04
    assert changed[0x0A, 0][2:6].hex() == "ecfe38c0"
    assert modes(device, 0x3F, pc=3) == current


def test_pages_that_are_not_there(device: FakeDevice) -> None:
    for row in (cdb.MODE_SENSE_6, cdb.MODE_SENSE_10):
        for code in set(range(0x3F)) - {1, 8, 0x0A, 0x1C}:
            do_command_fail(device, row.build(page_code=code), sense.INVALID_FIELD_IN_CDB, (2, 5))
        do_command_fail(device, row.build(page_code=8, subpage_code=1), sense.INVALID_FIELD_IN_CDB, (3, None))
        do_command_fail(device, row.build(page_code=0x3F, subpage_code=1), sense.INVALID_FIELD_IN_CDB, (3, None))


def test_write_protection_shows(device: FakeDevice) -> None:
    assert modes(device, 0x3F, unit=2)[2] == 0x90
    assert modes(device, 0x3F, unit=0)[2] == 0x10
    assert modes(device, 0x3F, unit=2, ten=True)[3] == 0x90


def test_huge_units_say_so_where_they_can() -> None:
    device = FakeDevice("0=null:8T")
    assert modes(device, 0x0A)[4:8] == b"\xff\xff\xff\xff"
    data = modes(device, 0x0A, ten=True, llbaa=1)
    assert int.from_bytes(data[8:16]) == (8 << 40) // 512
    assert data[24 + 2] & 0x04, "D_SENSE: fixed format has no room for such an LBA"
