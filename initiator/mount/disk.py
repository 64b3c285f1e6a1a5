# SPDX-License-Identifier: BSD-2-Clause
"""A logical unit as bytes: any offset, any length; part of a block is read, changed and written back.

Every method raises OSError with the errno of initiator.mount.errnos, and nothing else. Any thread. Knows SBC-3's
commands; must not know FUSE.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from initiator.errors import InitiatorError, ScsiError, TransportError
from initiator.lun import Lun
from initiator.mount.errnos import errno_of
from initiator.ranges import Ranges
from vscsi.scsi import cdb as cdb_
from vscsi.scsi import mode, vpd
from vscsi.scsi.medium import LbaStatus, decode_lba_status
from vscsi.scsi.parameters import CAPACITY_16
from vscsi.scsi.sense import Key

log = logging.getLogger("vscsi.mount")

T = TypeVar("T")

ATTENTIONS = 16
"""Unit attentions that are taken note of in a row."""
ZERO_NBYTES = 1 << 20
"""Zeros written at a time where WRITE SAME is not to be had."""
LBA_STATUS_NBYTES = 8 + 16 * 64
MODE_NBYTES, VPD_NBYTES = 192, 252
MAPPED = 0


@dataclass(frozen=True)
class Facts:
    """What a disk says of itself. `unmap_blocks`: what UNMAP frees at least; `write_same_blocks`: at most at once."""

    nbytes: int
    block_nbytes: int
    readonly: bool
    unmaps: bool
    unmap_blocks: int
    write_same_blocks: int


class Disk:
    """`lun` is shared by all who use it. `readonly`: refuse to write whatever the target says."""

    def __init__(self, lun: Lun, *, readonly: bool = False) -> None:
        self.lun = lun
        self._readonly = readonly
        self._facts: Facts | None = None
        self._lock = threading.Lock()
        self._ranges = Ranges()
        self._lost = False
        self._no_write_same = False

    # ---- errors ----

    def _do(self, action: Callable[[], T]) -> T:
        """Runs it until it is not a unit attention that ends it; then what was known may be stale, and nothing else."""
        for _ in range(ATTENTIONS):
            try:
                return action()
            except ScsiError as error:
                if error.sense.key == Key.UNIT_ATTENTION and error.sense.asc != 0x29:
                    log.info("lun %d: %s", self.lun.lun, error.sense.describe())
                    self.lun.refresh()
                    self._facts = None
                    continue
                raise self._failed(error) from error
            except InitiatorError as error:
                raise self._failed(error) from error
        raise OSError(errno.EBUSY, "no end of unit attentions")

    def _failed(self, error: InitiatorError) -> OSError:
        gone = isinstance(error, TransportError) and not self.lun.initiator.alive
        if not gone or not self._lost:
            log.warning("lun %d: %s", self.lun.lun, error)
        self._lost = gone
        number = errno_of(error)
        return OSError(number, os.strerror(number))

    # ---- facts ----

    @property
    def facts(self) -> Facts:
        facts = self._facts
        if facts is None:
            facts = self._do(self._ask)
            self._facts = facts
        return facts

    def _ask(self) -> Facts:
        lun = self.lun
        block, blocks = lun.block_nbytes, lun.blocks
        request = cdb_.MODE_SENSE_6.build(page_code=mode.ALL_PAGES, allocation_length=MODE_NBYTES)
        try:
            header = mode.HEADER_6.numbers(lun.execute(request, data_in=MODE_NBYTES).data_in)
        except ScsiError as error:
            if error.sense.key != Key.ILLEGAL_REQUEST:
                raise
            header = {}
        limits, provisioning = self._page(vpd.BLOCK_LIMITS), self._page(vpd.LOGICAL_BLOCK_PROVISIONING)
        request = cdb_.READ_CAPACITY_16.build(allocation_length=CAPACITY_16.nbytes)
        try:
            capacity = CAPACITY_16.numbers(lun.execute(request, data_in=CAPACITY_16.nbytes).data_in)
        except ScsiError as error:
            if error.sense.key != Key.ILLEGAL_REQUEST:
                raise
            capacity = {}
        # Only where what was unmapped reads as zeros is it a hole.
        unmaps = bool(capacity.get("lbpme")) and bool(capacity.get("lbprz")) and bool(provisioning.get("lbpu"))
        return Facts(
            nbytes=blocks * block,
            block_nbytes=block,
            readonly=self._readonly or bool(header.get("wp")),
            unmaps=unmaps,
            unmap_blocks=max(1, limits.get("optimal_unmap_granularity", 1)),
            write_same_blocks=limits.get("maximum_write_same_length", 0) or 0xFFFF,
        )

    def _page(self, page: vpd.Page) -> dict[str, int]:
        request = cdb_.INQUIRY.build(evpd=1, page_code=page.code, allocation_length=VPD_NBYTES)
        try:
            found = page.decode(bytes(self.lun.execute(request, data_in=VPD_NBYTES).data_in))
        except ScsiError as error:
            if error.sense.key != Key.ILLEGAL_REQUEST:
                raise
            return {}
        return {name: value for name, value in found.items() if isinstance(value, int)}

    def look(self) -> Facts:
        """The facts as they are now: asks whether anything has changed. What was known, if the target is gone."""
        try:
            self._do(lambda: self.lun.execute(cdb_.TEST_UNIT_READY.build()))
            return self.facts
        except OSError as error:
            if error.errno == errno.ENOMEDIUM:
                self._facts = None
                self.lun.refresh()
            if self._facts is not None:
                return self._facts
            raise

    # ---- bytes ----

    def read(self, offset: int, nbytes: int) -> bytes:
        """What stands there; short at the end of the disk."""

        def action() -> bytes:
            facts = self.facts
            block, end = facts.block_nbytes, min(offset + nbytes, facts.nbytes)
            if offset >= end:
                return b""
            first, last = offset // block, -(-end // block)
            data = self.lun.read(first, last - first)
            start = offset - first * block
            return data if start == 0 and end - offset == len(data) else data[start : start + end - offset]

        return self._do(action)

    def _writable(self) -> Facts:
        facts = self.facts
        if facts.readonly:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return facts

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """How many bytes were written: fewer at the end of the disk. ENOSPC where it ends, as on a block device."""
        facts = self._writable()
        view = memoryview(data)[: max(0, facts.nbytes - offset)]
        if not len(view):
            if len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return 0
        block = facts.block_nbytes
        first, last = offset // block, -(-(offset + len(view)) // block)
        with self._ranges.held(first, last - first):
            self._do(lambda: self._put(offset, view, block))
        return len(view)

    def _put(self, offset: int, view: memoryview, block: int) -> None:
        """Writes; blocks at either end that are not covered are read first. Their range is held."""
        end = offset + len(view)
        head, tail = offset % block, -end % block
        if not head and not tail:
            self.lun.write(offset // block, view)
            return
        first, last = offset // block, (end - 1) // block
        before = self.lun.read(first, 1)[:head] if head else b""
        after = self.lun.read(last, 1)[block - tail :] if tail else b""
        self.lun.write(first, b"".join((before, view, after)))

    def flush(self) -> None:
        """Everything that was written is durable when this returns: SYNCHRONIZE CACHE."""
        self._do(self.lun.flush)

    # ---- holes ----

    def _within(self, offset: int, nbytes: int, facts: Facts) -> tuple[int, int]:
        return offset, min(offset + nbytes, facts.nbytes)

    def _split(self, start: int, end: int, unit: int) -> tuple[int, int]:
        """The whole units in it; both ends are `start` if there is none."""
        first, last = -(-start // unit) * unit, end // unit * unit
        return (first, last) if first < last else (start, start)

    def punch(self, offset: int, nbytes: int) -> None:
        """These bytes read as zeros and take no space, as far as whole blocks go. EOPNOTSUPP if the disk cannot."""
        facts = self._writable()
        if not facts.unmaps:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        start, end = self._within(offset, nbytes, facts)
        unit = facts.block_nbytes * facts.unmap_blocks

        def unmap(first: int, blocks: int) -> None:
            self._do(lambda: self.lun.unmap(first, blocks))

        self._clear(start, end, facts, self._split(start, end, unit), unmap)

    def zero(self, offset: int, nbytes: int) -> None:
        """These bytes read as zeros, and keep their space. EOPNOTSUPP if the disk has no WRITE SAME."""
        facts = self._writable()
        if self._no_write_same:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        start, end = self._within(offset, nbytes, facts)
        self._clear(start, end, facts, self._split(start, end, facts.block_nbytes), self._write_same)

    def _clear(
        self, start: int, end: int, facts: Facts, whole: tuple[int, int], clear: Callable[[int, int], None]
    ) -> None:
        """Zeros: whole units by `clear` (first block, blocks), the edges by writing."""
        if start >= end:
            return
        block = facts.block_nbytes
        first, last = start // block, -(-end // block)
        with self._ranges.held(first, last - first):
            if whole[0] < whole[1]:
                clear(whole[0] // block, (whole[1] - whole[0]) // block)
            for a, b in ((start, whole[0]), (whole[1], end)):
                for at in range(a, b, ZERO_NBYTES):
                    zeros = memoryview(bytes(min(ZERO_NBYTES, b - at)))
                    self._do(lambda at=at, zeros=zeros: self._put(at, zeros, block))  # type: ignore[misc]

    def _write_same(self, first: int, blocks: int) -> None:
        facts = self.facts
        zeros = bytes(facts.block_nbytes)
        most = facts.write_same_blocks
        for at in range(0, blocks, most):
            row = cdb_.WRITE_SAME_16.build(lba=first + at, number_of_logical_blocks=min(most, blocks - at))
            try:
                self._do(lambda row=row: self.lun.execute(row, data_out=zeros, repeatable=True))  # type: ignore[misc]
            except OSError as error:
                if error.errno == errno.EREMOTEIO:
                    self._no_write_same = True
                    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)) from error
                raise

    def seek(self, offset: int, *, hole: bool) -> int:
        """The next hole, or the next data, from `offset` on. ENXIO beyond the end, or where no data follow."""
        facts = self.facts
        if not 0 <= offset < facts.nbytes:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        block, at = facts.block_nbytes, offset // facts.block_nbytes
        while at * block < facts.nbytes:
            for extent in self._do(lambda at=at: self._status(at)):  # type: ignore[misc]
                if (extent.status != MAPPED) == hole:
                    return max(offset, extent.lba * block)
                at = extent.lba + extent.blocks
        if hole:
            return facts.nbytes
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    def _status(self, lba: int) -> list[LbaStatus]:
        """What is mapped from `lba` on, at least one block of it: all, where the disk does not tell."""
        request = cdb_.GET_LBA_STATUS.build(lba=lba, allocation_length=LBA_STATUS_NBYTES)
        everything = [LbaStatus(lba, self.lun.blocks - lba, MAPPED)]
        try:
            found = decode_lba_status(bytes(self.lun.execute(request, data_in=LBA_STATUS_NBYTES).data_in))
        except ScsiError as error:
            if error.sense.key != Key.ILLEGAL_REQUEST:
                raise
            return everything
        # Each must go on where the last one ended, or we might look for ever.
        extents, at = [], lba
        for extent in found:
            if extent.lba > at or extent.lba + extent.blocks <= at:
                break
            extents.append(extent)
            at = extent.lba + extent.blocks
        return extents or everything
