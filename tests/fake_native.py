# SPDX-License-Identifier: BSD-2-Clause
"""A stand-in for `target.native`: the real structs and rings, and loops in Python that answer every command GOOD.

For what the real one cannot be made to do on purpose: a channel that stops late, a target that is out of room.
Everything is recorded in `calls`.
"""

import contextlib
import os
import threading
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import cffi

from vscsi.native import ffi as shared_ffi
from vscsi.native import lib as shared

ROOT = Path(__file__).resolve().parents[1]
COLD = {shared.SRP_LOGIN_REQ, shared.SRP_I_LOGOUT}
TARGET = ("target", "lu", "channel", "data")
HOT = {shared.SRP_CMD, shared.SRP_TSK_MGMT}


def _declarations() -> cffi.FFI:
    ffi = cffi.FFI()
    for path in ("vscsi/native/abi", "vscsi/native/native", *(f"target/native/{name}" for name in TARGET)):
        ffi.cdef((ROOT / f"{path}.cdef.h").read_text())
    return ffi


FFI = _declarations()


class FakeFfi:
    """Structs that hold shared types must not be of another ffi than those: they are plain objects here."""

    NULL, buffer, typeof = FFI.NULL, FFI.buffer, FFI.typeof

    def new(self, name: str, *init):
        return SimpleNamespace() if name == "struct vt_channel_config *" else FFI.new(name, *init)


class Channel:
    def __init__(self, config, protocol_slot: int) -> None:
        self.fd = os.dup(config.event_fd)
        self.protocol, self.nexus = config.protocol, getattr(config, "nexus", None)
        self.ring = shared_ffi.new("struct vscsi_back_ring *")
        assert shared.vscsi_ring_back(self.ring, config.ring, config.ring_pages, protocol_slot, 0) == 0
        self.slot = shared_ffi.new("uint8_t[]", protocol_slot)
        self.live = self.broken = self.stopped = False


class FakeLib:
    """The functions of the target's core that the conversation uses."""

    def __init__(self) -> None:
        constants = FFI.dlopen(None)
        for name in dir(constants):
            if name.startswith("VT_"):
                setattr(self, name, getattr(constants, name))
        self.calls: list[tuple] = []
        self.channels: dict[int, Channel] = {}
        self.events: deque[dict] = deque()
        self.lock = threading.RLock()
        self.hold_stops = False
        self.max_nexuses = 1024
        self.nexuses: set[int] = set()
        self.lus = 0
        self._next = 0
        self._running = False

    def __getattr__(self, name: str):
        if not name.startswith("vt_"):
            raise AttributeError(name)

        def record(_target, *args):
            self.calls.append((name, *args))
            return 0

        return record

    def named(self, name: str) -> list[tuple]:
        return [call[1:] for call in self.calls if call[0] == name]

    def vt_new(self, _config, _error):
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return FFI.cast("struct vt_target *", 1)

    def vt_start(self, _target) -> int:
        self._running = True
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()
        return 0

    def vt_stop_within(self, _target, _ms) -> int:
        if self._running:
            self._running = False
            self.thread.join()
        return 0

    def vt_free(self, _target) -> None:
        assert not self.channels, "a channel outlived the target"
        os.close(self.read_fd)
        os.close(self.write_fd)

    def vt_tell_activity(self, _target) -> int:
        return 1

    def vt_watch_open(self) -> int:
        return -1

    def vt_event_fd(self, _target) -> int:
        return self.read_fd

    def vt_event_next(self, _target, event) -> int:
        with self.lock:
            if not self.events:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.read_fd, 4096)
                return 0
            found = self.events.popleft()
        event.type, event.channel, event.error = found["type"], found["channel"], found.get("error", 0)
        data = found.get("iu", b"")
        event.iu_nbytes = len(data)
        FFI.buffer(event.iu)[: len(data)] = data
        return 1

    def post(self, type_: int, channel: int, **more) -> None:
        with self.lock:
            self.events.append({"type": type_, "channel": channel, **more})
        os.write(self.write_fd, b"\0")

    def vt_lu_add(self, _target, _config) -> int:
        self.lus += 1
        return self.lus - 1

    def vt_lu_witness(self, _target, _lu, _fd) -> int:
        return 0

    def vt_nexus_add(self, _target) -> int:
        if len(self.nexuses) >= self.max_nexuses:
            return -28
        self._next += 1
        self.nexuses.add(self._next)
        return self._next

    def vt_nexus_remove(self, _target, nexus) -> int:
        assert all(channel.nexus != nexus for channel in self.channels.values()), "still in use"
        self.nexuses.remove(nexus)
        return 0

    def vt_channel_add(self, _target, config) -> int:
        slot = shared.VSCSI_SRP_SLOT if config.protocol == self.VT_PROTOCOL_SRP else shared.VSCSI_BLKIF_SLOT
        with self.lock:
            self._next += 1
            self.channels[self._next] = Channel(config, slot)
            return self._next

    def vt_channel_login(self, _target, channel, nexus, limit) -> int:
        self.calls.append(("vt_channel_login", channel, nexus, limit))
        self.channels[channel].live, self.channels[channel].nexus = True, nexus
        return 0

    def vt_channel_respond(self, _target, channel, data, nbytes) -> int:
        with self.lock:
            self._answer(self.channels[channel], bytes(data)[:nbytes])
        return 0

    def vt_channel_stop(self, _target, channel) -> int:
        self.calls.append(("vt_channel_stop", channel))
        with self.lock:
            self.channels[channel].broken = True
        if not self.hold_stops:
            self.finish_stop(channel)
        return 0

    def finish_stop(self, channel: int) -> None:
        if not self.channels[channel].stopped:
            self.channels[channel].stopped = True
            self.post(self.VT_EVENT_STOPPED, channel)

    def vt_channel_remove(self, _target, channel) -> int:
        with self.lock:
            assert self.channels[channel].stopped or not self._running, "removed before it had stopped"
            os.close(self.channels.pop(channel).fd)
        return 0

    def _answer(self, channel: Channel, data: bytes) -> None:
        if shared.vscsi_ring_respond(channel.ring, data, len(data)) > 0:
            shared.vscsi_event_send_fd(channel.fd)

    def _loop(self) -> None:
        while self._running:
            with self.lock:
                for number, channel in list(self.channels.items()):
                    self._serve(number, channel)
            time.sleep(0.001)

    def _serve(self, number: int, channel: Channel) -> None:
        while not channel.broken:
            rc = shared.vscsi_ring_take_request(channel.ring, channel.slot)
            if rc == 0:
                return
            data = bytes(channel.slot)
            if rc < 0:
                channel.broken = True
                self.post(self.VT_EVENT_ERROR, number, error=self.VT_ERROR_RING)
            elif channel.protocol == self.VT_PROTOCOL_BLKIF:
                self._answer(channel, data[8:16] + data[:1] + bytes(7))
            elif not channel.live or data[0] in COLD:
                self.post(self.VT_EVENT_IU, number, iu=data)
            elif data[0] in HOT:
                self._answer(channel, bytes((shared.SRP_RSP, 0, 0, 0, 0, 0, 0, 1)) + data[8:16] + bytes(20))
            else:
                channel.broken = True
                self.post(self.VT_EVENT_ERROR, number, error=self.VT_ERROR_IU_TYPE)


def fake_native() -> SimpleNamespace:
    """What `Server(native=...)` takes."""
    return SimpleNamespace(ffi=FakeFfi(), lib=FakeLib())
