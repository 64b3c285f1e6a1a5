# SPDX-License-Identifier: BSD-2-Clause
"""The target as a whole: one selector loop that holds every conversation, beside the C loops that serve the rings.

Waits for the listener, connections, reverse event channels, events of the C loops and a wake-up. Makes and stops the
native target, the LUs in it and the Python workers. Knows no IU, no XenBus state and no command.
"""

import contextlib
import hashlib
import logging
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from target import report
from target.admin import Admin
from target.blkif_device import BlkifDevice, BlkifKind
from target.device import Device
from target.ending import end
from target.limits import Limits
from target.login import LoginRules
from target.nexus import NexusRegistry, check
from target.peer import Peer
from target.reservations import MAX_REGISTRANTS
from target.sizes import Sizes
from target.srp_device import SrpDevice, SrpKind
from target.turns import Turns
from vscsi.bus.local_listener import Listener
from vscsi.native import lib as shared

if TYPE_CHECKING:
    from target.lu import LogicalUnit
    from target.pcap import Recorder
    from vscsi.pcapfile import PcapFile

log = logging.getLogger("vscsi.target")

EVENTS_AT_ONCE = 256
"""Events taken before sockets have their turn."""


@dataclass(frozen=True)
class ServerOptions:
    """Times in the unit of the name. `request_limit` 0: what the ring holds."""

    loops: int = 1
    spin_us: int = 50
    engine: str = "auto"
    pool_threads: int = 4
    batch: int = 32
    workers: int = 2
    nowait: bool = True
    max_channels: int = 16
    """Of one nexus."""
    limits: Limits = field(default_factory=Limits)
    allow_initiators: tuple[str, ...] = ()
    request_limit: int = 0
    blkif_queues: int = 4
    target_port_id: bytes | None = None
    pcap: "PcapFile | None" = None
    snap_nbytes: int = 0
    stop_seconds: float = 2.0
    abort_limit_ms: int = 20_000
    """How long I/O may take that a task management function or the end waits for, before it counts as stuck."""


class DeviceKind(Protocol):
    """A kind of device: which of them a connection has from the start, and which are made when asked for."""

    name: str

    def at_hello(self, peer: Peer) -> Any: ...

    def on_demand(self, peer: Peer, devid: int) -> Device | None: ...


KINDS: tuple[type[DeviceKind], ...] = (SrpKind, BlkifKind)


