# SPDX-License-Identifier: BSD-2-Clause
"""The local bus end to end: hello, memory, grants, store, event channels, requests, and the death of either side."""

import os
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vscsi.bus.local import BusError, InitiatorConnection, Listener, TargetConnection
from vscsi.native import ffi, lib

MEMORY = 1 << 20


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
                        if not connection.process():
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


def wait_until(predicate: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    served = Target(tmp_path / "t.sock")
    yield served
    served.stop()


@pytest.mark.parametrize("threaded", [False, True])
def test_end_to_end(tmp_path: Path, threaded: bool) -> None:
    seen: list[str] = []

    def accepted(connection: TargetConnection) -> None:
        def answer(path: str) -> None:
            seen.append(path)
            if path == "device/vbd/51712/state":
                assert connection.store["device/vbd/51712/ring-ref"] == str(gref)
                port = int(connection.store["device/vbd/51712/event-channel"])
                page = ffi.new("uint8_t **")
                assert lib.vscsi_mapper_get(connection.mapper, gref, 1, 0, page) == 0
                assert ffi.string(ffi.cast("char *", page[0])) == b"from the initiator"
                ffi.memmove(page[0], b"from the target\0", 16)
                lib.vscsi_mapper_put(connection.mapper, gref, 1, 0)
                assert lib.vscsi_event_send_fd(connection.event_channel(port)) == 0
                connection.write({"backend/vbd/51712/state": "4"})

        connection.on_hello = lambda: connection.write({"backend/vbd/51712/state": "2", "backend/vbd/51712/mode": "w"})
        connection.watch("device", answer)
        connection.on_request("stats", lambda fields: {"domid": connection.domid, "got": fields})

    target = Target(tmp_path / "t.sock", accepted)
    initiator = InitiatorConnection(tmp_path / "t.sock", memory_nbytes=MEMORY)
    if threaded:
        initiator.start()
    assert initiator.domid == 1
    assert initiator.peer.pid == os.getpid()
    initiator.wait_for(lambda: initiator.store.get("backend/vbd/51712/state") == "2", 5, "state 2")
    assert initiator.store["backend/vbd/51712/mode"] == "w"
    offset = initiator.memory.alloc(4096)
    initiator.memory.view[offset : offset + 19] = b"from the initiator\0"
    (gref,) = initiator.memory.grant(offset, 4096)
    port, fd = initiator.event_channel()
    initiator.write(
        {
            "device/vbd/51712/ring-ref": str(gref),
            "device/vbd/51712/event-channel": str(port),
            "device/vbd/51712/state": "3",
        }
    )
    initiator.wait_for(lambda: initiator.store["backend/vbd/51712/state"] == "4", 5, "state 4")
    assert initiator.memory.view[offset : offset + 15].tobytes() == b"from the target"
    assert lib.vscsi_event_drain_fd(fd) == 1
    assert seen == ["device/vbd/51712/ring-ref", "device/vbd/51712/event-channel", "device/vbd/51712/state"]
    assert initiator.request("stats", verbose=True) == {"domid": 1, "got": {"verbose": True}}
    with pytest.raises(BusError, match="does not know the request 'dance'"):
        initiator.request("dance")
    initiator.memory.free(offset)
    initiator.close()
    wait_until(lambda: target.ended == [None])
    target.stop()
    assert not (tmp_path / "t.sock").exists()
    assert not (tmp_path / "t.sock.lock").exists()
