# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the bus share: a target that serves in a thread, a raw peer without manners, waiting."""

import array
import contextlib
import fcntl
import json
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vscsi.bus.local import InitiatorConnection, Listener, TargetConnection

MEMORY = 1 << 20
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class Target:
    """Serves a listener in a thread, as the target's server does."""

    def __init__(self, path: Path, on_accept: Callable[[TargetConnection], None] | None = None, **options: Any) -> None:
        self.listener = Listener(path, **options)
        self.on_accept = on_accept
        self.connections: list[TargetConnection] = []
        self.ended: list[str | None] = []
        self.jobs: list[Callable[[], None]] = []
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while not self._stop:
                for key, events in selector.select(1):
                    if key.fileobj is self.listener:
                        connection = self.listener.accept()
                        if connection is not None:
                            if self.on_accept:
                                self.on_accept(connection)
                            self.connections.append(connection)
                            selector.register(connection, selectors.EVENT_READ)
                    elif key.fileobj == self._wake:
                        os.eventfd_read(self._wake)
                        while self.jobs:
                            self.jobs.pop(0)()
                    else:
                        connection = key.fileobj
                        if events & selectors.EVENT_WRITE:
                            connection.flush()
                        alive = connection.process()
                        while alive and connection.waiting:
                            alive = connection.process()
                        if not alive:
                            selector.unregister(connection)
                            connection.close()
                            connection.release()
                            self.connections.remove(connection)
                            self.ended.append(connection.error)
                for connection in self.connections:
                    want = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.want_write else 0)
                    selector.modify(connection, want)
        for connection in self.connections:
            connection.close()
            connection.release()

    def run(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        if self._stop:
            return
        self._stop = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self.listener.close()
        os.close(self._wake)

    @property
    def stopped(self) -> bool:
        return self._stop

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()


class RawPeer:
    """A socket to the target with none of the manners of InitiatorConnection."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(str(path))
        self._buffer = b""

    def send(self, op: str, fds: list[int] | None = None, **fields: Any) -> None:
        body = json.dumps({"op": op, **{key.replace("_", "-"): value for key, value in fields.items()}}).encode()
        self.send_raw(struct.pack("<I", len(body)) + body, fds)

    def send_raw(self, data: bytes, fds: list[int] | None = None) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sent = self.sock.sendmsg([data], rights)
            self.sock.sendall(data[sent:])

    def hello(self, nbytes: int = MEMORY, *, fd: int | None = None, **fields: Any) -> None:
        own = memfd(nbytes) if fd is None else None
        self.send("hello", [own if fd is None else fd], **HELLO | {"regions": [nbytes]} | fields)
        if own is not None:
            os.close(own)

    def receive(self) -> dict[str, Any] | None:
        """The next frame, or None when the target has ended the connection."""
        while True:
            if len(self._buffer) >= 4:
                (nbytes,) = struct.unpack_from("<I", self._buffer)
                if len(self._buffer) >= 4 + nbytes:
                    frame, self._buffer = self._buffer[4 : 4 + nbytes], self._buffer[4 + nbytes :]
                    return json.loads(frame)
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._buffer += data

    def welcome(self) -> "RawPeer":
        self.hello()
        assert self.receive() == {"op": "welcome", "version": 1, "domid": ANY}
        return self

    def close(self) -> None:
        self.sock.close()


class _Any:
    def __eq__(self, other: object) -> bool:
        return True


ANY = _Any()
HELLO = {"version": 1, "table-frame": 0, "table-pages": 1}


def memfd(nbytes: int, seals: int = SEALS, flags: int = os.MFD_ALLOW_SEALING) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | flags)
    os.ftruncate(fd, nbytes)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def open_fds() -> dict[int, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[int(entry.name)] = str(entry.readlink())
    return found


def wait_until(predicate: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.sock"


@pytest.fixture
def serve(path: Path) -> Iterator[Callable[..., Target]]:
    """Starts targets, which end with the test; each must have survived it."""
    served: list[Target] = []

    def start(on_accept: Callable[[TargetConnection], None] | None = None, **options: Any) -> Target:
        served.append(Target(path, on_accept, **options))
        return served[-1]

    yield start
    alive = [target.alive or target.stopped for target in served]
    for target in served:
        target.stop()
    assert all(alive), "the target died"


@pytest.fixture
def connect(path: Path) -> Iterator[Callable[[], RawPeer]]:
    """Opens raw peers, which are closed with the test."""
    peers: list[RawPeer] = []

    def open_one() -> RawPeer:
        peers.append(RawPeer(path))
        return peers[-1]

    yield open_one
    for peer in peers:
        peer.close()


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    return wait_until


@pytest.fixture(name="memfd")
def _memfd() -> Iterator[Callable[..., int]]:
    """Makes memfds, which are closed with the test."""
    made: list[int] = []

    def make(*args: Any, **options: Any) -> int:
        made.append(memfd(*args, **options))
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


@pytest.fixture(name="open_fds")
def _open_fds() -> Callable[[], dict[int, str]]:
    return open_fds


@pytest.fixture
def target(serve: Callable[..., Target], path: Path) -> Iterator[Target]:
    """A target with a good initiator on it from the start; both must be well at the end, and no descriptor lost."""

    def accepted(connection: TargetConnection) -> None:
        connection.on_request("echo", lambda fields: fields)

    served = serve(accepted, max_memory_nbytes=16 << 20)
    good = InitiatorConnection(path, memory_nbytes=MEMORY)
    good.start()
    good.request("echo")
    before = open_fds()
    yield served
    assert good.request("echo", still="there") == {"still": "there"}
    assert not good.closed
    deadline = time.monotonic() + 5
    while len(served.connections) > 1:
        assert time.monotonic() < deadline, "the bad connection never ended"
        time.sleep(0.005)
    ours = {fd for fd, name in open_fds().items() if fd not in before and "socket" not in name}
    assert not {fd for fd in ours if os.fstat(fd).st_size}, "a memfd was kept"
    good.close()
    late = InitiatorConnection(path, memory_nbytes=MEMORY)
    assert late.request("echo") == {}
    late.close()


def ends(peer: RawPeer, target: Target, error: str, caplog: pytest.LogCaptureFixture, *, refused: bool = False) -> None:
    """The target ends this peer's connection for that reason (told, if it was still at hello), with one log line."""
    if refused:
        frame = peer.receive()
        assert frame is not None
        assert frame["op"] == "refused"
        assert error in frame["reason"]
    assert peer.receive() is None
    deadline = time.monotonic() + 5
    while not target.ended:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert error in target.ended[0]
    assert len(caplog.records) == 1
    assert error in caplog.text
    assert f"pid {os.getpid()}" in caplog.text


@pytest.fixture(name="ends")
def _ends() -> Callable[..., None]:
    return ends
