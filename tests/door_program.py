# SPDX-License-Identifier: BSD-2-Clause
"""Helper: a program on the far side of the door. `python door_program.py NAME`: runs one of its functions.

Started by tests/interop/test_door_programs.py through `vscsi-initiator run`. LUN 0 is 8 MiB of 512-byte blocks that
hold their own number; an assertion that fails is a traceback and an exit status.
"""

# The calls themselves are what is tried.
# ruff: noqa: PTH116, PTH123

import array
import contextlib
import errno
import fcntl
import os
import stat
import struct
import sys

from sg_headers import SG_IO, TO_FROM_DEV, Command, read_10, v4, write_10

DEVICE, BLOCK = "/dev/vscsi0", "/dev/vscsi0b"
NBYTES = 8 << 20
TUR = bytes(6)


def expected(lba, blocks):
    return b"".join(n.to_bytes(4, "big") * 128 for n in range(lba, lba + blocks))


@contextlib.contextmanager
def opened(path=DEVICE, flags=os.O_RDWR):
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def fails(error, function, *arguments):
    try:
        function(*arguments)
    except OSError as found:
        assert found.errno == error, (errno.errorcode[found.errno], errno.errorcode[error])
    else:
        raise AssertionError(f"no {errno.errorcode[error]}")


def integer(fd, request, value=0, code="i"):
    data = array.array(code, [value])
    fcntl.ioctl(fd, request, data)
    return data[0]


# ---- SG_IO ----


def version_3():
    with opened() as fd:
        done = Command(read_10(5, 3), room=1536).run(fd).header
        assert (done.status, done.host_status, done.driver_status, done.resid, done.info, done.sb_len_wr) == (0,) * 6
        read = Command(read_10(5, 3), room=1536).run(fd)
        assert read.content == expected(5, 3)
        Command(write_10(5, 1), data_out=b"x" * 512).run(fd)
        assert Command(read_10(5, 1), room=512, direction=TO_FROM_DEV).run(fd).content == b"x" * 512
        # Direction 0 and no data, as libiscsi sends it.
        command = Command(TUR)
        command.header.dxfer_direction = 0
        assert command.run(fd).header.status == 0


def version_3_sense():
    with opened() as fd:
        read = Command(read_10(0xFFFFFFFF, 1), room=512).run(fd)
        header = read.header
        assert (header.status, header.masked_status, header.driver_status, header.info) == (2, 1, 8, 1)
        assert (read.sense[0] & 0x7F, read.sense[2], read.sense[12:14]) == (0x70, 5, b"\x21\0")
        assert header.resid == 512
        assert read.content == b"\xee" * 512
        short = Command(read_10(0xFFFFFFFF, 1), room=512)
        short.header.mx_sb_len = 8
        assert short.run(fd).header.sb_len_wr == 8
        assert bytes(short.sense_buffer)[8:] == bytes(88)


def version_3_residuals():
    with opened() as fd:
        inquiry = Command(bytes((0x12, 0, 0, 0, 36, 0)), room=200).run(fd)
        assert inquiry.header.resid == 200 - 36
        assert inquiry.content[36:] == b"\xee" * 164
        over = Command(read_10(0, 2), room=512).run(fd)
        assert over.header.status == 2 or over.header.resid == -512


def version_3_iovec():
    with opened() as fd:
        parts = (1, 511, 512, 300, 724)
        read = Command(read_10(9, 4), room=2048, parts=parts).run(fd)
        assert read.content == expected(9, 4)
        data = bytes(range(256)) * 8
        Command(write_10(100, 4), data_out=data, parts=parts).run(fd)
        assert Command(read_10(100, 4), room=2048).run(fd).content == data
        # dxfer_len cuts the list.
        cut = Command(read_10(9, 2), room=2048, parts=parts)
        cut.header.dxfer_len = 1024
        assert cut.run(fd).content == expected(9, 2) + b"\xee" * 1024


