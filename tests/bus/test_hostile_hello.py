# SPDX-License-Identifier: BSD-2-Clause
"""An initiator that says hello badly, or never: only its own connection ends, with one line in the log.

Where the fixture `target` serves, a well-behaved initiator is there all along and still gets its answers at the end.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vscsi.bus import local_target

MEMORY = 1 << 20
Connect = Callable[[], Any]
Ends = Callable[..., None]


def test_memfd_without_the_seal(
    target: Any, connect: Connect, ends: Ends, memfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = connect()
    peer.hello(fd=memfd(MEMORY, seals=0))
    ends(peer, target, "a memory region is not sealed", caplog, refused=True)


def test_hugetlb(target: Any, connect: Connect, ends: Ends, memfd: Any, caplog: pytest.LogCaptureFixture) -> None:
    try:
        fd = memfd(2 << 20, flags=os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    except OSError as error:
        pytest.skip(f"no hugetlb memfds here: {error}")
    peer = connect()
    peer.hello(2 << 20, fd=fd)
    ends(peer, target, "not an ordinary memfd", caplog, refused=True)


@pytest.mark.parametrize("kind", ["file", "pipe", "socket", "folder", "null"])
def test_descriptor_that_is_no_memfd(
    target: Any, connect: Connect, ends: Ends, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
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
    target: Any, connect: Connect, ends: Ends, memfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    peer = connect()
    peer.hello(fd=memfd(MEMORY, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE))
    ends(peer, target, "a memory region is not sealed as it must be", caplog, refused=True)


@pytest.mark.parametrize("actual", [0, 4096, MEMORY - 4096, MEMORY + 4096, 1 << 35, 1 << 40])
def test_memfd_of_another_size(
    target: Any, connect: Connect, ends: Ends, memfd: Any, caplog: pytest.LogCaptureFixture, actual: int
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
    target: Any, connect: Connect, ends: Ends, caplog: pytest.LogCaptureFixture, fields: dict[str, Any], error: str
) -> None:
    peer = connect()
    peer.hello(**fields)
    ends(peer, target, error, caplog, refused=True)


def test_hello_without_memory(target: Any, connect: Connect, ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    peer = connect()
    peer.send("hello", version=1, regions=[MEMORY], table_frame=0, table_pages=1)
    ends(peer, target, "hello brings 0 descriptors", caplog, refused=True)


def test_hello_with_surplus_descriptors(
    target: Any, connect: Connect, ends: Ends, memfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = connect()
    peer.send("hello", [memfd(MEMORY) for _ in range(3)], version=1, regions=[MEMORY], table_frame=0, table_pages=1)
    ends(peer, target, "hello brings 3 descriptors for 1", caplog, refused=True)


def test_hello_with_hundreds_of_descriptors(
    target: Any, connect: Connect, ends: Ends, memfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = connect()
    peer.send("hello", [memfd(MEMORY)] * 250, version=1, regions=[MEMORY], table_frame=0, table_pages=1)
    ends(peer, target, "descriptors that nobody asked for", caplog)


def test_descriptors_dripped_into_an_unfinished_frame(
    target: Any, connect: Connect, ends: Ends, memfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = connect()
    fd = memfd(MEMORY)
    peer.send_raw(b"\xff")
    for _ in range(40):
        peer.send_raw(b"\0", [fd])
    ends(peer, target, "", caplog)


def test_descriptors_after_hello(
    target: Any, connect: Connect, ends: Ends, memfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = connect().welcome()
    peer.send("store", [memfd(MEMORY)], set={"device/x": "1"})
    ends(peer, target, "descriptors that nobody asked for", caplog)


def test_hello_twice(target: Any, connect: Connect, ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    peer = connect().welcome()
    peer.send("hello", version=1, regions=[MEMORY], table_frame=0, table_pages=1)
    ends(peer, target, "hello twice", caplog)


@pytest.mark.parametrize("op", ["store", "event-channel", "request", "event-channel-close"])
def test_anything_before_hello(
    target: Any, connect: Connect, ends: Ends, caplog: pytest.LogCaptureFixture, op: str
) -> None:
    peer = connect()
    peer.send(op, id=1, set={"device/x": "1"}, name="echo", fields={}, port=1)
    ends(peer, target, f"{op} before hello", caplog)


def test_hello_never(
    target: Any, connect: Connect, ends: Ends, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_target, "HELLO_SECONDS", 0.05)
    silent = connect()
    time.sleep(0.1)
    connect().close()  # the next to come finds it overdue
    ends(silent, target, "no hello within", caplog)


@pytest.mark.parametrize("begun", [b"\x20", b"\x20\0\0\0", b'\x20\0\0\0{"op":'])
def test_frame_never_finished(
    target: Any,
    connect: Connect,
    ends: Ends,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    begun: bytes,
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
