# SPDX-License-Identifier: BSD-2-Clause
"""Removable media: eject, load, prevent, change; images that grow and shrink; and the program that asks for it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import FakeDevice, do_command, do_command_fail, do_command_in
from programs import BIN, run
from real_server import Target

from initiator import Initiator, ScsiError
from initiator.vbd import Vbd
from target.medium import Medium
from vscsi.scsi import cdb, inquiry, sense

EJECT = cdb.START_STOP_UNIT.build(loej=1)
LOAD = cdb.START_STOP_UNIT.build(loej=1, start=1)
PREVENT = cdb.PREVENT_ALLOW_MEDIUM_REMOVAL.build(prevent=1)
ALLOW = cdb.PREVENT_ALLOW_MEDIUM_REMOVAL.build()
READY = cdb.TEST_UNIT_READY.build()
GONE = sense.MEDIUM_NOT_PRESENT_TRAY_OPEN


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    made = FakeDevice("0=mem:1M,removable=on", "1=mem:1M")
    yield made
    made.close()


def test_inquiry_says_so(device: FakeDevice) -> None:
    for lun, rmb in ((0, 1), (1, 0)):
        data = do_command_in(device, cdb.INQUIRY.build(allocation_length=96), lun=lun)
        assert inquiry.STANDARD.numbers(data)["rmb"] == rmb


def test_a_fixed_disk_has_nothing_to_eject(device: FakeDevice) -> None:
    do_command_fail(device, EJECT, sense.INVALID_FIELD_IN_CDB, (4, 1), lun=1)
    do_command_fail(device, PREVENT, sense.INVALID_COMMAND_OPERATION_CODE, lun=1)


def test_eject_and_load(device: FakeDevice) -> None:
    device.connect(7)
    device.connect(8)
    do_command(device, EJECT)
    assert device.states[0] == GONE.code
    assert device.lock_log == [(0, 0, 2048)] * 2, "commands that began before were waited for, and who waited too"
    do_command_fail(device, READY, GONE)
    do_command(device, EJECT)
    do_command(device, LOAD)
    assert device.states[0] == 0
    do_command(device, READY)
    assert device.attentions == {(7, 0): [], (8, 0): [0x2800]}, "not to the one that loaded it"


def test_eject_flushes_first_and_keeps_what_it_cannot_make_durable(
    device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise OSError(5, "no")

    monkeypatch.setattr(device.units[0].store, "flush", broken)
    do_command_fail(device, EJECT, sense.WRITE_ERROR)
    assert device.units[0].part(Medium).present


def test_stopping_a_removable_unit_leaves_it_ready(device: FakeDevice) -> None:
    do_command(device, cdb.START_STOP_UNIT.build())
    do_command(device, READY)


@pytest.mark.parametrize("condition", range(1, 16))
def test_power_conditions_never_eject(device: FakeDevice, condition: int) -> None:
    do_command(device, cdb.START_STOP_UNIT.build(power_condition=condition, loej=1))
    do_command(device, READY)


def test_prevention(device: FakeDevice) -> None:
    one, two = device.connect(7), device.connect(8)
    do_command(device, PREVENT, nexus=7)
    do_command(device, PREVENT, nexus=8)
    for raw in (EJECT, LOAD):
        do_command_fail(device, raw, sense.MEDIUM_REMOVAL_PREVENTED)
    do_command(device, ALLOW, nexus=7)
    do_command_fail(device, EJECT, sense.MEDIUM_REMOVAL_PREVENTED)
    device.units[0].nexus_lost(two)
    do_command(device, EJECT)
    do_command(device, PREVENT, nexus=7)  # without a medium, too
    do_command_fail(device, LOAD, sense.MEDIUM_REMOVAL_PREVENTED)
    device.units[0].reset()
    do_command(device, LOAD)
    for obsolete in (2, 3):
        raw = cdb.PREVENT_ALLOW_MEDIUM_REMOVAL.build(prevent=obsolete)
        do_command_fail(device, raw, sense.INVALID_FIELD_IN_CDB, (4, 1))
    assert one.index == 7


# ---- over rings ----


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "first.img", tmp_path / "second.img"
    first.write_bytes(b"1" * 65536)
    second.write_bytes(b"2" * 131072)
    return first, second


@pytest.fixture
def served(tmp_path: Path, images: tuple[Path, Path]) -> Iterator[Target]:
    target = Target(tmp_path / "s", f"0={images[0]},removable=on", "1=mem:1M")
    yield target
    target.stop()


def admin(path: Path, *words: str, status: int = 0) -> str:
    done = run(BIN / "vscsi-admin", "-U", path, *words)
    assert done.status == status, done.err
    return done.text if status == 0 else done.err


def test_another_medium(served: Target, images: tuple[Path, Path]) -> None:
    with Initiator(served.path) as initiator, Vbd(served.path, lun=0) as vbd:
        lun = initiator.lun(0)
        lun.write(0, b"x" * 512)
        admin(served.path, "eject", "0")
        with pytest.raises(ScsiError) as caught:
            lun.read(0, 1)
        assert caught.value.sense.matches(GONE)
        with pytest.raises(Exception, match=r"(?i)error"):
            vbd.read(0, 1)
        assert images[0].read_bytes()[:512] == b"x" * 512
        assert "256 blocks" in admin(served.path, "load", "0", str(images[1]))
        codes = [sense.decode(initiator.execute(0, READY).sense).code for _ in range(2)]
        assert codes == [0x062A09, 0x062800]
        initiator.execute(0, READY).raise_for_status()
        assert lun.read(255, 1) == b"2" * 512
        lun.write(1, b"y" * 512)
    assert images[1].read_bytes()[512:1024] == b"y" * 512
    assert images[0].read_bytes()[512:1024] == b"1" * 512
    held = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert (held.count(str(images[0])), held.count(str(images[1]))) == (0, 2), "the descriptor, and its witness"


def test_what_cannot_be_loaded(served: Target, tmp_path: Path, images: tuple[Path, Path]) -> None:
    assert "eject it first" in admin(served.path, "load", "0", status=5)
    assert "not removable" in admin(served.path, "eject", "1", status=5)
    assert "there is no LUN 9" in admin(served.path, "eject", "9", status=5)
    with Initiator(served.path) as initiator:
        initiator.execute(0, READY)
        initiator.execute(0, PREVENT).raise_for_status()
        assert "removal prevented" in admin(served.path, "eject", "0", status=5)
        admin(served.path, "eject", "0", "--force")
        odd = tmp_path / "odd.img"
        odd.write_bytes(bytes(1000))
        assert "not a multiple" in admin(served.path, "load", "0", str(odd), status=5)
        assert "no such file" in admin(served.path, "load", "0", str(tmp_path / "none"), status=5)
        assert "file descriptor" in admin(served.path, "load", "0", "null:1M", status=5)
        admin(served.path, "load", "0")
        assert sense.decode(initiator.execute(0, READY).sense).matches(sense.MEDIUM_MAY_HAVE_CHANGED)
        assert initiator.lun(0).read(0, 1) == b"1" * 512


def test_growing_and_shrinking_is_noticed(served: Target, images: tuple[Path, Path]) -> None:
    with Initiator(served.path) as one, Initiator(served.path) as two, Vbd(served.path, lun=0) as vbd:
        for initiator in (one, two):
            initiator.execute(0, READY)
        os.truncate(images[0], 1 << 20)
        served.until(lambda: served.server.units[0].blocks == 2048, "the new size was not noticed")
        for initiator in (one, two):
            assert sense.decode(initiator.execute(0, READY).sense).code == 0x062A09
            assert initiator.lun(0).read(2047, 1) == bytes(512)
        assert vbd.session is not None
        os.truncate(images[0], 512)
        assert json.loads(admin(served.path, "--json", "resize", "0"))["blocks"] == 1
        done = one.execute(0, READY)
        assert sense.decode(done.sense).code == 0x062A09
        done = one.execute(0, cdb.READ_10.build(lba=1, transfer_length=1), data_in=512)
        assert sense.decode(done.sense).matches(sense.LBA_OUT_OF_RANGE)
        os.truncate(images[0], 0)
        served.until(lambda: served.server.units[0].blocks == 0, "the new size was not noticed")
        one.execute(0, READY)
        assert sense.decode(one.execute(0, READY).sense).matches(sense.NOT_READY_MANUAL_INTERVENTION_REQUIRED)
        admin(served.path, "resize", "0", "--size", "64k")
        one.execute(0, READY)
        one.execute(0, READY).raise_for_status()


def test_resizing_asks_before_it_cuts(served: Target, images: tuple[Path, Path]) -> None:
    assert "would be lost" in admin(served.path, "resize", "0", "--size", "32k", status=5)
    assert "multiple" in admin(served.path, "resize", "0", "--size", "1000", status=5)
    assert "changed" in admin(served.path, "resize", "0", "--size", "32k", "--shrink")
    assert images[0].stat().st_size == 32768
    assert "as before" in admin(served.path, "resize", "0")
    assert "64 blocks" in admin(served.path, "status")
    assert "nobody" in admin(served.path.with_name("nobody"), "status", status=15)


def test_only_the_owner(served: Target) -> None:
    assert "only the user" in served.server.admin.ask(os.geteuid() + 12345, {"action": "eject", "lun": 0})["error"]
    assert "knows no action" in served.server.admin.ask(0, {"action": ["x"]})["error"]
    assert served.server.admin.result(0, {"ticket": 77}) == {"error": "no such ticket"}