def version_4():
    with opened() as fd:
        header, data, _ = v4(fd, read_10(3, 2), room=1024, in_parts=(100, 924))
        assert (header.device_status, header.transport_status, header.driver_status, header.info) == (0, 0, 0, 0)
        assert data == expected(3, 2)
        header, _, _ = v4(fd, write_10(3, 1), data_out=b"v" * 512, out_parts=(500, 12))
        assert (header.device_status, header.dout_resid) == (0, 0)
        assert v4(fd, read_10(3, 1), room=512)[1] == b"v" * 512
        header, data, _ = v4(fd, bytes((0x12, 0, 0, 0, 36, 0)), room=96)
        assert (header.din_resid, data[36:]) == (60, b"\xee" * 60)
        header, _, sense = v4(fd, read_10(0xFFFFFFFF, 1), room=512)
        assert (header.device_status, header.response_len, header.info) == (2, len(sense), 1)
        assert sense[12] == 0x21


def largest():
    with opened() as fd:
        data = os.urandom(NBYTES)
        assert Command(write_10(0, 16384), data_out=data).run(fd).header.status == 0
        assert Command(read_10(0, 16384), room=NBYTES).run(fd).content == data
        fails(errno.ENOMEM, Command(read_10(0, 1), room=64 << 20).run, fd)


def mistakes():
    with opened() as fd:
        for change, error in (
            ({"interface_id": ord("T")}, errno.ENOSYS),
            ({"cmd_len": 5}, errno.EMSGSIZE),
            ({"cmdp": None}, errno.EMSGSIZE),
            ({"dxferp": None}, errno.EFAULT),
            ({"flags": 4}, errno.EINVAL),
            ({"dxfer_direction": -9}, errno.EINVAL),
            ({"iovec_count": 2000}, errno.EINVAL),
        ):
            command = Command(read_10(0, 1), room=512)
            for name, value in change.items():
                setattr(command.header, name, value)
            fails(error, command.run, fd)
        fails(errno.ENOTTY, fcntl.ioctl, fd, 0x5401, bytes(64))  # TCGETS
        assert Command(TUR).run(fd).header.status == 0
    fails(errno.EBADF, fcntl.ioctl, fd, SG_IO, Command(TUR).header)


# ---- other ioctls ----


def generic_ioctls():
    with opened() as fd:
        assert integer(fd, 0x2282) >= 30000  # SG_GET_VERSION_NUM
        identity = struct.unpack("iiiiihh8x", fcntl.ioctl(fd, 0x2276, bytes(32)))  # SG_GET_SCSI_ID
        assert identity[:5] == (0, 0, 0, 0, 0)
        assert integer(fd, 0x2272) >= 1 << 20  # SG_GET_RESERVED_SIZE
        integer(fd, 0x2275, 4096)
        assert integer(fd, 0x2272) == 4096
        assert fcntl.ioctl(fd, 0x2202) == 6000  # SG_GET_TIMEOUT
        integer(fd, 0x2201, 700)
        assert fcntl.ioctl(fd, 0x2202) == 700
        assert integer(fd, 0x2203, 7) == 0  # SG_EMULATED_HOST
        assert integer(fd, 0x5386, 7) == 0  # SCSI_IOCTL_GET_BUS_NUMBER
        assert fcntl.ioctl(fd, 0x5382, bytes(8)) == bytes(8)  # SCSI_IOCTL_GET_IDLUN
        again = os.dup(fd)
        assert fcntl.ioctl(again, 0x2202) == 700
        with opened() as other:
            assert fcntl.ioctl(other, 0x2202) == 6000
            assert integer(other, 0x1267, code="H") == 16384  # BLKSECTGET