class Server:
    """Serves `lus` to whoever connects to `listener`. `native` is `target.native`, or what a test gives instead."""

    def __init__(
        self,
        listener: Listener,
        lus: "Sequence[LogicalUnit]",
        options: ServerOptions | None = None,
        *,
        native: Any = None,
    ) -> None:
        if native is None:
            import target.native as native
        self.listener, self.options = listener, options or ServerOptions()
        self.native, self.ffi = native.lib, native.ffi
        self.units: dict[int, LogicalUnit] = {unit.lun: unit for unit in lus}
        port_id = self.options.target_port_id
        port_id = port_id or default_port_id(listener.path)
        self.rules = LoginRules(port_id, self.options.max_channels, self.options.allow_initiators)
        channels, nexuses = self.native.VT_MAX_CHANNELS, self.native.VT_MAX_NEXUSES - MAX_REGISTRANTS
        self.channel_shares = listener.shares("channels", channels, self.options.limits.initiator_channels)
        self.nexus_shares = listener.shares("nexuses", nexuses, self.options.limits.initiator_nexuses)
        self.kinds: dict[str, DeviceKind] = {kind.name: kind() for kind in KINDS}
        self.requests: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "stats": lambda fields: report.stats(self),
            "info": lambda fields: report.info(self),
        }
        self.errors = error_table(self.native)
        self.peers: set[Peer] = set()
        self.channels: dict[int, Device] = {}
        self.on_ready: Callable[[], None] = lambda: None
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._stop = False
        self.sizes: Sizes | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.selector = selectors.DefaultSelector()
        self.turns = Turns(self.selector, self.later)
        self.target = self._new_target()
        self.recorder = self._new_recorder()
        self.nexuses = NexusRegistry(self.native, self.target)
        self.device: Any = None
        self.admin = Admin(self)
        self.workers: Any = None
        self.stuck: set[int] = set()
        """LUNs that had to be left behind at the end: their I/O does not end."""

    def _new_target(self) -> Any:
        options = self.options
        engine = getattr(self.native, f"VT_ENGINE_{options.engine.upper()}")
        config = self.ffi.new("struct vt_config *")
        config.loops, config.spin_ns, config.engine = options.loops, options.spin_us * 1000, engine
        config.abort_limit_ms, config.workers_per_lu = options.abort_limit_ms, options.workers
        config.pool_threads, config.batch, config.nowait = options.pool_threads, options.batch, int(options.nowait)
        error = self.ffi.new("int *")
        target = self.native.vt_new(config, error)
        if target == self.ffi.NULL:
            check(error[0] or -1, "the target's loops")
        return target

    def _new_recorder(self) -> "Recorder | None":
        if self.options.pcap is None:
            return None
        from target.pcap import Recorder

        options = self.options
        return Recorder(self.native, self.ffi, self.target, options.loops, self.options.pcap, options.snap_nbytes)

    # ---- life ----

    def run(self) -> None:
        """Serves in the calling thread until `stop`. OSError if the loops cannot start."""
        try:
            self._start()
            self.on_ready()
            while not self._stop:
                self._turn()
                self.listener.expire(time.monotonic())
            self._say_goodbye()
        finally:
            end(self)

    def stop(self) -> None:
        """Ends `run` in order. From any thread or a signal handler; more than once does no harm."""
        self._stop = True
        self._wake()

    def call(self, function: Callable[[], None]) -> None:
        """Runs `function` in the serving thread, soon. From any thread."""
        self._calls.append(function)
        self._wake()

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Runs `function` once that time has passed. Only from the serving thread."""
        self._timers.append((time.monotonic() + seconds, function))

    def close(self) -> None:
        """Hears nobody any more."""
        self.listener.close()
        self.selector.close()
        os.close(self._wake_read)
        wake, self._wake_write = self._wake_write, -1
        os.close(wake)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it is over
            os.write(self._wake_write, b"\0")

    def _start(self) -> None:
        self._install_commands()
        for unit in self.units.values():
            unit.index = check(self.native.vt_lu_add(self.target, unit.native_config()), f"LUN {unit.lun}")
            if unit.store.witness is not None:
                check(self.native.vt_lu_witness(self.target, unit.index, unit.store.witness), f"LUN {unit.lun}")
        self._start_device()
        check(self.native.vt_start(self.target), "the target's loops")
        if self.recorder is not None:
            self.recorder.start()
        self._start_workers()
        self.sizes = Sizes(self, self.native, self.target, self.units.values() if self.device is not None else ())
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        self.selector.register(self.native.vt_event_fd(self.target), selectors.EVENT_READ, self._events)

    def _install_commands(self) -> None:
        from target import commands

        commands.install(self.target)

    def _start_device(self) -> None:
        """Nexuses and logical units learn of each other."""
        from target.scsi_device import NativeDevice

        self.device = NativeDevice(self.target, self, self.nexuses, self.rules.target_port_id)
        units = self.units
        self.nexuses.is_registrant = lambda nexus: any(unit.remembers(nexus) for unit in units.values())
        for unit in units.values():
            unit.start(self.device)
            self.nexuses.on_known.append(unit.nexus_known)
            self.nexuses.on_loss.append(unit.nexus_lost)
            self.nexuses.on_forgotten.append(unit.nexus_forgotten)

    def _start_workers(self) -> None:
        from target.worker import MAX_BACKGROUND, MAX_CONNECTION_BACKGROUND, Workers

        by_index = {unit.index: unit for unit in self.units.values()}
        background = self.listener.shares("commands in the background", MAX_BACKGROUND, MAX_CONNECTION_BACKGROUND)
        self.workers = Workers(
            self.target, by_index, self.device, self.options.workers, owner_of=self._owner_of, background=background
        )
        self.workers.start()

    def _owner_of(self, channel: int) -> tuple[Hashable, int]:
        """The connection that a channel is of, and its user. Any thread may ask; the channel may be gone by then."""
        device = self.channels.get(channel)
        return (device.peer.connection, device.peer.connection.peer.uid) if device is not None else (None, 0)

    def _say_goodbye(self) -> None:
        """T_LOGOUT to every channel, vbds asked to close; waits a bounded time for the initiators."""
        self.selector.unregister(self.listener)
        self.listener.close()
        for device in self._devices():
            device.xenbus.online = False
            if isinstance(device, SrpDevice):
                device.log_out(shared.SRP_TLO_NO_REASON, "the target stops")
            else:
                device.request_close()
        deadline = time.monotonic() + self.options.stop_seconds
        while self.channels and (left := deadline - time.monotonic()) > 0:
            self._turn(left)
        for peer in list(self.peers):
            peer.vanish()
        deadline = time.monotonic() + self.options.stop_seconds
        while self.channels and (left := deadline - time.monotonic()) > 0:
            self._turn(left)

    def _devices(self) -> list[Device]:
        return [device for peer in list(self.peers) for device in list(peer.devices.values())]

    # ---- the loop ----

    def _turn(self, timeout: float | None = None) -> None:
        """Waits for something to happen or to be due, at most so many seconds, and does what there is to do."""
        now = time.monotonic()
        due = [function for deadline, function in self._timers if deadline <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for function in due:
            function()
        unfinished = self.turns.take_unfinished()
        for peer in self.peers:
            self.turns.watch(peer)
        deadlines = [self.listener.next_expiry, *(deadline for deadline, _ in self._timers)]
        waits = [timeout, *(max(0.0, deadline - now) for deadline in deadlines if deadline is not None)]
        waits += [0.0] * bool(unfinished)
        for key, mask in self.selector.select(min((wait for wait in waits if wait is not None), default=None)):
            current = self.selector.get_map().get(key.fd)
            if current is None or current.data is not key.data:
                continue  # gone since, or the number stands for something else by now
            try:
                key.data(mask)
            except Exception:
                log.exception("internal error in a conversation")
        for peer in unfinished:
            self.turns.again(peer)

    def _accept(self, _mask: int) -> None:
        connection = self.listener.accept()
        if connection is None:
            return
        peer = Peer(self, connection)
        self.peers.add(peer)
        self.somebody()

    def somebody(self) -> None:
        """A connection has come or gone."""
        if self.sizes is not None:
            self.sizes.somebody(bool(self.peers))

    def unwatch(self, peer: Peer) -> None:
        """The connection is about to be closed."""
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(peer.connection)

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._calls:
            self._calls.popleft()()

    def _events(self, _mask: int) -> None:
        event = self.ffi.new("struct vt_event *")
        for _ in range(EVENTS_AT_ONCE):
            if self.native.vt_event_next(self.target, event) <= 0:
                return
            if event.type == self.native.VT_EVENT_ACTIVE and self.sizes is not None:
                self.sizes.wake()
                continue
            device = self.channels.get(event.channel)
            if device is None:
                continue
            try:
                if event.type == self.native.VT_EVENT_IU:
                    device.on_iu(event.channel, bytes(self.ffi.buffer(event.iu, event.iu_nbytes)))
                elif event.type == self.native.VT_EVENT_ERROR:
                    device.on_error(event.channel, event.error)
                elif event.type == self.native.VT_EVENT_STOPPED:
                    device.stopped(event.channel)
            except Exception:
                log.exception("%s: internal error", device)
                device.fail("internal error")

    # ---- changes of the logical units ----

    def unit_resized(self, unit: "LogicalUnit", besides: int | None = None) -> None:
        """A LU has another size: 2A/09 to every nexus but one (by index), `sectors` to every vbd. From any thread."""
        check(self.native.vt_lu_update(self.target, unit.index, unit.native_config()), f"LUN {unit.lun}")
        self.nexuses.capacity_changed(unit.index, besides)

        def tell_vbds() -> None:
            for device in self._devices():
                if isinstance(device, BlkifDevice) and device.unit is unit:
                    device.resized()

        self.call(tell_vbds)


def default_port_id(path: Path) -> bytes:
    """The same for the same machine and socket, so that reservations and VPD pages stay true over a restart."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = socket.gethostname()
    return hashlib.sha256(os.fsencode(f"vscsi {machine} {path}")).digest()[:16]


