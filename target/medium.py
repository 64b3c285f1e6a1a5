# SPDX-License-Identifier: BSD-2-Clause
"""The medium of a logical unit: started or stopped, there or ejected, kept in by whoever prevents its removal.

Knows when a unit is ready and how one image takes another's place. Must not know CDBs.
"""

import os
import threading
from typing import TYPE_CHECKING

from target.part import Nexus, Part
from target.scsi_device import LockRefused
from target.stores import Can, Store, StoreError
from vscsi.scsi import sense

if TYPE_CHECKING:
    from target.lu import LogicalUnit

UA_MEDIUM_CHANGED = 0x2800


class Medium(Part):
    """What START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL act on. Any thread may call."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self._lock = threading.RLock()
        """Of changes, which may wait for commands."""
        self._preventing: set[int] = set()
        self._preventing_lock = threading.Lock()

    @property
    def present(self) -> bool:
        """Whether there is a medium."""
        return self.unit.not_ready is not sense.MEDIUM_NOT_PRESENT_TRAY_OPEN

    @property
    def prevented(self) -> bool:
        """Whether any nexus keeps the medium in."""
        return bool(self._preventing)

    def prevent(self, nexus: int, on: bool) -> None:
        """PREVENT ALLOW MEDIUM REMOVAL of one nexus, by index (SBC-3 5.8)."""
        with self._preventing_lock:
            (self._preventing.add if on else self._preventing.discard)(nexus)

    def reset(self) -> None:
        with self._preventing_lock:
            self._preventing.clear()

    def nexus_lost(self, nexus: Nexus) -> None:
        self.prevent(nexus.index, False)

    def stop(self) -> None:
        """Media access wants START from now on."""
        with self._lock:
            if self.unit.not_ready is None:
                self.unit.set_state(sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED)

    def start_unit(self) -> None:
        """Ends what `stop` began; brings no medium back."""
        with self._lock:
            if self.unit.not_ready is sense.NOT_READY_INITIALIZING_COMMAND_REQUIRED:
                self.unit.set_state(None)

    def eject(self, *, force: bool = False) -> None:
        """Takes the medium out, once every command on it has ended and everything is durable. CheckCondition if its
        removal is prevented and not forced, or if it cannot be made durable (the medium then stays)."""
        unit, device = self.unit, self.unit.device
        assert device is not None
        unit.check_occupied()
        with self._lock:
            if self.prevented and not force:
                raise sense.MEDIUM_REMOVAL_PREVENTED.error()
            if not self.present:
                return
            before = unit.not_ready
            self.unit.set_state(sense.MEDIUM_NOT_PRESENT_TRAY_OPEN)
            try:
                # Commands that began before have ended then. Twice: some may have been waiting for our lock itself.
                with device.locked(unit, 0, unit.blocks):
                    pass
                with device.locked(unit, 0, unit.blocks):
                    if not unit.readonly:
                        unit.flush()
            except LockRefused as stuck:
                self.unit.set_state(before)
                raise sense.NOT_READY_CAUSE_NOT_REPORTABLE.error() from stuck
            except BaseException:
                self.unit.set_state(before)
                raise
            self.reset()

    def load(self, besides: int | None = None) -> None:
        """Brings the medium back; MEDIUM MAY HAVE CHANGED to every nexus but the one (by index) that asked for it."""
        device = self.unit.device
        assert device is not None
        with self._lock:
            if not self.present:
                self.unit.set_state(None)
                device.attention(UA_MEDIUM_CHANGED, besides=besides, unit=self.unit)

    def change(self, store: Store) -> None:
        """Puts another image in the place of an ejected one; `load` makes it ready. StoreError if it does not fit.

        It takes over the descriptor's number, so that the native core need not know.
        """
        unit, device, old = self.unit, self.unit.device, self.unit.store
        assert device is not None
        with self._lock:
            if self.present:
                raise StoreError("there is a medium: eject it first")
            if unit.protection_type:
                raise StoreError("the unit has protection information, which belongs to the medium it has")
            if store.fd is None or old.fd is None:
                raise StoreError("only images with a file descriptor can be changed")
            if (store.is_direct, store.is_block_device) != (old.is_direct, old.is_block_device):
                raise StoreError("the new medium must be of the same kind: file or block device, with the same cache=")
            if not store.nbytes or store.nbytes % unit.block_nbytes:
                raise StoreError(f"its {store.nbytes} bytes are not a multiple of bs={unit.block_nbytes}")
            number, spare = old.fd, store.fd
            os.dup2(spare, number, inheritable=False)
            os.close(spare)
            store.fd, old.fd = number, -1
            if old.witness is not None:
                if store.witness is None:  # one that knows nothing: then no error is harmless
                    store.witness = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                os.dup2(store.witness, old.witness, inheritable=False)
                os.close(store.witness)
                store.witness, old.witness = old.witness, None
            unit.store = store
            unit.blocks = store.nbytes // unit.block_nbytes
            unit.readonly = unit.asked_readonly or Can.WRITE not in store.can
            for part in unit.parts():
                part.medium_changed()
            device.resized(unit)
