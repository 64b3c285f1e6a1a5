# SPDX-License-Identifier: BSD-2-Clause
"""One ring with its memory and event channel, as an object: made, granted, used from any thread, taken back in order.

Wraps the native channel for both protocols. Knows no login, no CDB and no store; what to publish it offers as nodes.
"""

import errno
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from initiator.errors import InitiatorError
from initiator.native import ffi, lib
from vscsi.bus.local import BusError, InitiatorConnection
from vscsi.bus.memory import PAGE, RESERVED
from vscsi.nodes import RingNodes

SLICE_SECONDS = 0.5
"""Longest time in C at once, so that the interpreter can handle a signal meanwhile."""
FOREVER = 1e9
DEADLY = (-errno.EPIPE, -errno.ECONNRESET, -errno.EPROTO, -errno.EBUSY)
"""What the native channel fails with for good."""

TMF_SEGMENTS = 2


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(min(seconds, SLICE_SECONDS) * 1000))


class Call:
    """The structures of one request, reused: a vi_request with one segment each way, and its completion."""

    __slots__ = ("completion", "inward", "outward", "request")

    def __init__(self) -> None:
        self.outward = ffi.new("struct vi_segment *")
        self.inward = ffi.new("struct vi_segment *")
        self.request = ffi.new("struct vi_request *", {"out": self.outward, "in": self.inward})
        self.completion = ffi.new("struct vi_completion *")

    def set_out(self, offset: int, nbytes: int) -> None:
        self.outward.offset, self.outward.nbytes = offset, nbytes
        self.request.out_count = 1 if nbytes else 0

    def set_in(self, offset: int, nbytes: int) -> None:
        self.inward.offset, self.inward.nbytes = offset, nbytes
        self.request.in_count = 1 if nbytes else 0