def block_ioctls():
    with opened(BLOCK) as fd:
        assert integer(fd, 0x80081272, code="Q") == NBYTES  # BLKGETSIZE64
        assert integer(fd, 0x1260, code="L") == NBYTES // 512  # BLKGETSIZE
        assert integer(fd, 0x1268) == 512  # BLKSSZGET
        assert integer(fd, 0x127B) in (512, 4096)  # BLKPBSZGET
        assert integer(fd, 0x125E, 9) == 0  # BLKROGET
        fcntl.ioctl(fd, 0x1261)  # BLKFLSBUF
        extent = struct.pack("QQ", 1 << 20, 1 << 20)
        fcntl.ioctl(fd, 0x127F, extent)  # BLKZEROOUT
        assert os.pread(fd, 1 << 20, 1 << 20) == bytes(1 << 20)
        fcntl.ioctl(fd, 0x1277, struct.pack("QQ", 2 << 20, 1 << 20))  # BLKDISCARD
        assert os.pread(fd, 1 << 20, 2 << 20) == bytes(1 << 20)
        assert os.pread(fd, 512, 3 << 20) == expected(6144, 1)
        fails(errno.EINVAL, fcntl.ioctl, fd, 0x1277, struct.pack("QQ", 1, 512))
        assert Command(TUR).run(fd).header.status == 0
    with opened(DEVICE) as fd:
        fails(errno.ENOTTY, fcntl.ioctl, fd, 0x1277, extent)


# ---- bytes ----


def block_bytes():
    with opened(BLOCK) as fd:
        assert os.read(fd, 700) == expected(0, 2)[:700]
        assert os.lseek(fd, 0, os.SEEK_CUR) == 700
        assert os.read(fd, 100) == expected(0, 2)[700:800]
        assert os.lseek(fd, 0, os.SEEK_END) == NBYTES
        assert os.read(fd, 10) == b""
        fails(errno.ENOSPC, os.write, fd, b"x")
        assert os.pwrite(fd, b"x" * 600, NBYTES - 100) == 100
        assert os.pread(fd, 600, NBYTES - 100) == b"x" * 100
        assert os.preadv(fd, [a := bytearray(100), b := bytearray(600)], 512) == 700
        assert bytes(a + b) == expected(1, 2)[:700]
        os.lseek(fd, 5000, os.SEEK_SET)
        assert os.writev(fd, [b"one", b"three"]) == 8
        assert os.lseek(fd, 0, os.SEEK_CUR) == 5008
        assert os.pread(fd, 10, 4999) == expected(0, 10)[4999:5000] + b"onethree" + expected(0, 10)[5008:5009]
        os.fsync(fd)
        os.fdatasync(fd)
        fails(errno.EINVAL, os.ftruncate, fd, 0)
        assert os.lseek(fd, 17, os.SEEK_DATA) == 17
        assert os.lseek(fd, 17, os.SEEK_HOLE) == NBYTES
    with opened(BLOCK, os.O_RDONLY) as fd:
        fails(errno.EBADF, os.write, fd, b"x")
    with open(BLOCK, "rb") as file:
        file.seek(1024)
        assert file.read(512) == expected(2, 1)


def metadata():
    with opened() as fd:
        for found in (os.stat(DEVICE), os.lstat(DEVICE), os.fstat(fd), os.stat("/dev/../dev/null")):
            assert stat.S_ISCHR(found.st_mode)
        assert os.major(os.fstat(fd).st_rdev) == 21
        assert os.fstat(fd).st_rdev == os.stat(DEVICE).st_rdev
    with opened(BLOCK) as fd:
        assert stat.S_ISBLK(os.fstat(fd).st_mode)
    assert os.access(DEVICE, os.R_OK | os.W_OK) and not os.access(DEVICE, os.X_OK)
    assert os.path.realpath(DEVICE) == DEVICE
    fails(errno.ENOENT, os.stat, "/dev/vscsi7")
    fails(errno.ENOENT, os.open, "/dev/vscsi7", os.O_RDWR)
    fails(errno.EEXIST, os.open, DEVICE, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    fails(errno.EINVAL, os.readlink, DEVICE)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("done")
