# SPDX-License-Identifier: BSD-2-Clause
"""The file door without a kernel: its operations called as FUSE calls them, on a real target and on one that fails."""

import errno
import os
import stat
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real_server import Target

from initiator import CommandTimeout, Initiator, InitiatorError, ScsiError, TransportError
from initiator.mount.disk import Disk
from initiator.mount.errnos import errno_of
from initiator.mount.files import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, Files
from initiator.mount.ranges import Ranges
from vscsi.scsi import sense as sense_
from vscsi.scsi.sense import Sense

MIB = 1 << 20


class Door:
    """A target in this process, and its LUNs as files."""

    def __init__(self, folder, *luns, **options):
        self.target = Target(folder / "s", *luns)
        self.initiator = Initiator(folder / "s", memory_nbytes=16 << 20)
        numbers = self.initiator.luns()
        self.disks = {f"lun{number}": Disk(self.initiator.lun(number), **options) for number in numbers}
        self.files = Files(self.disks)

    def open(self, name="lun0", flags=os.O_RDWR):
        return self.files.open(f"/{name}", flags)

    def close(self):
        self.initiator.close()
        if self.target.thread.is_alive():
            self.target.stop()


@pytest.fixture
def door(tmp_path):
    made = []

    def make(*luns, **options):
        made.append(Door(tmp_path, *luns, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def fails(number, function, *arguments):
    with pytest.raises(OSError) as info:
        function(*arguments)
    assert errno.errorcode[info.value.errno] == errno.errorcode[number]


# ---- the folder ----


def test_each_lun_is_a_file(door):
    files = door("0=mem:1M", "3=mem:64k,ro,bs=4096").files
    assert sorted(files.readdir("/", 0)) == [".", "..", "lun0", "lun3"]
    folder, disk, locked = (files.getattr(path) for path in ("/", "/lun0", "/lun3"))
    assert stat.S_ISDIR(folder["st_mode"])
    assert (disk["st_size"], oct(disk["st_mode"])) == (MIB, oct(stat.S_IFREG | 0o600))
    assert (locked["st_size"], oct(locked["st_mode"])) == (65536, oct(stat.S_IFREG | 0o400))
    fails(errno.ENOENT, files.getattr, "/lun1")
    fails(errno.ENOENT, files.getattr, "/lun0/x")
    fails(errno.ENOTDIR, files.readdir, "/lun0", 0)
    fails(errno.EISDIR, files.open, "/", os.O_RDONLY)
    assert files.statfs("/")["f_blocks"] == (MIB + 65536) // 4096


def test_the_folder_cannot_be_changed(door):
    files = door("0=mem:1M").files
    for name, arguments in (
        ("create", ("/x", 0o600)),
        ("unlink", ("/lun0",)),
        ("mkdir", ("/x", 0o700)),
        ("rename", ("/lun0", "/x")),
        ("chmod", ("/lun0", 0)),
    ):
        fails(errno.EPERM, getattr(files, name), *arguments)
    assert files.utimens("/lun0", None) == 0


# ---- bytes ----


@pytest.mark.parametrize("block", [512, 4096])
@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [(0, 1), (1, 1), (511, 2), (4095, 2), (0, 4096), (4096, 4096), (100, 5000), (0, 3 * 4096 + 1), (12288 - 7, 7)],
)
def test_any_offset_any_length(door, block, offset, nbytes):
    files = (made := door(f"0=mem:64k,bs={block}")).files
    handle = made.open()
    before = os.urandom(65536)
    assert files.write("/lun0", before, 0, handle) == 65536
    data = os.urandom(nbytes)
    assert files.write("/lun0", data, offset, handle) == nbytes
    expected = before[:offset] + data + before[offset + nbytes :]
    assert files.read("/lun0", 65536, 0, handle) == expected
    assert files.read("/lun0", nbytes, offset, handle) == data
    assert files.fsync("/lun0", 0, handle) == 0
    assert files.flush("/lun0", handle) == 0


def test_the_end_of_a_disk(door):
    files = (made := door("0=mem:64k")).files
    handle = made.open()
    assert files.read("/lun0", 100, 65536, handle) == b""
    assert files.read("/lun0", 100, 65530, handle) == bytes(6)
    assert files.write("/lun0", b"x" * 100, 65530, handle) == 6
    assert files.read("/lun0", 100, 65529, handle) == b"\0" + b"x" * 6
    fails(errno.ENOSPC, files.write, "/lun0", b"x", 65536, handle)
    assert files.write("/lun0", b"", 65536, handle) == 0
    fails(errno.EINVAL, files.truncate, "/lun0", 65535)
    fails(errno.EINVAL, files.truncate, "/lun0", 0, handle)
    assert files.truncate("/lun0", 65536) == 0


def test_parts_of_one_block_from_many_threads(door):
    """Nobody's bytes are lost, and whoever writes whole blocks is not undone by those who write parts."""
    made = door("0=mem:64k,bs=4096")
    files, handle, rounds = made.files, made.open(), 40
    start = threading.Barrier(9)

    def parts(k):
        start.wait()
        for n in range(rounds):
            files.write("/lun0", bytes((n + 1,)) * 512, 512 * k, handle)
            assert files.read("/lun0", 512, 512 * k, handle) == bytes((n + 1,)) * 512

    def whole():
        start.wait()
        for n in range(rounds):
            files.write("/lun0", bytes((n + 1,)) * 4096, 4096, handle)
            files.write("/lun0", b"p", 4096 + n, handle)

    threads = [threading.Thread(target=parts, args=(k,)) for k in range(8)] + [threading.Thread(target=whole)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files.read("/lun0", 4096, 0, handle) == bytes((rounds,)) * 4096
    assert files.read("/lun0", 4096, 4096, handle) == bytes((rounds,)) * (rounds - 1) + b"p" + bytes((rounds,)) * (
        4096 - rounds
    )


def test_a_part_and_the_whole_of_a_block_never_mix(door):
    """While one thread writes a part, another's whole block lands before or after it, never in between."""
    made = door("0=mem:64k")
    disk, lun = made.disks["lun0"], made.initiator.lun(0)
    entered, go_on = threading.Event(), threading.Event()
    read = disk.lun.read

    def slow_read(lba, blocks):
        data = read(lba, blocks)
        entered.set()
        assert go_on.wait(30)
        return data

    disk.lun.read = slow_read
    part = threading.Thread(target=disk.write, args=(10, b"part"))
    part.start()
    assert entered.wait(30)
    whole = threading.Thread(target=disk.write, args=(0, b"w" * 512))
    whole.start()
    beside = threading.Thread(target=disk.write, args=(512, b"b" * 512))
    beside.start()
    beside.join(30)
    assert not beside.is_alive(), "other blocks need not wait"
    assert whole.is_alive()
    go_on.set()
    part.join()
    whole.join()
    assert lun.read(0, 1) == b"w" * 512


def test_ranges_are_first_come_first_served():
    ranges, order = Ranges(), []
    inside, go_on = threading.Event(), threading.Event()

    def hold(first, count, name):
        with ranges.held(first, count):
            order.append(name)

    def hold_long():
        with ranges.held(0, 10):
            inside.set()
            go_on.wait(30)

    long = threading.Thread(target=hold_long)
    long.start()
    assert inside.wait(30)
    waiting = []
    for name, (first, count) in {"a": (5, 10), "b": (14, 1)}.items():
        waiting.append(threading.Thread(target=hold, args=(first, count, name)))
        waiting[-1].start()
        while len(ranges._queue) < 1 + len(waiting):
            assert waiting[-1].is_alive()
    assert order == [], "b overlaps a, which came first"
    hold(20, 5, "free")
    go_on.set()
    for thread in (long, *waiting):
        thread.join()
    assert order == ["free", "a", "b"]


# ---- holes ----


def test_holes_and_zeros(door, tmp_path):
    image = tmp_path / "d.img"
    made = door(f"0={image},size=1M,bs=4096")
    files, handle = made.files, made.open()
    files.write("/lun0", b"x" * MIB, 0, handle)
    files.fsync("/lun0", 1, handle)
    assert image.stat().st_blocks * 512 >= MIB
    assert files.fallocate("/lun0", PUNCH_HOLE | KEEP_SIZE, 4000, 512 * 1024, handle) == 0
    assert image.stat().st_blocks * 512 <= MIB - 500 * 1024
    assert files.read("/lun0", MIB, 0, handle) == b"x" * 4000 + bytes(512 * 1024) + b"x" * (MIB - 4000 - 512 * 1024)
    assert files.fallocate("/lun0", ZERO_RANGE, 600 * 1024 + 1, 8192, handle) == 0
    assert files.read("/lun0", 8194, 600 * 1024, handle) == b"x" + bytes(8192) + b"x"
    assert files.fallocate("/lun0", PUNCH_HOLE | KEEP_SIZE, MIB - 1, 100, handle) == 0
    assert files.read("/lun0", 2, MIB - 2, handle) == b"x\0"
    assert files.fallocate("/lun0", PUNCH_HOLE | KEEP_SIZE, 2 * MIB, 100, handle) == 0
    for mode in (0, KEEP_SIZE, 0x08, 0x20):
        fails(errno.EOPNOTSUPP, files.fallocate, "/lun0", mode, 0, 4096, handle)


def test_a_disk_that_cannot_unmap(door):
    made = door("0=mem:64k,discard=off")
    handle = made.open()
    fails(errno.EOPNOTSUPP, made.files.fallocate, "/lun0", PUNCH_HOLE | KEEP_SIZE, 0, 4096, handle)
    assert made.files.fallocate("/lun0", ZERO_RANGE | KEEP_SIZE, 0, 4096, handle) == 0


def test_seek_finds_data_and_the_end(door):
    made = door("0=mem:64k")
    handle = made.open()
    made.files.write("/lun0", b"x" * 65536, 0, handle)
    assert made.files.lseek("/lun0", 100, os.SEEK_DATA, handle) == 100
    assert made.files.lseek("/lun0", 100, os.SEEK_HOLE, handle) == 65536
    fails(errno.ENXIO, made.files.lseek, "/lun0", 65536, os.SEEK_DATA, handle)
    fails(errno.EINVAL, made.files.lseek, "/lun0", 0, os.SEEK_SET, handle)


class StatusLun:
    """A disk of 100 blocks that tells where its holes are, one extent at a time; a lie where asked to."""

    lun, block_nbytes, blocks = 0, 512, 100

    def __init__(self, holes, lie=None):
        self.holes, self.lie = holes, lie

    def execute(self, cdb, **_):
        from types import SimpleNamespace

        from vscsi.scsi.medium import LbaStatus, encode_lba_status

        if cdb[0] != 0x9E or cdb[1] & 0x1F != 0x12:
            return SimpleNamespace(data_in=bytes(252))
        lba = int.from_bytes(cdb[2:10], "big")
        end = next((n for n in range(lba, 100) if (n in self.holes) != (lba in self.holes)), 100)
        extents = [LbaStatus(lba, end - lba, int(lba in self.holes))] if self.lie is None else self.lie
        return SimpleNamespace(data_in=encode_lba_status(extents))


@given(st.sets(st.integers(0, 99)), st.integers(0, 99 * 512 + 511), st.booleans())
def test_seek_agrees_with_a_model(holes, offset, hole):
    disk = Disk(StatusLun(holes))
    block = offset // 512
    expected = next((n for n in range(block, 100) if (n in holes) == hole), None)
    if expected is not None:
        assert disk.seek(offset, hole=hole) == max(offset, expected * 512)
    elif hole:
        assert disk.seek(offset, hole=True) == 100 * 512
    else:
        fails(errno.ENXIO, lambda: disk.seek(offset, hole=False))


@pytest.mark.parametrize("lie", [[], [(0, 0)], [(50, 3)], [(5, 1), (5, 1)], [(0, 5), (3, 1)]])
def test_a_target_that_tells_nonsense_of_its_holes_holds_nobody_up(lie):
    from vscsi.scsi.medium import LbaStatus

    disk = Disk(StatusLun(set(), [LbaStatus(lba, blocks, 1) for lba, blocks in lie]))
    assert 0 <= disk.seek(7 * 512, hole=True) <= 100 * 512


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "write", "punch", "zero"]),
        st.integers(0, 20000),
        st.integers(1, 9000),
        st.binary(min_size=1, max_size=1),
    ),
    max_size=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(STEPS)
def test_agrees_with_a_bytearray(model_door, steps):
    size = 16384
    for disk in model_door.disks.values():
        disk.write(0, bytes(size))
        model = bytearray(size)
        for what, offset, nbytes, byte in steps:
            end = min(offset + nbytes, size)
            if what == "read":
                assert disk.read(offset, nbytes) == model[offset:end]
            elif what == "write" and offset < size:
                assert disk.write(offset, byte * nbytes) == end - offset
                model[offset:end] = byte * (end - offset)
            elif what in ("punch", "zero") and offset < size:
                getattr(disk, what)(offset, nbytes)
                model[offset:end] = bytes(end - offset)
        assert disk.read(0, size) == model


@pytest.fixture(scope="module")
def model_door(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    made = Door(folder, f"0={folder}/a,size=16k", f"1={folder}/b,size=16k,bs=4096")
    yield made
    made.close()


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
