# SPDX-License-Identifier: BSD-2-Clause
"""A LUN as bytes: any offset and length over a disk of blocks, against a plain byte array; errno for each error."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.door.disk import Disk, errno_of
from initiator.errors import CommandTimeout, InitiatorError, ScsiError, TransportError
from vscsi.scsi import sense

BLOCK, BLOCKS = 16, 12


class FakeLun:
    """What Disk needs of a Lun; refuses what is no whole number of blocks."""

    def __init__(self):
        self.data = bytearray((i * 7) & 0xFF for i in range(BLOCK * BLOCKS))
        self.blocks, self.block_nbytes, self.max_blocks = BLOCKS, BLOCK, 3

    def read(self, lba, blocks):
        assert lba >= 0 and blocks > 0 and lba + blocks <= BLOCKS
        return bytes(self.data[lba * BLOCK : (lba + blocks) * BLOCK])

    def readinto(self, lba, into):
        into[:] = self.read(lba, len(into) // BLOCK)

    def write(self, lba, data):
        assert len(data) and len(data) % BLOCK == 0 and lba * BLOCK + len(data) <= len(self.data)
        self.data[lba * BLOCK : lba * BLOCK + len(data)] = data


EXTENTS = st.tuples(st.integers(0, BLOCK * BLOCKS + 20), st.integers(0, BLOCK * BLOCKS + 20))


@given(st.lists(st.tuples(st.booleans(), EXTENTS, st.integers(0, 255)), max_size=20))
def test_bytes_are_those_of_an_array(steps):
    lun = FakeLun()
    disk, model = Disk(lun), bytearray(lun.data)
    for writing, (offset, nbytes), value in steps:
        room = max(0, min(nbytes, len(model) - offset))
        if not writing:
            into = bytearray(nbytes)
            assert disk.read(offset, memoryview(into)) == room
            assert into == model[offset : offset + room] + bytes(nbytes - room)
        elif room:
            data = bytes([value]) * nbytes
            assert disk.write(offset, memoryview(data)) == room
            model[offset : offset + room] = data[:room]
        elif nbytes:
            with pytest.raises(OSError) as caught:
                disk.write(offset, memoryview(bytes(nbytes)))
            assert caught.value.errno == errno.ENOSPC
    assert lun.data == model


def test_zeroing_in_pieces():
    lun = FakeLun()
    Disk(lun).zero(BLOCK, 8 * BLOCK)
    assert lun.data[BLOCK : 9 * BLOCK] == bytes(8 * BLOCK)
    assert any(lun.data[:BLOCK]) and any(lun.data[9 * BLOCK :])


@pytest.mark.parametrize("extent", [(1, BLOCK), (0, BLOCK + 1), (BLOCK * BLOCKS, BLOCK), (0, BLOCK * (BLOCKS + 1))])
def test_unmapping_wants_whole_blocks_of_the_disk(extent):
    with pytest.raises(OSError) as caught:
        Disk(FakeLun()).unmap(*extent)
    assert caught.value.errno == errno.EINVAL


def scsi(key, asc, ascq):
    return ScsiError(2, sense.Sense(key, asc, ascq, "").encode())


@pytest.mark.parametrize(
    ("error", "want"),
    [
        (CommandTimeout("x"), errno.ETIMEDOUT),
        (TransportError("x"), errno.ENODEV),
        (InitiatorError("x"), errno.EIO),
        (ScsiError(0x18), errno.EBADE),
        (scsi(7, 0x27, 0), errno.EROFS),
        (scsi(7, 0x27, 7), errno.ENOSPC),
        (scsi(2, 0x3A, 0), errno.ENOMEDIUM),
        (scsi(5, 0x20, 0), errno.EOPNOTSUPP),
        (scsi(3, 0x11, 0), errno.EIO),
    ],
)
def test_errno_of_each_error(error, want):
    assert errno_of(error) == want


def test_a_fact_there_is_not():
    with pytest.raises(OSError) as caught:
        Disk(FakeLun()).fact(99)
    assert caught.value.errno == errno.EINVAL