def error_table(native: Any) -> dict[int, tuple[int, str]]:
    """What C calls a protocol error: SRP's T_LOGOUT reason, and words for log and store."""
    return {
        native.VT_ERROR_RING: (shared.SRP_TLO_NO_REASON, "ring indexes out of range"),
        native.VT_ERROR_EVENT_CHANNEL: (shared.SRP_TLO_NO_REASON, "event channel closed"),
        native.VT_ERROR_REQUEST_LIMIT: (shared.SRP_TLO_NO_REASON, "more requests than the request limit"),
        native.VT_ERROR_IU_TYPE: (shared.SRP_TLO_INVALID_IU_TYPE, "invalid IU type"),
        native.VT_ERROR_OUT_FORMAT: (shared.SRP_TLO_UNSUPPORTED_OUT_FMT, "unsupported data-out descriptor format"),
        native.VT_ERROR_IN_FORMAT: (shared.SRP_TLO_UNSUPPORTED_IN_FMT, "unsupported data-in descriptor format"),
        native.VT_ERROR_OUT_COUNT: (shared.SRP_TLO_INVALID_OUT_COUNT, "invalid data-out descriptor count"),
        native.VT_ERROR_IN_COUNT: (shared.SRP_TLO_INVALID_IN_COUNT, "invalid data-in descriptor count"),
        native.VT_ERROR_IU_LENGTH: (shared.SRP_TLO_NO_REASON, "an IU runs past its slot"),
    }
