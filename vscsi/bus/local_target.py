# SPDX-License-Identifier: BSD-2-Clause
"""The target's end of the local bus: the listening socket, and one connection for each initiator.

Knows whom to let in, how much memory to map and how many event channels to make. Trusts nothing an initiator sends.
"""

import contextlib
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from vscsi.native import ffi, lib

from . import memory, places, wire
from .connection import Connection, peer_of
from .errors import BusError, ProtocolError
from .store import INITIATOR_ROOT, TARGET_ROOT

log = logging.getLogger("vscsi.bus")

BACKLOG = 64
CONNECTIONS_MAX = 64
EVENT_CHANNELS_MAX = 256
MEMORY_NBYTES_MAX = 1 << 30
HELLO_SECONDS = 5.0
"""How long a connection may be silent before its hello."""
FRAME_SECONDS = 10.0
"""How long a frame may take to arrive."""
DOMID_MAX = 0x7FEF

Handler = Callable[[dict[str, Any]], dict[str, Any]]

# Why a memory region is refused, by what the mapper says.
_REGION_ERRORS = {
    errno.EPERM: "a memory region is not sealed as it must be",
    errno.EINVAL: "a memory region is not an ordinary memfd of whole pages",
}


class TargetConnection(Connection):
    """One initiator. `mapper` is None until `on_hello` is called."""

    ROOT = TARGET_ROOT
    PEER_ROOT = INITIATOR_ROOT
    PEER_NAME = "initiator"
    LOG_LEVEL = logging.WARNING

    def __init__(self, sock: socket.socket, domid: int, listener: "Listener") -> None:
        super().__init__(sock)
        self.domid = domid
        self.mapper: Any = None
        self.on_hello: Callable[[], None] | None = None
        self._listener = listener
        self._greeted = False
        self._since = time.monotonic()
        self._events: dict[int, int] = {}
        self._last_port = 0
        self._bound: set[int] = set()
        self._handlers: dict[str, Handler] = {}
        self._ops = dict.fromkeys(("store", "event-channel", "event-channel-close", "request"), self._on_too_early)
        self._ops["hello"] = self._on_hello

    def _describe(self) -> str:
        return f"initiator {self.domid} (pid {self.peer.pid}, uid {self.peer.uid})"

    # ---- hello ----

    def _on_hello(self, frame: dict[str, Any]) -> None:
        version = frame.get("version")
        if version != wire.VERSION:
            self._refuse(f"bus version {str(version)[:8]!a} is not spoken here, only {wire.VERSION}")
            return
        try:
            self.mapper = self._map(frame)
        except ProtocolError as error:
            self._refuse(str(error))
            return
        self._greeted = True
        self._accept_descriptors = False
        self._ops = {
            "hello": self._on_second_hello,
            "store": self._on_store,
            "event-channel": self._on_event_channel,
            "event-channel-close": self._on_event_channel_close,
            "request": self._on_request,
        }
        self._send(wire.encode("welcome", version=wire.VERSION, domid=self.domid))
        if self.on_hello is not None:
            self.on_hello()

    def _on_too_early(self, frame: dict[str, Any]) -> None:
        raise ProtocolError(f"{frame['op']} before hello")

    def _on_second_hello(self, _frame: dict[str, Any]) -> None:
        raise ProtocolError("hello twice")

    def _refuse(self, reason: str) -> None:
        self._send(wire.encode("refused", reason=reason))
        self._end(reason)

    def _map(self, frame: dict[str, Any]) -> Any:
        """Map the memory that hello brings. ProtocolError."""
        sizes = frame.get("regions")
        if not isinstance(sizes, list) or not 1 <= len(sizes) <= lib.VSCSI_MAX_REGIONS:
            raise ProtocolError(f"hello needs 1 to {lib.VSCSI_MAX_REGIONS} memory regions")
        limit = self._listener.max_memory_nbytes
        if not all(type(size) is int and 0 < size <= limit for size in sizes) or sum(sizes) > limit:
            raise ProtocolError(f"more memory than the {limit} bytes that this target maps for one initiator")
        nr_frames = sum(sizes) // memory.PAGE
        table_frame = wire.integer(frame, "table-frame", 0, nr_frames)
        # More table than there can be grants would only make us keep books on nothing.
        table_pages = wire.integer(frame, "table-pages", 1, memory.table_pages(nr_frames))
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

    def release(self) -> None:
        """Unmap the initiator's memory. Only after every channel on it was removed. Idempotent."""
        self._check_pid()
        mapper, self.mapper = self.mapper, None
        if mapper is not None:
            lib.vscsi_mapper_free(mapper)

    # ---- event channels ----

    def _on_event_channel(self, frame: dict[str, Any]) -> None:
        request_id = wire.integer(frame, "id", 0, 2**53)
        if len(self._events) >= EVENT_CHANNELS_MAX:
            self._reply(request_id, error=f"no more than {EVENT_CHANNELS_MAX} event channels for one initiator")
            return
        ends = ffi.new("int[2]")
        rc = lib.vscsi_event_pair(ends)
        if rc:
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

        KeyError if the initiator never asked for that port.
        """
        fd = self._events[port]
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

    def overdue(self, now: float) -> str | None:
        """What the initiator keeps us waiting for at `now` (time.monotonic), longer than allowed; None if nothing."""
        if not self._greeted and now - self._since > HELLO_SECONDS:
            return f"no hello within {HELLO_SECONDS:.0f} s"
        since = self._partial_since
        if since is not None and now - since > FRAME_SECONDS:
            return f"a message not complete after {FRAME_SECONDS:.0f} s"
        return None

    def expire(self, reason: str) -> None:
        """End the connection for that reason; `process` then says so."""
        self._end(reason)

    def close(self) -> None:
        """End the connection; closes its event channels. The memory stays mapped until `release`."""
        super().close()
        self._listener.forget(self)

    def _close_descriptors(self) -> None:
        super()._close_descriptors()
        for port in list(self._events):
            self.close_event_channel(port)


def raise_descriptor_limit() -> None:
    """Lift RLIMIT_NOFILE to what is allowed: a few initiators' event channels would exhaust the usual 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Listener:
    """Listens for initiators at `path` (None: the default), or on an inherited socket `fd`.

    `allow_uids`: who may connect; None is our own user and root. BusError: another target is listening there, the
    folder is not safe, or the path cannot be used.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        fd: int | None = None,
        allow_uids: Collection[int] | None = None,
        max_connections: int = CONNECTIONS_MAX,
        max_memory_nbytes: int = MEMORY_NBYTES_MAX,
    ) -> None:
        self.allow_uids = {os.geteuid(), 0} if allow_uids is None else set(allow_uids)
        self.max_connections = max_connections
        self.max_memory_nbytes = max_memory_nbytes
        self._connections: set[TargetConnection] = set()
        self._last_domid = 0
        self._pid = os.getpid()
        self._lock: places.SocketLock | None = None
        if fd is not None:
            self._sock = socket.socket(fileno=fd)
            self._sock.set_inheritable(False)
            if self._sock.family != socket.AF_UNIX or self._sock.type != socket.SOCK_STREAM:
                raise BusError(f"descriptor {fd} is not a Unix stream socket")
            self.path = Path(os.fsdecode(self._sock.getsockname()))
        else:
            self.path = path if path is not None else places.default_socket_path()
            if path is None:
                places.make_folder(self.path.parent)
            places.check_length(self.path)
            self._lock = places.SocketLock(self.path)
            try:
                places.clear_stale(self.path)
                self._sock = self._bind()
            except BaseException:
                self._lock.release()
                raise
        self._sock.setblocking(False)
        self._spare: int | None = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        raise_descriptor_limit()

    def _bind(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Set before bind, so that there is no moment at which others could connect.
            os.fchmod(sock.fileno(), 0o600 if self.allow_uids <= {os.geteuid(), 0} else 0o666)
            sock.bind(str(self.path))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise BusError(f"cannot listen at {self.path}: {error.strerror}") from error
        return sock

    def fileno(self) -> int:
        """The listening socket, for a selector."""
        return self._sock.fileno()

    @property
    def connections(self) -> int:
        """Connections that are not closed yet."""
        return len(self._connections)

    def accept(self) -> TargetConnection | None:
        """The next initiator, or None: nobody there, or refused with a reason. Never blocks.

        Also ends connections that have kept us waiting too long; their `process` then returns False.
        """
        self.expire(time.monotonic())
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return None
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise BusError(f"cannot accept at {self.path}: {error.strerror}") from error
            self._shed()
            return None
        try:
            reason = self._objection(sock)
            if reason is None:
                connection = TargetConnection(sock, self._next_domid(), self)
                self._connections.add(connection)
                return connection
        except OSError:
            sock.close()
            return None
        self._refuse(sock, reason)
        return None

    def _objection(self, sock: socket.socket) -> str | None:
        peer = peer_of(sock)
        if peer.uid not in self.allow_uids:
            return f"user {peer.uid} may not use this target"
        if len(self._connections) >= self.max_connections:
            return f"this target has {self.max_connections} connections already, as many as it takes"
        return None

    def _refuse(self, sock: socket.socket, reason: str) -> None:
        log.warning("connection refused: %s", reason)
        with sock, contextlib.suppress(OSError):
            sock.send(wire.encode("refused", reason=reason), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _shed(self) -> None:
        """Out of descriptors: turn one initiator away, or the selector would call us for it for ever."""
        if self._spare is None:
            return
        os.close(self._spare)
        self._spare = None
        with contextlib.suppress(OSError):
            sock, _ = self._sock.accept()
            self._refuse(sock, "this target has no file descriptor left")
        with contextlib.suppress(OSError):
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _next_domid(self) -> int:
        taken = {connection.domid for connection in self._connections}
        while True:
            self._last_domid = self._last_domid % DOMID_MAX + 1
            if self._last_domid not in taken:
                return self._last_domid

    def expire(self, now: float) -> None:
        """End every connection that keeps us waiting at `now` (time.monotonic). `accept` does it too."""
        for connection in list(self._connections):
            reason = connection.overdue(now)
            if reason is not None and not connection.closed:
                connection.expire(reason)

    def forget(self, connection: TargetConnection) -> None:
        """That connection is closed."""
        self._connections.discard(connection)

    def close(self) -> None:
        """Stop listening and remove the socket; connections stay. Idempotent. In a forked child: only close."""
        if self._sock.fileno() < 0:
            return
        if self._lock is not None:
            if os.getpid() == self._pid:
                self.path.unlink(missing_ok=True)
            self._lock.release()
        self._sock.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
