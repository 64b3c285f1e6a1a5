# SPDX-License-Identifier: BSD-2-Clause
"""Thin provisioning: what is used and available, who is warned, what full file systems do, that UNMAP gives back."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, do_command, do_command_fail, do_command_in
from hypothesis import given
from hypothesis import strategies as st
from memory_store import BLOCKS, SIZE, Memory
from real_server import Target

from initiator import BlkifError, Initiator, ScsiError
from initiator.vbd import Vbd
from target.provisioning import Provisioning
from target.stores import StoreError, StoreSpec, open_store
from vscsi.scsi import cdb, log, parameters, sense, vpd

REACHED = 0x3807


class Counted(Memory):
    """Says what it is told to say."""

    used_nbytes, free_nbytes = 0, None

    def used(self) -> int | None:
        return self.used_nbytes

    def free(self) -> int | None:
        return self.free_nbytes


def page_0c(device: FakeDevice) -> dict[int, tuple[int, int]]:
    """Count or percentage, and scope, of each parameter."""
    raw = cdb.LOG_SENSE.build(pc=1, page_code=0x0C, allocation_length=512)
    data = do_command_in(device, raw)
    assert (data[0] & 0x3F, int.from_bytes(data[2:4])) == (0x0C, 36)
    found = {}
    for at in (4, 16, 28):
        code, row = int.from_bytes(data[at : at + 2]), data[at : at + 12]
        assert row[3] == 8
        found[code] = int.from_bytes(row[4:6] if code == 3 else row[4:8]), row[8]
    return found


def test_counts() -> None:
    store = Counted()
    device = FakeDevice("0=x", store=store)
    this = device.units[0].part(Provisioning)
    assert (this.used_blocks(), this.available_blocks(), this.used_percent()) == (0, BLOCKS, 0)
    store.used_nbytes = 1024 * SIZE + 1
    assert (this.used_blocks(), this.available_blocks(), this.used_percent()) == (1025, BLOCKS - 1025, 25)
    store.free_nbytes = 1025 * SIZE
    assert (this.available_blocks(), this.used_percent()) == (1025, 50)
    store.free_nbytes = SIZE - 1
    assert (this.available_blocks(), this.used_percent()) == (0, 100)
    store.used_nbytes, store.free_nbytes = 1 << 40, None  # metadata and preallocation count too
    assert (this.used_blocks(), this.available_blocks(), this.used_percent()) == (BLOCKS, 0, 100)


@given(st.integers(1, 1 << 60))
def test_exponent(blocks: int) -> None:
    """Never 0, which would say that nothing is counted; and the counts fit in 32 bits."""
    device = FakeDevice("0=x", store=Counted())
    device.units[0].blocks = blocks
    exponent = device.units[0].part(Provisioning).exponent
    assert 1 <= exponent <= 255
    assert blocks >> exponent < 1 << 32
    assert blocks < 1 << 13 or blocks >> exponent >= 1 << 11


def test_log_page_and_provisioning_page() -> None:
    store = Counted()
    device = FakeDevice("0=x", store=store)
    store.used_nbytes = 1001 * SIZE
    assert page_0c(device) == {1: ((BLOCKS - 1001) // 2, 1), 2: (501, 1), 3: (76, 1)}
    store.free_nbytes = 99 * SIZE
    assert page_0c(device) == {1: (49, 2), 2: (501, 1), 3: (9, 2)}
    page = do_command_in(device, cdb.INQUIRY.build(evpd=1, page_code=0xB2, allocation_length=8))
    assert vpd.LOGICAL_BLOCK_PROVISIONING.decode(page)["threshold_exponent"] == 1
    thick = FakeDevice("0=mem:1M,discard=off")
    do_command_fail(thick, cdb.LOG_SENSE.build(pc=1, page_code=0x0C, allocation_length=512), sense.INVALID_FIELD_IN_CDB)
    page = do_command_in(thick, cdb.INQUIRY.build(evpd=1, page_code=0xB2, allocation_length=8))
    assert vpd.LOGICAL_BLOCK_PROVISIONING.decode(page)["threshold_exponent"] == 0


def test_every_nexus_is_told_once_a_crossing() -> None:
    store = Counted()
    device = FakeDevice("0=x,threshold=50", "1=x", store=store)
    device.connect(1)
    device.connect(2)
    unit = device.units[0]

    def told(used_blocks: int) -> list[int]:
        store.used_nbytes = used_blocks * SIZE
        for each in device.units.values():
            each.tick()
        assert not device.attentions.get((1, 1)), "the other unit has no threshold"
        return [device.attention_take(nexus, unit) for nexus in (1, 2)]

    assert told(BLOCKS // 2 - 41) == [0, 0]
    assert told(BLOCKS // 2) == [REACHED, REACHED]
    assert told(BLOCKS) == [0, 0], "it is above already"
    assert told(BLOCKS // 2) == [0, 0]
    assert told(10) == [0, 0]
    assert told(BLOCKS) == [REACHED, REACHED], "armed again"


def test_a_thick_unit_warns_nobody() -> None:
    store = Counted()
    device = FakeDevice("0=x,threshold=50,discard=off", store=store)
    device.connect(1)
    store.used_nbytes = store.nbytes
    device.units[0].tick()
    assert device.attentions == {}


def test_a_closed_store_is_no_error() -> None:
    """A medium that has been ejected."""
    device = FakeDevice("0=mem:1M")
    device.units[0].store.close()
    assert device.units[0].part(Provisioning).exponent == 0
    device.units[0].tick()


# ---- real space ----


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "disk.img"


def test_unmap_and_write_same_give_space_back(image: Path) -> None:
    image.write_bytes(os.urandom(1 << 20))
    device = FakeDevice(f"0={image}")
    if not device.units[0].discard:
        pytest.skip("this file system punches no holes")
    full = image.stat().st_blocks
    assert full >= 2048
    data = parameters.encode_unmap([(0, 512), (1024, 8), (2040, 8)])
    do_command(device, cdb.UNMAP.build(parameter_list_length=len(data)), data)
    assert image.stat().st_blocks <= full - 528
    do_command(device, cdb.WRITE_SAME_16.build(lba=512, number_of_logical_blocks=512, unmap=1, ndob=1))
    assert image.stat().st_blocks <= full - 1040
    do_command(device, cdb.WRITE_SAME_10.build(lba=512, number_of_logical_blocks=512), bytes(SIZE))
    assert image.stat().st_blocks >= full - 528, "without UNMAP zeros are written"
    assert image.stat().st_size == 1 << 20
    granularity = device.units[0].unmap_granularity_blocks
    before = image.stat().st_blocks
    data = parameters.encode_unmap([(1024 + granularity, granularity)])
    do_command(device, cdb.UNMAP.build(parameter_list_length=len(data)), data)
    assert image.stat().st_blocks <= before - granularity, "what is aligned to the granularity is given back"
    device.close()


def test_a_new_thick_image_has_all_its_space(image: Path) -> None:
    for text, least, most in (("on", 0, 64), ("off", 2048, 4096)):
        spec = StoreSpec("", size=1 << 20, discard=text == "on")
        store = open_store(str(image), spec)
        assert store.nbytes == 1 << 20
        assert least <= image.stat().st_blocks <= most
        store.close()
        image.unlink()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], capture_output=True)
    if done.returncode:
        pytest.skip("only root may mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_thick_image_that_does_not_fit_is_not_created(small: Path) -> None:
    with pytest.raises(StoreError, match="cannot be created: no space left on device"):
        open_store(str(small / "disk.img"), StoreSpec("", size=1 << 20, discard=False))
    assert list(small.iterdir()) == []


def test_a_full_file_system(small: Path, tmp_path: Path) -> None:
    """DATA PROTECT 27h/07h from every command that needs space, until UNMAP gives some back; blkif: an error."""
    target = Target(tmp_path / "socket", f"0={small / 'disk.img'},size=1M")
    try:
        with Initiator(str(target.path)) as initiator:
            disk = initiator.lun(0)
            block, many = b"x" * SIZE, b"x" * 128 * SIZE
            written = 0
            with pytest.raises(ScsiError) as caught:
                for written in range(0, 2048, 8):
                    disk.execute(cdb.WRITE_10.build(lba=written, transfer_length=8), data_out=block * 8)
            assert caught.value.sense.matches(sense.SPACE_ALLOCATION_FAILED)
            assert written >= 256
            for raw, data in (
                (cdb.WRITE_SAME_16.build(lba=1024, number_of_logical_blocks=128), block),
                (cdb.ORWRITE_16.build(lba=1024, transfer_length=128), many),
                (cdb.WRITE_AND_VERIFY_16.build(lba=1024, transfer_length=128), many),
                (cdb.WRITE_ATOMIC_16.build(lba=1024, transfer_length=128), many),
                (cdb.COMPARE_AND_WRITE.build(lba=1024, number_of_logical_blocks=128), bytes(128 * SIZE) + many),
            ):
                with pytest.raises(ScsiError) as caught:
                    disk.execute(raw, data_out=data)
                assert caught.value.sense.matches(sense.SPACE_ALLOCATION_FAILED), (raw.hex(), caught.value)
            with Vbd(str(target.path), lun=0) as vbd, pytest.raises(BlkifError):
                vbd.write(1024, many)
            data = parameters.encode_unmap([(0, 256)])
            disk.execute(cdb.UNMAP.build(parameter_list_length=len(data)), data_out=data)
            disk.execute(cdb.WRITE_16.build(lba=1024, transfer_length=128), data_out=many)
            disk.execute(cdb.SYNCHRONIZE_CACHE_10.build())
            done = disk.execute(cdb.READ_16.build(lba=1024, transfer_length=128), data_in=128 * SIZE)
            assert bytes(done.data_in) == many
    finally:
        target.stop()


def test_the_warning_on_a_real_target(image: Path, tmp_path: Path) -> None:
    target = Target(tmp_path / "socket", "0=mem:1M,threshold=50")
    try:
        with Initiator(str(target.path)) as one, Initiator(str(target.path)) as two:
            for each in (one, two):
                each.lun(0).execute(cdb.TEST_UNIT_READY.build())
            one.lun(0).execute(cdb.WRITE_SAME_16.build(lba=0, number_of_logical_blocks=1536), data_out=b"x" * SIZE)
            for each in (one, two):
                deadline = time.monotonic() + 30
                while not (done := each.execute(0, cdb.TEST_UNIT_READY.build())).status:
                    assert time.monotonic() < deadline, "nobody is warned"
                    time.sleep(0.02)
                got = sense.decode(done.sense)
                assert got.matches(sense.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED), got.describe()
                assert each.execute(0, cdb.TEST_UNIT_READY.build()).status == 0
            raw = cdb.LOG_SENSE.build(pc=1, page_code=0x0C, allocation_length=64)
            data = one.lun(0).execute(raw, data_in=64).data_in
            assert int.from_bytes(data[32:34]) == 25
            assert log.BLOCK_PROVISIONING.code == data[0] & 0x3F
    finally:
        target.stop()
