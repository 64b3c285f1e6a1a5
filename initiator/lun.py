# SPDX-License-Identifier: BSD-2-Clause
"""One logical unit as a disk: blocks in, blocks out, split by what the target says it takes.

Repeats what is safe to repeat, a bounded number of times: any command after a unit attention 29h, BUSY or TASK SET
FULL, for then it was not executed; after TASK ABORTED only reads, flushes and writes of the same data. Knows SBC-3's
media commands; knows no channel.
"""

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from initiator.dirty import RESET, Dirty
from initiator.done import Done
from initiator.errors import (
    CacheLost,
    CommandAborted,
    CommandTimeout,
    InitiatorError,
    NotSent,
    ScsiError,
    TransportError,
)
from initiator.native import lib
from vscsi.scsi import cdb as cdb_
from vscsi.scsi import sense, vpd
from vscsi.scsi.parameters import CAPACITY_10, CAPACITY_16, UNMAP_DESCRIPTORS_MAX, encode_unmap
from vscsi.scsi.status import Status

if TYPE_CHECKING:
    from initiator.initiator import Initiator

log = logging.getLogger("vscsi.initiator")

ATTEMPTS = 10
PAUSE_SECONDS = 0.002
PAUSE_SECONDS_MAX = 0.25
MAX_10_LBA, MAX_10_BLOCKS = (1 << 32) - 1, (1 << 16) - 1
BLOCK_NBYTES_MAX = 1 << 20
"""A longer block is no disk's: whoever asks for a few of them must not need gigabytes."""

Data = bytes | bytearray | memoryview


