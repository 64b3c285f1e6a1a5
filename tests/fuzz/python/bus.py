# SPDX-License-Identifier: BSD-2-Clause
"""What a hostile target says by itself: on the socket, in the store, on the rings before and beside the commands.

Knows how the initiator's ends are made without a target; knows no frame and no IU.
"""

import contextlib
import errno
import os
import socket
from types import SimpleNamespace
from typing import Any
from unittest import mock

from fake_target import FakeTarget

from fuzz.python.conversation import DESCRIPTOR_KINDS
from fuzz.python.mutation import Reader, of_items
from fuzz.python.registry import target
from initiator import xenbus as initiator_xenbus
from initiator.errors import InitiatorError
from initiator.hba import SrpChannel
from vscsi import blkif, srp
from vscsi.bus import local_initiator
from vscsi.bus.errors import BusError
from vscsi.bus.store import Store
from vscsi.bus.xenbus import Action, Role, XenbusMachine
from vscsi.errors import LocalProtocolError, RemoteProtocolError
from vscsi.native import ffi, lib
from vscsi.nodes import SrpInitiatorNodes, SrpTargetNodes

JSON, RAW, EVENT, DESCRIPTORS = range(4)
"""Kinds of items: a frame's JSON; bytes; JSON with one event channel; JSON with descriptors of other kinds."""


def _event_channel() -> int:
    ends = ffi.new("int[2]")
    assert lib.vscsi_event_pair(ends) == 0
    os.close(ends[0])
    return int(ends[1])


def _say(sock: socket.socket, kind: int, body: bytes) -> None:
    if kind % 4 == RAW:
        sock.send(body)
        return
    fds = [_event_channel()] if kind % 4 == EVENT else []
    if kind % 4 == DESCRIPTORS and body:
        count = min(body[0], 4)
        fds = [DESCRIPTOR_KINDS[k % len(DESCRIPTOR_KINDS)]() for k in body[1 : 1 + count]]
        body = body[1 + count :]
    data = len(body).to_bytes(4, "little") + body
    socket.send_fds(sock, [data], fds) if fds else sock.send(data)
    for fd in fds:
        os.close(fd)


@target("answers-on-the-bus", BusError, RemoteProtocolError, mutate=of_items, weight=2)
def answers_on_the_bus(data: bytes) -> None:
    """The initiator asks for what it needs and gets the input for an answer; nothing of it stays open."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    ours.setblocking(False)
    with theirs:
        theirs.setblocking(False)
        with contextlib.suppress(OSError):
            for kind, body in Reader(data).items():
                _say(theirs, kind, body)
            theirs.shutdown(socket.SHUT_WR)
        with mock.patch.object(local_initiator, "_connect", lambda path, timeout: ours):
            try:
                connection = local_initiator.InitiatorConnection("/nowhere", memory_nbytes=1 << 16, timeout=0.01)
                try:
                    for ask in (connection.event_channel, connection.event_channel, lambda: connection.request("info")):
                        with contextlib.suppress(BusError):
                            ask()
                    while connection.process():
                        pass
                finally:
                    connection.close()
            finally:
                ours.close()
    assert len(os.listdir("/proc/self/fd")) <= before, "a descriptor is left"  # noqa: PTH208


# ---- nodes and states ----


def _nodes(data: bytes) -> dict[str, str]:
    lines = (line.partition("=") for line in data.decode(errors="replace").split("\n"))
    return {name: value for name, _, value in lines if name}


PARSERS = (
    SrpInitiatorNodes.parse,
    SrpTargetNodes.parse,
    blkif.Limits.parse,
    blkif.Properties.parse,
    lambda nodes: blkif.Request.parse(nodes, blkif.Limits(max_queues=4)),
)


class _Silent:
    """A connection that only has a store."""

    def __init__(self) -> None:
        self.store = Store()

    def watch(self, prefix: str, callback: Any) -> None:
        self.store.watch(prefix, callback)

    def unwatch(self, prefix: str, callback: Any) -> None:
        self.store.unwatch(prefix, callback)

    def write(self, batch: dict[str, str | None]) -> None:
        self.store.apply(batch, "device")

    def wait_for(self, predicate: Any, timeout: float, what: str) -> None:
        if not predicate():
            raise BusError(what)


@target("nodes", RemoteProtocolError, InitiatorError, mutate=of_items)
def nodes(data: bytes) -> None:
    """Nodes are numbers within bounds or refused; whatever states come, our own end never goes where it may not."""
    for kind, body in Reader(data).items():
        if kind % 8 < len(PARSERS):
            with contextlib.suppress(RemoteProtocolError):
                PARSERS[kind % 8](_nodes(body))
        elif kind % 8 == len(PARSERS):
            _states(Role.TARGET if body[:1] > b"@" else Role.INITIATOR, body[1:])
        else:
            _initiators_device(body)


def _states(role: Role, body: bytes) -> None:
    machine = XenbusMachine(role)
    step = machine.begin()
    try:
        for letter in body[:64].decode("latin-1"):
            for _ in range(8):
                if step is None or step.next is None:
                    break
                step = machine.enter(step.next)
            step = machine.peer_wrote(None if letter == "-" else letter)
    except LocalProtocolError as error:
        raise RuntimeError(f"{role}: led astray: {error}") from error


def _initiators_device(body: bytes) -> None:
    connection = _Silent()
    device = initiator_xenbus.Device(connection, "vscsi-srp", 0)  # type: ignore[arg-type]
    device.begin({})
    device.follow(lambda step: device.enter(step.next) if step.next is not None else None)
    for letter in body[:64].decode("latin-1"):
        value = None if letter == "-" else letter
        connection.store.notify(connection.store.apply({f"{device.peer_path}/state": value}, "backend"))
        with contextlib.suppress(InitiatorError):
            device.expect(Action.CONNECT, 0.0)
    device.remove()


# ---- login, and the reverse ring ----


class _Ring:
    """The channel's ring as `SrpChannel` sees it."""

    def __init__(self, here: FakeTarget) -> None:
        self.here, self.slots, self.why, self.error = here, here.slots, None, 0

    def drain(self, rc: int, why: str) -> None:
        self.error, self.why = rc, why


