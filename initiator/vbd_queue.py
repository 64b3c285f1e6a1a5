# SPDX-License-Identifier: BSD-2-Clause
"""Queue depth over blkif: requests submitted now and reaped later, and sent again after a loss, as blkfront does.

What was not answered goes to the next connection in the order in which it was submitted, before anything newer; data
that is written is kept for that. A barrier keeps its place: on one ring the order of requests is enough, with several
rings it is alone on its way. Knows what waits to be sent and what is outstanding; knows no handshake.
"""

import errno
import heapq
import logging
import time
from typing import TYPE_CHECKING, Any

from initiator.buffers import Buffer
from initiator.channel import DEADLY, Channel
from initiator.dirty import Flush
from initiator.done import Done
from initiator.errors import BlkifError, CacheLost, CommandTimeout, InitiatorError, TransportError, transport_error
from initiator.native import ffi, lib
from initiator.outstanding import GOING_SECONDS, SLICE_SECONDS, Outstanding
from initiator.vbd_session import SUSPENDED
from vscsi.bus.memory import PAGE

if TYPE_CHECKING:
    from initiator.vbd import Vbd
    from initiator.vbd_link import VbdLink

log = logging.getLogger("vscsi.initiator")

READ, WRITE = int(lib.BLKIF_OP_READ), int(lib.BLKIF_OP_WRITE)
BARRIER, FLUSH = int(lib.BLKIF_OP_WRITE_BARRIER), int(lib.BLKIF_OP_FLUSH_DISKCACHE)
DISCARD = int(lib.BLKIF_OP_DISCARD)
NAMES = {READ: "READ", WRITE: "WRITE", BARRIER: "WRITE_BARRIER", FLUSH: "FLUSH_DISKCACHE", DISCARD: "DISCARD"}


class VbdRequest:
    """One request, wherever it is on its way. `restarts` there had been when it was sent the last time.

    `stale`: grants of old rings may be left on its buffer. `timed_out`: it is not to be sent again.
    """

    __slots__ = (
        "block", "blocks", "buffer", "channel", "cookie", "data", "deadline", "flush", "in_nbytes", "into", "link",
        "operation", "restarts", "seconds", "secure", "stale", "timed_out",
    )  # fmt: skip

    channel: Channel
    link: "VbdLink"

    def __init__(
        self, operation: int, block: int, data: bytes, data_in: Any, blocks: int, secure: bool, seconds: float,
        cookie: Any,
    ) -> None:  # fmt: skip
        self.operation, self.block, self.data, self.blocks, self.secure = operation, block, data, blocks, secure
        self.into: memoryview | None = None if isinstance(data_in, int) else memoryview(data_in).cast("B")
        self.in_nbytes: int = len(self.into) if self.into is not None else data_in
        self.cookie, self.seconds = cookie, seconds
        self.deadline = time.monotonic() + seconds
        self.buffer: Buffer | None = None
        self.flush: Flush | None = None
        self.restarts = 0
        self.stale = self.timed_out = False

    @property
    def nbytes(self) -> int:
        return len(self.data) or self.in_nbytes


