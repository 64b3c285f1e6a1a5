# SPDX-License-Identifier: BSD-2-Clause
"""Queue depth for Python: commands submitted now and reaped later, over all channels of an initiator. Any thread.

A buffer belongs to its command until it has been reaped. Knows what is outstanding and that late commands are
initiator.escalation's; knows no SCSI.
"""

import errno
import math
import time
from typing import TYPE_CHECKING, Any

from initiator.done import Done
from initiator.errors import CommandTimeout, transport_error
from initiator.native import ffi, lib
from initiator.outstanding import SLICE_SECONDS, Outstanding

if TYPE_CHECKING:
    from initiator.initiator import Initiator
    from initiator.link import Link
    from initiator.request import Request


class Queue(Outstanding["Request"]):
    """What an initiator has submitted and not reaped yet."""

    def __init__(self, initiator: "Initiator") -> None:
        super().__init__()
        self._initiator = initiator

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
        number = next(self._numbers)
        q = request.call.request
        q.cookie = number
        tag = ffi.new("uint64_t *")
        try:
            while (rc := self._send(number, request, q, tag)) == -errno.EAGAIN:
                if (left := deadline - time.monotonic()) <= 0:
                    raise CommandTimeout(f"no credit for the command within {seconds:g} s; it was not sent")
                wait = min(SLICE_SECONDS, left, self.look())
                self.collect(request.link, request.channel, 1, math.ceil(wait * 1000))
            if rc:
                request.channel.ring.noticed(rc)
                raise transport_error(rc, request.channel.ring.why)
        except BaseException:
            self._initiator.free(request, lost=False)
            raise
        if request.channel.tap is not None:
            request.channel.tap.sent_as(request.tapped, int(tag[0]))
        lib.vi_flush(request.channel.c)
        request.channel.ring.done_with(request.call)  # C has taken what it needs
        return int(tag[0])

    def _send(self, number: int, request: "Request", q: Any, tag: Any) -> int:
        request.deadline = time.monotonic() + request.seconds
        self.begin(number, request)
        rc = int(lib.vi_submit(request.channel.c, q, tag))
        if rc:
            self.forget(number)
        request.tag = int(tag[0])
        return rc

    def ended(self, number: int, request: "Request", completion: Any) -> None:
        self._ready.append(self._initiator.finish(request, completion, keep_call=False))

    def unanswered(self, number: int, request: "Request") -> None:
        error = transport_error(request.channel.ring.error or -errno.EPIPE, request.channel.ring.why)
        self._ready.append(Done(cookie=request.cookie, error=error))

    def overdue(self, number: int, request: "Request") -> None:
        def ended(seconds: float) -> bool:
            until = time.monotonic() + seconds
            while number in self._pending:
                left = max(0.0, until - time.monotonic())
                self.collect(request.link, request.channel, int(left > 0), math.ceil(left * 1000))
                if left == 0:
                    break
            return number not in self._pending

        self._initiator.escalation.run(request, ended)
