# SPDX-License-Identifier: BSD-2-Clause
"""A blkif device's conversation: negotiation, its queues, closing, suspend and resume, resize.

Knows vscsi.blkif's nodes and the XenBus steps; knows no read or write. Several queues share the pages of memory.
"""

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Mapping

from initiator.channel import Channel
from initiator.errors import ConnectError, InitiatorError, TransportError, transport_error
from initiator.native import lib
from initiator.xenbus import Device
from vscsi import blkif
from vscsi.bus.local import BusError, InitiatorConnection
from vscsi.bus.xenbus import Action, Step, XenbusState
from vscsi.errors import ProtocolError, RemoteProtocolError
from vscsi.nodes import text

log = logging.getLogger("vscsi.initiator")

KIND = "vbd"
LEAVE_SECONDS = 2.0
SUSPENDED = -errno.ERESTART


class VbdSession:
    """Device `devid`, connected. `on_update` hears of new properties (a resize). ConnectError."""

    def __init__(
        self,
        connection: InitiatorConnection,
        devid: int,
        *,
        ring_pages: int,
        queues: int,
        persistent: bool,
        spin_us: int,
        timeout: float,
        on_update: Callable[[], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        self.connection = connection
        self.devid = devid
        self.timeout = timeout
        self.properties: blkif.Properties
        self.limits: blkif.Limits
        self.queues: list[Channel] = []
        self._wanted = (ring_pages, queues, persistent, spin_us)
        self._on_update, self._on_lost = on_update, on_lost
        self._closing = False
        self._lost: tuple[int, str] | None = None
        self._ready = threading.Event()
        """Cleared while suspended."""
        self.device = Device(connection, KIND, devid)
        try:
            self.device.begin({"virtual-device": str(devid), "device-type": "disk"})
            self.device.expect(Action.PUBLISH, timeout)
            self._publish({})
            self._connect()
        except RemoteProtocolError as error:
            self.leave()
            raise ConnectError(f"the target broke the protocol: {error}") from error
        except InitiatorError as error:
            self.leave()
            raise ConnectError(str(error)) from error
        except BaseException:
            self.leave()
            raise
        self.device.follow(self._on_step)
        if self.device.machine.peer is not XenbusState.CONNECTED:
            self.lost(-errno.ECONNRESET, "it closed the device")

    def _publish(self, stale: Mapping[str, str | None]) -> None:
        ring_pages, wanted, persistent, spin_us = self._wanted
        self.limits = blkif.Limits.parse(self.device.nodes())
        pages, count = blkif.plan(self.limits, ring_pages, wanted)
        segments = self.limits.max_indirect_segments
        # What the target says of persistent grants comes with its properties, too late; without it they are just
        # grants that stay.
        self.persistent = persistent
        self.queues = []
        for _ in range(count):
            self.queues.append(
                Channel(
                    self.connection,
                    lib.VI_PROTOCOL_BLKIF,
                    ring_pages=pages,
                    persistent=persistent,
                    spin_us=spin_us,
                    timeout=self.timeout,
                    indirect_per_slot=-(-segments // int(lib.BLKIF_SEGS_PER_INDIRECT_PAGE)),
                    max_indirect_segments=segments,
                )
            )
        request = blkif.Request(tuple(queue.nodes for queue in self.queues), persistent=persistent)
        self.device.enter(XenbusState.INITIALISED, {**stale, **request.nodes()})

    def _connect(self) -> None:
        self.device.expect(Action.CONNECT, self.timeout)
        self.properties = blkif.Properties.parse(self.device.nodes())
        self.device.enter(XenbusState.CONNECTED)
        self._ready.set()

    # ---- what the target says later; in the bus's thread ----

    def _on_step(self, step: Step) -> None:
        if self._closing:
            return
        if step.action is Action.UPDATE:
            try:
                self.properties = blkif.Properties.parse(self.device.nodes())
            except RemoteProtocolError as error:
                log.warning("%s: %s", self.device.name, error)
                return
            if self._on_update is not None:
                self._on_update()
        elif step.action is Action.LOST:
            self.lost(-errno.ECONNRESET, "it closed the device")
        elif step.action is Action.CLOSE:
            self.lost(-errno.ECONNRESET, text(self.device.nodes(), "error", "it closes the device"))
            self.device.end(XenbusState.CLOSING)
        elif step.action is Action.FINISH:
            self.device.end(XenbusState.CLOSED)

    def lost(self, rc: int, why: str) -> None:
        """The device is over: takes what was published, fails the rest, and whoever waits for a resume."""
        self._lost = self._lost or (rc, why)
        for queue in self.queues:
            queue.drain(rc, why)
        self._ready.set()
        self.look()

    def look(self) -> None:
        """Tells of a loss, whether or not it has been told; not of an end that was wanted."""
        if self._lost is not None and not self._closing and self._on_lost is not None:
            self._on_lost(self._lost[1])

    @property
    def alive(self) -> bool:
        return self._lost is None

    @property
    def is_ready(self) -> bool:
        """Requests may be sent: neither suspended nor over."""
        return self._ready.is_set() and self._lost is None

    def wait_ready(self, timeout: float) -> None:
        """Returns once requests may be sent (again). TransportError if that takes too long."""
        if not self._ready.wait(timeout):
            raise TransportError("the device is suspended")
        if self._lost is not None:
            raise transport_error(*self._lost)

    # ---- suspend and resume, as blkfront does ----

    def suspend(self) -> None:
        """Stops using the rings at once; requests outstanding wait for `resume`, which sends them again."""
        self._ready.clear()
        for queue in self.queues:
            queue.fail(SUSPENDED)

    def resume(self) -> None:
        """New rings, without asking the old ones' owner: Initialised, and on as the target follows. ConnectError."""
        old = self.queues
        self.device.follow(None)
        try:
            ours = self.connection.store.below(self.device.path)
            self._publish({path: None for path in ours if "ring" in path or "event-channel" in path or "queue" in path})
            self._connect()
        except (InitiatorError, ProtocolError, BusError) as error:
            self.lost(-errno.ECONNRESET, str(error))
            raise ConnectError(f"cannot resume: {error}") from error
        finally:
            self.device.follow(self._on_step)
        for queue in old:
            queue.release()

    # ---- the end ----

    def leave(self) -> None:
        """Closes the device as far as the target plays along. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._lost = self._lost or (-errno.ESHUTDOWN, "")
        for queue in self.queues:
            queue.fail(-errno.ESHUTDOWN)
        self._ready.set()
        device = self.device
        with contextlib.suppress(BusError, ProtocolError):
            if device.connection.closed:
                return
            device.end(XenbusState.CLOSING)
            device.end(XenbusState.CLOSED)
            ends = (XenbusState.CLOSED, XenbusState.UNKNOWN, XenbusState.INIT_WAIT)
            device.connection.wait_for(lambda: device.machine.peer in ends, LEAVE_SECONDS, "the target to let go")
            device.remove()
            for queue in self.queues:
                queue.release()
