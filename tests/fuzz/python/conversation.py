# SPDX-License-Identifier: BSD-2-Clause
"""A hostile initiator's whole conversation with a target: what it says on the socket, with whatever descriptors, what
it writes into its rings, and when it kicks. The server is the product's; its loops are Python's (`fake_native`), run
step by step in one thread.

Its memory has a grant for every page and else zeros, which are an empty ring, so that whatever page a node names will
do. Knows frames and slots; knows no IU.
"""

import contextlib
import fcntl
import json
import mmap
import os
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace

from fake_native import FFI, FakeFfi, FakeLib
from python_loops import FakeServer, unit

from fuzz.python.mutation import Reader, of_items
from fuzz.python.registry import target
from target.server import ServerOptions
from vscsi.bus.local_listener import Listener
from vscsi.native import ffi, lib

PAGE = int(lib.VSCSI_PAGE_SIZE)
FRAMES = 1024
MOST_NBYTES = 64 << 20
PORT_ID = bytes(range(16))
"""The target's, in recordings as well."""
RESERVED = int(lib.VSCSI_GREF_RESERVED)
SLOT = int(lib.VSCSI_SRP_SLOT)
JSON, RAW, HELLO, FORWARD, REVERSE, MEMORY, KICK, DESCRIPTORS, TURNS = range(9)
"""Kinds of items: a frame's JSON; bytes as they are; hello's JSON, which brings the memory; a request for the ring at
the page whose number stands in 2 bytes, and an answer on it; bytes for the memory at an offset of 4 bytes; a kick on
the body[0]th event channel; a frame with descriptors of the kinds that body[1:1 + body[0]] says; time for the target.
"""


class StillLib(FakeLib):
    """Loops that move only when they are told to."""

    def vt_start(self, _target: object) -> int:
        self._running = True
        return 0

    def vt_stop_within(self, _target: object, _ms: int) -> int:
        self._running = False
        return 0

    def step(self) -> None:
        for number, channel in list(self.channels.items()):
            self._serve(number, channel)


def _memory() -> bytes:
    """A grant table: a grant of every page."""
    entries = FFI.new("uint64_t[]", FRAMES + RESERVED)
    granter = ffi.new("struct vscsi_granter *", {"table": ffi.cast("uint64_t *", int(FFI.cast("uintptr_t", entries))),
                                                 "nr_grants": FRAMES + RESERVED})  # fmt: skip
    for frame in range(1, FRAMES):
        lib.vscsi_granter_grant(granter, frame + RESERVED, 0, frame, 0)
    return bytes(FFI.buffer(entries))


MEMORY_AT_FIRST = _memory()


def _memfd(*, seal: bool = True, nbytes: int = FRAMES * PAGE) -> int:
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, nbytes)
    if seal:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def _promised(hello: bytes) -> int:
    """How much memory a hello says that it brings, if that is not too much."""
    try:
        nbytes = json.loads(hello)["regions"][0]
        return nbytes if FRAMES * PAGE <= nbytes <= MOST_NBYTES else FRAMES * PAGE
    except (ValueError, LookupError, TypeError, RecursionError):
        return FRAMES * PAGE


def _stream() -> int:
    one, two = socket.socketpair()
    two.close()
    return one.detach()


DESCRIPTOR_KINDS = (
    _memfd,
    lambda: _memfd(seal=False),
    lambda: _memfd(nbytes=PAGE // 2),
    lambda: _memfd(nbytes=0),
    lambda: os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC),
    lambda: os.open("/", os.O_RDONLY | os.O_CLOEXEC),
    lambda: os.eventfd(0),
    _stream,
)


