# SPDX-License-Identifier: BSD-2-Clause
"""A disk over blkif: the same shapes as `initiator.lun.Lun`, with blkif's operations and errors. Any thread.

A block is the device's sector-size; on the ring everything counts 512 bytes. A request that is outstanding when the
device is suspended is sent again after `resume`, as blkfront does: blkif's requests may be executed twice.
"""

import errno
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from initiator.buffers import Buffer
from initiator.channel import DEADLY, Call, Channel
from initiator.connected import MEMORY_NBYTES, Connected
from initiator.dirty import Dirty
from initiator.done import Done
from initiator.errors import (
    BlkifError,
    CacheLost,
    CommandTimeout,
    NotSent,
    TransportError,
    transport_error,
)
from initiator.native import lib
from initiator.recovery import Backoff
from initiator.vbd_link import VbdLink
from initiator.vbd_queue import BARRIER, DISCARD, FLUSH, NAMES, READ, WRITE, VbdQueue, VbdRequest
from initiator.vbd_session import SUSPENDED, VbdSession
from vscsi import blkif
from vscsi.bus.memory import PAGE

log = logging.getLogger("vscsi.initiator")

SECTOR = int(lib.VSCSI_SECTOR_SIZE)

MAX_DISCARD_SECTORS = (1 << 32) - 8

Data = bytes | bytearray | memoryview


