# SPDX-License-Identifier: BSD-2-Clause
"""The file door when something goes wrong: the right errno, and what was known stays known."""

import errno
import os

import pytest
from mount_door import fails

from initiator import CommandTimeout, InitiatorError, ScsiError, TransportError
from initiator.mount.disk import Disk
from initiator.mount.errnos import errno_of
from initiator.mount.files import KEEP_SIZE, PUNCH_HOLE
from vscsi.scsi import sense as sense_
from vscsi.scsi.sense import Sense

MIB = 1 << 20


# ---- what goes wrong ----


def test_write_protected(door):
    made = door("0=mem:64k,ro")
    fails(errno.EROFS, made.open, "lun0", os.O_RDWR)
    fails(errno.EROFS, made.open, "lun0", os.O_WRONLY)
    handle = made.open("lun0", os.O_RDONLY)
    assert made.files.read("/lun0", 5, 0, handle) == bytes(5)
    fails(errno.EROFS, made.files.write, "/lun0", b"x", 0, handle)
    fails(errno.EROFS, made.files.fallocate, "/lun0", PUNCH_HOLE | KEEP_SIZE, 0, 4096, handle)
    assert made.files.fsync("/lun0", 0, handle) == 0


def test_read_only_by_wish(door):
    made = door("0=mem:64k", readonly=True)
    fails(errno.EROFS, made.open)
    assert made.files.getattr("/lun0")["st_mode"] & 0o222 == 0


def test_a_disk_of_another_size(door):
    made = door("0=mem:64k")
    handle = made.open()
    made.files.read("/lun0", 1, 0, handle)
    unit = made.target.server.units[0]
    for blocks in (64, 128):

        def resize(blocks=blocks):
            unit.blocks = blocks
            made.target.server.unit_resized(unit)

        made.target.do(resize)
        assert made.files.getattr("/lun0")["st_size"] == blocks * 512
        assert made.files.read("/lun0", 65536, 0, handle) == bytes(blocks * 512)


def test_a_change_noticed_by_the_command_it_meets(door):
    """The unit attention ends a write that is then made, by the new size."""
    made = door("0=mem:64k")
    handle = made.open()
    unit = made.target.server.units[0]
    unit.blocks //= 2
    made.target.do(lambda: made.target.server.unit_resized(unit))
    assert made.files.write("/lun0", b"x" * 512, 0, handle) == 512
    fails(errno.ENOSPC, made.files.write, "/lun0", b"x" * 512, 40000, handle)


def test_a_lost_target(door, caplog):
    made = door("0=mem:64k")
    handle = made.open()
    made.target.stop()
    for _ in range(3):
        fails(errno.EIO, made.files.read, "/lun0", 1, 0, handle)
    fails(errno.EIO, made.files.write, "/lun0", b"x", 0, handle)
    fails(errno.EIO, made.files.fsync, "/lun0", 0, handle)
    assert made.files.getattr("/lun0")["st_size"] == 65536, "the folder can still be looked at"
    assert len([r for r in caplog.records if r.name == "vscsi.mount" and r.levelname == "WARNING"]) == 1


def _scsi(status, found: Sense | None = None):
    return ScsiError(status, found.encode() if found is not None else b"")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (_scsi(2, sense_.SPACE_ALLOCATION_FAILED), errno.ENOSPC),
        (_scsi(2, sense_.WRITE_PROTECTED), errno.EROFS),
        (_scsi(2, sense_.UNRECOVERED_READ_ERROR), errno.EIO),
        (_scsi(2, sense_.WRITE_ERROR), errno.EIO),
        (_scsi(2, sense_.LBA_OUT_OF_RANGE), errno.EREMOTEIO),
        (_scsi(2, sense_.MEDIUM_NOT_PRESENT), errno.ENOMEDIUM),
        (_scsi(2, sense_.LOGICAL_BLOCK_GUARD_CHECK_FAILED), errno.EILSEQ),
        (_scsi(2, sense_.NOT_READY_CAUSE_NOT_REPORTABLE), errno.EIO),
        (_scsi(2, sense_.POWER_ON_OCCURRED), errno.EIO),
        (_scsi(2), errno.EIO),
        (_scsi(0x18), errno.EBADE),
        (_scsi(0x08), errno.EBUSY),
        (TransportError("gone"), errno.EIO),
        (CommandTimeout("slow"), errno.ETIMEDOUT),
        (InitiatorError("odd"), errno.EIO),
    ],
)
def test_errnos(error, number):
    assert errno.errorcode[errno_of(error)] == errno.errorcode[number]


class BrokenLun:
    """A disk that answers everything with one error."""

    lun, block_nbytes, blocks = 0, 512, 8

    def __init__(self, error):
        self.error = error
        self.refreshed = 0
        self.initiator = self
        self.alive = True

    def refresh(self):
        self.refreshed += 1

    def execute(self, *_, **__):
        raise self.error

    read = write = flush = execute


def test_no_end_of_unit_attentions_ends():
    lun = BrokenLun(_scsi(2, sense_.CAPACITY_DATA_HAS_CHANGED))
    fails(errno.EBUSY, lambda: Disk(lun).facts)
    assert lun.refreshed > 1


def test_a_failed_flush_fails():
    fails(errno.EIO, Disk(BrokenLun(_scsi(2, sense_.WRITE_ERROR))).flush)


def test_a_reservation_of_somebody_else(door):
    made = door("0=mem:64k")
    handle = made.open()
    server, unit = made.target.server, made.target.server.units[0]
    everything = server.native.VT_CONFLICT_READ | server.native.VT_CONFLICT_WRITE
    nexus = server.native.VT_ALL
    made.target.do(lambda: server.native.vt_lu_deny(server.target, unit.index, nexus, everything))
    fails(errno.EBADE, made.files.write, "/lun0", b"x" * 512, 0, handle)
    fails(errno.EBADE, made.files.read, "/lun0", 512, 0, handle)
