# SPDX-License-Identifier: BSD-2-Clause
"""The SCSI target device: what all logical units share, and the commands' way to the native core.

`TargetDevice` says what a command may ask for; `NativeDevice` does it. Commands know only the former, tests bring their
own. One instance lives as long as the target, and any thread may use it. Must not know any command.
"""

import contextlib
import errno
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from target.native import ffi, lib
from target.part import Nexus

if TYPE_CHECKING:
    from target.lu import LogicalUnit

S = TypeVar("S")


class Counts(NamedTuple):
    """What the native core counts of a unit: commands that have ended, blocks they moved, medium errors."""

    reads: int = 0
    writes: int = 0
    blocks_read: int = 0
    blocks_written: int = 0
    read_errors: int = 0
    write_errors: int = 0


class LockRefused(Exception):
    """A range could not be locked: `aborted` tells whether because its command has been aborted."""

    def __init__(self, aborted: bool) -> None:
        super().__init__("aborted" if aborted else "timed out")
        self.aborted = aborted


class TargetDevice(ABC):
    """All logical units, the nexuses that reach them, and what there is once for all of them."""

    target_port_id: bytes
    """The SRP target port identifier, 16 bytes."""
    units: "Mapping[int, LogicalUnit]"
    """Every logical unit by its LUN."""
    core: Any = None
    """The `struct vt_target *` of a running target."""

    def __init__(self) -> None:
        self.stopping = False
        """The target is about to end: long commands stop at the next opportunity."""
        self._shared: dict[type, Any] = {}
        self._shared_lock = threading.RLock()

    @abstractmethod
    def nexus(self, index: int) -> Nexus | None:
        """The I_T nexus with this index; None for a blkif connection's."""

    @abstractmethod
    def nexuses(self) -> Sequence[Nexus]:
        """Every I_T nexus that is known now, connected or not."""

    @abstractmethod
    def attention(
        self,
        code: int,
        *,
        nexus: int | None = None,
        besides: int | None = None,
        unit: "LogicalUnit | None" = None,
    ) -> None:
        """Establishes a unit attention (ASC << 8 | ASCQ) for one nexus or all, but not for `besides`, on one unit or
        all. Nexuses are given by index."""

    @abstractmethod
    def attention_take(self, nexus: int, unit: "LogicalUnit", request: int) -> int:
        """Takes the first unit attention of a nexus on a unit: ASC << 8 | ASCQ, or 0. It goes back if the command that
        reports it (`request`) is aborted."""

    @abstractmethod
    def set_not_ready(self, unit: "LogicalUnit", code: int) -> None:
        """Every command that needs the unit ready ends with this sense (key << 16 | asc << 8 | ascq); 0: ready."""

    @abstractmethod
    def operation(self, unit: "LogicalUnit", code: int, progress: int = 0) -> None:
        """While `code` (key << 16 | asc << 8 | ascq) is not 0, every command that is not allowed during an operation
        ends with it and the progress indication (of 65536)."""

    @abstractmethod
    def deny(self, unit: "LogicalUnit", others: int, classes: Mapping[int, int]) -> None:
        """In one step: which conflict classes (enum vt_conflict) each nexus, by index, is denied, and all others."""

    @abstractmethod
    def access(self, unit: "LogicalUnit", nexus: int | None, *, hidden: bool, readonly: bool) -> None:
        """What the unit is to a nexus (by index), or to all and those to come: not there at all, or read-only."""

    @abstractmethod
    def abort_tasks(self, unit: "LogicalUnit", nexuses: Sequence[int], request: int) -> bool:
        """Ends every command of these nexuses on the unit but `request`: no answer, 2F/00 to those that had any. True
        once none of them can move a byte; False if one is stuck, or `request` itself has been aborted."""

    @abstractmethod
    def refresh(self, unit: "LogicalUnit") -> None:
        """Tells the native core what has changed of a unit: blocks, write cache, sense format, write protection."""

    @abstractmethod
    def resized(self, unit: "LogicalUnit", besides: int | None = None) -> None:
        """A unit has another number of blocks: tells the core and every nexus but one (2A/09), and blkif devices."""

    @abstractmethod
    def counts(self, unit: "LogicalUnit") -> Counts:
        """READ and WRITE commands on a unit since the target began to serve it."""

    @abstractmethod
    def sync_failed(self, unit: "LogicalUnit") -> bool:
        """Whether a flush of this unit has failed in the native core."""

    @abstractmethod
    def sync(self, unit: "LogicalUnit", flush: Callable[[], None]) -> None:
        """Runs `flush` of the unit's store beside the core's own syncs. OSError, its own or EIO: data may be lost.

        The kernel tells of that once: a failure is remembered for the core, and a success waits for what runs there.
        """

    @abstractmethod
    def wrote(self, unit: "LogicalUnit") -> None:
        """Something is about to be, or has just been, written by other means than a command on this very unit: the
        next sync must cover it. To be called before and after."""

    @abstractmethod
    def lock(self, unit: "LogicalUnit", lba: int, blocks: int, request: int, seconds: float) -> int:
        """Locks a range against every other command; the lock's number. LockRefused. `request` 0: for no command."""

    @abstractmethod
    def unlock(self, unit: "LogicalUnit", number: int) -> None:
        """Ends what `lock` began."""

    @contextlib.contextmanager
    def locked(
        self, unit: "LogicalUnit", lba: int, blocks: int, request: int = 0, seconds: float = 30.0
    ) -> Iterator[None]:
        """Keeps every other command off the blocks, from whatever nexus. LockRefused."""
        number = self.lock(unit, lba, blocks, request, seconds) if blocks else 0
        try:
            yield
        finally:
            if number:
                self.unlock(unit, number)

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only ever increase."""
        return time.monotonic()

    def shared(self, kind: type[S]) -> S:
        """The target's only instance of `kind`; made at first use, as kind(device) or kind()."""
        with self._shared_lock:
            if kind not in self._shared:
                self._shared[kind] = kind()
            found: S = self._shared[kind]
            return found


