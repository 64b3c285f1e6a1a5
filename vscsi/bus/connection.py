# SPDX-License-Identifier: BSD-2-Clause
"""One connection of the local bus, the part that both ends share: frames in and out, the mirrored store, its death.

Knows the socket, its descriptors and its bounds. Which operations exist is a table that each end fills in.
Whatever the peer sends, the worst that happens is that this connection ends, with one reason.
"""

import contextlib
import logging
import os
import socket
import struct
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from vscsi.errors import RemoteProtocolError

from . import wire
from .errors import BusError, ProtocolError
from .store import Store, check_batch

log = logging.getLogger("vscsi.bus")

READ_NBYTES = 1 << 16
"""Taken from one peer before the others have their turn."""
OUTGOING_NBYTES_MAX = 2 << 20
"""What may wait for a peer that does not read."""
DESCRIPTORS_MAX = 16
"""Descriptors that may wait for their frame to be complete."""

_INT = struct.calcsize("i")


class Peer(NamedTuple):
    """Who is at the other end, as the kernel saw it when the connection was made."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: socket.socket) -> Peer:
    """SO_PEERCRED, see unix(7)."""
    return Peer(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 3 * _INT)))


class Connection:
    """Either end. `process` belongs to one thread; `write`, `close` and reading the store are free to any.

    A connection that is over stays quiet: `write` does nothing, and the loss is told by `process` alone.
    """

    ROOT: ClassVar[str]
    PEER_ROOT: ClassVar[str]
    PEER_NAME: ClassVar[str]
    LOG_LEVEL: ClassVar[int]

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._pid = os.getpid()
        self.peer = peer_of(sock)
        self.store = Store()
        self.error: str | None = None
        """Why the connection ended, if it did not end in order."""
        self._over = False
        self._closed = False
        self._reader = wire.FrameReader()
        self._received: deque[int] = deque()
        self._accept_descriptors = True
        self._partial_since: float | None = None
        self._lock = threading.RLock()
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._outgoing_nbytes = 0
        self._process_thread: int | None = None
        self.on_want_write: Callable[[], None] | None = None
        """Called, in whatever thread wrote, when `want_write` became true: wake the selector."""
        self._ops: dict[str, Callable[[dict[str, Any]], None]] = {"store": self._on_store}

    # ---- state ----

    @property
    def closed(self) -> bool:
        """True once the peer is gone, has broken the protocol, or `close` was called."""
        return self._over

    def fileno(self) -> int:
        """The socket, for a selector; stays open until `close`, even when the peer is gone. -1 after `close`."""
        return self._sock.fileno()

    def _check_pid(self) -> None:
        if os.getpid() != self._pid:
            raise BusError(f"this connection belongs to process {self._pid}; a forked child must connect for itself")

    @property
    def waiting(self) -> bool:
        """True while messages have come that had no turn yet: `process` has more to do, whatever the socket says."""
        return self._reader.ready and not self._over

    def _describe(self) -> str:
        return f"{self.PEER_NAME} (pid {self.peer.pid}, uid {self.peer.uid})"

    def _end(self, error: str | None) -> None:
        """The connection is over. Wakes whoever polls the socket; the first reason stays."""
        with self._lock:
            if self._over:
                return
            if error is not None:  # it may quote the peer
                self.error = "".join(c if c.isprintable() else "?" for c in error)
            self._over = True
            self._drop_outgoing()
            with contextlib.suppress(OSError):  # the peer was faster
                self._sock.shutdown(socket.SHUT_RDWR)
        if error is not None:
            self._log("%s: connection ended: %s", self._describe(), self.error)

    def _log(self, message: str, *args: object) -> None:
        """A line about the peer."""
        log.log(self.LOG_LEVEL, message, *args)

    def close(self) -> None:
        """End the connection and close its descriptors. Idempotent. In a forked child the peer notices nothing."""
        if os.getpid() != self._pid:
            self._over = self._closed = True
            self._close_descriptors()  # without the lock: a thread that the child does not have may hold it
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._end(None)
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        self._drop_outgoing()
        self._drop_received()
        self._sock.close()

    # ---- receiving ----

    def process(self) -> bool:
        """Read what is there, apply it, call the callbacks. Never blocks; leaves what is too much for next time.

        False once the connection is over; `error` then says why, or is None if the peer simply left.
        """
        self._check_pid()
        if self._over:
            return False
        self._process_thread = threading.get_ident()
        try:
            self._receive()
        except (BusError, RemoteProtocolError) as error:
            self._end(str(error))
        except Exception:
            log.exception("%s: internal error", self._describe())
            self._end("internal error")
        finally:
            self._process_thread = None
        return not self._over

    def _receive(self) -> None:
        try:
            # What has come has its turn before what comes: the rest waits in the kernel, whose buffers are bounded.
            data = b"" if self._reader.ready else self._read()
            if data is None:
                return
            for count, frame in enumerate(self._reader.feed(data), 1):
                self._partial_since = None  # what is incomplete now is another one
                self._dispatch(frame)
                if self._over:
                    return
                if self._enough(count):
                    break
            if self.waiting:
                return
            if not self._reader.partial:
                self._partial_since = None
                if self._received:
                    raise ProtocolError("descriptors that nobody asked for")
            elif self._partial_since is None:
                self._partial_since = time.monotonic()
        finally:
            if self._over or not self._reader.partial:
                self._drop_received()

    def _read(self) -> bytes | None:
        """What the peer has sent; its descriptors are put aside. None if that is nothing, or the end. ProtocolError."""
        ancillary_nbytes = socket.CMSG_SPACE(DESCRIPTORS_MAX * _INT) if self._accept_descriptors else 0
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                READ_NBYTES, ancillary_nbytes, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            data, ancillary, flags = b"", [], 0  # reset: the same as gone
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % _INT])
                self._received.extend(fds)
        if flags & socket.MSG_CTRUNC or len(self._received) > DESCRIPTORS_MAX:
            raise ProtocolError("descriptors that nobody asked for")
        if not data:
            self._end(None)
            return None
        return data

    def _enough(self, count: int) -> bool:
        """Whether this turn is over after so many messages, so that others have theirs."""
        return False

    def _dispatch(self, frame: dict[str, Any]) -> None:
        handler = self._ops.get(frame["op"])
        if handler is None:
            raise ProtocolError(f"unknown operation {frame['op'][:32]!a}")
        handler(frame)

    def _take_descriptors(self, count: int) -> list[int]:
        """The next `count` descriptors received; the caller owns them. ProtocolError if there are fewer."""
        if len(self._received) < count:
            raise ProtocolError(f"{len(self._received)} descriptors where {count} belong")
        return [self._received.popleft() for _ in range(count)]

    def _drop_received(self) -> None:
        while self._received:
            os.close(self._received.popleft())

    def _on_store(self, frame: dict[str, Any]) -> None:
        self.store.notify(self.store.apply(check_batch(frame.get("set"), self.PEER_ROOT), self.PEER_ROOT))

    # ---- sending ----

    def write(self, batch: Mapping[str, str | None]) -> None:
        """Write nodes below our own directory as one transaction; None removes a node and all below it.

        Entries apply in order. BusError, with nothing written, if the batch breaks a rule of the store; nothing
        happens on a connection that is over. Callable from any thread; never waits for the peer.
        """
        self._check_pid()
        checked = check_batch(batch, self.ROOT)
        frame = wire.encode("store", set=checked)
        with self._lock:  # both mirrors must see batches in one order
            if self._over:
                return
            self.store.apply(checked, self.ROOT)
            self._send(frame)

    def watch(self, prefix: str, callback: Callable[[str], None]) -> None:
        """Call `callback(path)` in the thread that runs `process` for each path at or below `prefix` the peer writes.

        The whole batch is in the store by then. A callback that finds the peer breaking a rule raises ProtocolError or
        vscsi.errors.RemoteProtocolError.
        """
        self.store.watch(prefix, callback)

    def unwatch(self, prefix: str, callback: Callable[[str], None]) -> None:
        """Undo one `watch`."""
        self.store.unwatch(prefix, callback)

    def _send(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        """Send or queue a frame; `fds` go along and are closed once they have left."""
        with self._lock:
            if self._over:
                for fd in fds:
                    os.close(fd)
                return
            self._outgoing.append((memoryview(frame), tuple(fds)))
            self._outgoing_nbytes += len(frame)
            self.flush()
            if self._outgoing_nbytes > OUTGOING_NBYTES_MAX:
                self._end(f"{self.PEER_NAME} does not read its messages")
            waiting = self.want_write
        if waiting and self.on_want_write is not None:
            self.on_want_write()

    @property
    def want_write(self) -> bool:
        """True while something waits to be sent: poll for writing too, then call `flush`."""
        return bool(self._outgoing) and not self._over

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        self._check_pid()
        with self._lock:
            while self._outgoing and not self._over:
                data, fds = self._outgoing[0]
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
                try:
                    sent = self._sock.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                except (BlockingIOError, InterruptedError):
                    return
                except (BrokenPipeError, ConnectionResetError):
                    self._drop_outgoing()  # what the peer said last may still wait to be read
                    return
                except OSError as error:
                    self._end(f"cannot send: {error.strerror}")
                    return
                for fd in fds:
                    os.close(fd)
                self._outgoing_nbytes -= sent
                if sent == len(data):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = (data[sent:], ())

    def _drop_outgoing(self) -> None:
        for _, fds in self._outgoing:
            for fd in fds:
                os.close(fd)
        self._outgoing.clear()
        self._outgoing_nbytes = 0