class Channel:
    """`protocol` is lib.VI_PROTOCOL_*. InitiatorError if memory or event channels have run out."""

    def __init__(
        self,
        connection: InitiatorConnection,
        protocol: int,
        *,
        ring_pages: int,
        persistent: bool,
        spin_us: int = 0,
        timeout: float = 30.0,
        indirect_per_slot: int = 1,
        max_indirect_segments: int = 0,
    ) -> None:
        self._connection = connection
        self._memory = memory = connection.memory
        self._pid = os.getpid()
        self._held: list[tuple[int, int]] = []
        slot_nbytes = lib.VSCSI_SRP_SLOT if protocol == lib.VI_PROTOCOL_SRP else lib.VSCSI_BLKIF_SLOT
        slots = lib.vscsi_ring_capacity(ring_pages, slot_nbytes)
        self._port: int | None = None
        try:
            ring = self._alloc(ring_pages * PAGE)
            indirect_pages = slots * indirect_per_slot
            indirect = self._alloc(indirect_pages * PAGE) if indirect_pages else 0
            lib.vscsi_ring_format(memory.base + ring)
            self.nodes = RingNodes(tuple(memory.grant(ring, ring_pages * PAGE)), 0)
            self._port, event_fd = connection.event_channel()
        except (BusError, MemoryError) as error:
            self.release()
            raise InitiatorError(str(error) or "out of shared memory") from error
        self.nodes = RingNodes(self.nodes.grefs, self._port)
        self._ring = (ring, ring_pages * PAGE)
        config = ffi.new(
            "struct vi_config *",
            {
                "protocol": protocol,
                "ring_pages": ring_pages,
                "ring": memory.base + ring,
                "event_fd": event_fd,
                "persistent": int(persistent),
                "granter": memory.granter,
                "memory": memory.base,
                "memory_nbytes": memory.nbytes,
                "gref_base": RESERVED,
                "spin_ns": spin_us * 1000,
                "indirect_pages": indirect_pages,
                "indirect_per_slot": indirect_per_slot,
                "indirect_offset": indirect,
                "max_indirect_segments": max_indirect_segments,
                "timeout_ms": int(min(timeout, 1e6) * 1000),
            },
        )
        self._error = ffi.new("int *")
        self.c: Any = lib.vi_channel_new(config, self._error)
        if self.c == ffi.NULL:
            self.release()
            raise InitiatorError(f"cannot make a channel: {os.strerror(-self._error[0])}")
        self.frame = ring // PAGE
        self.slots = int(lib.vi_channel_slots(self.c))
        self.error: int = 0
        """Why the channel is dead (negative errno), or 0."""
        self.why: str | None = None
        self.on_dead: Callable[[str | None], None] | None = None
        """Hears of the first error, in whatever thread notices it."""
        self._calls: list[Call] = []

    def __del__(self) -> None:
        # In a forked child the mutex may be held by a thread that does not exist, and the memory is not there.
        if os.getpid() == self._pid and getattr(self, "c", ffi.NULL) != ffi.NULL:
            lib.vi_channel_free(self.c)

    def _alloc(self, nbytes: int) -> int:
        offset = self._memory.alloc(nbytes)
        self._held.append((offset, nbytes))
        return offset

    # ---- calls ----

    def call(self) -> Call:
        """A Call for one request, to be given back with `done_with`."""
        try:
            return self._calls.pop()
        except IndexError:
            return Call()

    def done_with(self, call: Call) -> None:
        self._calls.append(call)

    def run(self, call: Call, timeout: float) -> int:
        """Sends and waits: 0 with the completion filled, or negative errno.

        -ETIMEDOUT with a tag in the completion: still outstanding, its memory belongs to the target.
        """
        rc = int(lib.vi_execute(self.c, call.request, call.completion, _milliseconds(timeout)))
        if rc != -errno.ETIMEDOUT:
            return rc
        deadline = time.monotonic() + timeout - min(timeout, SLICE_SECONDS)
        while rc == -errno.ETIMEDOUT and (left := deadline - time.monotonic()) > 0:
            if call.completion.tag:
                rc = self.wait(call, left)
            else:
                rc = int(lib.vi_execute(self.c, call.request, call.completion, _milliseconds(left)))
        return rc

    def wait(self, call: Call, timeout: float) -> int:
        """Goes on waiting, at most a slice, for what `run` left outstanding. -ENOENT: there is no such tag."""
        ms = _milliseconds(timeout) if timeout else 0
        return int(lib.vi_wait(self.c, call.completion.tag, call.completion, ms))

    # ---- the end ----

    def fail(self, rc: int, why: str | None = None) -> None:
        """Everything outstanding and to come fails with `rc`. The first reason stays."""
        first = self._note(rc, why)
        lib.vi_channel_fail(self.c, rc)
        self._tell(first)

    def drain(self, rc: int, why: str | None = None) -> None:
        """Like fail, after what the target has published."""
        first = self._note(rc, why)
        lib.vi_channel_drain(self.c, rc)
        self._tell(first)

    def noticed(self, rc: int) -> None:
        """A call ended with `rc`: what C has found out by itself is known here from now on."""
        if rc in DEADLY and not self.error:
            self.drain(rc)

    def _note(self, rc: int, why: str | None) -> bool:
        first = not self.error
        if first:
            self.error, self.why = rc, why
        return first

    def _tell(self, first: bool) -> None:
        if first and self.on_dead is not None:
            self.on_dead(self.why or os.strerror(-self.error))

    def release(self) -> None:
        """Takes grants and memory back once the target has unmapped the ring; what it still uses stays lost."""
        if self._port is not None:
            self._connection.close_event_channel(self._port)
            self._port = None
        while self._held:
            offset, _ = self._held.pop()
            try:
                self._memory.free(offset)
            except BusError:
                continue  # in use: never to be used again

    def stats(self) -> dict[str, int]:
        """Counters of this channel, by the names of struct vi_stats."""
        found = ffi.new("struct vi_stats *")
        lib.vi_channel_stats(self.c, found)
        return {name: int(getattr(found, name)) for name, _ in ffi.typeof("struct vi_stats").fields}


class Poller:
    """A daemon thread that calls back when one of some descriptors is readable. One for each initiator."""

    def __init__(self, name: str) -> None:
        import selectors

        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._read = selectors.EVENT_READ
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, fd: int, callback: Any) -> None:
        self._selector.register(fd, self._read, callback)
        os.eventfd_write(self._wake, 1)

    def remove(self, fd: int) -> None:
        try:
            self._selector.unregister(fd)
        except KeyError:
            return

    def _run(self) -> None:
        while not self._stop:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.eventfd_read(self._wake)
                else:
                    key.data()

    def close(self) -> None:
        """Idempotent; not from a callback."""
        if self._stop:
            return
        self._stop = True
        os.eventfd_write(self._wake, 1)
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._selector.close()
        os.close(self._wake)
