# SPDX-License-Identifier: BSD-2-Clause
"""An initiator that sends malformed frames or batches: only its own connection ends, with one line in the log.

Where the fixture `target` serves, a well-behaved initiator is there all along and still gets its answers at the end.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.bus.local import InitiatorConnection, TargetConnection
from vscsi.bus.wire import FRAME_NBYTES_MAX
from vscsi.native import ffi

MEMORY = 1 << 20
Connect = Callable[[], Any]
Ends = Callable[..., None]


def frame(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


DEEP = b'{"op":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BAD_FRAMES = [
    (struct.pack("<I", FRAME_NBYTES_MAX + 1), "longer than"),
    (b"\xff\xff\xff\xff", "longer than"),
    (frame(b""), "malformed JSON"),
    (frame(b"{"), "malformed JSON"),
    (frame(b"\xff\xfe"), "malformed JSON"),
    (frame(b'{"op":"store","set":{"device/x":NaN}}'), "malformed JSON"),
    (frame(b'{"op":' + b"1" * 5000 + b"}"), "malformed JSON"),
    (frame(DEEP), "malformed JSON"),
    (frame(b"[]"), "not an object with an operation"),
    (frame(b'{"op":7}'), "not an object with an operation"),
    (frame(b"null"), "not an object with an operation"),
    (frame(b'{"op":"dance"}'), "unknown operation 'dance'"),
    (frame(b'{"op":"\\u001b[31m\\ud800"}'), "unknown operation '\\x1b[31m\\ud800'"),
    (b"GET / HTTP/1.1\r\n\r\n", "longer than"),
]


@pytest.mark.parametrize("greeted", [False, True])
@pytest.mark.parametrize(("data", "error"), BAD_FRAMES)
def test_bad_frame(
    target: Any, connect: Connect, ends: Ends, caplog: pytest.LogCaptureFixture, greeted: bool, data: bytes, error: str
) -> None:
    peer = connect()
    if greeted:
        peer.welcome()
    peer.send_raw(data)
    ends(peer, target, error, caplog)


def test_a_frame_of_the_longest_kind_in_pieces(target: Any, connect: Connect) -> None:
    peer = connect().welcome()
    body = b'{"op":"request","id":1,"name":"echo","fields":{"x":"' + b"y" * 1000 + b'"}'
    body += b" " * (FRAME_NBYTES_MAX - len(body) - 1) + b"}"
    data = frame(body)
    for at in range(0, len(data), 70_001):
        peer.send_raw(data[at : at + 70_001])
    assert peer.receive() == {"op": "reply", "id": 1, "result": {"x": "y" * 1000}}
    peer.close()


def test_bytes_one_by_one(target: Any, connect: Connect) -> None:
    peer = connect().welcome()
    for byte in frame(b'{"op":"request","id":1,"name":"echo","fields":{}}'):
        peer.send_raw(bytes([byte]))
    assert peer.receive() == {"op": "reply", "id": 1, "result": {}}
    peer.close()


# ---- store ----

BAD_BATCHES = [
    ({"backend/x": "1"}, "outside the writer's own directory device/"),
    ({"device/ok": "1", "backend/x": None}, "outside the writer's own directory"),
    ({"devices/x": "1"}, "outside the writer's own directory"),
    ({"device": "1"}, "malformed"),
    ({"": "1"}, "malformed"),
    ({"/device/x": "1"}, "malformed"),
    ({"device//x": "1"}, "malformed"),
    ({"device/x/": "1"}, "malformed"),
    ({"device/x\n": "1"}, "malformed"),
    ({"device/\u00e4": "1"}, "malformed"),
    ({"device/" + "x" * 250: "1"}, "malformed"),
    ({"device" + "/x" * 16: "1"}, "malformed"),
    ({"device/x": "v" * 1025}, "longer than 1024 bytes"),
    ({"device/x": "\u00e4" * 513}, "longer than 1024 bytes"),
    ({"device/x": "line\nline"}, "not printable"),
    ({"device/x": "\x1b[31m"}, "not printable"),
    ({"device/x": "\ud800"}, "not printable"),
    ({"device/x": 1}, "not printable"),
    ({"device/x": ["1"]}, "not printable"),
    (["device/x"], "not a mapping"),
    (None, "not a mapping"),
]


@pytest.mark.parametrize(("batch", "error"), BAD_BATCHES)
def test_bad_batch(
    target: Any, connect: Connect, ends: Ends, caplog: pytest.LogCaptureFixture, batch: Any, error: str
) -> None:
    peer = connect().welcome()
    seen: list[str] = []
    connection = target.connections[-1]
    connection.watch("", seen.append)
    peer.send("store", set=batch)
    ends(peer, target, error, caplog)
    assert seen == []
    assert dict(connection.store) == {}


def test_too_many_nodes(target: Any, connect: Connect, ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    peer = connect().welcome()
    for part in range(8):
        peer.send("store", set={f"device/{part}/{n}": "" for n in range(1023)})
    peer.send("request", id=1, name="echo", fields={})
    assert peer.receive() == {"op": "reply", "id": 1, "result": {}}
    peer.send("store", set={"device/one-more": ""})
    ends(peer, target, "more than 8192 store nodes", caplog)


def test_nodes_removed_make_room(target: Any, connect: Connect) -> None:
    peer = connect().welcome()
    for turn in range(12):
        peer.send("store", set={"device/all": None})
        peer.send("store", set={f"device/all/{turn}/{n}": "" for n in range(4000)})
    peer.send("request", id=1, name="echo", fields={})
    assert peer.receive() == {"op": "reply", "id": 1, "result": {}}
    peer.close()


def test_a_storm_of_store_writes_does_not_starve_the_others(target: Any, connect: Connect, path: Path) -> None:
    peer = connect().welcome()
    body = frame(b'{"op":"store","set":{' + b",".join(b'"device/%d":"1"' % n for n in range(2000)) + b"}}")
    stop = threading.Event()

    def storm() -> None:
        peer.sock.settimeout(None)
        while not stop.is_set():
            peer.send_raw(body)

    thread = threading.Thread(target=storm)
    thread.start()
    good = InitiatorConnection(path, memory_nbytes=MEMORY)
    slowest = 0.0
    for _ in range(20):
        began = time.monotonic()
        good.request("echo")
        slowest = max(slowest, time.monotonic() - began)
    stop.set()
    thread.join()
    good.close()
    peer.close()
    assert slowest < 1.0


# ---- fuzz ----

TEXT = st.text(max_size=20)
PATHS = st.one_of(TEXT, st.from_regex(r"\A(device|backend)(/[a-z0-9]{1,3}){1,4}\Z"))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(PATHS, inner, max_size=3)),
    max_leaves=8,
)
FRAMES = st.fixed_dictionaries(
    {"op": st.sampled_from(["store", "event-channel", "event-channel-close", "request", "hello", "welcome", "", 7])},
    optional={
        "id": st.one_of(st.integers(0, 3), JSON),
        "port": st.one_of(st.integers(0, 3), JSON),
        "name": st.one_of(st.just("echo"), JSON),
        "fields": JSON,
        "set": st.one_of(JSON, st.dictionaries(PATHS, st.one_of(st.none(), TEXT), max_size=5)),
        "version": JSON,
        "regions": JSON,
        "table-frame": JSON,
        "table-pages": JSON,
    },
)


@given(st.booleans(), st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_frames_of_every_kind(greeted: bool, frames: list[dict[str, Any]], cuts: list[int]) -> None:
    """Whatever frames arrive, cut anywhere: `process` says whether the connection goes on, and never raises."""
    import json

    ours, theirs = socket.socketpair()
    connection = TargetConnection(ours, 1)
    connection.on_request("echo", lambda fields: {"fields": len(fields)})
    with theirs:
        if greeted:
            connection._ops = connection._ops_after_hello()
        data = b"".join(frame(json.dumps(each).encode()) for each in frames)
        at, turn, alive = 0, 0, True
        while at < len(data) and alive:
            step = cuts[turn % len(cuts)]
            theirs.sendall(data[at : at + step])
            at, turn = at + step, turn + 1
            alive = connection.process()
        assert connection.closed is not alive
        assert connection.error != "internal error"
        assert all(path.startswith("device/") for path in connection.store)
        connection.close()
        connection.release()
    assert connection.mapper is None or connection.mapper == ffi.NULL
