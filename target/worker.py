# SPDX-License-Identifier: BSD-2-Clause
"""Python workers: threads that take slow commands from the native core, run them and hand the result back.

Knows the native request and result, and translates between them and `target.commands`. Must not know any command.
"""

import errno
import itertools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from target import debug
from target.commands import Background, Result, discard, execute
from target.commands.task import Aborted
from target.lu import LogicalUnit
from target.native import ffi, lib
from target.scsi_device import TargetDevice
from vscsi.bus.shares import LimitError, Shares
from vscsi.scsi import cdb, sense
from vscsi.scsi.status import Status, describe

log = logging.getLogger(__name__)
TRACE = debug.declare("worker.trace", "log every command that Python runs")


MAX_WORKERS = 64
STALL_SECONDS = 0.05
"""All busy and none done for so long: there will be another worker."""
IDLE_MS = 10_000
"""After so long without work a worker that was started for want of another ends."""
MAX_BACKGROUND = 128
"""Commands that may run in threads of their own at a time; one more gets BUSY."""
MAX_CONNECTION_BACKGROUND = 8
"""Of one connection."""


class _Port:
    """A native request as `target.commands` sees it."""

    def __init__(self, t: Any, request: Any) -> None:
        self._t, self._task = t, request.task
        self.request = int(request.task)
        self.data_out_nbytes = int(request.data_out_nbytes)
        self.data_in_nbytes = int(request.data_in_nbytes)

    def _check(self, count: int) -> int:
        if count in (-errno.ECANCELED, -errno.ENOENT):
            raise Aborted
        if count == -errno.EFAULT:
            raise sense.DATA_PHASE_ERROR.error()
        if count < 0:
            raise RuntimeError(f"the initiator's buffer cannot be reached: {os.strerror(-count)}")
        return count

    def fetch(self, offset: int, nbytes: int) -> bytes:
        data = bytearray(nbytes)
        if (
            nbytes
            and self._check(lib.vt_request_fetch(self._t, self._task, offset, ffi.from_buffer(data), nbytes)) < nbytes
        ):
            raise sense.DATA_PHASE_ERROR.error()
        return bytes(data)

    def store(self, offset: int, data: bytes | memoryview) -> None:
        if len(data):
            self._check(lib.vt_request_store(self._t, self._task, offset, ffi.from_buffer(data), len(data)))

    def aborted(self) -> bool:
        return bool(lib.vt_request_aborted(self._t, self._task))


def _command_of(request: Any) -> bytes:
    """The CDB; for media access the native core has decoded it, and blkif requests have none."""
    extent = {"lba": int(request.lba)}
    if request.op == lib.VT_OP_READ:
        return cdb.READ_16.build(**extent, transfer_length=int(request.blocks), fua=bool(request.fua))
    if request.op == lib.VT_OP_WRITE:
        return cdb.WRITE_16.build(**extent, transfer_length=int(request.blocks), fua=bool(request.fua))
    if request.op == lib.VT_OP_DISCARD:
        return cdb.UNMAP.build()
    if request.op == lib.VT_OP_SYNC:
        return cdb.SYNCHRONIZE_CACHE_16.build()
    return bytes(ffi.buffer(request.cdb, request.cdb_nbytes))


@dataclass(frozen=True, slots=True)
class _Running:
    """A command that a worker has taken; `number` is the native core's."""

    number: int
    channel: int
    raw: bytes
    lu: LogicalUnit | None
    lun: bytes

    def trace(self, result: Result) -> None:
        """One line of the log says how it ended."""
        row = cdb.lookup(self.raw)
        where = f"lun {self.lu.lun}" if self.lu else f"LUN {self.lun.hex()}"
        shown = self.raw[: row.nbytes] if row else self.raw
        how = sense.decode(result.sense).describe() if result.sense else describe(result.status)
        log.info("%s: %s [%s]: %s", where, cdb.name_of(self.raw), shown.hex(" "), how)