class _Reverse:
    """The reverse ring, with requests in it."""

    fd = -1

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.answers: list[bytes] = []

    def take(self) -> bytes | None:
        return self.requests.pop(0) if self.requests else None

    def answer(self, iu: bytes) -> None:
        self.answers.append(iu)

    def drain_event(self) -> int:
        return 0


@target("login", RemoteProtocolError, InitiatorError, mutate=of_items)
def login(data: bytes) -> None:
    """The first item answers the login, the others are what the target asks: a session goes on, or ends in one line."""
    here = FakeTarget(ring_pages=1, live=False, timeout_ms=10)
    try:
        channel = SrpChannel.__new__(SrpChannel)
        channel._poller = SimpleNamespace(remove=lambda fd: None)  # type: ignore[assignment]
        channel.tap, channel._closing, channel.c = None, False, here.c
        channel._reverse_lock = contextlib.nullcontext()  # type: ignore[assignment]
        channel.session = srp.InitiatorSession()
        channel.device = SimpleNamespace(name="vscsi-srp/0")  # type: ignore[assignment]
        channel.target = SimpleNamespace(target_port_id=bytes(16))  # type: ignore[assignment]
        channel.ring, channel.reverse = _Ring(here), _Reverse()  # type: ignore[assignment]
        items = list(Reader(data).items())
        if items:
            here.back.rsp_prod_pvt = here.back.rsp_prod_pvt  # nothing yet
            _answer_login(here, channel, items[0][1])
        for _, body in items[1:]:
            channel.reverse.requests.append(body.ljust(248, b"\0")[:248])  # type: ignore[attr-defined]
        channel._on_reverse()
        assert channel.ring.error in (0, -errno.EPROTO, -errno.ECONNRESET)
    finally:
        here.close()


def _answer_login(here: FakeTarget, channel: SrpChannel, body: bytes) -> None:
    """The answer lies there before it is waited for: nobody waits."""
    real = lib.vscsi_ring_respond

    def receive(c: Any, iu: Any, timeout_ms: int) -> int:
        here.take()
        real(here.back, body[:248], min(len(body), 248))
        here.kick()
        return int(initiator_lib.vi_channel_receive(c, iu, timeout_ms))

    from initiator import hba
    from initiator.native import lib as initiator_lib

    class Lib:
        def __getattr__(self, name: str) -> Any:
            return receive if name == "vi_channel_receive" else getattr(initiator_lib, name)

    with mock.patch.object(hba, "lib", Lib()):
        channel.request_limit = channel._login(bytes(range(16)), False, 0.05)
