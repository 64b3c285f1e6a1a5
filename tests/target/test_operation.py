# SPDX-License-Identifier: BSD-2-Clause
"""A long operation on a real target: other nexuses meanwhile, resets, aborts, an orderly stop, and kill -9."""

import threading
import time
from pathlib import Path

import pytest
from programs import Target
from real_server import Target as Served

from initiator import CommandTimeout, Done, Initiator
from target import operation
from target.operation import Operation, Run
from target.server import Server
from vscsi.native import lib as abi
from vscsi.scsi import cdb, medium, sense

SIZE, BLOCKS = 512, 8192
OLD, NEW = b"O", b"N"
PATTERN = medium.encode_overwrite(NEW)
OVERWRITE = cdb.SANITIZE_OVERWRITE.build(parameter_list_length=len(PATTERN))
OVERWRITE_IMMED = cdb.SANITIZE_OVERWRITE.build(parameter_list_length=len(PATTERN), immed=1)
REQUEST_SENSE = cdb.REQUEST_SENSE.build(allocation_length=252)
IN_PROGRESS = sense.NOT_READY_SANITIZE_IN_PROGRESS
SECONDS = 30


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(OLD * SIZE * BLOCKS)
    return path


def attach(path: Path) -> Initiator:
    """Logged in, its unit attention taken."""
    initiator = Initiator(path)
    initiator.execute(0, cdb.TEST_UNIT_READY.build())
    return initiator


def ask(initiator: Initiator) -> sense.DecodedSense:
    """REQUEST SENSE; a unit attention, if there is one, is taken first."""
    while True:
        done = initiator.execute(0, REQUEST_SENSE, data_in=252)
        decoded = sense.decode(done.data_in)
        if decoded.key != sense.Key.UNIT_ATTENTION:
            return decoded


def wait_until_done(initiator: Initiator) -> list[int]:
    """Every progress seen on the way."""
    seen, end = [], time.monotonic() + SECONDS
    while (now := ask(initiator)).matches(IN_PROGRESS):
        assert now.progress is not None and time.monotonic() < end
        seen.append(now.progress)
        time.sleep(0.005)
    assert now.code == 0, now.describe()
    return seen


def refused(done: Done) -> bool:
    return done.status == 2 and sense.decode(done.sense).matches(IN_PROGRESS)


def test_killed_in_the_middle_it_goes_on(image: Path, tmp_path: Path) -> None:
    first = Target(tmp_path, f"0={image}", options=("-D", "operation.delay=200"))
    with attach(first.socket) as initiator:
        initiator.execute(0, OVERWRITE_IMMED, data_out=PATTERN).raise_for_status()
        end = time.monotonic() + SECONDS
        while not ask(initiator).progress:
            assert time.monotonic() < end
        first.process.kill()
        first.process.wait()
    after = image.read_bytes()
    assert after.count(NEW) and after.count(OLD), "it was not in the middle"
    first.pidfile.unlink()
    second = Target(tmp_path, f"0={image}", options=("-D", "operation.delay=100"))
    with attach(second.socket) as initiator:
        now = ask(initiator)
        assert now.matches(IN_PROGRESS) and now.progress is not None
        assert refused(initiator.execute(0, cdb.READ_10.build(transfer_length=1), data_in=SIZE))
        assert refused(initiator.execute(0, cdb.WRITE_10.build(transfer_length=1), data_out=bytes(SIZE)))
        assert refused(initiator.execute(0, cdb.TEST_UNIT_READY.build()))
        initiator.execute(0, cdb.INQUIRY.build(allocation_length=96), data_in=96).raise_for_status()
        initiator.execute(0, cdb.REPORT_LUNS.build(allocation_length=96), data_in=96).raise_for_status()
        seen = wait_until_done(initiator)
        assert seen == sorted(seen)
        initiator.execute(0, cdb.TEST_UNIT_READY.build()).raise_for_status()
    assert second.stop() == 0
    assert image.read_bytes() == NEW * SIZE * BLOCKS


@pytest.fixture
def delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step takes a while."""
    monkeypatch.setattr(operation.DELAY, "value", 100)


def test_an_orderly_stop_pauses_it(image: Path, tmp_path: Path, delay: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Served(tmp_path / "s", f"0={image}")
    with attach(tmp_path / "s") as initiator:
        initiator.execute(0, OVERWRITE_IMMED, data_out=PATTERN).raise_for_status()
    first.stop()
    assert image.read_bytes() != NEW * SIZE * BLOCKS, "it was over too soon to be paused"
    monkeypatch.setattr(operation.DELAY, "value", 0)
    second = Served(tmp_path / "s", f"0={image}")
    with attach(tmp_path / "s") as initiator:
        wait_until_done(initiator)
        assert initiator.lun(0).read(0, BLOCKS) == NEW * SIZE * BLOCKS
    second.stop()
    third = Served(tmp_path / "s", f"0={image}")
    with attach(tmp_path / "s") as initiator:
        assert ask(initiator).code == 0, "what is done is not done again"
    third.stop()


def running(server: Server) -> Run | None:
    return server.units[0].part(Operation)._run


def test_reset_abort_and_the_loss_of_the_nexus_leave_it_running(image: Path, tmp_path: Path, delay: None) -> None:
    served = Served(tmp_path / "s", f"0={image}")
    try:
        with attach(tmp_path / "s") as first:
            with pytest.raises(CommandTimeout):
                first.execute(0, OVERWRITE, data_out=PATTERN, timeout=0.1)  # ABORT TASK follows
            run = running(served.server)
            assert run is not None
            assert first.task_management(abi.SRP_TMF_LUN_RESET, 0) == abi.SRP_RESP_COMPLETE
            assert running(served.server) is run
        with attach(tmp_path / "s") as second:
            assert running(served.server) is run
            wait_until_done(second)
            assert second.lun(0).read(0, BLOCKS) == NEW * SIZE * BLOCKS
        assert run.succeeded
    finally:
        served.stop()


def test_nothing_lands_after_it(tmp_path: Path, delay: None) -> None:
    """Writers that only stop when refused: what was let in before is on the medium before the sanitize, or never."""
    served = Served(tmp_path / "s", f"0=mem:{BLOCKS * SIZE}")
    odd: list[Done] = []

    def write() -> None:
        with attach(tmp_path / "s") as initiator:
            for turn in range(1 << 30):
                lba = turn * 37 % (BLOCKS - 64)
                if turn % 3:
                    raw, nbytes = cdb.WRITE_10.build(lba=lba, transfer_length=64), 64 * SIZE
                else:
                    raw, nbytes = cdb.WRITE_SAME_10.build(lba=lba, number_of_logical_blocks=64), SIZE
                done = initiator.execute(0, raw, data_out=OLD * nbytes)
                if done.status:
                    odd.extend([] if refused(done) else [done])
                    return

    try:
        with attach(tmp_path / "s") as initiator:
            threads = [threading.Thread(target=write) for _ in range(3)]
            for thread in threads:
                thread.start()
            while not initiator.lun(0).read(0, BLOCKS).count(OLD):
                pass
            initiator.execute(0, OVERWRITE_IMMED, data_out=PATTERN).raise_for_status()
            for thread in threads:
                thread.join()
            assert running(served.server) is not None, "it ended before the writers did"
            wait_until_done(initiator)
            assert initiator.lun(0).read(0, BLOCKS) == NEW * SIZE * BLOCKS
        assert not odd
    finally:
        served.stop()