class Vbd(Connected[VbdLink]):
    """The virtual disk `devid`, or the one that serves `lun`. ConnectError if there is none, or no target."""

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        lun: int = 0,
        devid: int | None = None,
        memory_nbytes: int = MEMORY_NBYTES,
        ring_pages: int = 8,
        queues: int = 1,
        persistent: bool = True,
        spin_us: int = 0,
        timeout: float = 30.0,
        on_resize: Callable[[], None] | None = None,
        reconnect: bool | Backoff = False,
    ) -> None:
        self.lun, self.timeout = lun, timeout
        self.devid = blkif.devid_of_lun(lun) if devid is None else devid
        options: dict[str, Any] = {
            "memory_nbytes": memory_nbytes,
            "ring_pages": ring_pages,
            "queues": queues,
            "persistent": persistent,
            "spin_us": spin_us,
            "timeout": min(timeout, 30.0),
            "on_update": on_resize,
        }
        self.dirty = Dirty()
        self.restarts = 0
        """How often another process was found behind the disk."""

        def connect() -> VbdLink:
            return VbdLink(self.path, self.devid, on_lost=self._lost, **options)

        self._queue = VbdQueue(self)
        super().__init__(f"vbd {self.devid}", connect, self._queue.abandon, reconnect, path)

    def _again(self) -> None:
        server = self._link.server
        super()._again()
        self.restarts += self._link.server != server
        self._queue.send(self._link)

    @property
    def session(self) -> VbdSession:
        """The device's conversation."""
        return self._link.session

    # ---- facts ----

    @property
    def properties(self) -> blkif.Properties:
        """What the target published; changes with a resize."""
        return self.session.properties

    @property
    def block_nbytes(self) -> int:
        """The logical block: sector-size."""
        return self.properties.sector_size

    @property
    def blocks(self) -> int:
        """Capacity in blocks."""
        return self.properties.sectors * SECTOR // self.block_nbytes

    @property
    def readonly(self) -> bool:
        return self.properties.readonly

    @property
    def max_blocks(self) -> int:
        """Blocks that one request carries at most."""
        nbytes = blkif.segments_per_request(self.session.limits) * PAGE
        return max(1, min(nbytes, self.memory.nbytes // 4) // self.block_nbytes)

    def stats(self) -> dict[str, int]:
        """Counters of all queues together."""
        total: dict[str, int] = {}
        for queue in self.session.queues:
            for name, value in queue.stats().items():
                total[name] = total.get(name, 0) + value
        return total

    # ---- requests ----

    def pick(self, link: VbdLink) -> Channel:
        """The next ring."""
        queues = link.session.queues
        return queues[next(self._turn) % len(queues)]

    def fill(self, link: VbdLink, call: Call, operation: int, block: int, blocks: int, secure: bool) -> None:
        """All but the data; `blocks` for DISCARD alone."""
        scale, q = link.session.properties.sector_size // SECTOR, call.request
        q.operation, q.sector, q.sectors = operation, block * scale, blocks * scale
        q.flags = int(lib.BLKIF_DISCARD_SECURE) if secure else 0

    def request(
        self, operation: int, block: int, *, data_out: Data | memoryview = b"", into: memoryview | None = None,
        blocks: int = 0, secure: bool = False,
    ) -> None:  # fmt: skip
        """One blkif request, at most `max_blocks`, waited for. BlkifError; TransportError; CommandTimeout.

        What a loss has interrupted is sent again over the next connection, from the caller's data, as blkfront does.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            link, restarts = self.hold(max(0.0, deadline - time.monotonic())), self.restarts
            try:
                self._request(link, operation, block, data_out, into, blocks, secure)
            except (CommandTimeout, NotSent):
                raise
            except TransportError as error:
                if not self.recovery.hopeful or time.monotonic() > deadline:
                    raise
                log.info("vbd %d: %s: again: %s", self.devid, NAMES[operation], error)
                continue
            finally:
                link.users.leave()
            if operation == WRITE:
                self.dirty.written(restarts)
            return

    def _request(
        self, link: VbdLink, operation: int, block: int, data_out: Data | memoryview, into: memoryview | None,
        blocks: int, secure: bool,
    ) -> None:  # fmt: skip
        out_nbytes, in_nbytes = len(data_out), len(into) if into is not None else 0
        nbytes = out_nbytes or in_nbytes
        buffers, memory = link.buffers, link.memory
        buffer = buffers.take(nbytes, self.timeout) if nbytes else None
        lost = True
        try:
            if buffer is not None and out_nbytes:
                memory.view[buffer.offset : buffer.offset + out_nbytes] = data_out
            status, lost = self._send(link, operation, block, buffer, out_nbytes, in_nbytes, blocks, secure)
            if status:
                raise BlkifError(NAMES[operation], status)
            if buffer is not None and into is not None:
                into[:] = memory.view[buffer.offset : buffer.offset + in_nbytes]
        finally:
            if buffer is not None:
                (buffers.lose if lost else buffers.give)(buffer)

    def _send(
        self, link: VbdLink, operation: int, block: int, buffer: Buffer | None, out_nbytes: int, in_nbytes: int,
        blocks: int, secure: bool,
    ) -> tuple[int, bool]:  # fmt: skip
        """The status, and False for "the target has done with the buffer"; sent anew for as long as we are resumed."""
        deadline = time.monotonic() + self.timeout
        while True:
            link.session.wait_ready(max(0.0, deadline - time.monotonic()))
            queue = self.pick(link)
            call = queue.call()
            offset = buffer.offset if buffer is not None else 0
            call.set_out(offset, out_nbytes)
            call.set_in(offset, in_nbytes)
            self.fill(link, call, operation, block, blocks, secure)
            rc = queue.run(call, max(0.001, deadline - time.monotonic()))
            if rc == -errno.ETIMEDOUT:
                raise self._give_up(link, queue, call)
            rc = rc or int(call.completion.error)
            status = int(call.completion.blkif_status)
            queue.done_with(call)
            if rc == SUSPENDED:
                self._take_back(link, buffer)
                continue
            if rc:
                if rc in DEADLY:  # C may have been the first to know
                    link.session.lost(rc, queue.why or os.strerror(-rc))
                raise transport_error(rc, queue.why)
            return status, False

    def _take_back(self, link: VbdLink, buffer: Buffer | None) -> None:
        """Not persistent: grants that the old rings left, once the target has let go of them."""
        link.session.wait_ready(self.timeout)
        if buffer is not None and not link.session.persistent:
            link.memory.revoke(buffer.offset, buffer.pages * PAGE)

    def _give_up(self, link: VbdLink, queue: Channel, call: Call) -> TransportError:
        """blkif has no abort: the queue, and with it the device, is given up."""
        if not call.completion.tag:
            return CommandTimeout(f"the ring has had no room for {self.timeout:g} s")
        link.session.lost(-errno.ETIMEDOUT, "a request was not answered")
        queue.wait(call, 0)
        return CommandTimeout(f"no answer within {self.timeout:g} s; the device is given up")

    # ---- many at once ----

    def submit(
        self, operation: int, block: int = 0, *, data_out: Data = b"", data_in: int | bytearray | memoryview = 0,
        blocks: int = 0, secure: bool = False, timeout: float | None = None, cookie: Any = None,
    ) -> int:  # fmt: skip
        """Sends one request (READ, WRITE, BARRIER, FLUSH, DISCARD of this module), at most `max_blocks`; its number.

        Its Done comes from `reap`, with `cookie`; `data_in` says how many bytes may come, or is a buffer for them.
        Waits at most `timeout` seconds for room on the ring, or for a connection: CommandTimeout, TransportError.

        What was not answered when the connection is lost, or the device suspended, is sent again over the next one, in
        the order of `submit` and before anything newer; what was answered never is. Requests may be carried out in any
        order, and a FLUSH covers what was answered before it was submitted; only nothing passes a BARRIER. One that
        has no answer after `timeout` seconds costs the connection, for blkif has no abort.
        """
        seconds = self.timeout if timeout is None else timeout
        request = VbdRequest(operation, block, bytes(data_out), data_in, blocks, secure, seconds, cookie)
        for nbytes in (len(request.data), request.in_nbytes):
            self._whole(nbytes)
        if operation == FLUSH:
            request.flush = self.dirty.flushing()
        return self._queue.submit(request)

    def reap(self, max: int = 64, min: int = 1, timeout: float | None = None) -> list[Done]:
        """Up to `max` of the submitted requests that have ended, at least `min` of them unless `timeout` seconds pass.

        Never waits for more than are outstanding. Done.error is a BlkifError, a TransportError if the connection was
        lost for good, CommandTimeout, or for a FLUSH CacheLost, as `flush` has it.
        """
        return self._queue.reap(max, min, self.timeout if timeout is None else timeout)

    # ---- the disk ----

    def _whole(self, nbytes: int) -> int:
        blocks, rest = divmod(nbytes, self.block_nbytes)
        if rest:
            raise ValueError(f"{nbytes} bytes are no whole number of blocks of {self.block_nbytes}")
        return blocks

    def read(self, lba: int, blocks: int) -> bytes:
        """`blocks` blocks from block `lba`."""
        data = bytearray(blocks * self.block_nbytes)
        self.readinto(lba, data)
        return bytes(data)

    def readinto(self, lba: int, buffer: bytearray | memoryview) -> None:
        """Fills the buffer, a whole number of blocks, from block `lba`."""
        view, block, most = memoryview(buffer).cast("B"), self.block_nbytes, self.max_blocks
        for at in range(0, self._whole(len(view)), most):
            self.request(READ, lba + at, into=view[at * block : (at + most) * block])

    def write(self, lba: int, data: Data, *, fua: bool = False) -> None:
        """Writes a whole number of blocks at block `lba`. `fua`: durable when it returns, by a flush."""
        view, block, most = memoryview(data).cast("B"), self.block_nbytes, self.max_blocks
        for at in range(0, self._whole(len(view)), most):
            self.request(WRITE, lba + at, data_out=view[at * block : (at + most) * block])
        if fua:
            self.flush()

    def flush(self) -> None:
        """What was written is durable when this returns. A device with neither flush nor barrier has no cache.

        CacheLost, once, if another process serves the disk since writes were answered that no flush has followed.
        """
        with self.dirty.flushing() as flush:
            if self.properties.flush:
                self.request(FLUSH, 0)
            elif self.properties.barrier:
                self.request(BARRIER, 0)
            else:
                return
        if flush.is_late(self.restarts):
            raise CacheLost(f"vbd {self.devid}: the target started anew: what was written may be lost")

    def barrier(self, lba: int = 0, data: Data = b"") -> None:
        """WRITE_BARRIER: everything before it is durable, then this write, before anything that follows.

        At most 11 pages. BlkifError if the device has no barriers.
        """
        if not self.properties.barrier:
            raise BlkifError(NAMES[BARRIER], int(lib.BLKIF_RSP_EOPNOTSUPP))
        self._whole(len(data))
        self.request(BARRIER, lba, data_out=memoryview(data).cast("B"))

    def discard(self, lba: int, blocks: int, *, secure: bool = False) -> None:
        """The content of these blocks is not needed any more. BlkifError if the device has no discard."""
        if not self.properties.discard or (secure and not self.properties.discard_secure):
            raise BlkifError(NAMES[DISCARD], int(lib.BLKIF_RSP_EOPNOTSUPP))
        most = MAX_DISCARD_SECTORS * SECTOR // self.block_nbytes
        for at in range(0, blocks, most):
            self.request(DISCARD, lba + at, blocks=min(most, blocks - at), secure=secure)

    unmap = discard

    # ---- life ----

    def suspend(self) -> None:
        """Stop using the rings; threads that wait for an answer go on waiting."""
        link = self.hold(self.timeout)
        try:
            link.session.suspend()
            self._queue.take_back(link.session.queues)
        finally:
            link.users.leave()

    def resume(self) -> None:
        """Connect with new rings and send what was outstanding again. ConnectError."""
        link = self.hold(self.timeout)
        try:
            link.session.resume()
            self._queue.send(link)
        finally:
            link.users.leave()

    @property
    def natives(self) -> Sequence[Any]:
        """The native channels, for load generators."""
        return [queue.c for queue in self.session.queues]
