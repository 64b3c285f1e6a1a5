# SPDX-License-Identifier: BSD-2-Clause
"""An initiator that floods event channels and requests, or never reads: its own connection ends, with one log line.

Where the fixture `target` serves, a well-behaved initiator is there all along and still gets its answers at the end.
"""

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from vscsi.bus.connection import OUTGOING_NBYTES_MAX
from vscsi.bus.wire import FRAME_NBYTES_MAX

MEMORY = 1 << 20
Connect = Callable[[], Any]
Ends = Callable[..., None]


def frame(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def test_event_channel_flood(target: Any, connect: Connect, wait_until: Callable[..., None]) -> None:
    peer = connect().welcome()
    connection = target.connections[-1]
    for n in range(300):
        peer.send("event-channel", id=n)
        answer = peer.receive()
        assert answer is not None
        if n < 256:
            assert answer == {"op": "event-channel", "id": n, "port": n + 1}
        else:
            assert "no more than 256 event channels" in answer["error"]
    assert len(connection._events) == 256
    peer.close()
    wait_until(lambda: connection not in target.connections)
    assert len(connection._events) == 0


def test_event_channel_flood_without_reading(target: Any, connect: Connect) -> None:
    peer = connect().welcome()
    for n in range(3000):
        peer.send("event-channel", id=n)
    time.sleep(0.1)
    peer.close()


@pytest.mark.parametrize("request_id", [None, "1", -1, 1.5, 2**60, True])
def test_bad_request_id(
    target: Any, connect: Connect, ends: Ends, caplog: pytest.LogCaptureFixture, request_id: object
) -> None:
    peer = connect().welcome()
    peer.send("event-channel", id=request_id)
    ends(peer, target, "id is not a number", caplog)


@pytest.mark.parametrize(("name", "fields"), [(None, {}), (1, {}), ("echo", None), ("echo", [])])
def test_bad_request(
    target: Any, connect: Connect, ends: Ends, caplog: pytest.LogCaptureFixture, name: object, fields: object
) -> None:
    peer = connect().welcome()
    peer.send("request", id=1, name=name, fields=fields)
    ends(peer, target, "a request without a name or fields", caplog)


def test_closing_an_event_channel_that_is_not_there(target: Any, connect: Connect) -> None:
    peer = connect().welcome()
    for port in (1, 1, 2**31):
        peer.send("event-channel-close", port=port)
    peer.send("event-channel", id=1)
    assert peer.receive() == {"op": "event-channel", "id": 1, "port": 1}
    peer.close()


def test_peer_that_never_reads(
    target: Any, connect: Connect, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    peer = connect().welcome()
    connection = target.connections[-1]
    peer.sock.settimeout(0.2)
    body = frame(b'{"op":"request","id":1,"name":"echo","fields":{"x":"' + b"y" * 60_000 + b'"}}')
    most = 0
    while not connection.closed:
        try:
            peer.sock.sendall(body)
        except OSError:
            break
        most = max(most, connection._outgoing_nbytes)
    wait_until(lambda: target.ended == ["initiator does not read its messages"])
    assert most <= OUTGOING_NBYTES_MAX + FRAME_NBYTES_MAX
    assert len(caplog.records) == 1


def test_a_peer_that_reads_late_loses_nothing(target: Any, connect: Connect, wait_until: Callable[..., None]) -> None:
    peer = connect().welcome()
    connection = target.connections[-1]
    value = "v" * 1000
    batches = 1200
    target.run(lambda: [connection.write({"backend/n": str(n), "backend/x": value}) for n in range(batches)])
    wait_until(lambda: connection.store.get("backend/n") == str(batches - 1))
    assert connection.want_write, "more than the socket takes at once"
    for n in range(batches):
        assert peer.receive() == {"op": "store", "set": {"backend/n": str(n), "backend/x": value}}
    peer.close()


def test_a_peer_that_shuts_down_one_direction(target: Any, connect: Connect, wait_until: Callable[..., None]) -> None:
    peer = connect().welcome()
    peer.sock.shutdown(socket.SHUT_WR)
    assert peer.receive() is None
    wait_until(lambda: target.ended == [None])
    deaf = connect().welcome()
    deaf.sock.shutdown(socket.SHUT_RD)
    for n in range(50):
        deaf.send("request", id=n, name="echo", fields={})
    deaf.close()
