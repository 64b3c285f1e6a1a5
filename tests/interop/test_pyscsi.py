# SPDX-License-Identifier: BSD-2-Clause
"""pyscsi, unmodified, drives our device and decodes our data: an independent reader of INQUIRY, capacity and blocks."""

import os

import pytest

SCSI = pytest.importorskip("pyscsi.pyscsi.scsi").SCSI


@pytest.fixture
def scsi(disk):
    from initiator import device

    with SCSI(device.open(disk.uri(0)), 512) as opened:
        yield opened


def test_inquiry(scsi):
    answer = scsi.inquiry().result
    assert bytes(answer["t10_vendor_identification"]).startswith(b"VSCSI")
    assert answer["peripheral_device_type"] == 0


def test_vpd(scsi):
    assert bytes(scsi.inquiry(evpd=1, page_code=0x80).result["unit_serial_number"]) == b"SER12345"
    limits = scsi.inquiry(evpd=1, page_code=0xB0).result
    assert limits["max_xfer_len"] >= (8 << 20) // 512


def test_capacity(scsi):
    assert scsi.readcapacity16().result["returned_lba"] == 16383
    assert scsi.readcapacity10().result == {"returned_lba": 16383, "block_length": 512}


def test_read_and_write(scsi, disk):
    assert bytes(scsi.read10(100, 4).datain) == disk.pattern[51200 : 51200 + 2048]
    assert bytes(scsi.read16(16383, 1).datain) == disk.pattern[-512:]
    data = bytearray(os.urandom(1024))
    scsi.write16(7, 2, data)
    assert disk.image.read_bytes()[7 * 512 : 9 * 512] == bytes(data)


def test_sense_is_an_exception(scsi):
    from pyscsi.pyscsi.scsi_sense import SCSICheckCondition

    with pytest.raises(SCSICheckCondition) as caught:
        scsi.read10(16384, 1)
    assert caught.value.asc == 0x21


def test_luns_and_mode(scsi):
    assert scsi.reportluns().result["luns"]
    assert scsi.modesense6(page_code=0x08).result["mode_pages"]
    assert scsi.testunitready()
