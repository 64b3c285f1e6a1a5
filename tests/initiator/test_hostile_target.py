# SPDX-License-Identifier: BSD-2-Clause
"""A target without manners, from the initiator's side: silent at every step, wrong states, floods of nodes and of
requests, descriptors that nobody asked for, names that are commands to a terminal. The initiator ends with one clear
error in bounded time, and keeps nothing.
"""

import contextlib
import gc
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import Disk
from programs import BIN

from initiator import ConnectError, TransportError
from vscsi import srp
from vscsi.bus.local import BusError, InitiatorConnection
from vscsi.bus.store import NODES_MAX
from vscsi.nodes import SrpTargetNodes

TUR = bytes(6)
ESCAPE = b"\x1b]0;owned\x07\x9b2J"


def held() -> tuple[int, int]:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


# ---- silence ----


@pytest.mark.parametrize(
    ("silent", "words"),
    [("1", "waited for vscsi-srp/0 (publish)"), ("3", "waited for vscsi-srp/0 (connect)")],
)
def test_silent_in_the_handshake(server, connect, silent, words):
    server.silent = {silent}
    before = held()
    with pytest.raises(ConnectError) as caught:
        connect(timeout=0.2)
    assert words in str(caught.value)
    server.until(lambda: not server.devices)
    assert held() <= (before[0] + 2, before[1]), "the server's own end may still be closing"


def test_silent_to_commands_and_to_the_end(server, connect):
    server.command = lambda cmd, out: None
    server.management = lambda iu: None
    initiator = connect(timeout=0.2)
    server.silent = {"5", "6", None}
    with pytest.raises(TransportError):
        initiator.execute(0, TUR)
    initiator.close()


