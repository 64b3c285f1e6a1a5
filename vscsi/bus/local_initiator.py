# SPDX-License-Identifier: BSD-2-Clause
"""The initiator's end of the local bus: brings memory, asks for event channels, notices when the target has gone.

Knows how to wait, with or without a thread of its own. Knows no protocol that runs over rings.
"""

import contextlib
import errno
import itertools
import logging
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import places, wire
from .connection import Connection
from .errors import BusError, ProtocolError
from .memory import Memory
from .store import INITIATOR_ROOT, TARGET_ROOT

MEMORY_NBYTES = 64 << 20
TIMEOUT_SECONDS = 5.0
GONE = "the target is gone"


def _connect(path: Path, timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = time.monotonic() + timeout
    sock.setblocking(False)
    while True:
        try:
            sock.connect(str(path))
            return sock
        except BlockingIOError:  # its backlog is full; a Unix socket cannot be polled for that
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            sock.close()
            raise BusError(f"the target at {path} does not accept connections") from None
        except OSError as error:
            sock.close()
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                raise BusError(f"no target is listening at {path}") from error
            raise BusError(f"cannot connect to {path}: {error.strerror}") from error


def _check_event_channel(fd: int) -> None:
    """Any other descriptor could block us, or write where we do not want to. ProtocolError."""
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        with socket.socket(fileno=os.dup(fd)) as sock:
            if (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET):
                return
    raise ProtocolError("what the target sent is no event channel")


class InitiatorConnection(Connection):
    """A connection to the target at `path` (None: the default), with `memory_nbytes` of memory to share.

    BusError: no target there, refused (with its reason), or no welcome within `timeout` seconds, which is also how
    long `event_channel` and `request` wait for their answers.
    """

    ROOT = INITIATOR_ROOT
    PEER_ROOT = TARGET_ROOT
    PEER_NAME = "target"
    LOG_LEVEL = logging.DEBUG

    def __init__(
        self, path: Path | None = None, *, memory_nbytes: int = MEMORY_NBYTES, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        self.path = Path(path) if path is not None else places.default_socket_path()
        places.check_length(self.path)
        if path is None and self.path.parent.is_dir():
            places.check_folder(self.path.parent)
        super().__init__(_connect(self.path, timeout))
        self.domid = 0
        self.timeout = timeout
        self._on_close: Callable[[str], None] | None = None
        self._closing = False
        self._lost = False
        self._ids = itertools.count(1)
        self._answers: dict[int, tuple[dict[str, Any], int]] = {}
        self._waiting: set[int] = set()
        self._events: dict[int, int] = {}
        self._changed = threading.Condition()
        self._pump = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.on_want_write = self._wake
        self._ops |= {
            "welcome": self._on_welcome,
            "refused": self._on_refused,
            "event-channel": self._on_answer,
            "reply": self._on_answer,
        }
        try:
            self.memory = Memory(memory_nbytes)
        except BusError:
            self._closing = True
            super().close()
            os.close(self._wake_fd)
            raise
        try:
            hello = wire.encode(
                "hello",
                version=wire.VERSION,
                regions=[self.memory.nbytes],
                **{"table-frame": 0, "table-pages": self.memory.first_frame},
            )
            self._send(hello, [os.dup(self.memory.fd)])
            self.wait_for(lambda: bool(self.domid), timeout, "welcome")
        except BaseException:
            self.close()
            raise

    # ---- what the target says ----

    def _on_welcome(self, frame: dict[str, Any]) -> None:
        if self.domid:
            raise ProtocolError("welcome twice")
        if frame.get("version") != wire.VERSION:
            raise ProtocolError("the target speaks another version of the bus")
        self.domid = wire.integer(frame, "domid", 1, 0xFFFF)

    def _on_refused(self, frame: dict[str, Any]) -> None:
        reason = frame.get("reason")
        text = reason[:200] if isinstance(reason, str) and reason.isprintable() else "no reason given"
        raise ProtocolError(f"the target refuses the connection: {text}")

    def _on_answer(self, frame: dict[str, Any]) -> None:
        request_id = wire.integer(frame, "id", 0, 2**53)
        fds = self._take_descriptors(1) if frame["op"] == "event-channel" else [-1]
        with self._changed:
            if request_id in self._waiting:
                self._waiting.discard(request_id)
                self._answers[request_id] = (frame, fds[0])
                return
        if fds[0] >= 0:  # whoever asked has stopped waiting
            os.close(fds[0])
            self._send(wire.encode("event-channel-close", port=wire.integer(frame, "port", 1, 2**31)))

    # ---- the thread, and waiting ----

    def process(self) -> bool:
        """See Connection.process; also wakes those who wait and, once, calls `on_close`."""
        alive = super().process()
        with self._changed:
            self._changed.notify_all()
            told = self._lost or self._closing
            self._lost = self._lost or not alive
            callback = self._on_close
        if not alive and not told and callback is not None:
            callback(self.error or GONE)
        return alive

    @property
    def on_close(self) -> Callable[[str], None] | None:
        """Called once with the reason when the target has gone, in the thread that runs `process`.

        If it has gone already when this is set, called at once, in the thread that sets it. Not for our own `close`.
        """
        return self._on_close

    @on_close.setter
    def on_close(self, callback: Callable[[str], None] | None) -> None:
        with self._changed:
            self._on_close = callback
            late = self._lost and not self._closing
        if late and callback is not None:
            callback(self.error or GONE)

    def start(self) -> None:
        """Run `process` in a daemon thread from now on. Idempotent."""
        self._check_pid()
        with self._pump:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="vscsi-bus", daemon=True)
                self._thread.start()

    def _wake(self) -> None:
        """The thread must look again, whether for writing or at the end of it."""
        os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        alive = True
        while alive:
            self._poll(None)
            alive = self._step()

    def _poll(self, seconds: float | None) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | (select.POLLOUT if self.want_write else 0))
        poll.register(self._wake_fd, select.POLLIN)
        poll.poll(None if seconds is None else max(0.0, seconds) * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    def _step(self) -> bool:
        if self.want_write:
            self.flush()
        return self.process()

    def wait_for(self, predicate: Callable[[], bool], timeout: float, what: str) -> None:
        """Return once `predicate()` is true; it is tried whenever the target has said something.

        BusError if `timeout` seconds pass, or the connection ends, first; `what` names what was waited for. Not from
        a callback of `process`, which would wait for itself.
        """
        self._check_pid()
        if self._process_thread == threading.get_ident():
            raise BusError(f"cannot wait for {what} in a callback of the bus")
        deadline = time.monotonic() + timeout
        while not predicate():
            left = deadline - time.monotonic()
            if self._over:
                raise BusError(self.error or f"{GONE}; waited for {what}")
            if left <= 0:
                raise BusError(f"the target has not answered within {timeout:g} s; waited for {what}")
            if self._thread is None:
                self._pump_once(min(left, 0.05))
            else:
                with self._changed:
                    if not self._over and not predicate():
                        self._changed.wait(left)

    def _pump_once(self, seconds: float) -> None:
        with self._pump:
            if self._thread is None and not self._over:
                self._poll(seconds)
                self._step()

    # ---- asking ----

    def _ask(self, op: str, **fields: Any) -> tuple[dict[str, Any], int]:
        """Send and wait for the answer with our id; its frame and the descriptor that came along, or -1."""
        self._check_pid()
        if self._over:
            raise BusError(self.error or GONE)
        request_id = next(self._ids)
        with self._changed:
            self._waiting.add(request_id)
        try:
            self._send(wire.encode(op, id=request_id, **fields))
            self.wait_for(lambda: request_id in self._answers, self.timeout, f"the answer to {fields.get('name', op)}")
        except BaseException:
            with self._changed:
                self._waiting.discard(request_id)
                _, fd = self._answers.pop(request_id, ({}, -1))
            if fd >= 0:
                os.close(fd)
            raise
        frame, fd = self._answers.pop(request_id)
        error = frame.get("error")
        if error is not None:
            raise BusError(error[:200] if isinstance(error, str) and error.isprintable() else "refused by the target")
        return frame, fd

    def event_channel(self) -> tuple[int, int]:
        """A new event channel: its port, and our end's descriptor, ours until `close_event_channel` or `close`.

        BusError if the target makes no more.
        """
        frame, fd = self._ask("event-channel")
        if fd < 0:
            raise BusError("the target sent no event channel")
        try:
            _check_event_channel(fd)
            port = wire.integer(frame, "port", 1, 2**31)
            if port in self._events:
                raise ProtocolError(f"the target gave event channel {port} twice")
        except ProtocolError:
            os.close(fd)
            raise
        self._events[port] = fd
        return port, fd

    def close_event_channel(self, port: int) -> None:
        """Close our end and tell the target. KeyError if there is no such port."""
        self._check_pid()
        os.close(self._events.pop(port))
        self._send(wire.encode("event-channel-close", port=port))

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask the target something ("stats", ...). BusError if it does not know it, refuses, or does not answer."""
        frame, _ = self._ask("request", name=op, fields=fields)
        result = frame.get("result")
        if not isinstance(result, dict):
            raise BusError(f"the target's answer to {op} is malformed")
        return result

    # ---- the end ----

    def close(self) -> None:
        """End the connection; closes event channels and memory. Channels on that memory must be gone. Idempotent."""
        if self._closing:
            return
        self._closing = True
        if os.getpid() == self._pid:
            self._end(None)
            self._wake()
            with self._pump:
                thread = self._thread
            if thread is not None and thread is not threading.current_thread():
                thread.join()
            with self._changed:
                self._changed.notify_all()
        super().close()
        while self._events:
            os.close(self._events.popitem()[1])
        os.close(self._wake_fd)
        self.memory.close()
