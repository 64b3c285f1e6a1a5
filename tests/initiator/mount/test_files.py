# SPDX-License-Identifier: BSD-2-Clause
"""The file door without a kernel: its operations called as FUSE calls them, on a real target."""

import errno
import os
import stat
import threading

import pytest
from mount_door import fails

from initiator.mount.files import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE

MIB = 1 << 20


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
