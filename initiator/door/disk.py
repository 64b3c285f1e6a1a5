# SPDX-License-Identifier: BSD-2-Clause
"""A logical unit as bytes, for block nodes: any offset, any length, and what block ioctls ask.

Bytes that are no whole blocks are read, changed and written back, alone with their blocks. Errors become the errno
that a kernel's block device gives. Sizes come from the target each time they are asked for. Knows no
message of the library.
"""

import errno
from collections.abc import Callable, Iterator

from initiator.errors import CommandTimeout, InitiatorError, ScsiError, TransportError
from initiator.lun import Lun
from initiator.native import lib
from initiator.ranges import Ranges
from vscsi.scsi import cdb as cdb_
from vscsi.scsi import sense, vpd
from vscsi.scsi.parameters import CAPACITY_16
from vscsi.scsi.status import Status

SECTOR = 512
WRITE_PROTECTED, NO_MEDIUM, SPACE = 0x27, 0x3A, 0x07
"""ASC WRITE PROTECTED, ASC MEDIUM NOT PRESENT, ASCQ SPACE ALLOCATION FAILED WRITE PROTECT."""
ROTATING = 2


def errno_of(error: InitiatorError) -> int:
    """What a kernel's block device says in this case."""
    if isinstance(error, CommandTimeout):
        return errno.ETIMEDOUT
    if isinstance(error, TransportError):
        return errno.ENODEV
    if not isinstance(error, ScsiError):
        return errno.EIO
    if error.status == Status.RESERVATION_CONFLICT:
        return errno.EBADE
    if error.sense.asc == WRITE_PROTECTED:
        return errno.ENOSPC if error.sense.ascq == SPACE else errno.EROFS
    if error.sense.asc == NO_MEDIUM:
        return errno.ENOMEDIUM
    if error.sense.matches(sense.INVALID_COMMAND_OPERATION_CODE):
        return errno.EOPNOTSUPP
    return errno.EIO


