# SPDX-License-Identifier: BSD-2-Clause
"""The parent's end against a library that is wrong, stale or malicious: every message is answered or ends the link."""

import errno
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.door.nodes import Nodes
from initiator.door.server import OPERATIONS, REQUEST_NBYTES, Server
from initiator.native import ffi, lib

ANSWER_NBYTES = ffi.sizeof("struct door_answer")


@pytest.fixture(scope="module")
def server():
    made = Server(Nodes({"default": None}, {"default": None}))
    yield made
    made.close()


class Library:
    """The other end, by hand."""

    def __init__(self, server):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.socket.connect(server.environment["VSCSI_DOOR"].partition(":")[2])
        self.windows = []

    def ask(self, op, text=b"", **fields):
        request = ffi.new("struct door_request *", {"op": op, "text_nbytes": len(text), **fields})
        ffi.memmove(request.text, text, len(text))
        return self.send(bytes(ffi.buffer(request)))

    def send(self, data):
        self.socket.send(data)
        answer, fds, _, _ = socket.recv_fds(self.socket, ANSWER_NBYTES, 1)
        self.windows += fds
        if not answer:
            return None
        assert len(answer) == ANSWER_NBYTES
        found = ffi.new("struct door_answer *")
        ffi.memmove(found, answer, ANSWER_NBYTES)
        return found

    def close(self):
        self.socket.close()
        for fd in self.windows:
            os.close(fd)


@pytest.fixture
def library(server):
    made = Library(server)
    yield made
    made.close()


def test_window_cannot_be_shrunk(server, library):
    assert library.ask(lib.DOOR_HELLO, server.stamp.encode()).error == 0
    (fd,) = library.windows
    assert os.fstat(fd).st_size == lib.DOOR_WINDOW_FIRST
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    assert library.ask(lib.DOOR_WINDOW, nbytes=1 << 20).error == 0
    assert os.fstat(library.windows[1]).st_size == 1 << 20


def test_who_says_hello_again_and_again_has_one_window(server, library):
    def windows():
        names = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return sum("vscsi-door-window" in name for name in names)

    for _ in range(4):
        assert library.ask(lib.DOOR_HELLO, server.stamp.encode()).error == 0
    theirs = len(library.windows)
    assert theirs == 4
    until = time.monotonic() + 10
    while windows() > theirs + 2:  # the mapping has a descriptor of its own; a link of another test may be about to end
        assert time.monotonic() < until, windows()
        time.sleep(0.01)


def test_library_of_other_sources_is_refused(library):
    assert library.ask(lib.DOOR_HELLO, b"0123456789abcdef").error == errno.ELIBACC
    assert library.windows == []


@pytest.mark.parametrize("nbytes", [0, 1, 4097, 1 << 40, lib.DOOR_WINDOW_MAX + 4096])
def test_window_of_no_good_size(library, nbytes):
    assert library.ask(lib.DOOR_WINDOW, nbytes=nbytes).error == errno.ENOMEM


def test_unknown_operation_and_file(library):
    assert library.ask(99).error == errno.ENOSYS
    for op in (lib.DOOR_READ, lib.DOOR_PLACE, lib.DOOR_FACT, lib.DOOR_FLUSH, lib.DOOR_RESET):
        assert library.ask(op, file=7).error in (errno.EBADF, errno.EINVAL)


def test_message_of_the_wrong_size_ends_the_link(library):
    assert library.send(b"x" * (REQUEST_NBYTES + 1)) is None


@given(st.binary(min_size=REQUEST_NBYTES, max_size=REQUEST_NBYTES), st.sampled_from([*sorted(OPERATIONS), 0, 15]))
def test_fuzz_no_message_takes_the_parent_down(server, data, op):
    made = Library(server)
    try:
        answer = made.send(int(op).to_bytes(4, "little") + data[4:])
        assert answer is not None
        # Nothing is open, so hardly anything can succeed.
        assert answer.error != 0 or op == lib.DOOR_WINDOW
        assert made.ask(99).error == errno.ENOSYS
    finally:
        made.close()
