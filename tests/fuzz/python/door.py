# SPDX-License-Identifier: BSD-2-Clause
"""A program behind the door that does not keep to its library: any message, any number of times, in any order.

Knows the shape of a message; its target is an honest disk of zeros. Every message has its answer, or ends the link.
"""

import contextlib
import os
import socket
from unittest import mock

from fuzz.python.mutation import Reader, of_items
from fuzz.python.programs import Answering
from fuzz.python.registry import target
from initiator.door import nodes
from initiator.door.server import REQUEST_NBYTES, Link
from initiator.native import ffi

MOST = 12
ANSWER_NBYTES = ffi.sizeof("struct door_answer")
FIELDS = [name for name, field in ffi.typeof("struct door_request").fields if name not in ("op", "text", "text_nbytes")]
NUMBERS = (
    0, 1, 2, 7, 511, 512, 4095, 4096, 4097, 1 << 20, 1 << 24, 1 << 31, (1 << 32) - 1, 1 << 33, (1 << 63) - 1,
    (1 << 64) - 1,
)  # fmt: skip
STAMP = "0123456789abcdef"
WHOLE, EXACT = 0x80, 0x40
"""An item's kind is the operation and its body picks numbers for the fields, one byte each, then text; with the first
bit its body is the message, filled up with zeros, and with both as it stands."""


def message(kind: int, body: bytes) -> bytes:
    if kind & WHOLE:
        return body if kind & EXACT else body.ljust(REQUEST_NBYTES, b"\0")
    request = ffi.new("struct door_request *")
    request.op = kind
    for name, choice in zip(FIELDS, body, strict=False):
        size = ffi.sizeof(dict(ffi.typeof("struct door_request").fields)[name].type)
        setattr(request, name, NUMBERS[choice % len(NUMBERS)] & ((1 << 8 * min(size, 8) - 1) - 1))
    text = body[len(FIELDS) :]
    room = ffi.sizeof(request.text)
    ffi.memmove(request.text, text, min(len(text), room))
    request.text_nbytes = len(text)
    return bytes(ffi.buffer(request))


@target("door", mutate=of_items, weight=2)
def door(data: bytes) -> None:
    """As many answers as messages, until one is none."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = nodes.Nodes({"default": None}, {"default": None})
    with mock.patch.object(nodes, "Initiator", lambda *_, **__: _honest()), theirs:
        theirs.setblocking(False)
        sent = 0
        with contextlib.suppress(OSError):
            for kind, body in Reader(data).items(MOST):
                theirs.send(message(kind, body)[: REQUEST_NBYTES + 1])
                sent += 1
        theirs.shutdown(socket.SHUT_WR)
        server = type("Server", (), {"nodes": made, "stamp": STAMP})()
        Link(server, ours).run()  # type: ignore[arg-type]
        answers = 0
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while True:
                answer, fds, _, _ = socket.recv_fds(theirs, ANSWER_NBYTES + 1, 4)
                for fd in fds:
                    os.close(fd)
                if not answer:
                    break
                assert len(answer) == ANSWER_NBYTES
                answers += 1
        assert answers <= sent
    assert len(os.listdir("/proc/self/fd")) <= before, "a descriptor is left"  # noqa: PTH208


def _honest() -> Answering:
    return Answering(Reader(b""))
