# SPDX-License-Identifier: BSD-2-Clause
"""The target's end of one connection of the local bus.

Knows how much memory to map, how many event channels to make, and how long to wait. Trusts nothing an initiator sends.
"""

import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from vscsi.native import ffi, lib

from . import memory, wire
from .complaints import Complaints
from .connection import Connection, log
from .errors import BusError, ProtocolError
from .shares import LimitError, Shares
from .store import INITIATOR_ROOT, TARGET_ROOT

EVENT_CHANNELS_MAX = 256
MEMORY_NBYTES_MAX = 1 << 30
"""What one initiator may bring."""
HELLO_SECONDS = 5.0
"""How long a connection may be silent before its hello."""
FRAME_SECONDS = 10.0
"""How long a frame may take to arrive."""
FRAMES_AT_ONCE = 32
"""Taken from one initiator before the others have their turn."""
TURN_SECONDS = 0.002
"""Processor time after which its turn is over as well, whatever it asked for."""

Handler = Callable[[dict[str, Any]], dict[str, Any]]

# Why a memory region is refused, by what the mapper says.
_REGION_ERRORS = {
    errno.EPERM: "a memory region is not sealed as it must be",
    errno.EFBIG: "a memory region is not as long as hello says, but longer than any may be",
    errno.EINVAL: "a memory region is not an ordinary memfd of whole pages, or the grant table is outside it",
}


