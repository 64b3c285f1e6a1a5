# SPDX-License-Identifier: BSD-2-Clause
"""Writes of a logical unit that happen as a whole or not at all, whatever dies in between.

Knows in which order journal and image are made durable, and finishes at the start what a crash has left. Must not know
CDBs. Whoever calls has the blocks locked.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from target.journal import Journal, Record
from target.part import Part, part
from target.state import State
from target.stores import Can
from vscsi.scsi import sense
from vscsi.scsi.sense import CheckCondition

if TYPE_CHECKING:
    from target.lu import LogicalUnit

log = logging.getLogger(__name__)

MAX_ATOMIC_NBYTES = 1 << 20
"""One atomic write. It is written twice, and every other command on its blocks waits so long."""
_NAME = "atomic.journal"


@part
class AtomicWrites(Part):
    """Carries out atomic writes, one at a time. Where the image itself does not outlive the target it needs no journal.

    `supported` is settled at the start.
    """

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self.supported = False
        self._journal: Journal | None = None
        self._lock = threading.Lock()

    @property
    def max_blocks(self) -> int:
        """MAXIMUM ATOMIC TRANSFER LENGTH, and the greatest boundary: at least 256."""
        return MAX_ATOMIC_NBYTES // self.unit.block_nbytes if self.supported else 0

    @property
    def max_blocks_with_boundary(self) -> int:
        return self.unit.max_transfer_blocks if self.supported else 0

    def start(self) -> None:
        """Finishes what was begun before anything is served; if that is impossible the unit is not ready."""
        unit = self.unit
        writable = Can.WRITE in unit.store.can
        path = self._path()
        if path is not None:
            self._recover(Journal(path), writable)
        volatile = unit.store.is_volatile
        self.supported = writable and not unit.store.is_null and (volatile or self._state().durable)

    def medium_changed(self) -> None:
        """What was begun on the new medium is finished; its journal lies beside it, not beside the one before."""
        self.close()
        self.start()

    def _state(self) -> State:
        """The unit's, if the user has asked for a folder; else that of the medium there is now."""
        state, image = self.unit.state, self.unit.store.path
        if state.folder is None or image is None or self.unit.state_asked:
            return state
        beside = image.with_name(image.name + ".vscsi")
        return state if beside == state.folder else State(beside)

    def _path(self) -> Path | None:
        """Also beside an image that is only read, where nothing else is kept."""
        unit = self.unit
        if (path := self._state().path(_NAME)) is not None:
            return path
        image = unit.store.path
        return None if image is None else image.with_name(image.name + ".vscsi") / _NAME

    def _recover(self, journal: Journal, writable: bool) -> None:
        unit = self.unit
        try:
            record = journal.load()
            if record is not None:
                record = self._translated(record, unit.store.reveal)
            if record is None:
                if writable:
                    journal.clear()
            elif not self._belongs(record):
                where = journal.set_aside() if writable else journal.path
                log.error("lun %d: %s is of another image: not carried out", unit.lun, where)
            elif not writable:
                log.error("lun %d: an atomic write is unfinished: serve the image writable once", unit.lun)
                unit.set_state(sense.NOT_READY_MANUAL_INTERVENTION_REQUIRED)
            else:
                self._apply(record)
                journal.clear()
                log.info("lun %d: finished an atomic write of %d bytes", unit.lun, len(record.new))
        except (OSError, CheckCondition) as error:
            log.error("lun %d: the atomic write in %s cannot be finished: %s", unit.lun, journal.path, error)
            unit.set_state(sense.WRITE_ERROR)
        finally:
            journal.close()

    @staticmethod
    def _translated(record: Record, how: Callable[[bytes, int], bytes]) -> Record:
        """The journal holds nothing that an encrypted image hides."""
        return Record(record.offset, how(record.new, record.offset), how(record.old, record.offset))

    def _belongs(self, record: Record) -> bool:
        unit, size = self.unit, self.unit.block_nbytes
        if record.offset % size or len(record.new) % size or not record.new:
            return False
        lba, blocks = record.offset // size, len(record.new) // size
        return unit.contains(lba, blocks) and record.belongs_to(self._read(lba, blocks))

    def _read(self, lba: int, blocks: int) -> bytes:
        """As it lies there: protection information that a crash has spoilt is no hindrance."""
        buffer = self.unit.buffer(blocks)
        self.unit.store.readinto(buffer, lba * self.unit.block_nbytes)
        return bytes(buffer)

    def _apply(self, record: Record) -> None:
        self.unit.write(memoryview(record.new), record.offset // self.unit.block_nbytes)
        self.unit.flush()

    def write(self, lba: int, data: bytes) -> None:
        """Writes whole blocks, as a whole; durable on return where the image is. CheckCondition: nothing is written."""
        unit, size = self.unit, self.unit.block_nbytes
        with self._lock:
            blocks = len(data) // size
            if unit.device is not None and unit.device.sync_failed(unit):
                raise sense.WRITE_ERROR.error()
            if not unit.store.is_volatile:
                unit.flush()  # what the record will say was there before has to be there after a loss of power as well
            record = Record(lba * size, data, self._read(lba, blocks))
            unit.reserve(lba, blocks)
            if unit.store.is_volatile:
                self._attempt(record)
                return
            journal = self._opened()
            journal.commit(self._translated(record, unit.store.conceal))
            self._attempt(record)
            # The blocks may be written anew as soon as they are unlocked: the record must be gone for good by then.
            try:
                journal.clear()
            except OSError as error:
                raise self._give_up(error) from error

    def _opened(self) -> Journal:
        if self._journal is None:
            path = self._state().make_path(_NAME)
            assert path is not None
            self._journal = Journal(path)
        return self._journal

    def _attempt(self, record: Record) -> None:
        try:
            self._apply(record)
        except CheckCondition:
            self._undo(record)
            raise

    def _undo(self, record: Record) -> None:
        try:
            self._apply(Record(record.offset, record.old, record.new))
            if self._journal is not None:
                self._journal.clear()
        except (OSError, CheckCondition) as error:
            raise self._give_up(error) from error

    def _give_up(self, error: Exception) -> CheckCondition:
        """Neither old nor new is certain: nobody may see or change the blocks until a new start has settled it."""
        log.error("lun %d: an atomic write is left to the next start: %s", self.unit.lun, error)
        self.unit.set_state(sense.WRITE_ERROR)
        return sense.WRITE_ERROR.error()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
