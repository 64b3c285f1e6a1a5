# SPDX-License-Identifier: BSD-2-Clause
"""Initiator and target in two processes: the program `vscsi-target` serves, the library uses; SRP and blkif."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from initiator import ConnectError, Initiator, ScsiError, TransportError, device
from initiator.load import Load
from initiator.native import lib
from initiator.vbd import Vbd
from vscsi.scsi import cdb, sense

MIB = 1 << 20
SIZE = 32 * MIB
PROGRAM = Path(sys.executable).with_name("vscsi-target")


class Target:
    """`vscsi-target` with LUN 0 in a file, LUN 1 with 4096-byte blocks in memory, LUN 5 read-only."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "disk.img"
        if not self.image.exists():
            self.image.write_bytes(os.urandom(MIB) + bytes(SIZE - MIB))
            (folder / "ro.img").write_bytes(bytes(range(256)) * 4096)
        self.socket = folder / "s"
        luns = [f"0={self.image}", "1=mem:16M,bs=4096", f"5={folder / 'ro.img'},ro"]
        options = [word for lun in luns for word in ("--lun", lun)]
        self.process = subprocess.Popen([PROGRAM, "-U", self.socket, *options], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                Initiator(self.socket, timeout=5, memory_nbytes=4 * MIB).close()
                return
            except ConnectError:
                assert time.monotonic() < deadline and self.process.poll() is None
                time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    made = Target(tmp_path_factory.mktemp("target"))
    yield made
    if made.process.poll() is None:
        assert made.stop() == 0


@pytest.fixture
def own_target(tmp_path):
    """One that the test may kill."""
    made = Target(tmp_path)
    yield made
    if made.process.poll() is None:
        made.stop(signal.SIGKILL)


OPENERS = {
    "srp": lambda target, **options: Initiator(target.socket, timeout=10, **options).lun(0),
    "srp-2-channels": lambda target, **options: Initiator(target.socket, timeout=10, channels=2, **options).lun(0),
    "blkif": lambda target, **options: Vbd(target.socket, timeout=10, **options),
    "blkif-2-queues": lambda target, **options: Vbd(target.socket, timeout=10, queues=2, **options),
}


@pytest.fixture(params=OPENERS)
def opener(request, target):
    made = []

    def make(**options):
        made.append(OPENERS[request.param](target, **options))
        return made[-1]

    yield make
    for disk in made:
        getattr(disk, "initiator", disk).close()


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("nbytes", [512, 4096, 11 * 4096, 12 * 4096 + 512, MIB, 9 * MIB])
def test_what_is_written_is_read(opener, target, nbytes, persistent):
    disk = opener(persistent=persistent)
    data = os.urandom(nbytes)
    disk.write(4096, data)
    assert disk.read(4096, nbytes // 512) == data
    disk.flush()
    with target.image.open("rb") as image:
        image.seek(4096 * 512)
        assert image.read(nbytes) == data


def test_capacity(opener):
    disk = opener()
    assert (disk.blocks, disk.block_nbytes) == (SIZE // 512, 512)


def test_the_end_of_the_disk(opener):
    disk = opener()
    disk.write(disk.blocks - 1, b"e" * 512)
    assert disk.read(disk.blocks - 1, 1) == b"e" * 512
    with pytest.raises(Exception, match=r"out of range|error"):
        disk.read(disk.blocks - 1, 2)


def test_discard_zeroes(opener):
    disk = opener()
    disk.write(8192, b"d" * 65536)
    disk.unmap(8192, 128)
    assert disk.read(8192, 128) == bytes(65536)


def test_fua(opener, target):
    opener().write(100, b"f" * 512, fua=True)
    with target.image.open("rb") as image:
        image.seek(100 * 512)
        assert image.read(512) == b"f" * 512


@pytest.mark.parametrize("persistent", [True, False])
def test_stress_eight_threads(opener, persistent):
    disk = opener(persistent=persistent)
    failures: list[BaseException] = []
    end = time.monotonic() + 1
    counts = [0] * 8

    def hammer(me: int) -> None:
        base = 16384 + me * 2048
        try:
            while time.monotonic() < end:
                blocks = 1 + (counts[me] * 7) % 200
                lba = base + counts[me] % 1500
                data = os.urandom(blocks * 512)
                disk.write(lba, data)
                assert disk.read(lba, blocks) == data
                counts[me] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hammer, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures and min(counts) > 0
    assert not getattr(disk, "initiator", disk)._buffers.lost


# ---- SRP ----


def test_luns_and_identity(target):
    with Initiator(target.socket) as initiator:
        assert initiator.luns() == [0, 1, 5]
        assert initiator.target_info.pid == target.process.pid
        assert initiator.request_limit == 254
        big = initiator.lun(1)
        assert (big.blocks, big.block_nbytes) == (4096, 4096)
        big.write(7, b"4" * 8192)
        assert big.read(7, 2) == b"4" * 8192


def test_read_only(target):
    with Initiator(target.socket) as initiator, pytest.raises(ScsiError) as caught:
        initiator.lun(5).write(0, bytes(512))
    assert caught.value.sense.key == sense.Key.DATA_PROTECT
    with Vbd(target.socket, lun=5) as disk:
        assert disk.readonly
        assert disk.read(0, 1) == bytes(range(256)) * 2


def test_power_on_attention_is_there_for_raw_commands(target):
    with Initiator(target.socket) as initiator:
        done = initiator.execute(0, cdb.TEST_UNIT_READY.build())
        assert sense.decode(done.sense).matches(sense.POWER_ON_OR_RESET_OCCURRED)
        assert initiator.execute(0, cdb.TEST_UNIT_READY.build()).status == 0


def test_a_unit_that_does_not_exist(target):
    with Initiator(target.socket) as initiator:
        done = initiator.execute(3, cdb.TEST_UNIT_READY.build())
        assert sense.decode(done.sense).matches(sense.LOGICAL_UNIT_NOT_SUPPORTED)


def test_a_32_byte_cdb_is_refused_in_order(target):
    with Initiator(target.socket) as initiator:
        lun = initiator.lun(0)
        assert lun.blocks
        with pytest.raises(ScsiError) as caught:
            lun.execute(bytes([0x7F, 0, 0, 0, 0, 0, 0, 24, 0, 9]) + bytes(22), data_in=512)
        assert caught.value.sense.key == sense.Key.ILLEGAL_REQUEST


def test_residuals(target):
    with Initiator(target.socket) as initiator:
        lun = initiator.lun(0)
        assert lun.blocks
        done = lun.execute(cdb.READ_10.build(lba=0, transfer_length=2), data_in=4096)
        assert (done.data_in_len, done.in_residual) == (1024, 3072)
        done = lun.execute(cdb.INQUIRY.build(allocation_length=20), data_in=252)
        assert (done.data_in_len, done.in_residual) == (20, 232)


def test_real_queue_depth(target):
    with Initiator(target.socket) as initiator:
        lun = initiator.lun(0)
        lun.write(0, b"".join(bytes([k]) * 512 for k in range(200)))
        for k in range(200):
            initiator.submit(0, cdb.READ_10.build(lba=k, transfer_length=1), data_in=512, cookie=k)
        seen = {}
        while len(seen) < 200:
            seen.update({d.cookie: d.data_in for d in initiator.reap(min=10, timeout=5) if d.error is None})
        assert seen == {k: bytes([k]) * 512 for k in range(200)}


def test_task_management(target):
    with Initiator(target.socket) as initiator:
        assert initiator.task_management(lib.SRP_TMF_ABORT_TASK, 0, 12345) == lib.SRP_RESP_COMPLETE


def test_pyscsi(target):
    from pyscsi.pyscsi.scsi import SCSI

    with Initiator(target.socket) as initiator:
        s = SCSI(device.PyscsiDevice(initiator, 0), 512)
        assert s.inquiry().result["peripheral_device_type"] == 0
        assert s.readcapacity16().result["returned_lba"] == SIZE // 512 - 1


# ---- blkif ----


def test_barrier(target):
    with Vbd(target.socket) as disk:
        disk.barrier(50, b"b" * 512)
        disk.barrier()
        assert disk.read(50, 1) == b"b" * 512


@pytest.mark.parametrize("persistent", [True, False])
def test_stress_suspend_and_resume_under_load(target, persistent):
    disk = Vbd(target.socket, timeout=20, queues=2, persistent=persistent)
    failures: list[BaseException] = []
    counts, stop = [0] * 4, threading.Event()

    def work(me: int) -> None:
        try:
            while not stop.is_set():
                data = os.urandom(80 * 1024)
                disk.write(20000 + me * 1000, data)
                assert disk.read(20000 + me * 1000, 160) == data
                counts[me] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        time.sleep(0.05)
        disk.suspend()
        before = list(counts)
        time.sleep(0.02)
        assert sum(counts) - sum(before) <= 4  # at most what had been answered already
        disk.resume()
    time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join(20)
    disk.close()
    assert not failures and min(counts) > 0


def test_no_such_disk(target):
    with pytest.raises(ConnectError, match="serves no virtual disk"):
        Vbd(target.socket, lun=9)


# ---- load ----


@pytest.mark.parametrize("scatter", [False, True])
@pytest.mark.parametrize("nbytes", [4096, 128 << 10])
def test_load(opener, nbytes, scatter):
    disk = opener()
    assert disk.blocks
    load = Load(getattr(disk, "initiator", disk), 0, block_nbytes=nbytes, queue_depth=8)
    result = load.run(
        logical_block_nbytes=512, span_nbytes=16 * MIB, seconds=5, max_ios=200, read_percent=50, scatter=scatter
    )
    assert (result.ios, result.errors) == (200, 0)
    load.close()


# ---- death ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_target_goes_and_comes_back(own_target, number, tmp_path):
    initiator = Initiator(own_target.socket, timeout=10)
    lun, disk = initiator.lun(0), Vbd(own_target.socket, timeout=10)
    lun.write(0, b"k" * 512)
    lun.flush()
    assert disk.read(0, 1) == b"k" * 512
    own_target.stop(number)
    deadline = time.monotonic() + 5
    while initiator.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(TransportError):
        lun.read(0, 1)
    with pytest.raises(TransportError):
        disk.read(0, 1)
    disk.close()
    again = Target(tmp_path)
    initiator.reconnect()
    assert lun.read(0, 1) == b"k" * 512
    initiator.close()
    again.stop()


def test_stress_connecting(target):
    """The target publishes while we look: whoever comes first, the handshake goes on."""
    for _ in range(60):
        Vbd(target.socket, timeout=3, memory_nbytes=4 * MIB).close()


def test_suspended_for_good(own_target):
    """What waits for a resume that cannot come is told."""
    disk = Vbd(own_target.socket, timeout=20)
    disk.suspend()
    results = []

    def run() -> None:
        try:
            disk.read(0, 1)
        except TransportError as error:
            results.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.1)
    own_target.stop(signal.SIGKILL)
    thread.join(5)
    assert len(results) == 1 and "gone" in results[0]
    with pytest.raises(ConnectError):
        disk.resume()
    disk.close()


def test_suspended_too_long(target):
    with Vbd(target.socket, timeout=0.2) as disk:
        disk.suspend()
        with pytest.raises(TransportError, match="suspended"):
            disk.read(0, 1)
        disk.resume()
        assert len(disk.read(0, 1)) == 512


def test_blkif_target_goes_while_requests_wait(own_target):
    disk = Vbd(own_target.socket, timeout=20, queues=2)
    results: list[str] = []

    def run() -> None:
        try:
            while True:
                disk.read(0, 2048)
        except TransportError as error:
            results.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    own_target.stop(signal.SIGKILL)
    for thread in threads:
        thread.join(5)
    assert len(results) == 4
    disk.close()
