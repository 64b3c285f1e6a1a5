# SPDX-License-Identifier: BSD-2-Clause
"""The local bus end to end: hello, memory, grants, store, event channels, requests, and the death of either side."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vscsi.bus.local import BusError, InitiatorConnection, ProtocolError, TargetConnection
from vscsi.native import ffi, lib

MEMORY = 1 << 20
Serve = Callable[..., Any]


@pytest.mark.parametrize("threaded", [False, True])
def test_end_to_end(serve: Serve, path: Path, wait_until: Callable[..., None], threaded: bool) -> None:
    seen: list[str] = []

    def accepted(connection: TargetConnection) -> None:
        def answer(changed: str) -> None:
            seen.append(changed)
            if changed == "device/vbd/51712/state":
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

    target = serve(accepted)
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    if threaded:
        initiator.start()
    assert initiator.domid == 1
    assert initiator.peer == (os.getpid(), os.getuid(), os.getgid())
    initiator.wait_for(lambda: initiator.store.get("backend/vbd/51712/state") == "2", 5, "state 2")
    assert initiator.store["backend/vbd/51712/mode"] == "w"
    offset = initiator.memory.alloc(4096)
    initiator.memory.view[offset : offset + 19] = b"from the initiator\0"
    (gref,) = initiator.memory.grant(offset, 4096)
    port, fd = initiator.event_channel()
    ring = {"ring-ref": str(gref), "event-channel": str(port), "state": "3"}
    initiator.write({f"device/vbd/51712/{name}": value for name, value in ring.items()})
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
    assert not path.exists()
    assert not path.with_name("t.sock.lock").exists()


def test_a_batch_is_a_transaction_on_both_ends(serve: Serve, path: Path) -> None:
    torn: list[object] = []

    def accepted(connection: TargetConnection) -> None:
        def look(_: str) -> None:
            if connection.store["device/a"] != connection.store["device/b"]:
                torn.append(dict(connection.store))
            connection.write({"backend/a": connection.store["device/a"], "backend/b": connection.store["device/b"]})

        connection.watch("device", look)

    serve(accepted)
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    initiator.start()
    for n in range(200):
        initiator.write({"device/a": str(n), "device/b": str(n)})
        seen = initiator.store.subtree("backend")
        if seen and seen["backend/a"] != seen["backend/b"]:
            torn.append(seen)
    initiator.wait_for(lambda: initiator.store.get("backend/b") == "199", 5, "the last batch")
    assert torn == []
    initiator.close()


def test_writes_from_many_threads_leave_both_mirrors_alike(serve: Serve, path: Path) -> None:
    mirrors: list[TargetConnection] = []
    serve(mirrors.append)
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    initiator.start()

    def writer(n: int) -> None:
        for turn in range(100):
            value = None if turn % 3 else "y"
            initiator.write({"device/who": str(n), "device/turn": str(turn), f"device/{n}/x": value})

    threads = [threading.Thread(target=writer, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    initiator.write({"device/end": "1"})
    deadline = time.monotonic() + 5
    while "device/end" not in mirrors[0].store:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert dict(mirrors[0].store) == dict(initiator.store)
    initiator.close()


def test_each_event_channel_has_its_own_port_and_may_be_given_back(serve: Serve, path: Path) -> None:
    accepted: list[TargetConnection] = []
    serve(accepted.append)
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    ports = [initiator.event_channel() for _ in range(3)]
    assert [port for port, _ in ports] == [1, 2, 3]
    ours = accepted[0].event_channel(2)
    initiator.close_event_channel(1)
    initiator.close_event_channel(2)
    assert initiator.event_channel()[0] == 4
    with pytest.raises(KeyError):
        accepted[0].event_channel(1)
    assert lib.vscsi_event_drain_fd(ours) == -32, "ours stays, and sees that the other end is gone"
    accepted[0].close_event_channel(2)
    with pytest.raises(KeyError):
        accepted[0].event_channel(2)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(ours)
    initiator.close()


def test_event_channels_given_back_do_not_count(serve: Serve, path: Path) -> None:
    serve()
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    for _ in range(600):
        initiator.close_event_channel(initiator.event_channel()[0])
    initiator.close()


def test_memory_in_several_regions(serve: Serve, connect: Callable[[], Any], memfd: Callable[..., int]) -> None:
    target = serve()
    peer = connect()
    regions = [memfd(8192), memfd(MEMORY), memfd(4096)]
    sizes = [8192, MEMORY, 4096]
    peer.send("hello", regions, version=1, regions=sizes, table_frame=2, table_pages=1)
    assert peer.receive()["op"] == "welcome"
    mapper = target.connections[0].mapper
    assert (mapper.nr_regions, mapper.nr_frames, mapper.nr_grants) == (3, 2 + 256 + 1, 512)
    os.pwrite(regions[1], (1 | 258 << 32).to_bytes(8, "little"), 8 * 8)
    os.pwrite(regions[2], b"last page", 0)
    page = ffi.new("uint8_t **")
    assert lib.vscsi_mapper_get(mapper, 8, 1, 0, page) == 0
    assert ffi.buffer(page[0], 9)[:] == b"last page"
    lib.vscsi_mapper_put(mapper, 8, 1, 0)
    peer.close()


def test_writes_wait_for_a_target_that_is_slow_to_read(serve: Serve, path: Path) -> None:
    go_on = threading.Event()
    connections: list[TargetConnection] = []

    def accepted(connection: TargetConnection) -> None:
        connections.append(connection)
        connection.watch("device/first", lambda changed: go_on.wait(10))

    serve(accepted)
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    initiator.start()
    initiator.write({"device/first": "1"})
    for n in range(1000):
        initiator.write({"device/n": str(n), "device/x": "v" * 1000})
    assert initiator.want_write, "more than the socket takes at once"
    go_on.set()
    deadline = time.monotonic() + 5
    while connections[0].store.get("device/n") != "999":
        assert time.monotonic() < deadline, "nobody sent the rest"
        time.sleep(0.005)
    assert not initiator.want_write
    initiator.close()


@pytest.mark.parametrize("threaded", [False, True])
def test_requests_from_many_threads(serve: Serve, path: Path, threaded: bool) -> None:
    def accepted(connection: TargetConnection) -> None:
        connection.on_request("echo", lambda fields: fields)

    serve(accepted)
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    if threaded:
        initiator.start()
    wrong: list[object] = []

    def ask(number: int) -> None:
        for turn in range(50):
            answer = initiator.request("echo", number=number, turn=turn)
            if answer != {"number": number, "turn": turn}:
                wrong.append(answer)
        port, fd = initiator.event_channel()
        os.fstat(fd)
        initiator.close_event_channel(port)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert initiator._answers == {}
    assert initiator._waiting == set()
    assert initiator._events == {}
    initiator.close()


def test_waiting_in_a_callback_is_refused(serve: Serve, path: Path) -> None:
    caught: list[str] = []

    def accepted(connection: TargetConnection) -> None:
        connection.watch("device", lambda changed: connection.write({"backend/x": "1"}))

    serve(accepted)
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)

    def wait(_: str) -> None:
        with pytest.raises(BusError) as error:
            initiator.request("stats")
        caught.append(str(error.value))

    initiator.watch("backend", wait)
    initiator.write({"device/x": "1"})
    initiator.wait_for(lambda: bool(caught), 5, "the callback")
    assert caught == ["cannot wait for the answer to stats in a callback of the bus"]
    assert not initiator.closed
    initiator.close()


def test_reasons_of_a_request_handler_reach_the_initiator(serve: Serve, path: Path) -> None:
    def refuse(fields: dict[str, Any]) -> dict[str, Any]:
        raise BusError("not today")

    def accepted(connection: TargetConnection) -> None:
        connection.on_request("admin", refuse)

    serve(accepted)
    initiator = InitiatorConnection(path, memory_nbytes=MEMORY)
    with pytest.raises(BusError, match=r"^not today$"):
        initiator.request("admin")
    assert not initiator.closed
    initiator.close()


@pytest.mark.parametrize(
    ("raised", "error", "lines"),
    [(ProtocolError("state 9"), "state 9", 1), (ZeroDivisionError("ours"), "internal error", 2)],
)
def test_what_a_callback_raises_ends_that_connection_only(
    serve: Serve,
    path: Path,
    wait_until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    raised: Exception,
    error: str,
    lines: int,
) -> None:
    def accepted(connection: TargetConnection) -> None:
        def fail(_: str) -> None:
            raise raised

        connection.watch("device/bad", fail)

    target = serve(accepted)
    bad = InitiatorConnection(path, memory_nbytes=MEMORY)
    good = InitiatorConnection(path, memory_nbytes=MEMORY)
    bad.write({"device/bad": "1"})
    wait_until(lambda: target.ended == [error])
    assert len(caplog.records) == lines
    assert f"initiator 1 (pid {os.getpid()}, uid {os.getuid()}): connection ended: {error}" in caplog.text
    good.event_channel()
    bad.close()
    good.close()