class Disk:
    """Methods raise OSError. Any thread."""

    def __init__(self, lun: Lun) -> None:
        self.lun = lun
        self._ranges = Ranges()

    def _room(self, offset: int, nbytes: int) -> int:
        """How many of these bytes the disk has."""
        return max(0, min(nbytes, self.lun.blocks * self.lun.block_nbytes - offset))

    def read(self, offset: int, into: memoryview) -> int:
        """Bytes read: fewer than asked for at the end of the disk."""
        try:
            nbytes, block = self._room(offset, len(into)), self.lun.block_nbytes
            if nbytes <= 0:
                return 0
            into = into[:nbytes]
            first, last = offset // block, -(-(offset + nbytes) // block)
            if offset % block == 0 and nbytes % block == 0:
                self.lun.readinto(first, into)
            else:
                start = offset - first * block
                into[:] = memoryview(self.lun.read(first, last - first))[start : start + nbytes]
            return nbytes
        except InitiatorError as error:
            raise OSError(errno_of(error), str(error)) from error

    def write(self, offset: int, data: memoryview) -> int:
        """Bytes written. ENOSPC at or behind the end of the disk."""
        try:
            nbytes = self._room(offset, len(data))
            if nbytes <= 0:
                raise OSError(errno.ENOSPC if len(data) else 0, "the end of the disk")
            block = self.lun.block_nbytes
            first, last = offset // block, -(-(offset + nbytes) // block)
            # Whole blocks too: one that came between the read and the write of a part would be lost.
            with self._ranges.held(first, last - first):
                for start, end in self._pieces(offset, nbytes):
                    self._write_piece(start, data[start - offset : end - offset])
            return nbytes
        except InitiatorError as error:
            raise OSError(errno_of(error), str(error)) from error

    def _pieces(self, offset: int, nbytes: int) -> Iterator[tuple[int, int]]:
        """A part of a block, whole blocks, a part of a block; as far as there are such."""
        block, end = self.lun.block_nbytes, offset + nbytes
        head = min(end, -(-offset // block) * block)
        tail = max(head, end // block * block)
        for a, b in ((offset, head), (head, tail), (tail, end)):
            if a < b:
                yield a, b

    def _write_piece(self, offset: int, data: memoryview) -> None:
        block = self.lun.block_nbytes
        lba, start = divmod(offset, block)
        if start == 0 and len(data) % block == 0:
            self.lun.write(lba, data)
            return
        whole = bytearray(self.lun.read(lba, 1))
        whole[start : start + len(data)] = data
        self.lun.write(lba, whole)

    def flush(self) -> None:
        """SYNCHRONIZE CACHE."""
        try:
            self.lun.flush()
        except InitiatorError as error:
            raise OSError(errno_of(error), str(error)) from error

    def _extent(self, offset: int, nbytes: int) -> tuple[int, int]:
        block = self.lun.block_nbytes
        if offset % block or nbytes % block or offset + nbytes > self.lun.blocks * block:
            raise OSError(errno.EINVAL, "no whole blocks of the disk")
        return offset // block, nbytes // block

    def unmap(self, offset: int, nbytes: int) -> None:
        """UNMAP of whole blocks."""
        try:
            lba, blocks = self._extent(offset, nbytes)
            if blocks:
                self.lun.unmap(lba, blocks)
        except InitiatorError as error:
            raise OSError(errno_of(error), str(error)) from error

    def zero(self, offset: int, nbytes: int) -> None:
        """Zeroes whole blocks by writing zeroes."""
        try:
            lba, blocks = self._extent(offset, nbytes)
            piece = min(blocks, self.lun.max_blocks)
            zeroes = bytes(piece * self.lun.block_nbytes)
            while blocks:
                n = min(blocks, piece)
                self.lun.write(lba, memoryview(zeroes)[: n * self.lun.block_nbytes])
                lba, blocks = lba + n, blocks - n
        except InitiatorError as error:
            raise OSError(errno_of(error), str(error)) from error

    # ---- facts ----

    def read_only(self) -> bool:
        """The WP bit of MODE SENSE's header."""
        try:
            done = self.lun.execute(cdb_.MODE_SENSE_6.build(page_code=0x3F, dbd=1, allocation_length=4), data_in=4)
            return len(done.data_in) >= 3 and bool(done.data_in[2] & 0x80)
        except InitiatorError:
            return False  # as a kernel assumes

    def fact(self, which: int) -> int:
        """One of enum door_fact. OSError EINVAL if there is no such fact."""
        try:
            fact = FACTS[which]
        except KeyError:
            raise OSError(errno.EINVAL, f"fact {which}") from None
        self.lun.refresh()
        try:
            return fact(self)
        except InitiatorError as error:
            raise OSError(errno_of(error), str(error)) from error

    def _max_sectors(self) -> int:
        try:
            return self.lun.max_blocks * self.lun.block_nbytes // SECTOR
        except ScsiError:  # no medium, perhaps: then what the transport takes
            return int(lib.VSCSI_MAX_TRANSFER) // SECTOR

    def _exponent(self) -> int:
        row = cdb_.READ_CAPACITY_16.build(allocation_length=CAPACITY_16.nbytes)
        try:
            data = self.lun.execute(row, data_in=CAPACITY_16.nbytes).data_in
        except ScsiError:
            return 0
        return CAPACITY_16.numbers(data).get("logical_blocks_per_physical_block_exponent", 0)

    def _page(self, page: vpd.Page) -> dict[str, int]:
        try:
            row = cdb_.INQUIRY.build(evpd=1, page_code=page.code, allocation_length=252)
            found = page.decode(bytes(self.lun.execute(row, data_in=252).data_in))
        except ScsiError:
            return {}
        return {name: value for name, value in found.items() if isinstance(value, int)}


FACTS: dict[int, Callable[[Disk], int]] = {
    lib.DOOR_FACT_NBYTES: lambda disk: disk.lun.blocks * disk.lun.block_nbytes,
    lib.DOOR_FACT_BLOCK_NBYTES: lambda disk: disk.lun.block_nbytes,
    lib.DOOR_FACT_PHYSICAL_NBYTES: lambda disk: disk.lun.block_nbytes << disk._exponent(),
    lib.DOOR_FACT_MAX_SECTORS: Disk._max_sectors,
    lib.DOOR_FACT_READ_ONLY: lambda disk: int(disk.read_only()),
    lib.DOOR_FACT_ROTATIONAL: lambda disk: int(
        disk._page(vpd.BLOCK_DEVICE_CHARACTERISTICS).get("medium_rotation_rate", 0) >= ROTATING
    ),
    lib.DOOR_FACT_OPTIMAL_NBYTES: lambda disk: (
        disk._page(vpd.BLOCK_LIMITS).get("optimal_transfer_length", 0) * disk.lun.block_nbytes
    ),
}
