# SPDX-License-Identifier: BSD-2-Clause
"""The copy manager: moves blocks between logical units of this target, and remembers how each copy operation went.

Knows units, locks and chunks. Must not know parameter lists, CDBs or tokens.
"""

import contextlib
import logging
import mmap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from target.access import Access
from target.commands.table import Conflict
from target.commands.task import Aborted, Port
from target.part import Nexus, Part, part
from target.rod_tokens import Tokens
from target.scsi_device import LockRefused, TargetDevice
from vscsi.scsi import copy, sense

if TYPE_CHECKING:
    from target.lu import LogicalUnit

log = logging.getLogger(__name__)

CHUNK_NBYTES = 1 << 20
MAX_HELD = 64
"""Results that a unit keeps for their owners to fetch; the oldest goes first."""
MAX_RUNNING = 16
"""Copy operations that may run at once on one unit."""
HELD_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes from one unit to another. `source` None: zeros. `segment` is its number in the list."""

    source: "LogicalUnit | None"
    source_lba: int
    destination: "LogicalUnit"
    destination_lba: int
    nbytes: int
    segment: int


@dataclass(eq=False)
class CopyOperation:
    """One copy operation, named by its nexus (index) and list identifier."""

    nexus: int
    list_id: int
    service_action: int
    started: float
    status: int = copy.Status.IN_PROGRESS_FOREGROUND
    sense: bytes = b""
    scsi_status: int = 0
    segments: int = 0
    nbytes: int = 0
    blocks: int = 0
    token: bytes | None = None
    aborted: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def running(self) -> bool:
        return not self.finished.is_set()

    def end(self, status: int, *, scsi_status: int = 0, sense_data: bytes = b"") -> None:
        """Nothing moves on its behalf any more."""
        self.status, self.scsi_status, self.sense = status, scsi_status, sense_data
        self.finished.set()


@part
class Copies(Part):
    """The copy operations that were asked of one unit, running or held. Any thread may call."""

    def __init__(self, unit: "LogicalUnit") -> None:
        super().__init__(unit)
        self._lock = threading.Lock()
        self._operations: list[CopyOperation] = []
        self._nameless = 0

    def _now(self) -> float:
        assert self.unit.device is not None
        return self.unit.device.monotonic()

    def begin(self, nexus: int, list_id: int | None, service_action: int) -> CopyOperation:
        """A new operation (`list_id` None: one that nobody asks for); one that has ended makes room for it.
        CheckCondition if that name is in use, or too many are running."""
        now = self._now()
        with self._lock:
            if list_id is None:
                self._nameless -= 1
                list_id = self._nameless
            same = [one for one in self._operations if (one.nexus, one.list_id) == (nexus, list_id)]
            if any(one.running for one in same):
                raise sense.OPERATION_IN_PROGRESS.error()
            if sum(one.running for one in self._operations) >= MAX_RUNNING:
                raise sense.INSUFFICIENT_RESOURCES.error()
            keep = [
                one for one in self._operations if one.running or (one not in same and now - one.started < HELD_SECONDS)
            ]
            held = [one for one in keep if not one.running]
            gone = set(map(id, held[: max(0, len(held) - MAX_HELD + 1)]))
            operation = CopyOperation(nexus, list_id, service_action, now)
            self._operations = [*(one for one in keep if id(one) not in gone), operation]
            return operation

    def find(self, nexus: int, list_id: int, actions: frozenset[int]) -> CopyOperation | None:
        """The operation of that name, if it was one of these service actions."""
        with self._lock:
            for one in self._operations:
                if (one.nexus, one.list_id) == (nexus, list_id) and one.service_action in actions:
                    return one
        return None

    def discard(self, operation: CopyOperation) -> None:
        """Its results are of no more use."""
        with self._lock, contextlib.suppress(ValueError):
            self._operations.remove(operation)

    def abort(self, nexus: int | None = None) -> None:
        """Stops what runs for a nexus, or for every one."""
        with self._lock:
            for one in self._operations:
                if nexus in (None, one.nexus):
                    one.aborted.set()

    def reset(self) -> None:
        self.abort()
        with self._lock:
            self._operations = [one for one in self._operations if one.running]

    def sanitized(self) -> None:
        self.abort()
        if self.unit.device is not None:
            self.unit.device.shared(Tokens).revoke(self.unit)

    def medium_changed(self) -> None:
        self.sanitized()  # what a token stands for has gone with the old medium

    def nexus_forgotten(self, nexus: Nexus) -> None:
        with self._lock:
            self._operations = [one for one in self._operations if one.nexus != nexus.index]

    def close(self) -> None:
        self.abort()
        with self._lock:
            running = [one for one in self._operations if one.running]
        for one in running:
            one.finished.wait(10)


def check_unit(unit: "LogicalUnit", nexus: int, conflict: Conflict) -> None:
    """What the copy manager meets when it reads or writes on a nexus' behalf. CheckCondition: COPY ABORTED."""
    access = unit.part(Access)
    protected = conflict & Conflict.WRITE and (unit.write_protection is not None or access.readonly(nexus))
    if unit.obstacle() is not None or unit.denies(nexus, conflict) or protected or access.hidden(nexus):
        raise sense.THIRD_PARTY_DEVICE_FAILURE.error()