@pytest.fixture
def talker(tmp_path: Path) -> Iterator[socket.socket]:
    """A listening socket behind which a test says what it likes."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "t"))
        listening.listen()
        yield listening


def frame(body: dict) -> bytes:
    text = json.dumps(body).encode()
    return struct.pack("<I", len(text)) + text


def conversation(listening: socket.socket, *said: object) -> threading.Thread:
    """Accepts one connection and answers whatever it hears with the next of these: a frame, one with descriptors, or
    many frames."""

    def run() -> None:
        sock, _ = listening.accept()
        with sock, contextlib.suppress(OSError):
            for what in said:
                sock.recv(65536)
                body, fds = what if isinstance(what, tuple) else (what, [])
                if isinstance(body, bytes):
                    sock.sendall(body)
                elif fds:
                    socket.send_fds(sock, [frame(body)], fds)
                else:
                    sock.sendall(frame(body))
            while sock.recv(65536):
                pass

    thread = threading.Thread(target=run)
    thread.start()
    return thread


WELCOME = {"op": "welcome", "version": 1, "domid": 1}


def test_silent_before_welcome(talker):
    before = held()
    with pytest.raises(BusError, match=r"within 0.2 s; waited for welcome"):
        InitiatorConnection(talker.getsockname(), memory_nbytes=1 << 20, timeout=0.2)
    assert held() == before


def test_silent_when_asked(talker):
    thread = conversation(talker, WELCOME)
    connection = InitiatorConnection(talker.getsockname(), memory_nbytes=1 << 20, timeout=0.2)
    with pytest.raises(BusError, match="waited for the answer to event-channel"):
        connection.event_channel()
    with pytest.raises(BusError, match="waited for the answer to info"):
        connection.request("info")
    connection.close()
    thread.join()


# ---- states and nodes ----


@pytest.mark.parametrize("at", ["1", "3"])
@pytest.mark.parametrize("state", ["0", "6", "9", "x", "4" * 1000, "\u0662"])
def test_wrong_states(server, connect, at, state):
    server.lies = {at: state}
    with pytest.raises(ConnectError) as caught:
        connect(timeout=0.2)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "change",
    [
        {"target-port-id": "x" * 32},
        {"target-port-id": ""},
        {"max-ring-page-order": "99"},
        {"max-ring-page-order": "9" * 1000},
        {"feature-persistent": "2"},
        {"max-transfer": "-1"},
    ],
)
def test_nodes_that_make_no_sense(server, connect, change, monkeypatch):
    def lie(self) -> dict[str, str]:
        return honest(self) | change

    honest = SrpTargetNodes.nodes
    monkeypatch.setattr(SrpTargetNodes, "nodes", lie)
    with pytest.raises(ConnectError) as caught:
        connect(timeout=2)
    assert next(iter(change)) in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_long_reason_is_cut(server, connect):
    server.refuse = "because " * 400
    with pytest.raises(ConnectError) as caught:
        connect()
    assert len(str(caught.value)) < 300


def test_a_flood_of_nodes_ends_the_connection(talker):
    flood = b"".join(frame({"op": "store", "set": {f"backend/x/{n}": "v" * 1000}}) for n in range(NODES_MAX + 1))
    thread = conversation(talker, WELCOME, flood)
    connection = InitiatorConnection(talker.getsockname(), memory_nbytes=1 << 20, timeout=10)
    with pytest.raises(BusError, match="nodes"):
        connection.request("info")
    assert len(connection.store) <= NODES_MAX
    connection.close()
    thread.join()


# ---- the reverse ring ----


def test_a_flood_of_asynchronous_events_is_answered_one_by_one(server, connect):
    initiator = connect()
    disk = Disk()
    disk.attentions = 0
    server.command = disk
    for tag in range(100):
        aer = srp.AerReq(0, 0, tag, os.urandom(8), os.urandom(tag % 200))
        server.do(lambda d, aer=aer: d.reverse.ask(srp.encode(aer)))
        server.until(lambda tag=tag: len(server.reverse_answers) == tag + 1)
    initiator.execute(0, TUR).raise_for_status()


@pytest.mark.parametrize("delta", [-0x80000000, 0x7FFFFFFF])
def test_credit_that_cannot_be(server, connect, delta):
    initiator = connect()
    server.do(lambda d: d.reverse.ask(srp.encode(srp.CredReq(0, delta, 1))))
    server.until(lambda: not initiator.alive or len(server.reverse_answers) == 1)
    with contextlib.suppress(TransportError):
        initiator.execute(0, TUR, timeout=0.3)
    initiator.close()


def test_logged_out_again_and_again(server, connect):
    initiator = connect()
    for tag in range(5):
        server.do(lambda d, tag=tag: d.reverse and d.reverse.ask(srp.encode(srp.TLogout(0, 0, tag))))
    with pytest.raises(TransportError, match=r"logged us out|protocol"):
        for _ in range(100):
            initiator.execute(0, TUR, timeout=1)


# ---- descriptors ----


@pytest.mark.parametrize("kind", ["pipe", "file", "stream", "seqpacket"])
@pytest.mark.parametrize("op", ["store", "reply"])
def test_descriptors_that_nobody_asked_for_are_closed(talker, tmp_path, kind, op):
    bodies = {"store": {"op": "store", "set": {"backend/x": "1"}}, "reply": {"op": "reply", "id": 1, "result": {}}}
    with contextlib.ExitStack() as stack:
        fds = some_descriptors(stack, tmp_path, kind)
        before = held()
        thread = conversation(talker, WELCOME, (bodies[op], fds))
        connection = InitiatorConnection(talker.getsockname(), memory_nbytes=1 << 20, timeout=5)
        with pytest.raises(BusError, match="descriptors that nobody asked for"):
            for _ in range(2):  # an answer that comes with them still counts
                connection.request("info")
        connection.close()
        thread.join()
        assert held() == before


def some_descriptors(stack: contextlib.ExitStack, folder: Path, kind: str) -> list[int]:
    if kind == "file":
        return [stack.enter_context((folder / "f").open("wb")).fileno()]
    if kind == "pipe":
        fds = list(os.pipe())
    else:
        type_ = socket.SOCK_STREAM if kind == "stream" else socket.SOCK_SEQPACKET
        fds = [end.detach() for end in socket.socketpair(socket.AF_UNIX, type_)]
    for fd in fds:
        stack.callback(os.close, fd)
    return fds


@pytest.mark.parametrize("kind", ["pipe", "file", "stream"])
def test_an_event_channel_that_is_none(talker, tmp_path, kind):
    """Another kind of descriptor in its place could block, or fill up a disk."""
    with contextlib.ExitStack() as stack:
        fds = some_descriptors(stack, tmp_path, kind)[:1]
        before = held()
        thread = conversation(talker, WELCOME, ({"op": "event-channel", "id": 1, "port": 1}, fds))
        connection = InitiatorConnection(talker.getsockname(), memory_nbytes=1 << 20, timeout=5)
        with pytest.raises(BusError, match="is no event channel"):
            connection.event_channel()
        connection.close()
        thread.join()
        assert held() == before


# ---- what a terminal is told ----


def test_no_escape_sequence_reaches_the_terminal(server, monkeypatch):
    disk = Disk()

    def command(cmd, out):
        if cmd.cdb[0] == 0x12 and cmd.cdb[1] & 1:
            return {"data": bytes((0, cmd.cdb[2], 0, len(ESCAPE))) + ESCAPE}
        if cmd.cdb[0] == 0x12:
            return {"data": bytes((0, 0, 6, 2, 91, 0, 0, 2)) + (ESCAPE * 3)[:28] + bytes(60)}
        return disk(cmd, out)

    server.command = command
    for words in (["list", "-v", "--size"], ["inquiry"], ["inquiry", "--page", "0x80"], ["inquiry", "--page", "0x83"]):
        done = subprocess.run(
            [BIN / "vscsi-initiator", "--socket", server.path, *words], capture_output=True, timeout=60, check=False
        )
        assert b"Traceback" not in done.stderr
        assert not set(done.stdout + done.stderr) & set(b"\x1b\x07\x9b\x9d"), (words, done)
        assert done.stdout, words
    assert server.failure is None


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({}, b"makes no sense"),
        ({"name": 1, "version": None, "pid": [], "engine": {}, "luns": 7, "initiators": "x"}, b"makes no sense"),
        (
            {"name": "\x1b[2J\udc9b", "version": "1\r2", "pid": 1, "engine": "e", "luns": [], "initiators": []},
            b"?[2J? 1?2, pid 1, e",
        ),
    ],
)
def test_the_administrator_is_told_nothing_either(talker, result, words):
    thread = conversation(talker, WELCOME, {"op": "reply", "id": 1, "result": result})
    command = [BIN / "vscsi-admin", "-U", talker.getsockname(), "status"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    thread.join()
    assert words in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