class TargetConnection(Connection):
    """One initiator. `mapper` is None until `on_hello` is called."""

    ROOT = TARGET_ROOT
    PEER_ROOT = INITIATOR_ROOT
    PEER_NAME = "initiator"
    LOG_LEVEL = logging.WARNING

    def __init__(
        self,
        sock: socket.socket,
        domid: int,
        *,
        memory: Shares | None = None,
        event_channels: Shares | None = None,
        complaints: Complaints | None = None,
        on_closed: Callable[["TargetConnection"], None] = lambda connection: None,
    ) -> None:
        super().__init__(sock)
        self.domid = domid
        self.complaints = complaints or Complaints()
        self._memory_shares = memory or Shares("bytes of memory", MEMORY_NBYTES_MAX, each=MEMORY_NBYTES_MAX, holders=1)
        self._event_shares = event_channels or Shares(
            "event channels", EVENT_CHANNELS_MAX, each=EVENT_CHANNELS_MAX, holders=1
        )
        self._mapped_nbytes = 0
        self._refused_once = False
        self.mapper: Any = None
        self.on_hello: Callable[[], None] | None = None
        self._on_closed = on_closed
        self._greeted = False
        self._since = time.monotonic()
        self._turn_began = 0.0
        self._events: dict[int, int] = {}
        self._last_port = 0
        self._bound: set[int] = set()
        self._handlers: dict[str, Handler] = {}
        self._ops = dict.fromkeys(("store", "event-channel", "event-channel-close", "request"), self._on_too_early)
        self._ops["hello"] = self._on_hello

    def _describe(self) -> str:
        return f"initiator {self.domid} (pid {self.peer.pid}, uid {self.peer.uid})"

    def _log(self, message: str, *args: object) -> None:
        self.complaints.say(self.peer.uid, log, message, *args)

    # ---- turns ----

    def _receive(self) -> None:
        self._turn_began = time.thread_time()
        super()._receive()

    def _enough(self, count: int) -> bool:
        return count >= FRAMES_AT_ONCE or time.thread_time() - self._turn_began >= TURN_SECONDS

    # ---- hello ----

    def _on_hello(self, frame: dict[str, Any]) -> None:
        version = frame.get("version")
        if version != wire.VERSION:
            self._refuse(f"bus version {str(version)[:8]!a} is not spoken here, only {wire.VERSION}")
            return
        try:
            self.mapper = self._map(frame)
        except (ProtocolError, LimitError) as error:
            self._refuse(str(error))
            return
        self._greeted = True
        self._accept_descriptors = False
        self._ops = self._ops_after_hello()
        self._send(wire.encode("welcome", version=wire.VERSION, domid=self.domid))
        if self.on_hello is not None:
            self.on_hello()

    def _ops_after_hello(self) -> dict[str, Callable[[dict[str, Any]], None]]:
        return {
            "hello": self._on_second_hello,
            "store": self._on_store,
            "event-channel": self._on_event_channel,
            "event-channel-close": self._on_event_channel_close,
            "request": self._on_request,
        }

    def _on_too_early(self, frame: dict[str, Any]) -> None:
        raise ProtocolError(f"{frame['op']} before hello")

    def _on_second_hello(self, _frame: dict[str, Any]) -> None:
        raise ProtocolError("hello twice")

    def _refuse(self, reason: str) -> None:
        self._send(wire.encode("refused", reason=reason))
        self._end(reason)

    def _map(self, frame: dict[str, Any]) -> Any:
        """Map the memory that hello brings. ProtocolError, LimitError."""
        sizes = frame.get("regions")
        if not isinstance(sizes, list) or not 1 <= len(sizes) <= lib.VSCSI_MAX_REGIONS:
            raise ProtocolError(f"hello needs 1 to {lib.VSCSI_MAX_REGIONS} memory regions")
        limit = self._memory_shares.each
        if not all(type(size) is int and 0 < size <= limit for size in sizes) or sum(sizes) > limit:
            raise ProtocolError(f"more memory than the {limit} bytes that this target maps for one initiator")
        nr_frames = sum(sizes) // memory.PAGE
        table_frame = wire.integer(frame, "table-frame", 0, nr_frames)
        # More table than there can be grants would only make us keep books on nothing.
        table_pages = wire.integer(frame, "table-pages", 1, memory.table_pages(nr_frames))
        if len(self._received) != len(sizes):
            raise ProtocolError(f"hello brings {len(self._received)} descriptors for {len(sizes)} memory regions")
        self._book_memory(sum(sizes))
        fds = self._take_descriptors(len(sizes))
        error = ffi.new("int *")
        try:  # grants name the domain they are made to, and that is ours
            mapper = lib.vscsi_mapper_new(fds, len(fds), table_frame, table_pages, lib.VSCSI_TARGET_DOMID, error)
        finally:
            for fd in fds:
                os.close(fd)
        if mapper == ffi.NULL:
            raise ProtocolError(_REGION_ERRORS.get(-error[0], f"cannot map the memory: {os.strerror(-error[0])}"))
        mapped = [mapper.regions[index].nr_frames * memory.PAGE for index in range(mapper.nr_regions)]
        if mapped != sizes:
            lib.vscsi_mapper_free(mapper)
            raise ProtocolError("a memory region is not as long as hello says")
        return mapper

    def _book_memory(self, nbytes: int) -> None:
        """Until `close` or, if it is mapped by then, `release`. LimitError."""
        self._memory_shares.take(self, self.peer.uid, nbytes)
        self._mapped_nbytes = nbytes

    def _give_memory_back(self) -> None:
        nbytes, self._mapped_nbytes = self._mapped_nbytes, 0
        if nbytes:
            self._memory_shares.give(self, nbytes)

    def release(self) -> None:
        """Unmap the initiator's memory. Only after every channel on it was removed. Idempotent."""
        self._check_pid()
        mapper, self.mapper = self.mapper, None
        if mapper is not None:
            lib.vscsi_mapper_free(mapper)
            self._give_memory_back()

    # ---- event channels ----

    def _on_event_channel(self, frame: dict[str, Any]) -> None:
        request_id = wire.integer(frame, "id", 0, 2**53)
        try:
            self._event_shares.take(self, self.peer.uid)
        except LimitError as error:
            if not self._refused_once:
                self._log("%s: event channel refused: %s", self._describe(), error)
            self._refused_once = True
            self._reply(request_id, error=str(error))
            return
        ends = ffi.new("int[2]")
        rc = lib.vscsi_event_pair(ends)
        if rc:
            self._event_shares.give(self)
            self._reply(request_id, error=f"cannot make an event channel: {os.strerror(-rc)}")
            return
        self._last_port += 1
        self._events[self._last_port] = ends[0]
        self._send(wire.encode("event-channel", id=request_id, port=self._last_port), [ends[1]])

    def _on_event_channel_close(self, frame: dict[str, Any]) -> None:
        port = wire.integer(frame, "port", 1, 2**31)
        if port not in self._bound:  # one that the target uses stays until the target is done with it
            self._drop_event_channel(port)

    def event_channel(self, port: int) -> int:
        """Our end's descriptor, which stays ours: valid until `close_event_channel` or `close`.

        KeyError if the initiator never asked for that port; BusError if it is in use: two users would close it under
        each other.
        """
        fd = self._events[port]
        if port in self._bound:
            raise BusError(f"event channel {port} is in use already")
        self._bound.add(port)
        return fd

    def close_event_channel(self, port: int) -> None:
        """The target is done with that port (torn down): close our end. Nothing happens if it is closed already."""
        self._bound.discard(port)
        self._drop_event_channel(port)

    def _drop_event_channel(self, port: int) -> None:
        fd = self._events.pop(port, None)
        if fd is not None:
            os.close(fd)
            self._event_shares.give(self)

    # ---- requests ----

    def on_request(self, op: str, handler: Handler) -> None:
        """Answer requests named `op` with what `handler` makes of their fields, in the thread that runs `process`.

        A BusError that it raises (but not a ProtocolError) goes to the initiator as the reason.
        """
        self._handlers[op] = handler

    def _on_request(self, frame: dict[str, Any]) -> None:
        request_id = wire.integer(frame, "id", 0, 2**53)
        name, fields = frame.get("name"), frame.get("fields")
        if not isinstance(name, str) or not isinstance(fields, dict):
            raise ProtocolError("a request without a name or fields")
        handler = self._handlers.get(name)
        if handler is None:
            self._reply(request_id, error=f"this target does not know the request {name[:32]!a}")
            return
        try:
            answer = wire.encode("reply", id=request_id, result=handler(fields))
        except ProtocolError:
            raise
        except BusError as error:
            self._reply(request_id, error=str(error))
            return
        self._send(answer)

    def _reply(self, request_id: int, *, error: str) -> None:
        self._send(wire.encode("reply", id=request_id, error=error))

    # ---- the end ----

    @property
    def patience_ends(self) -> float | None:
        """When (time.monotonic) it will have kept us waiting too long; None while it owes us nothing."""
        ends = [] if self._greeted else [self._since + HELLO_SECONDS]
        if self._partial_since is not None:
            ends.append(self._partial_since + FRAME_SECONDS)
        return min(ends, default=None)

    def overdue(self, now: float) -> str | None:
        """What the initiator keeps us waiting for at `now` (time.monotonic), longer than allowed; None if nothing."""
        if not self._greeted and now >= self._since + HELLO_SECONDS:
            return f"no hello within {HELLO_SECONDS:.0f} s"
        since = self._partial_since
        if since is not None and now >= since + FRAME_SECONDS:
            return f"a message not complete after {FRAME_SECONDS:.0f} s"
        return None

    def expire(self, reason: str) -> None:
        """End the connection for that reason; `process` then says so."""
        self._end(reason)

    def close(self) -> None:
        """End the connection; closes its event channels. The memory stays mapped until `release`."""
        super().close()
        if self.mapper is None:
            self._give_memory_back()
        self._on_closed(self)

    def _close_descriptors(self) -> None:
        super()._close_descriptors()
        for port in list(self._events):
            self.close_event_channel(port)