def run(device: TargetDevice, operation: CopyOperation, pieces: list[Piece], port: Port | None) -> None:
    """Moves the pieces, in their order. CheckCondition (COPY ABORTED) with the number of the segment that failed.

    `port` is that of the command which waits for it, None if none does: with it the copy stops, waiting or moving.
    Every destination is durable afterwards if it has no write cache.
    """
    written: dict[int, LogicalUnit] = {}

    def check() -> None:
        if device.stopping or operation.aborted.is_set() or (port is not None and port.aborted()):
            raise Aborted

    for piece in pieces:
        check()
        try:
            _check_piece(piece, operation.nexus)
            written[piece.destination.index] = piece.destination
            for nbytes in _move(device, piece, check, operation.nexus, 0 if port is None else port.request):
                operation.nbytes += nbytes
                operation.blocks += nbytes // piece.destination.block_nbytes
        except sense.CheckCondition as error:
            raise _in_segment(error, piece.segment) from error
        operation.segments = piece.segment + 1
    for unit in written.values():
        if not unit.write_cache:
            if device.sync_failed(unit):
                raise sense.THIRD_PARTY_DEVICE_FAILURE.error()
            unit.flush()


def in_own_thread(work: Callable[[], None]) -> None:
    """Goes on after the command's end; how it went stands in its operation."""

    def quietly() -> None:
        try:
            work()
        except (sense.CheckCondition, Aborted):
            pass
        except Exception:
            log.exception("internal error in a copy operation")

    threading.Thread(target=quietly, name="vscsi-copy", daemon=True).start()


def _in_segment(error: sense.CheckCondition, segment: int) -> sense.CheckCondition:
    """COPY ABORTED, with the segment's number in the upper half of COMMAND SPECIFIC INFORMATION (SPC-4 4.5.3)."""
    named = error.sense if error.sense.key == sense.Key.COPY_ABORTED else sense.THIRD_PARTY_DEVICE_FAILURE
    return named.error(command_specific=segment << 16)


def _check_piece(piece: Piece, nexus: int) -> None:
    ends = [(piece.destination, piece.destination_lba, Conflict.WRITE)]
    if piece.source is not None:
        ends.append((piece.source, piece.source_lba, Conflict.READ))
    for unit, lba, _ in ends:
        if not unit.contains(lba, piece.nbytes // unit.block_nbytes):
            raise sense.COPY_TARGET_DEVICE_NOT_REACHABLE.error()
    for unit, _, conflict in ends:
        check_unit(unit, nexus, conflict)


def _steps(piece: Piece) -> Iterator[tuple[int, int]]:
    """(offset, nbytes) of the chunks; from the end if the destination overlaps the blocks behind the source."""
    offsets = list(range(0, piece.nbytes, CHUNK_NBYTES))
    if piece.source is piece.destination and piece.source_lba < piece.destination_lba:
        offsets.reverse()
    for offset in offsets:
        yield offset, min(CHUNK_NBYTES, piece.nbytes - offset)


def _move(device: TargetDevice, piece: Piece, check: Callable[[], None], nexus: int, request: int) -> Iterator[int]:
    buffer = memoryview(mmap.mmap(-1, max(1, min(CHUNK_NBYTES, piece.nbytes))))
    source, destination = piece.source, piece.destination
    for offset, nbytes in _steps(piece):
        check()
        chunk = buffer[:nbytes]
        to = piece.destination_lba + offset // destination.block_nbytes
        ranges = [(destination, to, nbytes // destination.block_nbytes)]
        if source is not None:
            ranges.append((source, piece.source_lba + offset // source.block_nbytes, nbytes // source.block_nbytes))
        with locked(device, ranges, request):
            _check_piece(piece, nexus)  # again: SANITIZE, a reservation or another medium may have come in between
            if source is not None:
                source.read_into(chunk, ranges[1][1])
            device.wrote(destination)
            destination.write(chunk, to)
            device.wrote(destination)
        yield nbytes


@contextlib.contextmanager
def locked(device: TargetDevice, ranges: "list[tuple[LogicalUnit, int, int]]", request: int = 0) -> Iterator[None]:
    """Locks several ranges (unit, lba, blocks) for a command, in the order that keeps two copies from waiting for each
    other."""
    merged: list[tuple[LogicalUnit, int, int]] = []
    for unit, lba, blocks in sorted(ranges, key=lambda one: (one[0].index, one[1])):
        if merged and merged[-1][0] is unit and lba <= merged[-1][1] + merged[-1][2]:
            _, start, count = merged.pop()
            lba, blocks = start, max(start + count, lba + blocks) - start
        merged.append((unit, lba, blocks))
    with contextlib.ExitStack() as stack:
        try:
            for unit, lba, blocks in merged:
                stack.enter_context(device.locked(unit, lba, blocks, request))
        except LockRefused as refused:
            raise (Aborted() if refused.aborted else sense.THIRD_PARTY_DEVICE_FAILURE.error()) from refused
        yield