class World:
    """One target, for all inputs."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vscsi-fuzz-")
        self.path = Path(self._folder.name) / "socket"
        self.lib = StillLib()
        units = [unit(0), unit(3, readonly=True)]
        options = ServerOptions(max_channels=2, target_port_id=PORT_ID)
        native = SimpleNamespace(ffi=FakeFfi(), lib=self.lib)
        self.server = FakeServer(Listener(self.path), units, options, native=native)
        self.server.admin.ask = lambda uid, fields: {"ticket": 1}  # type: ignore[method-assign]  # has a target of its own
        self.server._start()

    def turns(self, most: int = 40) -> None:
        """Until the target has nothing more to do."""
        for _ in range(most):
            self.lib.step()
            before = len(self.lib.calls)
            self.server._turn(0)
            if not self.lib.events and len(self.lib.calls) == before and not self.server.turns._unfinished:
                return

    def clear(self) -> None:
        """Every connection ends; what is due later is due now."""
        for _ in range(100):
            self.turns()
            if not self.server.peers:
                return
            self.server._timers = [(0.0, function) for _, function in self.server._timers]
        raise AssertionError(f"{self.server.peers} do not end")


_worlds: list[World] = []


def world() -> World:
    """Made when it is first wanted."""
    if not _worlds:
        _worlds.append(World())
    return _worlds[0]


class Initiator:
    """The hostile end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(world.path))
        self.socket.setblocking(False)
        self.fds: list[int] = []
        self.memory: mmap.mmap | None = None
        self.rings: dict[int, object] = {}

    def send(self, data: bytes, fds: list[int] | None = None) -> None:
        with contextlib.suppress(OSError):
            if fds:
                socket.send_fds(self.socket, [data], fds)
            else:
                self.socket.send(data)

    def hear(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, fds, _, _ = socket.recv_fds(self.socket, 1 << 16, 16)
                self.fds += fds
                if not data:
                    return

    def say(self, kind: int, body: bytes) -> None:
        _SAY[kind % len(_SAY)](self, body)
        if kind != RAW:
            self.world.turns()
            self.hear()

    def _json(self, body: bytes) -> None:
        self.send(len(body).to_bytes(4, "little") + body)

    def _hello(self, body: bytes) -> None:
        nbytes = _promised(body)
        fd = _memfd(nbytes=nbytes)
        os.pwrite(fd, MEMORY_AT_FIRST[:nbytes], 0)
        if self.memory is None:
            self.memory = mmap.mmap(fd, nbytes)
        self.send(len(body).to_bytes(4, "little") + body, [fd])
        os.close(fd)

    def _descriptors(self, body: bytes) -> None:
        count = min(body[0], 20) if body else 0
        fds = [DESCRIPTOR_KINDS[kind % len(DESCRIPTOR_KINDS)]() for kind in body[1 : 1 + count]]
        rest = body[1 + count :]
        self.send(len(rest).to_bytes(4, "little") + rest, fds)
        for fd in fds:
            os.close(fd)

    def _ring(self, page: int, kind: str) -> object | None:
        if self.memory is None or not 0 < page < FRAMES:
            return None
        found = self.rings.get(page)
        if found is None:
            at = ffi.from_buffer("uint8_t[]", self.memory) + page * PAGE
            found = self.rings[page] = ffi.new(f"struct vscsi_{kind}_ring *")
            getattr(lib, f"vscsi_ring_{kind}")(found, at, 1, SLOT, 0)  # the first slots of a larger one are the same
        return found

    def _forward(self, body: bytes) -> None:
        ring = self._ring(int.from_bytes(body[:2], "little"), "front")
        if len(body) > 2 and ring is not None and ffi.typeof(ring) is ffi.typeof("struct vscsi_front_ring *"):
            lib.vscsi_ring_request(ring, body[2 : 2 + SLOT], min(len(body) - 2, SLOT))

    def _reverse(self, body: bytes) -> None:
        ring = self._ring(int.from_bytes(body[:2], "little"), "back")
        if len(body) > 2 and ring is not None and ffi.typeof(ring) is ffi.typeof("struct vscsi_back_ring *"):
            slot = ffi.new("uint8_t[]", SLOT)
            lib.vscsi_ring_take_request(ring, slot)
            lib.vscsi_ring_respond(ring, body[2 : 2 + SLOT], min(len(body) - 2, SLOT))
            self._kick(b"\1")

    def _write(self, body: bytes) -> None:
        at = int.from_bytes(body[:4], "little") % (FRAMES * PAGE)
        if self.memory is not None:
            data = body[4 : 4 + FRAMES * PAGE - at]
            self.memory[at : at + len(data)] = data

    def _kick(self, body: bytes) -> None:
        if self.fds and body:
            lib.vscsi_event_send_fd(self.fds[body[0] % len(self.fds)])

    def _wait(self, _body: bytes) -> None:
        self.world.turns()

    def close(self) -> None:
        self.socket.close()
        for fd in self.fds:
            os.close(fd)
        self.rings.clear()


_SAY = (
    Initiator._json, Initiator._json, Initiator._hello, Initiator._forward, Initiator._reverse, Initiator._write,
    Initiator._kick, Initiator._descriptors, Initiator._wait,
)  # fmt: skip


@target("conversation", mutate=of_items, weight=4)
def conversation(data: bytes) -> None:
    """Whatever it says, it is gone in the end, and with it whatever the target held for it."""
    here = world()
    server = here.server
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (no Path for each of them)
    peer = Initiator(here)
    try:
        for kind, body in Reader(data).items():
            if kind == RAW:
                peer.send(body)
            else:
                peer.say(kind, body)
    finally:
        peer.close()
    here.clear()
    assert not here.lib.channels and not server.channels, "a channel is left"
    for shares in (
        server.channel_shares,
        server.nexus_shares,
        server.listener._memory,
        server.listener._event_channels,
    ):
        assert shares.held() == 0, f"{shares.what} are not given back"
    del peer
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1, "a descriptor is left"  # noqa: PTH208  # the map's own
    here.lib.calls.clear()