class Registry(Protocol):
    """The nexuses as the conversation thread keeps them."""

    def lookup(self, index: int) -> Nexus | None: ...
    def known(self) -> Sequence[Nexus]: ...


class Host(Protocol):
    """What the device needs of the server around it."""

    @property
    def units(self) -> "Mapping[int, LogicalUnit]": ...
    def unit_resized(self, unit: "LogicalUnit", besides: int | None = None) -> None: ...


class NativeDevice(TargetDevice):
    """The device of a running target."""

    def __init__(self, t: Any, host: Host, nexuses: Registry, target_port_id: bytes) -> None:
        super().__init__()
        self._t, self._host, self._nexuses = t, host, nexuses
        self.core = t
        self.target_port_id, self.units = target_port_id, host.units

    def nexus(self, index: int) -> Nexus | None:
        return self._nexuses.lookup(index)

    def nexuses(self) -> Sequence[Nexus]:
        return self._nexuses.known()

    def attention(
        self,
        code: int,
        *,
        nexus: int | None = None,
        besides: int | None = None,
        unit: "LogicalUnit | None" = None,
    ) -> None:
        every = lib.VT_ALL
        _check(
            lib.vt_ua_establish(
                self._t,
                every if nexus is None else nexus,
                every if besides is None else besides,
                every if unit is None else unit.index,
                code,
            )
        )

    def attention_take(self, nexus: int, unit: "LogicalUnit", request: int) -> int:
        return max(0, int(lib.vt_request_attention(self._t, request)))

    def set_not_ready(self, unit: "LogicalUnit", code: int) -> None:
        _check(lib.vt_lu_state(self._t, unit.index, code))

    def operation(self, unit: "LogicalUnit", code: int, progress: int = 0) -> None:
        _check(lib.vt_lu_operation(self._t, unit.index, code, progress))

    def deny(self, unit: "LogicalUnit", others: int, classes: Mapping[int, int]) -> None:
        indexes, bits = ffi.new("uint32_t[]", list(classes)), ffi.new("uint32_t[]", list(classes.values()))
        _check(lib.vt_lu_deny_many(self._t, unit.index, others, indexes, bits, len(classes)))

    def access(self, unit: "LogicalUnit", nexus: int | None, *, hidden: bool, readonly: bool) -> None:
        flags = lib.VT_ACCESS_HIDDEN * hidden | lib.VT_ACCESS_READONLY * readonly
        _check(lib.vt_lu_access(self._t, unit.index, lib.VT_ALL if nexus is None else nexus, flags))

    def abort_tasks(self, unit: "LogicalUnit", nexuses: Sequence[int], request: int) -> bool:
        indexes = ffi.new("uint32_t[]", list(nexuses))
        rc = int(lib.vt_nexus_abort_tasks(self._t, unit.index, indexes, len(nexuses), request))
        if rc in (-errno.ETIMEDOUT, -errno.ECANCELED):
            return False
        _check(rc)
        return True

    def refresh(self, unit: "LogicalUnit") -> None:
        _check(lib.vt_lu_update(self._t, unit.index, unit.native_config()))

    def resized(self, unit: "LogicalUnit", besides: int | None = None) -> None:
        self._host.unit_resized(unit, besides)

    def counts(self, unit: "LogicalUnit") -> Counts:
        stats = ffi.new("struct vt_lu_stats *")
        _check(lib.vt_lu_stats(self._t, unit.index, stats))
        return Counts(*stats.commands, *stats.blocks, *stats.errors)

    def sync_failed(self, unit: "LogicalUnit") -> bool:
        return bool(lib.vt_lu_sync_failed(self._t, unit.index) > 0)

    def sync(self, unit: "LogicalUnit", flush: Callable[[], None]) -> None:
        number = _check(lib.vt_lu_sync_begin(self._t, unit.index))
        failed = True
        try:
            flush()
            failed = False
        finally:
            lost = lib.vt_lu_sync_end(self._t, unit.index, number, failed) < 0
        if lost:
            raise OSError(errno.EIO, "a sync beside it has failed")

    def wrote(self, unit: "LogicalUnit") -> None:
        _check(lib.vt_lu_wrote(self._t, unit.index))

    def lock(self, unit: "LogicalUnit", lba: int, blocks: int, request: int, seconds: float) -> int:
        number = int(lib.vt_range_lock(self._t, request, unit.index, lba, blocks, round(seconds * 1000)))
        if number in (-errno.ECANCELED, -errno.ENOENT, -errno.ESHUTDOWN):
            raise LockRefused(aborted=True)
        if number == -errno.ETIMEDOUT:
            raise LockRefused(aborted=False)
        return _check(number)

    def unlock(self, unit: "LogicalUnit", number: int) -> None:
        _check(lib.vt_range_unlock(self._t, unit.index, number))


def _check(rc: int) -> int:
    if rc < 0:
        raise RuntimeError(f"the native core refuses: {os.strerror(-rc)}")
    return rc
