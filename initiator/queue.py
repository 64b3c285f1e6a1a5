# SPDX-License-Identifier: BSD-2-Clause
"""Queue depth for Python: commands submitted now and reaped later, over all channels of an initiator. Any thread.

A buffer belongs to its command until it has been reaped. Knows what is outstanding; knows no SCSI.
"""

import collections
import errno
import itertools
import time
from typing import TYPE_CHECKING, Any

from initiator.done import Done
from initiator.errors import CommandTimeout, transport_error
from initiator.native import ffi, lib

if TYPE_CHECKING:
    from initiator.hba import SrpChannel
    from initiator.initiator import Initiator
    from initiator.link import Link
    from initiator.request import Request

BATCH = 64
TURN_MS = 2
"""With several channels: how long one of them is waited on before the next has its turn."""
SLICE_MS = 500
GOING_SECONDS = 0.002


class Queue:
    """What an initiator has submitted and not reaped yet."""

    def __init__(self, initiator: "Initiator") -> None:
        self._initiator = initiator
        self._pending: dict[int, Request] = {}
        self._ready: collections.deque[Done] = collections.deque()
        self._cookies = itertools.count(1)

    def submit(
        self, lun: int, cdb: bytes, data_out: Any, data_in: Any, attribute: int, timeout: float | None, cookie: Any
    ) -> int:
        seconds = self._initiator.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        link = self._initiator.hold(seconds)
        try:
            return self._submit(link, lun, cdb, data_out, data_in, attribute, seconds, deadline, cookie)
        finally:
            link.users.leave()

    def _submit(
        self, link: "Link", lun: int, cdb: bytes, data_out: Any, data_in: Any, attribute: int, seconds: float,
        deadline: float, cookie: Any,
    ) -> int:  # fmt: skip
        request = self._initiator.build(link, lun, cdb, data_out, data_in, attribute, seconds, cookie)
        number = next(self._cookies)
        q = request.call.request
        q.cookie = number
        tag = ffi.new("uint64_t *")
        self._pending[number] = request
        try:
            while (rc := int(lib.vi_submit(request.channel.c, q, tag))) == -errno.EAGAIN:
                if (left := deadline - time.monotonic()) <= 0:
                    raise CommandTimeout(f"no credit for the command within {seconds:g} s; it was not sent")
                self._collect(request.link, request.channel, 1, min(SLICE_MS, int(left * 1000) + 1), 16)
            if rc:
                request.channel.ring.noticed(rc)
                raise transport_error(rc, request.channel.ring.why)
        except BaseException:
            del self._pending[number]
            self._initiator.free(request, lost=False)
            raise
        if request.channel.tap is not None:
            request.channel.tap.sent_as(request.tapped, int(tag[0]))
        lib.vi_flush(request.channel.c)
        request.channel.ring.done_with(request.call)  # C has taken what it needs
        return int(tag[0])

    def reap(self, maximum: int, minimum: int, timeout: float) -> list[Done]:
        deadline = time.monotonic() + timeout
        minimum = min(minimum, maximum)
        while len(self._ready) < minimum:
            pending = list(self._pending.values())
            channels = {request.channel: request.link for request in pending}
            if not channels:
                break
            left = max(0, int((deadline - time.monotonic()) * 1000))
            for channel, link in channels.items():
                wait = min(left, SLICE_MS if len(channels) == 1 else TURN_MS)
                need = min(BATCH, minimum - len(self._ready), len(pending)) if len(channels) == 1 else 1
                self._collect(link, channel, max(need, 1), wait, BATCH)
            if left == 0:
                break
        if minimum == 0:
            for channel, link in {request.channel: request.link for request in list(self._pending.values())}.items():
                self._collect(link, channel, 0, 0, BATCH)
        found: list[Done] = []
        while self._ready and len(found) < maximum:
            try:
                found.append(self._ready.popleft())
            except IndexError:  # another thread was faster
                break
        return found

    def _collect(self, link: "Link", channel: "SrpChannel", minimum: int, ms: int, room: int) -> None:
        """Takes completions of one channel to the ready ones."""
        if not link.users.enter():
            time.sleep(GOING_SECONDS)  # `abandon` is about to do it
            return
        try:
            self._take(channel, minimum, ms, room)
        finally:
            link.users.leave()

    def _take(self, channel: "SrpChannel", minimum: int, ms: int, room: int) -> int:
        completions = ffi.new("struct vi_completion[]", room)
        n = int(lib.vi_reap(channel.c, completions, room, minimum, ms))
        for i in range(n):
            request = self._pending.pop(int(completions[i].cookie))
            self._ready.append(self._initiator.finish(request, completions[i], keep_call=False))
        return n

    def abandon(self, link: "Link") -> None:
        """The link is over and nobody uses it: what was outstanding on it has ended, with an error for `reap`."""
        for channel in link.channels:
            while self._take(channel, 0, 0, BATCH) > 0:
                pass
        for number, request in [item for item in self._pending.items() if item[1].link is link]:
            del self._pending[number]
            error = transport_error(request.channel.ring.error or -errno.EPIPE, request.channel.ring.why)
            self._ready.append(Done(cookie=request.cookie, error=error))
