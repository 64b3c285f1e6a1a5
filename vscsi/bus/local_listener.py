# SPDX-License-Identifier: BSD-2-Clause
"""The target's listening socket of the local bus.

Knows whom to let in and how many; what they then say is the business of their connections.
"""

import contextlib
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Collection
from pathlib import Path

from . import places, wire
from .complaints import Complaints
from .connection import Peer, peer_of
from .errors import BusError
from .local_target import EVENT_CHANNELS_MAX, MEMORY_NBYTES_MAX, TargetConnection
from .shares import SHARE_PERCENT, Shares

log = logging.getLogger("vscsi.bus")

BACKLOG = 64
CONNECTIONS_MAX = 64
OTHERS_PERCENT = 90
"""Of the connections, for all users together who are neither the target's own nor root: those two always get in."""
TOTAL_MEMORY_NBYTES_MAX = 16 << 30
"""What all initiators together may bring."""
DESCRIPTORS_WANTED = 1 << 16
"""For every connection's event channels, twice: the loops hold copies."""
DESCRIPTORS_KEPT = 256
"""For everything else."""
DOMID_MAX = 0x7FEF
"""Xen's numbers from 0x7FF0 are reserved."""


def raise_descriptor_limit() -> int:
    """Lift RLIMIT_NOFILE as far as allowed: a few initiators' event channels would exhaust the usual 1024.

    The limit as it is then, at most what is wanted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return DESCRIPTORS_WANTED if soft == resource.RLIM_INFINITY else min(DESCRIPTORS_WANTED, soft)


def _inherit(fd: int) -> socket.socket:
    """The listening socket that whoever started us has left open."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise BusError(f"descriptor {fd} is not a Unix stream socket ({error.strerror})") from error
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        sock.detach()  # not ours to close
        raise BusError(f"descriptor {fd} is not a Unix stream socket")
    sock.set_inheritable(False)
    return sock


class Listener:
    """Listens for initiators at `path` (None: the default), or on an inherited socket `fd`.

    `allow_uids`: who may connect; None is our own user and root. `allow_gids`: so may whoever has one of these as his
    (primary) group. `max_memory_nbytes` is what one initiator may bring, `total_memory_nbytes` all of them.
    BusError: another target is listening there, the folder is not safe, or the path cannot be used.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        fd: int | None = None,
        allow_uids: Collection[int] | None = None,
        allow_gids: Collection[int] = (),
        max_connections: int = CONNECTIONS_MAX,
        max_memory_nbytes: int = MEMORY_NBYTES_MAX,
        total_memory_nbytes: int = TOTAL_MEMORY_NBYTES_MAX,
    ) -> None:
        self.allow_uids = {os.geteuid(), 0} if allow_uids is None else set(allow_uids)
        self.allow_gids = set(allow_gids)
        self.max_connections = max_connections
        self.trusted = {os.geteuid(), 0}
        self.complaints = Complaints()
        self._memory = self.shares("bytes of memory", total_memory_nbytes, max_memory_nbytes)
        self._connections: set[TargetConnection] = set()
        self._last_domid = 0
        self._pid = os.getpid()
        self._lock: places.SocketLock | None = None
        if fd is not None:
            self._sock = _inherit(fd)
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
        descriptors = max(0, raise_descriptor_limit() - DESCRIPTORS_KEPT)
        self._event_channels = self.shares("event channels", descriptors // 2, EVENT_CHANNELS_MAX)

    def shares(self, what: str, total: int, each: int) -> Shares:
        """A book of what connections of this listener have of something."""
        return Shares(what, total, each=min(each, total), holders=self.max_connections, trusted=self.trusted)

    def _bind(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(sock.fileno(), 0o600)  # before bind: there is no moment at which others could connect
            sock.bind(str(self.path))
            if self.allow_gids or not self.allow_uids <= {os.geteuid(), 0}:
                self.path.chmod(0o666)  # whoever gets in is asked for his user id
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
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._shed()
            else:
                log.warning("cannot accept at %s: %s", self.path, error.strerror)
            return None
        try:
            peer = peer_of(sock)
            reason = self._objection(peer)
            if reason is None:
                connection = TargetConnection(
                    sock,
                    self._next_domid(),
                    memory=self._memory,
                    event_channels=self._event_channels,
                    complaints=self.complaints,
                    on_closed=self._connections.discard,
                )
                self._connections.add(connection)
                return connection
        except OSError:
            sock.close()
            return None
        self._refuse(sock, reason, peer)
        return None

    def _objection(self, peer: Peer) -> str | None:
        if peer.uid not in self.allow_uids and peer.gid not in self.allow_gids:
            return f"user {peer.uid} may not use this target"
        if len(self._connections) >= self.max_connections:
            return f"this target has {self.max_connections} connections already, as many as it takes"
        if peer.uid in self.trusted:
            return None
        theirs = sum(connection.peer.uid == peer.uid for connection in self._connections)
        if theirs >= max(1, self.max_connections * SHARE_PERCENT // 100):
            return f"user {peer.uid} has {theirs} connections already, as many as one user may have here"
        others = sum(connection.peer.uid not in self.trusted for connection in self._connections)
        if others >= max(1, self.max_connections * OTHERS_PERCENT // 100):
            return f"other users than this target's own have {others} connections already, as many as they may have"
        return None

    def _refuse(self, sock: socket.socket, reason: str, peer: Peer) -> None:
        text = "initiator (pid %d, uid %d): connection refused: %s"
        self.complaints.say(peer.uid, log, text, peer.pid, peer.uid, reason)
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
            self._refuse(sock, "this target has no file descriptor left", peer_of(sock))
        with contextlib.suppress(OSError):
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _next_domid(self) -> int:
        taken = {connection.domid for connection in self._connections}
        while True:
            self._last_domid = self._last_domid % DOMID_MAX + 1
            if self._last_domid not in taken:
                return self._last_domid

    @property
    def next_expiry(self) -> float | None:
        """When (time.monotonic) `expire` must be called next, as things are; None: nobody keeps us waiting."""
        ends = (connection.patience_ends for connection in self._connections if not connection.closed)
        return min((end for end in ends if end is not None), default=None)

    def expire(self, now: float) -> None:
        """End every connection that keeps us waiting at `now` (time.monotonic). `accept` does it too."""
        for connection in list(self._connections):
            reason = connection.overdue(now)
            if reason is not None and not connection.closed:
                connection.expire(reason)

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
