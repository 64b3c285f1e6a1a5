# SPDX-License-Identifier: BSD-2-Clause
"""One logical unit: a backing store with geometry, identity and limits.

The only place where blocks become bytes for commands run in Python. Knows stores and what the native core has to be
told. Must not know CDBs, sense formats or nexuses.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from target import errors
from target.durable import Durable
from target.faults import Faults
from target.lunspec import LunSpec
from target.native import ffi, lib
from target.part import KINDS, Nexus, P, Part
from target.pi import PI_NBYTES
from target.protection import Protection
from target.state import State, set_aside
from target.stores import Can, Store, StoreError, StoreSpec, open_store
from target.task_policy import TaskPolicy
from vscsi.scsi import sense, vpd
from vscsi.scsi.sense import CheckCondition, Sense

if TYPE_CHECKING:
    from target.commands.table import Conflict
    from target.scsi_device import TargetDevice

log = logging.getLogger(__name__)

MAX_TRANSFER_NBYTES = 8 << 20
MAX_WRITE_SAME_BLOCKS = 65528
MAX_COMPARE_AND_WRITE_BLOCKS = 255
MAX_UNMAP_BLOCKS = 1 << 20
MAX_UNMAP_DESCRIPTORS = 256
MAX_SENSE_NBYTES = len(ffi.new("struct vt_result *").sense)
CHUNK_NBYTES = 1 << 20
"""How much a command in Python moves at a time; between chunks it looks whether it has been aborted."""
_COMPANY_ID = 0x025653
"""Company id of made-up NAA names. Its locally-administered bit is set: the IEEE has given it to nobody."""


class LogicalUnit:
    """A logical unit of the target. `lba` and `blocks` count logical blocks; `index` is the native core's."""

    peripheral_device_type = 0x00

    def __init__(self, spec: LunSpec, store: Store) -> None:
        self.store = store
        self.name = spec.store
        self.lun = spec.lun
        self.index = -1
        self.block_nbytes = spec.block_nbytes
        self.blocks = store.nbytes // spec.block_nbytes
        self.physical_block_nbytes = spec.physical_nbytes or max(spec.block_nbytes, store.physical_nbytes)
        self.spec, self.asked_readonly = spec, spec.readonly
        self.readonly = spec.readonly or Can.WRITE not in store.can
        self.removable = spec.removable
        self.cache = spec.cache
        self.software_write_protected = False
        """SWP of the control mode page."""
        self.policy = TaskPolicy(limit=spec.queue or 0)
        self.write_cache = spec.cache != "wt"
        self.discard = spec.discard and Can.TRIM in store.can
        self.zeroing = self.discard and Can.ZERO in store.can
        """What is unmapped reads as zeros (LBPRZ)."""
        self.rotational = bool(store.rotational) if spec.rotational is None else spec.rotational
        digest = hashlib.sha256(os.fsencode(store.identity or f"{spec.store} as LUN {spec.lun}")).digest()
        self.serial = spec.serial or digest[:8].hex().upper()
        self.naa = spec.naa or _naa_from(self.serial)
        self.vendor, self.product, self.revision = spec.vendor, spec.product, "0001"
        self.threshold = spec.threshold  # used percentage from which initiators are warned
        self.prefetch_met = spec.prefetch == "met"  # PRE-FETCH ends with CONDITION MET
        self.descriptor_sense = self.blocks > 1 << 32  # fixed format has no room for such an LBA
        self.max_write_same_blocks = MAX_WRITE_SAME_BLOCKS
        self.max_compare_and_write_blocks = MAX_COMPARE_AND_WRITE_BLOCKS
        self.unmap_granularity_blocks = (
            max(1, max(self.physical_block_nbytes, store.trim_nbytes) // self.block_nbytes) if self.discard else 0
        )
        self.not_ready: Sense | None = None
        self.occupied: Callable[[], CheckCondition] | None = None
        """What every other command ends with while a long operation has the unit."""
        self.faulty = False  # fault rules may have a say in every command
        self.state_asked = spec.state is not None
        self.state = State(_state_folder(spec, store, self.readonly))
        self.state.claim(make=self.state_asked)
        self.set_protection(0)
        self.device: TargetDevice | None = None
        """What the unit belongs to; there from `start` on."""
        self._parts: dict[type[Part], Part] = {}
        self._parts_lock = threading.RLock()
        self.durable = Durable(self)
        self._closed = False
        try:
            self.set_protection(self.part(Protection).format_of(spec.protection))
        except BaseException:
            self.state.close()
            raise

    def set_protection(self, type_: int) -> None:
        """1 to 3: formatted with protection information of that type; 0: without. Who tells the core is the caller."""
        self.protection_type = type_
        whole = max(1, self.physical_block_nbytes // self.block_nbytes)
        beside = PI_NBYTES if type_ else 0  # which has to fit into one SRP_CMD with the block
        self.max_transfer_blocks = MAX_TRANSFER_NBYTES // (self.block_nbytes + beside) // whole * whole

    def part(self, kind: type[P]) -> P:
        """The unit's only part of that kind, made when it is first asked for."""
        with self._parts_lock:
            found = self._parts.get(kind)
            if found is None:
                found = self._parts[kind] = kind(self)
            assert isinstance(found, kind)
            return found

    def parts(self) -> list[Part]:
        """Every part there is now."""
        with self._parts_lock:
            return list(self._parts.values())

    def start(self, device: "TargetDevice") -> None:
        """The unit belongs to this device from now on, and has its index: its parts begin."""
        self.device = device
        for kind in KINDS:
            self.part(kind)
        for part in sorted(self.parts(), key=lambda part: part.start_rank):
            part.start()

    def set_state(self, state: Sense | None) -> None:
        """Commands that need the unit ready end with this sense from now on; None: it is ready."""
        assert self.device is not None
        self.not_ready = state
        self.device.set_not_ready(self, 0 if state is None else state.code)

    def reset(self) -> None:
        """LOGICAL UNIT RESET: every part goes back to where it starts from."""
        for part in self.parts():
            try:
                part.reset()
            except Exception:
                log.exception("lun %d: internal error in a reset", self.lun)

    def tick(self) -> None:
        """To every part."""
        for part in self.parts():
            part.tick()

    def shutdown(self) -> None:
        """The target is about to end: the parts' own threads do."""
        for part in self.parts():
            try:
                part.shutdown()
            except Exception:
                log.exception("lun %d: internal error in a shutdown", self.lun)

    def check_occupied(self) -> None:
        """Ends a command that has come past the native core's checks before a long operation began."""
        if (occupied := self.occupied) is not None:
            raise occupied()

    def nexus_known(self, nexus: Nexus) -> None:
        """To every part."""
        for part in self.parts():
            part.nexus_known(nexus)

    def nexus_lost(self, nexus: Nexus) -> None:
        """To every part."""
        for part in self.parts():
            part.nexus_lost(nexus)

    def nexus_forgotten(self, nexus: Nexus) -> None:
        """To every part."""
        for part in self.parts():
            part.nexus_forgotten(nexus)

    def denies(self, nexus: int, conflict: "Conflict") -> bool:
        """Whether any part keeps the nexus (by index) from commands of these classes."""
        return any(part.denies(nexus, conflict) for part in self.parts())

    def obstacle(self) -> sense.CheckCondition | None:
        """Why the medium cannot be accessed now; None if it can."""
        if self.not_ready is not None:
            return self.not_ready.error()
        return next((found for part in self.parts() if (found := part.obstacle()) is not None), None)

    def remembers(self, nexus: Nexus) -> bool:
        """Whether any part does."""
        return any(part.remembers(nexus) for part in self.parts())

    @property
    def write_protection(self) -> Sense | None:
        """What a command that writes ends with, if it may not."""
        if self.readonly:
            return sense.WRITE_PROTECTED
        return sense.LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED if self.software_write_protected else None

    def native_config(self) -> Any:
        """A new `struct vt_lu_config` for the native core."""
        config = ffi.new("struct vt_lu_config *")
        config.lun, config.block_nbytes, config.blocks = self.lun, self.block_nbytes, self.blocks
        fd = self.store.native_fd
        config.fd = -1 if fd is None else fd
        config.max_transfer_blocks = self.max_transfer_blocks
        config.is_block_device = self.store.is_block_device
        self.policy.put(config.policy)
        protection = self.write_protection
        config.write_protect = protection.code if protection else 0
        flags = {
            lib.VT_LU_WRITE_CACHE: self.write_cache,
            lib.VT_LU_DESCRIPTOR_SENSE: self.descriptor_sense,
            lib.VT_LU_NULL: self.store.is_null,
            lib.VT_LU_SLOW_STORE: fd is None and not self.store.is_null,
            lib.VT_LU_DIRECT: self.store.is_direct,
            lib.VT_LU_DISCARD: self.discard and not self.readonly,
            lib.VT_LU_PROTECTED: bool(self.protection_type),
            lib.VT_LU_FAULTS: self.faulty,
        }
        config.flags = sum(flag for flag, on in flags.items() if on)
        return config

    def contains(self, lba: int, blocks: int) -> bool:
        """Whether the range lies on the medium; an empty one may start right behind the last block."""
        return lba + blocks <= self.blocks

    def chunk_blocks(self) -> int:
        """How many blocks to move at a time."""
        return max(1, CHUNK_NBYTES // self.block_nbytes)

    def buffer(self, blocks: int) -> memoryview:
        """Memory for that many blocks that read_into and write can take."""
        return self.store.buffer(blocks * self.block_nbytes)

    def read_into(self, buffer: memoryview, lba: int) -> None:
        """Fills the buffer (whole blocks) from `lba` on. CheckCondition names the first block that cannot be read, or
        whose protection information does not agree."""
        if self.protection_type:
            self.part(Protection).read_into(buffer, lba)
        else:
            self.read_raw(buffer, lba)

    def read_raw(self, buffer: memoryview, lba: int) -> None:
        """The same, and only the data: nothing beside it is looked at."""
        if self.faulty:
            self.part(Faults).check_readable(lba, len(buffer) // self.block_nbytes)
        try:
            self.store.readinto(buffer, lba * self.block_nbytes)
        except OSError as error:
            raise errors.check_condition(error, writing=False, lba=self._first_bad(buffer, lba)) from error

    def _first_bad(self, buffer: memoryview, lba: int) -> int | None:
        size = self.block_nbytes
        for i in range(len(buffer) // size):
            try:
                self.store.readinto(buffer[i * size : (i + 1) * size], (lba + i) * size)
            except OSError:
                return lba + i
        return None

    def write(self, buffer: memoryview, lba: int, *, fua: bool = False) -> None:
        """Writes the buffer (whole blocks) from `lba` on. CheckCondition if it cannot."""
        if self.protection_type:
            self.part(Protection).write(buffer, lba, fua=fua)
        else:
            self.write_raw(buffer, lba, fua=fua)

    def write_raw(self, buffer: memoryview, lba: int, *, fua: bool = False) -> None:
        """The same, and only the data: nothing beside it is touched."""
        if self.store.is_direct:  # whose memory must be aligned
            buffer, given = self.store.buffer(len(buffer)), buffer
            buffer[:] = given
        try:
            if fua:
                self.durable.write(buffer, lba * self.block_nbytes)
            else:
                self.store.write(buffer, lba * self.block_nbytes)
        except OSError as error:
            raise errors.check_condition(error, writing=True) from error
        if self.faulty:
            self.part(Faults).written(lba, len(buffer) // self.block_nbytes)

    def reserve(self, lba: int, blocks: int) -> None:
        """Sees to it that a write of these blocks will not lack space. CheckCondition if there is none."""
        try:
            self.store.reserve(lba * self.block_nbytes, blocks * self.block_nbytes)
        except OSError as error:
            raise errors.check_condition(error, writing=True) from error

    def trim(self, lba: int, blocks: int) -> None:
        """Gives the space of the blocks back, where the store can. CheckCondition if it fails."""
        if self.protection_type:
            self.part(Protection).forget(lba, blocks)
        self.trim_raw(lba, blocks)

    def trim_raw(self, lba: int, blocks: int) -> None:
        """The same, and only of the data."""
        try:
            self.store.trim(lba * self.block_nbytes, blocks * self.block_nbytes)
        except OSError as error:
            raise errors.check_condition(error, writing=True) from error

    def extents(self, lba: int, blocks: int) -> Iterator[tuple[int, int, bool]]:
        """Cuts the range into (LBA, blocks, mapped), no two alike beside each other. A block of which any part has
        space is mapped."""
        size, end = self.block_nbytes, lba + blocks
        at = lba  # the blocks from lba up to here are mapped, and not told yet
        for offset, nbytes, mapped in self.store.extents(lba * size, blocks * size):
            if not mapped or not nbytes:
                continue
            first, behind = offset // size, min(end, -(-(offset + nbytes) // size))
            if first > at:
                if at > lba:
                    yield lba, at - lba, True
                yield at, first - at, False
                lba = first
            at = max(at, behind)
        if at > lba:
            yield lba, at - lba, True
        if end > at:
            yield at, end - at, False

    def prefetch(self, lba: int, blocks: int) -> None:
        """Blocks will be wanted soon."""
        self.store.prefetch(lba * self.block_nbytes, blocks * self.block_nbytes)

    def evict(self, lba: int, blocks: int) -> None:
        """What is read next of these blocks, which are durable, should come from the medium and from no cache."""
        self.store.evict(lba * self.block_nbytes, blocks * self.block_nbytes)

    def flush(self) -> None:
        """Makes everything written durable. Once it has failed it fails for ever: data may be lost (CheckCondition)."""
        self.durable.flush()

    def settle(self) -> None:
        """Makes what a command has written durable where there is no write cache; otherwise does nothing."""
        if not self.write_cache:
            self.flush()

    def describe(self) -> str:
        """One line for people."""
        flags = ", read-only" * self.readonly + ", write through" * (not self.write_cache)
        return f"lun {self.lun}: {self.name}, {self.blocks} blocks of {self.block_nbytes} bytes{flags}"

    def abandon(self) -> None:
        """Takes away an image that was created for this unit; nothing was served."""
        self.store.abandon()

    def give_up(self) -> None:
        """Instead of `close`, for a unit with I/O that does not end: everything is left as it is."""
        self._closed = True

    def close(self) -> None:
        """Flushes and releases the store, once; what goes wrong is logged."""
        if self._closed:
            return
        self._closed = True
        self.shutdown()
        for part in self.parts():
            try:
                part.close()
            except Exception:
                log.exception("lun %d: internal error while closing", self.lun)
        try:
            if not self.readonly:
                self.store.flush()
        except OSError as error:
            log.error("lun %d: the last flush failed: %s", self.lun, error)
        finally:
            self.store.close()
            self.state.close()


def _state_folder(spec: LunSpec, store: Store, readonly: bool) -> Path | None:
    """Beside the image; not for one that others may serve as well, unless the user says where."""
    if spec.state is not None:
        return Path(spec.state).absolute()
    return None if readonly or store.path is None else store.path.with_name(store.path.name + ".vscsi")


def _naa_from(serial: str) -> bytes:
    digest = int.from_bytes(hashlib.sha256(b"NAA " + serial.encode()).digest())
    return vpd.naa_6(_COMPANY_ID, digest & 0xFFFFFFFFF, digest >> 64 & 0xFFFFFFFFFFFFFFFF)


def open_lu(spec: LunSpec) -> LogicalUnit:
    """Opens the store of a logical unit. StoreError with one clear line if it cannot serve."""
    wanted = StoreSpec("", spec.readonly, spec.cache, spec.size, spec.block_nbytes, spec.discard)
    store = open_store(spec.store, wanted)
    try:
        if not store.nbytes:
            raise StoreError(f"{spec.store}: is empty")
        if store.nbytes % spec.block_nbytes:
            raise StoreError(f"{spec.store}: its {store.nbytes} bytes are not a multiple of bs={spec.block_nbytes}")
        for line in store.warnings:
            log.warning("lun %d: %s", spec.lun, line)
        if store.created and store.path is not None and spec.state is None:
            set_aside(Path(f"{store.path}.vscsi"))
        return LogicalUnit(spec, store)
    except OSError as error:
        store.abandon()
        store.close()
        raise StoreError(f"state folder {error.filename}: {error.strerror}") from error
    except BaseException:
        store.abandon()
        store.close()
        raise