class Workers:
    """Threads that serve slow commands of the target `t`. `units` maps the native index to the unit.

    There are `count` at first, and more when all are busy and none gets done: the native core lets no unit occupy more
    than its share, so a store that is stuck takes them from nobody. `units` is read at every command and may change.
    `owner_of` says whose a channel is: connection and user.
    """

    def __init__(
        self,
        t: Any,
        units: Mapping[int, LogicalUnit],
        device: TargetDevice,
        count: int = 2,
        *,
        owner_of: Callable[[int], tuple[Hashable, int]] = lambda channel: (channel, 0),
        background: Shares | None = None,
    ) -> None:
        self._t, self._units, self._device, self._owner_of = t, units, device, owner_of
        self._background: set[threading.Thread] = set()
        self._background_lock = threading.Lock()
        self._background_shares = background or Shares(
            "commands in the background", MAX_BACKGROUND, each=MAX_CONNECTION_BACKGROUND, holders=1
        )
        self._count, self._names = count, itertools.count()
        self._threads: set[threading.Thread] = set()
        self._idle = self._taken = 0
        self._ending = False
        self._lock = threading.Lock()
        """Of these."""
        self._changed = threading.Condition(self._lock)

    def start(self) -> None:
        """Starts the threads; vt_stop ends them."""
        for _ in range(self._count):
            with self._lock:
                self._idle += 1
                thread = self._thread(-1)
            thread.start()
        threading.Thread(target=self._guard, name="vscsi-worker-guard", daemon=True).start()

    def _thread(self, patience_ms: int) -> threading.Thread:
        """Under the lock: one more, that ends when it has been idle for so long (-1: never). It counts as idle."""
        name = f"vscsi-worker-{next(self._names)}"
        thread = threading.Thread(target=self._serve, args=(patience_ms,), name=name, daemon=True)
        self._threads.add(thread)
        return thread

    def join(self, seconds: float | None = None) -> bool:
        """Waits for their end, after vt_stop, and for that of commands in the background. False: some are stuck."""
        end = None if seconds is None else time.monotonic() + seconds
        with self._changed, self._background_lock:
            self._ending = True
            self._changed.notify()
            threads = [*self._threads, *self._background]
        for thread in threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _serve(self, patience_ms: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        request = ffi.new("struct vt_request *")
        while (found := lib.vt_request_next(self._t, request, patience_ms)) >= 0:
            if found:
                self._occupy()
                try:
                    self._run(request)
                finally:
                    with self._lock:
                        self._idle += 1
            elif self._leave(even_the_last=False):
                return
        if found != -errno.ESHUTDOWN:
            log.error("a worker ends: %s", os.strerror(-found))
        self._leave(even_the_last=True)

    def _leave(self, *, even_the_last: bool) -> bool:
        """The calling thread, which is idle, is about to end; False: it is needed."""
        with self._lock:
            if self._idle == 1 and not even_the_last:
                return False
            self._idle -= 1
            self._threads.discard(threading.current_thread())
            return True

    def _occupy(self) -> None:
        """The calling thread has something to do."""
        with self._changed:
            self._idle -= 1
            self._taken += 1
            if not self._idle:
                self._changed.notify()

    def _guard(self) -> None:
        """Sees to it that somebody is there for what comes next, when all are busy and none gets done."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._idle == 0 or self._ending)
                taken = self._taken
                self._changed.wait_for(lambda: self._ending, STALL_SECONDS)
                if self._ending:
                    return
                if self._idle == 0 and self._taken == taken and len(self._threads) < MAX_WORKERS:
                    self._idle += 1
                    self._thread(IDLE_MS).start()

    def _run(self, request: Any) -> None:
        number, lu = int(request.task), self._units.get(request.lu)
        if request.op == lib.VT_OP_LU_RESET:
            if lu is not None:
                lu.reset()
            self._complete(number, Result(Status.GOOD))
            return
        raw, lun = _command_of(request), bytes(ffi.buffer(request.lun))
        running = _Running(number, int(request.channel), raw, lu, lun)
        port = _Port(self._t, request)
        if request.op == lib.VT_OP_DISCARD:
            assert lu is not None
            size, where = port.data_out_nbytes, int(request.lba)
            result = discard(port, self._device, lu, lba=where, nbytes=size, nexus=request.nexus)
        else:
            result = execute(port, self._device, raw, lu=lu, lun=lun, nexus=request.nexus)
        self._take(running, result)

    def _take(self, running: "_Running", result: Result | Background) -> None:
        """A command has ended, or goes on elsewhere."""
        if isinstance(result, Result):
            self._end(running, result)
        elif result.start is None:
            self._detach(running, result)
        else:
            finish = result.finish
            lib.vt_request_detach(self._t, running.number)
            result.start(lambda: self._take(running, finish()))

    def _detach(self, running: "_Running", rest: Background) -> None:
        owner, uid = self._owner_of(running.channel)

        def finish() -> None:
            try:
                try:
                    done = rest.finish()
                finally:
                    self._background_shares.give(owner)  # before the answer, after which the next one may come
                self._take(running, done)
            finally:
                with self._background_lock:
                    self._background.discard(threading.current_thread())

        try:
            self._background_shares.take(owner, uid)
        except LimitError:
            self._end(running, Result(Status.BUSY))
            return
        thread = threading.Thread(target=finish, name="vscsi-background", daemon=True)
        with self._background_lock:
            self._background.add(thread)
        lib.vt_request_detach(self._t, running.number)
        thread.start()  # signals are blocked in it, too: it inherits this thread's mask

    def _end(self, running: "_Running", result: Result) -> None:
        if TRACE.value:
            running.trace(result)
        self._complete(running.number, result)

    def _complete(self, number: int, result: Result) -> None:
        native = ffi.new("struct vt_result *")
        native.status, native.sense_nbytes = result.status, len(result.sense)
        native.data_out_nbytes, native.data_in_nbytes = result.out_nbytes, result.in_nbytes
        native.clears = result.clears
        ffi.memmove(native.sense, result.sense, len(result.sense))
        error = lib.vt_request_complete(self._t, number, native)
        if error < 0 and error != -errno.ENOENT:
            log.error("a result was refused: %s", os.strerror(-error))
