# SPDX-License-Identifier: BSD-2-Clause
"""Initiators that are too many, or not allowed, or come when descriptors have run out; and a target without manners."""

import errno
import os
import resource
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vscsi.bus import local_target
from vscsi.bus.local import BusError, InitiatorConnection, Listener

MEMORY = 1 << 20
Connect = Callable[[], Any]
Ends = Callable[..., None]


def frame(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


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
