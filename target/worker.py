# SPDX-License-Identifier: BSD-2-Clause
"""Python workers: threads that take slow commands from the native core, run them and hand the result back.

Knows the native request and result, and translates between them and `target.commands`. Must not know any command.
"""

import errno
import logging
import os
import signal
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from target import debug
from target.commands import Background, Result, execute
from target.commands.task import Aborted
from target.lu import LogicalUnit
from target.native import ffi, lib
from target.scsi_device import TargetDevice
from vscsi.bus.shares import LimitError, Shares
from vscsi.scsi import cdb, sense
from vscsi.scsi.status import Status, describe

log = logging.getLogger(__name__)
TRACE = debug.declare("worker.trace", "log every command that Python runs")


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
    if request.op == lib.VT_OP_SYNC:
        return cdb.SYNCHRONIZE_CACHE_16.build()
    return bytes(ffi.buffer(request.cdb, request.cdb_nbytes))


class Workers:
    """`count` threads that serve slow commands of the target `t`. `units` maps the native index to the unit.

    `units` is read at every command and may change. `owner_of` says whose a channel is: connection and user.
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
        self._threads = [
            threading.Thread(target=self._serve, name=f"vscsi-worker-{i}", daemon=True) for i in range(count)
        ]

    def start(self) -> None:
        """Starts the threads; vt_stop ends them."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Waits for their end, after vt_stop, and for that of commands in the background."""
        for thread in [*self._threads, *self._background]:
            if thread.ident is not None:
                thread.join()

    def _serve(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        request = ffi.new("struct vt_request *")
        while True:
            found = lib.vt_request_next(self._t, request, -1)
            if found < 0:
                if found != -errno.ESHUTDOWN:
                    log.error("a worker ends: %s", os.strerror(-found))
                return
            if found:
                self._run(request)

    def _run(self, request: Any) -> None:
        number, lu = int(request.task), self._units.get(request.lu)
        if request.op == lib.VT_OP_LU_RESET:
            if lu is not None:
                lu.reset()
            self._complete(number, Result(Status.GOOD))
            return
        raw, lun = _command_of(request), bytes(ffi.buffer(request.lun))
        result = execute(_Port(self._t, request), self._device, raw, lu=lu, lun=lun, nexus=request.nexus)
        if isinstance(result, Background):
            self._detach(number, request.channel, result, raw, lu, lun)
        else:
            self._end(number, result, raw, lu, lun)

    def _detach(
        self, number: int, channel: int, rest: Background, raw: bytes, lu: LogicalUnit | None, lun: bytes
    ) -> None:
        owner, uid = self._owner_of(channel)

        def finish() -> None:
            try:
                try:
                    done = rest.finish()
                finally:
                    self._background_shares.give(owner)  # before the answer, after which the next one may come
                self._end(number, done, raw, lu, lun)
            finally:
                with self._background_lock:
                    self._background.discard(threading.current_thread())

        try:
            self._background_shares.take(owner, uid)
        except LimitError:
            self._end(number, Result(Status.BUSY), raw, lu, lun)
            return
        thread = threading.Thread(target=finish, name="vscsi-background", daemon=True)
        with self._background_lock:
            self._background.add(thread)
        lib.vt_request_detach(self._t, number)
        thread.start()  # signals are blocked in it, too: it inherits this thread's mask

    def _end(self, number: int, result: Result, raw: bytes, lu: LogicalUnit | None, lun: bytes) -> None:
        if TRACE.value:
            self._trace(raw, lu, lun, result)
        self._complete(number, result)

    def _trace(self, raw: bytes, lu: LogicalUnit | None, lun: bytes, result: Result) -> None:
        row = cdb.lookup(raw)
        where = f"lun {lu.lun}" if lu else f"LUN {lun.hex()}"
        shown = raw[: row.nbytes] if row else raw
        how = sense.decode(result.sense).describe() if result.sense else describe(result.status)
        log.info("%s: %s [%s]: %s", where, cdb.name_of(raw), shown.hex(" "), how)

    def _complete(self, number: int, result: Result) -> None:
        native = ffi.new("struct vt_result *")
        native.status, native.sense_nbytes = result.status, len(result.sense)
        native.data_out_nbytes, native.data_in_nbytes = result.out_nbytes, result.in_nbytes
        ffi.memmove(native.sense, result.sense, len(result.sense))
        error = lib.vt_request_complete(self._t, number, native)
        if error < 0 and error != -errno.ENOENT:
            log.error("a result was refused: %s", os.strerror(-error))
