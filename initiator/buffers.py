# SPDX-License-Identifier: BSD-2-Clause
"""Bounce buffers: page-aligned pieces of the shared arena, kept for reuse by size.

A buffer belongs to one request from `take` until `give`; one whose request never ended well is lost instead, since
the target may still write to it. Knows memory; knows no request.
"""

import errno
import threading
import time
from typing import NamedTuple

from initiator.errors import InitiatorError, transport_error
from vscsi.bus.local import BusError, Memory
from vscsi.bus.memory import PAGE

KEPT_PAGES = 2048
"""Free buffers kept for reuse, all together; what is more goes back to the arena."""


class Buffer(NamedTuple):
    """`pages` pages at byte `offset` of memory."""

    offset: int
    pages: int


class Buffers:
    """Any thread."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._free: dict[int, list[int]] = {}
        self._kept = 0
        self._freed = threading.Condition()
        self.lost: list[Buffer] = []
        self._closed = False

    def take(self, nbytes: int, timeout: float) -> Buffer:
        """Room for `nbytes`; waits for others to give back. InitiatorError if there is none within `timeout`.

        TransportError once closed.
        """
        pages = max(1, -(-nbytes // PAGE))
        deadline = time.monotonic() + timeout
        with self._freed:
            while True:
                if self._closed:
                    raise transport_error(-errno.EPIPE)
                if ready := self._free.get(pages):
                    self._kept -= pages
                    return Buffer(ready.pop(), pages)
                try:
                    return Buffer(self.memory.alloc(pages * PAGE), pages)
                except BusError as error:
                    raise InitiatorError(str(error)) from error
                except MemoryError:
                    if self._kept:
                        self._flush()
                        continue
                left = deadline - time.monotonic()
                if left <= 0 or not self._freed.wait(left):
                    raise InitiatorError(f"no {nbytes} bytes of shared memory within {timeout:g} s")

    def give(self, buffer: Buffer) -> None:
        with self._freed:
            if self._kept + buffer.pages > KEPT_PAGES:
                self.memory.free(buffer.offset)
            else:
                self._free.setdefault(buffer.pages, []).append(buffer.offset)
                self._kept += buffer.pages
            self._freed.notify()

    def lose(self, buffer: Buffer) -> None:
        """Never use it again: the target may."""
        with self._freed:
            self.lost.append(buffer)

    def close(self) -> None:
        """The memory is about to go: nobody gets any, nobody waits. Given back may be what was taken."""
        with self._freed:
            self._closed = True
            self._freed.notify_all()

    def _flush(self) -> None:
        for offsets in self._free.values():
            for offset in offsets:
                self.memory.free(offset)
        self._free.clear()
        self._kept = 0
