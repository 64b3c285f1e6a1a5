# SPDX-License-Identifier: BSD-2-Clause
"""A failed fdatasync is remembered, by everybody: the kernel tells an open file of lost data once, and whoever syncs
at that time without being told must not answer with a success. A sync is held back in the target, and then fails.
"""

import resource
import threading
import time

import pytest
from programs import Target

from crash.hold import FAIL_SYNC, FULL, LOST, holding
from initiator import Initiator, ScsiError
from initiator.errors import BlkifError
from initiator.native import lib
from initiator.vbd import Vbd
from vscsi.scsi import cdb

SECONDS = 30.0
DATA = b"data" * 128
SYNC = cdb.SYNCHRONIZE_CACHE_10.build()
SAME = cdb.WRITE_SAME_16.build(lba=8, number_of_logical_blocks=1)


class Beside:
    """A sync that is held and will fail; what is done beside it, over other connections."""

    def __init__(self, held):
        self.held = held
        path = held.target.socket
        self.one, self.two, self.vbd = Initiator(path), Initiator(path), Vbd(path)
        self.disks = self.one.lun(0), self.two.lun(0)
        self.answers = []
        self.threads = []
        self.disks[1].write(0, DATA)
        held.arm(FAIL_SYNC)
        self.start("first", self.disks[0].flush)
        held.wait()

    def start(self, name, function, *arguments, **options):
        def run():
            try:
                function(*arguments, **options)
                self.answers.append((name, True))
            except (ScsiError, BlkifError):
                self.answers.append((name, False))

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def sent(self, count):
        """Returns once so many have been sent, and perhaps answered."""
        end = time.monotonic() + SECONDS
        while len(self.answers) + sum(s.stats()["outstanding"] for s in (self.two, self.vbd)) < count:
            assert time.monotonic() < end
            time.sleep(0.005)

    def finish(self):
        self.held.let_go()
        for thread in self.threads:
            thread.join(SECONDS)
        return dict(self.answers)

    def close(self):
        for session in (self.one, self.two, self.vbd):
            session.close()


@pytest.fixture
def lun():
    return ""


@pytest.fixture
def beside(tmp_path, lun):
    with holding(tmp_path, lun, options=("--loops", "2")) as held:
        made = Beside(held)
        yield made
        made.close()


def test_no_success_beside_a_failure(beside):
    """SRP and blkif flushes and a write with FUA; and none afterwards."""
    two, vbd = beside.disks[1], beside.vbd
    beside.start("sync", two.flush)
    beside.start("fua", two.write, 1, DATA, fua=True)
    beside.start("blkif flush", vbd.flush)
    beside.sent(3)
    for k in range(4):  # what promises nothing goes on
        two.write(3 + k, DATA)
        assert two.read(3 + k, 1) == DATA
    assert beside.finish() == dict.fromkeys(("first", "sync", "fua", "blkif flush"), False)
    beside.answers.clear()
    for name, call in (("sync", two.flush), ("blkif flush", vbd.flush)):
        beside.start(name, call)
    assert beside.finish() == {"sync": False, "blkif flush": False}


@pytest.mark.parametrize("lun", [",cache=wt"])
def test_python_and_the_core_tell_each_other(beside):
    """WRITE SAME flushes by itself in a Python worker here, and so does the sync that fails."""
    beside.start("same", beside.disks[1].execute, SAME, data_out=DATA)
    beside.sent(1)
    assert beside.disks[0].read(3, 1) == bytes(512)
    assert beside.finish() == {"first": False, "same": False}
    beside.answers.clear()
    beside.start("durable", beside.disks[1].write, 1, DATA)
    assert beside.finish() == {"durable": False}


def test_a_sync_that_waits_for_another_can_be_aborted(beside):
    tag = beside.two.submit(0, SYNC)
    read = beside.two.submit(0, cdb.READ_10.build(transfer_length=1), data_in=512)
    assert [done.tag for done in beside.two.reap(min=1)] == [read]
    assert beside.two.task_management(lib.SRP_TMF_ABORT_TASK, 0, tag) == 0
    (done,) = beside.two.reap(min=1)
    assert done.tag == tag and done.error is not None
    assert beside.finish() == {"first": False}


def test_what_waits_ends_with_its_channel(beside):
    beside.two.submit(0, SYNC)
    beside.two.execute(0, cdb.READ_10.build(transfer_length=1), data_in=512)
    beside.two.close()
    assert beside.finish() == {"first": False}


@pytest.mark.parametrize("lun", ["", ",cache=wt"])
@pytest.mark.parametrize("dirty", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_no_space_may_mean_that_earlier_data_is_lost(lost, dirty, lun, tmp_path):
    """A durable write that finds no space: its own is not there; that of writes before it may be lost, if there are any
    that were answered before they were durable. Another open file of the image knows: the next sync is one of that."""
    with holding(tmp_path, lun) as held, Initiator(held.target.socket) as initiator:
        disk = initiator.lun(0)
        disk.write(0, DATA)
        if not dirty:
            disk.flush()
        asked = dirty and not lun
        for _ in range(1 if lost else 2):
            if lost and asked:
                held.arm(LOST)
            held.arm(FULL)
            with pytest.raises(ScsiError, match=r"(?i)space"):
                disk.write(1, DATA, fua=True)
        if lost and asked:
            for _ in range(2):
                with pytest.raises(ScsiError):
                    disk.flush()
        else:
            disk.write(1, DATA, fua=True)
            disk.flush()


@pytest.mark.parametrize("engine", ["pool", "auto"])
def test_no_space_for_a_durable_write_does_not_end_all_syncs(engine, tmp_path):
    """With a limit of the process on the size of files, which the kernel tells as it tells of a full file system."""
    target = Target(tmp_path, f"0={tmp_path}/disk.img,size=8M", options=("--engine", engine))
    resource.prlimit(target.process.pid, resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
    with Initiator(target.socket) as initiator:
        disk = initiator.lun(0)
        for _ in range(2):
            disk.write(0, DATA)
            with pytest.raises(ScsiError):
                disk.write((6 << 20) // 512, DATA)
            with pytest.raises(ScsiError):
                disk.write((6 << 20) // 512, DATA, fua=True)
            disk.flush()
            disk.write(1, DATA, fua=True)
    assert target.stop() == 0