class VbdQueue(Outstanding[VbdRequest]):
    """What a disk has submitted and not reaped yet."""

    def __init__(self, vbd: "Vbd") -> None:
        super().__init__()
        self._vbd = vbd
        self._waiting: list[tuple[int, VbdRequest]] = []
        """A heap: what is to be sent, for the first time or again, the oldest first. Under the lock."""

    # ---- sending ----

    def submit(self, request: VbdRequest) -> int:
        """Its number, once it has been sent; CommandTimeout, NotSent or TransportError if it has not."""
        number = next(self._numbers)
        with self._lock:
            heapq.heappush(self._waiting, (number, request))
        try:
            while not self._is_sent(number):
                self._try(number, request)
        except BaseException:
            with self._lock:
                left = [item for item in self._waiting if item[0] != number]
                if len(left) == len(self._waiting):
                    return number  # somebody else has sent it meanwhile
                self._waiting = left
                heapq.heapify(left)
            if request.flush is not None:
                request.flush.failed()
            raise
        return number

    def _is_sent(self, number: int) -> bool:
        with self._lock:
            return all(item[0] != number for item in self._waiting)

    def _try(self, number: int, request: VbdRequest) -> None:
        """Sends what can be sent; else waits for something that may help."""
        left = request.deadline - time.monotonic()
        link = self._vbd.hold(max(0.0, left))
        try:
            link.session.wait_ready(max(0.0, left))
            self.send(link)
        finally:
            link.users.leave()
        if self._is_sent(number):
            return
        if left <= 0:
            raise CommandTimeout(f"the ring has had no room for {request.seconds:g} s; the request was not sent")
        self.wait(1, min(left, SLICE_SECONDS))

    def send(self, link: "VbdLink") -> None:
        """Sends what waits, in order, as far as there is room. The link is held, or nobody else's yet."""
        channels = set()
        with self._lock:
            while self._waiting and self._may_go(link, self._waiting[0][1]):
                number, request = self._waiting[0]
                rc = self._put(link, number, request)
                if rc == -errno.EAGAIN or rc in DEADLY or rc == SUSPENDED or rc == -errno.ESHUTDOWN:
                    break
                heapq.heappop(self._waiting)
                if rc:
                    self._finish(request, Done(error=transport_error(rc)))
                else:
                    channels.add(request.channel)
        for channel in channels:
            lib.vi_flush(channel.c)

    def _may_go(self, link: "VbdLink", request: VbdRequest) -> bool:
        if not link.session.is_ready:
            return False
        if len(link.session.queues) == 1:
            return True
        barriers = any(sent.operation == BARRIER for sent in list(self._pending.values()))
        return not barriers and (request.operation != BARRIER or not self._pending)

    def _put(self, link: "VbdLink", number: int, request: VbdRequest) -> int:
        """To the next ring: 0, or negative errno."""
        if request.buffer is not None and link is not request.link:
            request.buffer = None  # it went with its memory
        elif request.buffer is not None and request.stale and not link.session.persistent:
            link.memory.revoke(request.buffer.offset, request.buffer.pages * PAGE)
        request.stale = False
        if request.buffer is None and request.nbytes:
            try:
                request.buffer = link.buffers.take(request.nbytes, 0)
            except InitiatorError:
                return -errno.EAGAIN
        offset = request.buffer.offset if request.buffer is not None else 0
        if request.data:
            link.memory.view[offset : offset + len(request.data)] = request.data
        request.link, request.channel, request.restarts = link, self._vbd.pick(link), self._vbd.restarts
        call = request.channel.call()
        self._vbd.fill(link, call, request.operation, request.block, request.blocks, request.secure)
        call.set_out(offset, len(request.data))
        call.set_in(offset, request.in_nbytes)
        call.request.cookie = number
        self.begin(number, request)
        rc = int(lib.vi_submit(request.channel.c, call.request, ffi.NULL))
        if rc:
            self.forget(number)
        request.channel.done_with(call)
        return rc

    # ---- waiting ----

    def is_busy(self) -> bool:
        return bool(self._pending or self._waiting)

    def wait(self, missing: int, seconds: float) -> None:
        if not self._waiting:
            super().wait(missing, seconds)
            return
        self._send_on(seconds)
        if self._pending:
            super().wait(min(1, missing), seconds)
        elif self._waiting and seconds > 0:
            time.sleep(GOING_SECONDS)  # others have the ring, or the memory, or it is about to come back

    def _send_on(self, seconds: float) -> None:
        """What was lost is sent again as soon as that is possible; what is given up ends."""
        now = time.monotonic()
        with self._lock:
            late = [item for item in self._waiting if item[1].deadline <= now]
            oldest = min((item[1].deadline for item in self._waiting), default=now)
        if late:
            self._end_waiting(lambda request: CommandTimeout(f"no answer within {request.seconds:g} s"), late)
        # Whoever has some outstanding hears of those first.
        patience = 0.0 if self._pending else max(0.0, min(seconds, SLICE_SECONDS, oldest - now))
        try:
            link = self._vbd.hold(patience)
        except TransportError as error:
            if not self._vbd.recovery.hopeful:
                self._end_waiting(lambda _, error=error: error, None)
            return
        try:
            if not link.alive and not self._vbd.recovery.hopeful:
                self._end_waiting(lambda _: transport_error(-errno.EPIPE), None)
                return
            link.session.wait_ready(patience)
            self.send(link)
        except TransportError:
            return
        finally:
            link.users.leave()

    def _end_waiting(self, error: Any, which: list[tuple[int, VbdRequest]] | None) -> None:
        with self._lock:
            over = [item for item in self._waiting if which is None or item in which]
            self._waiting = [item for item in self._waiting if item not in over]
            heapq.heapify(self._waiting)
        for _, request in sorted(over):
            self._finish(request, Done(error=error(request)))

    # ---- ends ----

    def ended(self, number: int, request: VbdRequest, completion: Any) -> None:
        rc, status, buffer = int(completion.error), int(completion.blkif_status), request.buffer
        if rc:
            self._interrupted(number, request, rc)
            return
        done = Done(tag=int(completion.tag))
        if status:
            done.error = BlkifError(NAMES[request.operation], status)
        elif request.in_nbytes and buffer is not None:
            came = request.link.memory.view[buffer.offset : buffer.offset + request.in_nbytes]
            if request.into is None:
                done.data_in = bytes(came)
            else:
                request.into[:] = came
                done.data_in = request.into
        if buffer is not None:
            request.buffer = None
            request.link.buffers.give(buffer)
        if request.operation == WRITE and not status:
            self._vbd.dirty.written(request.restarts)
        self._finish(request, done)

    def unanswered(self, number: int, request: VbdRequest) -> None:
        self._interrupted(number, request, request.channel.error or -errno.EPIPE)

    def _interrupted(self, number: int, request: VbdRequest, rc: int) -> None:
        """Its ring is over. The buffer stays with it: it may be needed again, or goes with its memory."""
        if rc in DEADLY:  # C may have been the first to know
            request.link.session.lost(rc, request.channel.why or transport_error(rc).args[0])
        if request.timed_out:
            self._finish(request, Done(error=CommandTimeout(f"no answer within {request.seconds:g} s")))
        elif rc == SUSPENDED or self._vbd.recovery.hopeful:
            request.stale = True
            log.info("vbd %d: %s: again: %s", self._vbd.devid, NAMES[request.operation], transport_error(rc))
            with self._lock:
                heapq.heappush(self._waiting, (number, request))
        else:
            self._finish(request, Done(error=transport_error(rc, request.channel.why)))

    def overdue(self, number: int, request: VbdRequest) -> None:
        """blkif has no abort: the device is given up. What is not late itself goes on with the next one, if any."""
        log.warning("vbd %d: no answer within %g s: the device is given up", self._vbd.devid, request.seconds)
        request.timed_out = True
        request.link.session.lost(-errno.ETIMEDOUT, "a request was not answered")

    def take_back(self, channels: list[Channel]) -> None:
        """These rings are suspended: what was outstanding on them waits to be sent again when this returns."""
        while any(request.channel in channels for request in list(self._pending.values())):
            for channel in channels:
                self.take_all(channel)
            time.sleep(0)  # another thread may be in the middle of taking some

    def _finish(self, request: VbdRequest, done: Done) -> None:
        done.cookie = request.cookie
        request.data = b""
        if request.flush is not None:
            if done.error is not None:
                request.flush.failed()
            elif request.flush.is_late(self._vbd.restarts):
                done.error = CacheLost(f"vbd {self._vbd.devid}: the target started anew: what was written may be lost")
        self._ready.append(done)