class Lun:
    """Logical unit `lun`. Asks for capacity and limits when first needed. ScsiError, TransportError. Any thread."""

    def __init__(self, initiator: "Initiator", lun: int) -> None:
        self.initiator = initiator
        self.lun = lun
        self._lock = threading.Lock()
        self._facts: tuple[int, int, int, int, int] | None = None
        self._dirty = Dirty()

    # ---- facts ----

    def refresh(self) -> None:
        """Asks again: capacity and limits may have changed."""
        self._facts = None

    def _known(self) -> tuple[int, int, int, int, int]:
        facts = self._facts
        if facts is None:
            with self._lock:
                facts = self._facts = self._facts or self._ask()
        return facts

    def _ask(self) -> tuple[int, int, int, int, int]:
        row = cdb_.READ_CAPACITY_16.build(allocation_length=CAPACITY_16.nbytes)
        try:
            capacity = CAPACITY_16.numbers(self.execute(row, data_in=CAPACITY_16.nbytes).data_in)
        except ScsiError as error:
            if not error.sense.matches(sense.INVALID_COMMAND_OPERATION_CODE):
                raise
            done = self.execute(cdb_.READ_CAPACITY_10.build(), data_in=CAPACITY_10.nbytes)
            capacity = CAPACITY_10.numbers(done.data_in)
        block, last = capacity.get("logical_block_length", 0), capacity.get("returned_logical_block_address", 0)
        if not block or block % lib.VSCSI_SECTOR_SIZE or block > BLOCK_NBYTES_MAX:
            raise InitiatorError(f"lun {self.lun}: a block length of {block} bytes")
        limits = self._block_limits()
        nbytes = int(lib.VSCSI_MAX_TRANSFER)
        for limit in (
            limits.get("maximum_transfer_length", 0) * block,
            self.initiator.target_info.max_transfer,
            self.initiator.memory.nbytes // 4,
        ):
            nbytes = min(nbytes, limit or nbytes)
        unmap = limits.get("maximum_unmap_lba_count", 0) or 0xFFFFFFFF
        descriptors = limits.get("maximum_unmap_block_descriptor_count", 0) or 1
        return last + 1, block, max(1, nbytes // block), unmap, descriptors

    def _block_limits(self) -> dict[str, int]:
        page = vpd.BLOCK_LIMITS
        try:
            done = self.execute(cdb_.INQUIRY.build(evpd=1, page_code=page.code, allocation_length=252), data_in=252)
            return {name: value for name, value in page.decode(bytes(done.data_in)).items() if isinstance(value, int)}
        except ScsiError:  # the page is optional
            return {}

    @property
    def blocks(self) -> int:
        """Capacity in logical blocks."""
        return self._known()[0]

    @property
    def block_nbytes(self) -> int:
        """Length of a logical block."""
        return self._known()[1]

    @property
    def max_blocks(self) -> int:
        """Logical blocks that one command carries at most."""
        return self._known()[2]

    # ---- commands, with the patience that is safe ----

    def execute(self, cdb: bytes, *, repeatable: bool = False, **options: Any) -> Done:
        """One command by `Initiator.execute`; what was not executed, or is `repeatable`, is tried again.

        ScsiError for what remains; TransportError.
        """
        return self._execute(cdb, repeatable, **options)[0]

    def _execute(self, cdb: bytes, repeatable: bool, **options: Any) -> tuple[Done, int]:
        """The same, and how many power losses were known when the attempt began that succeeded."""
        pause = PAUSE_SECONDS
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            losses = self.initiator.power_losses[self.lun]
            try:
                done = self.initiator.execute(self.lun, cdb, **options)
            except CommandAborted:
                if last or not repeatable:
                    raise
                continue
            except (CommandTimeout, NotSent):
                raise  # it has waited long enough
            except TransportError as error:
                if last or not repeatable or not self.initiator.recovery.hopeful:
                    raise
                log.info("lun %d: %s: again: %s", self.lun, cdb_.name_of(cdb), error)
                continue
            if done.status in (Status.GOOD, Status.CONDITION_MET):
                return done, losses
            if last or not self._again(done, repeatable):
                break
            if done.status != Status.CHECK_CONDITION:
                time.sleep(pause)
                pause = min(2 * pause, PAUSE_SECONDS_MAX)
        return done.raise_for_status(f"lun {self.lun}: {cdb_.name_of(cdb)}"), losses

    def _again(self, done: Done, repeatable: bool) -> bool:
        if done.status in (Status.BUSY, Status.TASK_SET_FULL):
            return True
        if done.status == Status.TASK_ABORTED:
            return repeatable
        if done.status != Status.CHECK_CONDITION:
            return False
        found = sense.decode(done.sense)
        if found.key != sense.Key.UNIT_ATTENTION or found.asc != RESET:
            return False
        log.debug("lun %d: %s", self.lun, found.describe())
        return True

    # ---- blocks ----

    def _pieces(self, lba: int, blocks: int) -> list[tuple[int, int]]:
        most = self.max_blocks
        return [(lba + at, min(most, blocks - at)) for at in range(0, blocks, most)]

    def read(self, lba: int, blocks: int) -> bytes:
        """`blocks` logical blocks from `lba`."""
        pieces = self._pieces(lba, blocks)
        if len(pieces) == 1:
            return bytes(self._read(lba, blocks, blocks * self.block_nbytes))
        data = bytearray(blocks * self.block_nbytes)
        self.readinto(lba, data)
        return bytes(data)

    def readinto(self, lba: int, buffer: bytearray | memoryview) -> None:
        """Fills the buffer, a whole number of blocks, from `lba`."""
        view, block = memoryview(buffer).cast("B"), self.block_nbytes
        for at, count in self._pieces(lba, self._whole(len(view))):
            start = (at - lba) * block
            self._read(at, count, view[start : start + count * block])

    def _read(self, lba: int, blocks: int, into: int | memoryview) -> bytes | memoryview:
        small = lba + blocks <= MAX_10_LBA and blocks <= MAX_10_BLOCKS
        row = cdb_.READ_10 if small else cdb_.READ_16
        done = self.execute(row.build(lba=lba, transfer_length=blocks), data_in=into, repeatable=True)
        wanted = blocks * self.block_nbytes
        if done.data_in_len != wanted:
            raise InitiatorError(f"lun {self.lun}: {done.data_in_len} bytes came where {wanted} were asked for")
        return done.data_in

    def write(self, lba: int, data: Data, *, fua: bool = False) -> None:
        """Writes a whole number of blocks at `lba`. `fua`: durable when it returns; else after `flush`."""
        view, block = memoryview(data).cast("B"), self.block_nbytes
        for at, count in self._pieces(lba, self._whole(len(view))):
            start = (at - lba) * block
            small = at + count <= MAX_10_LBA and count <= MAX_10_BLOCKS
            row = cdb_.WRITE_10 if small else cdb_.WRITE_16
            done, losses = self._execute(
                row.build(lba=at, transfer_length=count, fua=int(fua)), True,
                data_out=view[start : start + count * block],
            )  # fmt: skip
            if not fua:
                self._dirty.written(losses)
            if done.out_residual:
                raise InitiatorError(f"lun {self.lun}: {done.out_residual} bytes were not taken")

    def _whole(self, nbytes: int) -> int:
        blocks, rest = divmod(nbytes, self.block_nbytes)
        if rest:
            raise ValueError(f"{nbytes} bytes are no whole number of blocks of {self.block_nbytes}")
        return blocks

    def flush(self) -> None:
        """SYNCHRONIZE CACHE: what was written is durable when this returns.

        CacheLost, once, if the target has started anew since writes were answered that no flush has followed: with a
        volatile cache they may be gone (a target that was only killed has lost nothing, for the kernel keeps what it
        wrote; one whose machine went down has). A write with `fua` needs no flush.
        """
        with self._dirty.flushing() as flush:
            self.execute(cdb_.SYNCHRONIZE_CACHE_10.build(lba=0, number_of_logical_blocks=0), repeatable=True)
        if flush.is_late(self.initiator.power_losses[self.lun]):
            raise CacheLost(
                f"lun {self.lun}: the target has started anew: what was written and not flushed may be lost"
            )

    def unmap(self, lba: int, blocks: int) -> None:
        """The content of these blocks is not needed any more."""
        _, _, _, most, descriptors = self._known()
        descriptors = min(descriptors, UNMAP_DESCRIPTORS_MAX)
        # The target says how many there are: they are made as they are sent.
        extents = ((lba + at, min(most, blocks - at)) for at in range(0, blocks, most))
        while some := list(itertools.islice(extents, descriptors)):
            data = encode_unmap(some)
            self.execute(cdb_.UNMAP.build(parameter_list_length=len(data)), data_out=data, repeatable=True)

    def close(self) -> None:
        """Nothing to let go: the Initiator owns the session. Here so that every disk can be closed alike."""
