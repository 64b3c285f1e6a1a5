# SPDX-License-Identifier: BSD-2-Clause
"""Initiators without manners: whatever they send, only their own connection ends, with one line in the log.

Every test here ends with a well-behaved initiator that still gets its answer from the same target.
"""

import errno
import os
import resource
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.bus import local_target
from vscsi.bus.connection import OUTGOING_NBYTES_MAX
from vscsi.bus.local import BusError, InitiatorConnection, Listener, TargetConnection
from vscsi.bus.wire import FRAME_NBYTES_MAX
from vscsi.native import ffi

MEMORY = 1 << 20
Connect = Callable[[], Any]


@pytest.fixture
def target(serve: Callable[..., Any], path: Path, open_fds: Callable[[], dict[int, str]]) -> Iterator[Any]:
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


def ends(peer: Any, target: Any, error: str, caplog: pytest.LogCaptureFixture, *, refused: bool = False) -> None:
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


def frame(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


# ---- hello ----


def test_memfd_without_the_seal(target: Any, connect: Connect, memfd: Any, caplog: pytest.LogCaptureFixture) -> None:
    peer = connect()
    peer.hello(fd=memfd(MEMORY, seals=0))
    ends(peer, target, "a memory region is not sealed", caplog, refused=True)


def test_hugetlb(target: Any, connect: Connect, memfd: Any, caplog: pytest.LogCaptureFixture) -> None:
    try:
        fd = memfd(2 << 20, flags=os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    except OSError as error:
        pytest.skip(f"no hugetlb memfds here: {error}")
    peer = connect()
    peer.hello(2 << 20, fd=fd)
    ends(peer, target, "not an ordinary memfd", caplog, refused=True)


@pytest.mark.parametrize("kind", ["file", "pipe", "socket", "folder", "null"])
def test_descriptor_that_is_no_memfd(
    target: Any, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    (tmp_path / "file").write_bytes(bytes(MEMORY))
    opened = {
        "file": lambda: [os.open(tmp_path / "file", os.O_RDWR)],
        "pipe": lambda: list(os.pipe()),
        "socket": lambda: [end.detach() for end in socket.socketpair()],
        "folder": lambda: [os.open(tmp_path, os.O_RDONLY)],
        "null": lambda: [os.open("/dev/null", os.O_RDWR)],
    }[kind]()
    peer = connect()
    peer.hello(fd=opened[0])
    ends(peer, target, "not an ordinary memfd", caplog, refused=True)
    for fd in opened:
        os.close(fd)


def test_memfd_that_may_not_be_written(
    target: Any, connect: Connect, memfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    peer = connect()
    peer.hello(fd=memfd(MEMORY, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE))
    ends(peer, target, "a memory region is not sealed as it must be", caplog, refused=True)


@pytest.mark.parametrize("actual", [0, 4096, MEMORY - 4096, MEMORY + 4096, 1 << 35])
def test_memfd_of_another_size(
    target: Any, connect: Connect, memfd: Any, caplog: pytest.LogCaptureFixture, actual: int
) -> None:
    peer = connect()
    peer.hello(MEMORY, fd=memfd(actual))
    ends(peer, target, "a memory region is not", caplog, refused=True)


BAD_HELLOS = [
    ({"version": 2}, "bus version '2'"),
    ({"version": "1"}, "bus version '1'"),
    ({"version": None}, "bus version 'None'"),
    ({"regions": []}, "1 to 16 memory regions"),
    ({"regions": "many"}, "1 to 16 memory regions"),
    ({"regions": [MEMORY] * 17}, "1 to 16 memory regions"),
    ({"regions": [0]}, "more memory than"),
    ({"regions": [-4096]}, "more memory than"),
    ({"regions": [True]}, "more memory than"),
    ({"regions": [4096.0]}, "more memory than"),
    ({"regions": [(16 << 20) + 4096]}, "more memory than the 16777216 bytes"),
    ({"regions": [9 << 20, 9 << 20]}, "more memory than"),
    ({"regions": [10**400]}, "more memory than"),
    ({"regions": [100]}, "not as long"),
    ({"regions": [MEMORY, MEMORY]}, "hello brings 1 descriptors for 2 memory regions"),
    ({"table-frame": -1}, "table-frame is not a number"),
    ({"table-frame": MEMORY // 4096}, "not an ordinary memfd of whole pages, or"),
    ({"table-frame": "0"}, "table-frame is not a number"),
    ({"table-pages": 0}, "table-pages is not a number"),
    ({"table-pages": 2}, "table-pages is not a number"),
    ({"table-pages": 1 << 40}, "table-pages is not a number"),
]


@pytest.mark.parametrize(("fields", "error"), BAD_HELLOS)
def test_bad_hello(
    target: Any, connect: Connect, caplog: pytest.LogCaptureFixture, fields: dict[str, Any], error: str
) -> None:
    peer = connect()
    peer.hello(**fields)
    ends(peer, target, error, caplog, refused=True)


def test_hello_without_memory(target: Any, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    peer = connect()
    peer.send("hello", version=1, regions=[MEMORY], table_frame=0, table_pages=1)
    ends(peer, target, "hello brings 0 descriptors", caplog, refused=True)


def test_hello_with_surplus_descriptors(
    target: Any, connect: Connect, memfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = connect()
    peer.send("hello", [memfd(MEMORY) for _ in range(3)], version=1, regions=[MEMORY], table_frame=0, table_pages=1)
    ends(peer, target, "hello brings 3 descriptors for 1", caplog, refused=True)


def test_hello_with_hundreds_of_descriptors(
    target: Any, connect: Connect, memfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = connect()
    peer.send("hello", [memfd(MEMORY)] * 250, version=1, regions=[MEMORY], table_frame=0, table_pages=1)
    ends(peer, target, "descriptors that nobody asked for", caplog)


def test_descriptors_dripped_into_an_unfinished_frame(
    target: Any, connect: Connect, memfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = connect()
    fd = memfd(MEMORY)
    peer.send_raw(b"\xff")
    for _ in range(40):
        peer.send_raw(b"\0", [fd])
    ends(peer, target, "", caplog)


def test_descriptors_after_hello(target: Any, connect: Connect, memfd: Any, caplog: pytest.LogCaptureFixture) -> None:
    peer = connect().welcome()
    peer.send("store", [memfd(MEMORY)], set={"device/x": "1"})
    ends(peer, target, "descriptors that nobody asked for", caplog)


def test_hello_twice(target: Any, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    peer = connect().welcome()
    peer.send("hello", version=1, regions=[MEMORY], table_frame=0, table_pages=1)
    ends(peer, target, "hello twice", caplog)


@pytest.mark.parametrize("op", ["store", "event-channel", "request", "event-channel-close"])
def test_anything_before_hello(target: Any, connect: Connect, caplog: pytest.LogCaptureFixture, op: str) -> None:
    peer = connect()
    peer.send(op, id=1, set={"device/x": "1"}, name="echo", fields={}, port=1)
    ends(peer, target, f"{op} before hello", caplog)


def test_hello_never(
    target: Any, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_target, "HELLO_SECONDS", 0.05)
    silent = connect()
    time.sleep(0.1)
    connect().close()  # the next to come finds it overdue
    ends(silent, target, "no hello within", caplog)


@pytest.mark.parametrize("begun", [b"\x20", b"\x20\0\0\0", b'\x20\0\0\0{"op":'])
def test_frame_never_finished(
    target: Any, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(local_target, "FRAME_SECONDS", 0.05)
    slow = connect().welcome()
    slow.send_raw(begun)
    deadline = time.monotonic() + 5
    while not target.ended and time.monotonic() < deadline:
        time.sleep(0.06)
        connect().close()
    target.ended = [reason for reason in target.ended if reason]
    ends(slow, target, "a message not complete", caplog)


# ---- frames ----

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
    target: Any, connect: Connect, caplog: pytest.LogCaptureFixture, greeted: bool, data: bytes, error: str
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
def test_bad_batch(target: Any, connect: Connect, caplog: pytest.LogCaptureFixture, batch: Any, error: str) -> None:
    peer = connect().welcome()
    seen: list[str] = []
    connection = target.connections[-1]
    connection.watch("", seen.append)
    peer.send("store", set=batch)
    ends(peer, target, error, caplog)
    assert seen == []
    assert dict(connection.store) == {}


def test_too_many_nodes(target: Any, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
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


# ---- event channels, requests, and a peer that does not read ----


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
    target: Any, connect: Connect, caplog: pytest.LogCaptureFixture, request_id: object
) -> None:
    peer = connect().welcome()
    peer.send("event-channel", id=request_id)
    ends(peer, target, "id is not a number", caplog)


@pytest.mark.parametrize(("name", "fields"), [(None, {}), (1, {}), ("echo", None), ("echo", [])])
def test_bad_request(
    target: Any, connect: Connect, caplog: pytest.LogCaptureFixture, name: object, fields: object
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


# ---- the listener ----


def test_connection_limit(serve: Callable[..., Any], path: Path, wait_until: Callable[..., None]) -> None:
    target = serve(max_connections=2)
    first, second = (InitiatorConnection(path, memory_nbytes=MEMORY) for _ in range(2))
    with pytest.raises(BusError, match="refuses the connection: this target has 2 connections already"):
        InitiatorConnection(path, memory_nbytes=MEMORY)
    first.close()
    wait_until(lambda: len(target.connections) == 1)
    third = InitiatorConnection(path, memory_nbytes=MEMORY)
    assert third.domid == 3
    second.close()
    third.close()


def test_silent_connections_do_not_use_up_the_limit_for_long(
    serve: Callable[..., Any], path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_target, "HELLO_SECONDS", 0.05)
    serve(max_connections=3)
    for _ in range(3):
        connect()
    time.sleep(0.1)
    with pytest.raises(BusError, match="connections already"):  # finds them overdue; they end right after
        InitiatorConnection(path, memory_nbytes=MEMORY)
    deadline = time.monotonic() + 5
    while True:
        try:
            InitiatorConnection(path, memory_nbytes=MEMORY).close()
            break
        except BusError:
            assert time.monotonic() < deadline


def test_uid_filter(serve: Callable[..., Any], path: Path) -> None:
    target = serve(allow_uids={os.getuid() + 1})
    assert path.stat().st_mode & 0o777 == 0o666
    with pytest.raises(BusError, match=f"refuses the connection: user {os.getuid()} may not use this target"):
        InitiatorConnection(path, memory_nbytes=MEMORY)
    assert target.connections == []


def test_socket_is_for_its_owner_alone(serve: Callable[..., Any], path: Path) -> None:
    serve()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_by_name() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        listener = Listener(folder / "t.sock", allow_uids={0, 12345})
        with socket.socket(socket.AF_UNIX) as sock:
            pid = os.fork()
            if pid == 0:
                try:
                    os.setuid(12346)
                    sock.connect(str(folder / "t.sock"))
                    answer = sock.recv(4096)
                    os._exit(0 if b"user 12346 may not use this target" in answer else 1)
                except BaseException:
                    os._exit(2)
            select.select([listener], [], [], 5)
            assert listener.accept() is None
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        listener.close()


def test_out_of_descriptors(serve: Callable[..., Any], path: Path, connect: Connect) -> None:
    target = serve()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    peer = connect()
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
        peer.welcome()
        extra = socket.socket(socket.AF_UNIX)
        extra.settimeout(5)
        try:
            while True:
                taken.append(os.dup(0))
        except OSError as error:
            assert error.errno == errno.EMFILE
        extra.connect(str(path))
        assert b"no file descriptor left" in extra.recv(4096)
        peer.send("event-channel", id=1)
        answer = peer.receive()
        assert answer is not None
        assert "cannot make an event channel" in answer["error"]
    finally:
        for fd in taken:
            os.close(fd)
        extra.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    late = InitiatorConnection(path, memory_nbytes=MEMORY)
    late.event_channel()
    late.close()
    assert target.alive


# ---- a target without manners ----


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b'{"op":"welcome","version":1,"domid":0}', "domid is not a number"),
        (b'{"op":"welcome","version":9,"domid":1}', "another version"),
        (b'{"op":"refused","reason":"\\u001b[2Jx"}', "no reason given"),
        (b'{"op":"refused"}', "no reason given"),
        (b'{"op":"refused","reason":"full"}', "refuses the connection: full"),
        (b'{"op":"store","set":{"device/x":"1"}}', "outside the writer's own directory backend/"),
        (b'{"op":"event-channel","id":1,"port":1}', "0 descriptors where 1 belong"),
        (b'{"op":"hello"}', "unknown operation 'hello'"),
        (b"x", "malformed JSON"),
    ],
)
def test_initiator_believes_nothing(path: Path, said: bytes, error: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=lambda: listening.accept()[0].sendall(frame(said)))
        thread.start()
        with pytest.raises(BusError) as caught:
            InitiatorConnection(path, memory_nbytes=MEMORY)
        thread.join()
    assert error in str(caught.value)


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
