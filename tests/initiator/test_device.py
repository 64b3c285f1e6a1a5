# SPDX-License-Identifier: BSD-2-Clause
"""The pyscsi door, with pyscsi itself as the user."""

import threading

import pytest
from fake_server import Disk
from pyscsi.pyscsi.scsi import SCSI
from pyscsi.pyscsi.scsi_sense import SCSICheckCondition

from initiator import device, uri
from vscsi.scsi import sense


@pytest.fixture
def scsi(server, connect):
    """(what the target does, pyscsi on top of it)."""
    made = Disk()
    server.command = made
    opened = device.open(uri.build(0, server.path), memory_nbytes=8 << 20)
    yield made, SCSI(opened, 512)
    opened.close()


def test_inquiry_read_and_write(scsi):
    _, s = scsi
    assert s.inquiry().result["peripheral_device_type"] == 0
    assert s.readcapacity16().result["returned_lba"] == 4095
    s.write10(5, 2, bytearray(b"w" * 1024))
    assert s.read10(5, 2).datain == b"w" * 1024


def test_a_short_answer_makes_datain_shorter(scsi):
    made, s = scsi
    made.first = [{"data": bytes(36)}]
    assert len(s.inquiry().datain) == 36


@pytest.mark.parametrize("descriptor", [False, True])
def test_check_condition(scsi, descriptor):
    made, s = scsi
    made.attentions = 0
    made.first = [{"sense": sense.INVALID_FIELD_IN_CDB.encode(descriptor=descriptor)}]
    with pytest.raises(SCSICheckCondition) as caught:
        s.readcapacity16()
    assert caught.value.data["sense_key"] == 5 and caught.value.asc == 0x24
    assert "INVALID FIELD IN CDB" in str(caught.value).upper()


def test_the_first_unit_attention_is_absorbed_and_no_other(scsi):
    made, s = scsi
    assert made.attentions == 1
    s.readcapacity16()
    assert made.attentions == 0
    made.attentions = 1
    with pytest.raises(SCSICheckCondition):
        s.readcapacity16()


def test_other_statuses(scsi):
    made, s = scsi
    made.attentions = 0
    made.first = [{"status": 8}]
    with pytest.raises(device.StatusError, match="BUSY"):
        s.readcapacity16()


def test_the_lock_makes_threads_safe(scsi):
    made, s = scsi
    made.attentions = 0
    failures = []

    def run(lba: int) -> None:
        for _ in range(50):
            with device.LOCK:
                s.write10(lba, 1, bytearray([lba]) * 512)
                if s.read10(lba, 1).datain != bytes([lba]) * 512:
                    failures.append(lba)

    threads = [threading.Thread(target=run, args=(lba,)) for lba in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_sense_formats():
    fixed = sense.LBA_OUT_OF_RANGE.encode()
    assert device.to_fixed(fixed) == fixed
    assert device.to_fixed(sense.LBA_OUT_OF_RANGE.encode(descriptor=True)) == fixed
    assert device.to_fixed(b"") == b""
